"""What notebooks read off finished results: small tables that they plot or say in words.

Nothing that is built depends on this module; only notebooks import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from helpers.engine import report
from helpers.measure import inference
from helpers.study.finetune import METRICS

AXLES = ("axles", "one axle", "two or more axles")  # over all classes, and apart


def over_seeds(results: pd.DataFrame, keys: Sequence[str], value: str = "value") -> pd.DataFrame:
    """Mean of ``value`` per key with its 95 % interval: columns ``keys``, ``mean, low, high``."""
    rows = [(*key, *inference.interval(part[value])) for key, part in results.groupby(keys)]
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high"])


def differences(
    results: pd.DataFrame, by: str, pairs: Iterable[tuple[Any, Any]], keys: Sequence[str] = ()
) -> pd.DataFrame:
    """Accuracy at one value of the column ``by`` minus that at another, seed by seed, in points.

    A row per pair of values, metric and ``keys`` with runs of both: columns ``metric`` (in words),
    ``keys``, ``by``, ``other``, and ``mean, low, high`` (95 %).
    """
    rows = []
    for value, other in pairs:
        for metric in METRICS:
            of_metric = results[results["metric"] == metric]
            for (_, *key), runs in of_metric.groupby(["metric", *keys]):
                wide = runs.pivot(index="seed", columns=by, values="accuracy")
                if {value, other} <= set(wide):
                    interval = inference.interval(100 * (wide[value] - wide[other]))
                    rows.append((report.words(metric), *key, value, other, *interval))
    return pd.DataFrame(rows, columns=["metric", *keys, by, "other", "mean", "low", "high"])


def matches(results: pd.DataFrame, tasks: Sequence[str], metric: str) -> pd.DataFrame:
    """Notebook 04: how many synthetic images match the fewest and the most retrieved ones.

    Columns ``task, n, accuracy, match``: ``match`` synthetic images are as good as ``n`` retrieved
    ones, ``inf`` where no number that was tried is.
    """
    curves = (
        results[results["metric"] == metric].groupby(["task", "source", "n"])["accuracy"].mean()
    )
    rows = []
    for task in tasks:
        for n, accuracy in curves[task, "retrieved"].iloc[[0, -1]].items():
            rows.append((task, n, accuracy, matching_size(curves[task, "synthetic"], accuracy)))
    return pd.DataFrame(rows, columns=["task", "n", "accuracy", "match"])


def matching_size(curve: pd.Series, accuracy: float) -> float:
    """The size at which ``curve`` (n -> accuracy), linear in log2 n, reaches ``accuracy``.

    It is ``inf`` where the curve stays below.
    """
    for (n0, a0), (n1, a1) in pairwise(curve.items()):
        if a0 >= accuracy:
            return float(n0)
        if a1 >= accuracy:
            return float(n0 * (n1 / n0) ** ((accuracy - a0) / (a1 - a0)))
    return float(curve.index[-1]) if curve.iloc[-1] >= accuracy else float("inf")


def details(fidelity: pd.DataFrame, axles: pd.Series) -> pd.DataFrame:
    """Notebook 05: how often each detail is right, over all classes.

    Columns ``source, attribute, images, correct, share``, and ``low, high`` (95 %). ``axles`` maps
    classes to their number of axles, which are counted over all classes and apart (``AXLES``).
    """
    apart = fidelity[fidelity["attribute"] == "axles"]
    several = apart["class"].map(axles) > 1
    apart = apart.assign(attribute=np.where(several, AXLES[2], AXLES[1]))
    counts = pd.concat([fidelity, apart]).groupby(["source", "attribute"])[["images", "correct"]]
    total = counts.sum().reset_index()
    total["share"] = total["correct"] / total["images"]
    ends = [inference.share_interval(r.correct, r.images) for r in total.itertuples()]
    total[["low", "high"]] = ends
    return total


def decided(differences: pd.DataFrame, size: int, seeds: int) -> str:
    """Notebook 05: how many of ``differences`` leave zero out, and which, in words.

    ``size`` and ``seeds`` are the images of an arm and the runs on it.
    """
    include = report.includes_zero(differences)
    template = "{arm} against {other}, {metric}: " + report.POINTS
    others = report.listed(report.rows(differences[~include], template), between="; ")
    enough = "too few" if include.mean() > 0.5 else "enough, for the others,"
    return (
        f"Arm by arm against what it varies, seed by seed, {include.sum()} of {len(differences)} "
        f"differences have an interval that includes zero: {size} images and {seeds} seeds are "
        f"{enough} to put arms in an order. The others: {others}."
    )
