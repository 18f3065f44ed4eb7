"""What notebooks read off finished results: small tables that they plot or say in words.

Nothing that is built depends on this module; only notebooks import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.engine import report, store
from helpers.measure import inference
from helpers.study import captions, exponents, finetune
from helpers.worlds import World

AXLES = ("axles", "one axle", "two or more axles")  # over all classes, and apart


def over_seeds(results: pd.DataFrame, keys: Sequence[str], value: str = "value") -> pd.DataFrame:
    """Mean of ``value`` per key with its 95 % interval: columns ``keys``, ``mean, low, high``."""
    rows = [(*key, *inference.interval(part[value])) for key, part in results.groupby(keys)]
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high"])


def stacked(heights: Iterable[float], gap: float) -> list[float]:
    """Places of labels: ascending heights, moved up where neighbours were less than ``gap`` apart.

    None is moved further up than needed.
    """
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + gap) if places else height)
    return places


def repeats(artifact: store.Artifact, tasks: Sequence[str]) -> pd.DataFrame:
    """Notebook 01: the share of written captions that repeat an earlier one.

    Columns ``task``, ``rounds`` (how often the model was asked), and a share per form in ``KINDS``.
    """
    rows = []
    for task in tasks:
        files = artifact.files(f"raw/{task}-*.parquet")
        written = pd.concat([store.read_table(f).assign(round=f.stem.split("-")[1]) for f in files])
        again = written.assign(again=written.duplicated("caption")).groupby("kind")["again"].mean()
        rows.append(
            {
                "task": task,
                "rounds": written["round"].nunique(),
                **again.reindex(captions.KINDS).to_dict(),
            }
        )
    return pd.DataFrame(rows)


def copies_dropped(
    tables: Mapping[str, pd.DataFrame], truth: pd.DataFrame
) -> tuple[pd.Series, pd.Series]:
    """Notebook 03: whether decontamination dropped a candidate.

    First the candidates that are planted copies of test images, then the others. ``tables`` holds
    the candidates of each task, ``truth`` what the pool's pictures show.
    """
    leaked = truth["test_copy_of"].to_numpy() >= 0
    kind = truth["kind"].to_numpy()
    planted = [leaked[t["row"]] & (kind[t["row"]] == task) for task, t in tables.items()]
    mask = np.concatenate(planted)
    dropped = pd.concat([t["copy"] for t in tables.values()], ignore_index=True)
    return dropped[mask], dropped[~mask]


def gaps(results: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """Notebook 04: retrieved minus synthetic accuracy at every size that both have, in points.

    Columns ``task, metric, n, gap``, and ``low, high`` (95 % over seeds); ``metric`` in words.
    """
    rows = []
    for task in tasks:
        trained = results[(results["task"] == task) & (results["n"] > 0)]
        sizes = trained.groupby("source")["n"].unique()
        shared = sorted(set(sizes["retrieved"]) & set(sizes["synthetic"]))
        for metric in finetune.METRICS:
            for n in shared:
                difference = 100 * finetune.gap(results, task, metric, n)
                rows.append((task, report.words(metric), n, *inference.interval(difference)))
    return pd.DataFrame(rows, columns=["task", "metric", "n", "gap", "low", "high"])


def matches(results: pd.DataFrame, tasks: Sequence[str], metric: str) -> pd.DataFrame:
    """Notebook 04: how many synthetic images match the fewest and the most retrieved ones.

    Columns ``task, n, accuracy, match``: ``match`` synthetic images are as good as ``n`` retrieved
    ones, ``inf`` where no number that was tried is.
    """
    retrieved = results[(results["source"] == "retrieved") & (results["metric"] == metric)]
    rows = []
    for task in tasks:
        curve = retrieved[retrieved["task"] == task].groupby("n")["accuracy"].mean()
        for n, accuracy in curve.iloc[[0, -1]].items():
            match = finetune.matching_size(results, task, metric, accuracy)
            rows.append((task, n, accuracy, match))
    return pd.DataFrame(rows, columns=["task", "n", "accuracy", "match"])


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
    total[["low", "high"]] = [
        inference.share_interval(r.correct, r.images) for r in total.itertuples()
    ]
    return total


def changes(results: pd.DataFrame, by: str) -> pd.DataFrame:
    """Notebook 05: accuracy minus that at the first value of ``by``, seed by seed, in points.

    Columns ``metric`` (in words), ``by``, ``mean, low, high`` (95 %), a row per later value.
    """
    rows = []
    for metric in finetune.METRICS:
        runs = results[results["metric"] == metric]
        wide = runs.pivot(index="seed", columns=by, values="accuracy")
        for value in wide.columns[1:]:
            change = 100 * (wide[value] - wide.iloc[:, 0])
            rows.append((report.words(metric), value, *inference.interval(change)))
    return pd.DataFrame(rows, columns=["metric", by, "mean", "low", "high"])


def differences(runs: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Notebook 05: the accuracy of one arm minus that of another, seed by seed, in points.

    Columns ``arm, other, metric`` (in words), ``mean, low, high`` (95 %).
    """
    accuracy = runs.set_index(["arm", "seed"])[list(finetune.METRICS)]
    rows = []
    for arm, other in pairs:
        for metric in finetune.METRICS:
            difference = 100 * (accuracy.loc[arm, metric] - accuracy.loc[other, metric])
            rows.append((arm, other, report.words(metric), *inference.interval(difference)))
    return pd.DataFrame(rows, columns=["arm", "other", "metric", "mean", "low", "high"])


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


def similarity(scores: pd.DataFrame, keep: str, share: float) -> str:
    """Notebook 05: whose CLIP similarity is higher after filtering, in words.

    ``scores`` has ``source`` and ``score``; ``keep`` names rule and filter of the retrieved images,
    such as "word+top". Of drawn images the best ``share`` of each class was kept.
    """
    medians = scores.groupby("source")["score"].median()
    drawn = medians["synthetic"]
    real = medians["retrieved"]
    ahead = "drawn" if drawn > real else "retrieved"
    rule = keep.rsplit("+", 1)[1]
    filters = (
        f"Both are the best {share:.0%} of each class, so a filter by this number prefers"
        if rule == "top"
        else f"These are two filters: drawn images are the best {share:.0%} of each class by this "
        f"very number, retrieved ones what lies above one threshold on another text (`{rule}`). So "
        "the difference is partly the filter's; a cut at one value would prefer"
    )
    return (
        f"Median similarity: retrieved {real:.3f}, drawn {drawn:.3f}. {filters} {ahead} images, "
        "whatever their details."
    )


def last_three_sizes(w: World, results: pd.DataFrame, arm: str) -> pd.Series:
    """Notebook 06: exponents of an arm on its three largest sizes alone: evaluation set -> k."""
    runs = results[results["arm"] == arm]
    return exponents.fit(w, runs, runs["n"].unique()[-3], runs["n"].max()).set_index("eval_set")[
        "k"
    ]
