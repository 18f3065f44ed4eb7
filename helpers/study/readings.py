"""What notebooks read off finished results: small tables that they plot or say in words.

Nothing that is built depends on this module; only notebooks import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.engine import report, store
from helpers.measure import inference
from helpers.study import analysis, captions, finetune, scaling
from helpers.worlds import World

AXLES = ("axles", "one axle", "two or more axles")  # over all classes, and apart


def over_seeds(results: pd.DataFrame, keys: Sequence[str], value: str = "value") -> pd.DataFrame:
    """Mean of ``value`` over the rows of each key, with its 95 % interval: ``keys``, ``mean, low, high``."""
    rows = [(*key, *inference.interval(part[value])) for key, part in results.groupby(keys)]
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high"])


def stacked(heights: Iterable[float], gap: float) -> list[float]:
    """Heights in ascending order, moved up as little as keeps neighbours ``gap`` apart: places for labels."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + gap) if places else height)
    return places


def repeats(artifact: store.Artifact, tasks: Sequence[str]) -> pd.DataFrame:
    """Notebook 01: the share of written captions that repeat an earlier one, a column per form: ``task, rounds``, forms."""
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
    """Notebook 03: which candidates decontamination dropped: of the planted copies of test images, and of the others.

    ``tables`` holds the candidates of each task, ``truth`` what the pool's pictures show.
    """
    leaked = truth["test_copy_of"].to_numpy() >= 0
    kind = truth["kind"].to_numpy()
    planted = [leaked[t["row"]] & (kind[t["row"]] == task) for task, t in tables.items()]
    mask = np.concatenate(planted)
    dropped = pd.concat([t["copy"] for t in tables.values()], ignore_index=True)
    return dropped[mask], dropped[~mask]


def gaps(results: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """Notebook 04: retrieved minus synthetic at every size that both have: ``task, metric, n, gap, low, high``, in points."""
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
    """Notebook 04: the synthetic images that reach what the fewest and the most retrieved ones do.

    Columns ``task, n, accuracy, match``; ``match`` is ``inf`` where no number of synthetic images that was tried does.
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
    """Notebook 05: how often each detail is right: ``source, attribute, images, correct, share, low, high``.

    ``axles`` (class -> their number): they are counted over all classes and then apart, as ``AXLES`` says.
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
    """Notebook 05: accuracy against that at the first value of ``by``, seed by seed, in points.

    Columns ``metric``, ``by``, ``mean, low, high`` (95 %), a row per metric and later value.
    """
    rows = []
    for metric in analysis.METRICS:
        runs = results[results["metric"] == metric]
        wide = runs.pivot(index="seed", columns=by, values="accuracy")
        for value in wide.columns[1:]:
            change = 100 * (wide[value] - wide.iloc[:, 0])
            rows.append((report.words(metric), value, *inference.interval(change)))
    return pd.DataFrame(rows, columns=["metric", by, "mean", "low", "high"])


def differences(runs: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Notebook 05: one arm's accuracy minus another's, seed by seed: ``arm, other, metric, mean, low, high``, in points."""
    accuracy = runs.set_index(["arm", "seed"])[list(analysis.METRICS)]
    rows = []
    for arm, other in pairs:
        for metric in analysis.METRICS:
            difference = 100 * (accuracy.loc[arm, metric] - accuracy.loc[other, metric])
            rows.append((arm, other, report.words(metric), *inference.interval(difference)))
    return pd.DataFrame(rows, columns=["arm", "other", "metric", "mean", "low", "high"])


def last_three_sizes(w: World, results: pd.DataFrame, arm: str) -> pd.Series:
    """Notebook 06: the exponents of an arm fitted to its three largest sizes only: evaluation set -> k."""
    runs = results[results["arm"] == arm]
    return scaling.fit(w, runs, runs["n"].unique()[-3], runs["n"].max()).set_index("eval_set")["k"]
