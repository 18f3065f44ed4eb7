"""What notebook 06 says on the declared claims SL01 to SL12, as cells. No builder imports this.

Exponents decide where both ranges and both measures agree in sign.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.engine import randomness, store
from helpers.measure import fits, inference
from helpers.measure.folds import FOLDS
from helpers.measure.inference import Cell, Estimate
from helpers.study import exponents, pairs
from helpers.study.arms import FEW_REAL
from helpers.worlds import World

CAPTIONS = "prompt-training-captions"
TEMPLATES = "prompt-templates"
LEVELS = {  # one arm minus another, accuracy
    "SL03": (CAPTIONS, TEMPLATES),
    "SL04": ("synthetic", "guidance-7.5"),
    "SL07": (FEW_REAL, "train"),
}
SLOPES = {  # weights of exponents by arm and place
    "SL01": {("train", "test"): 1, (CAPTIONS, "test"): -1},
    "SL08": {
        ("train", "test"): 1,
        (TEMPLATES, "test"): -1,
        ("train", "far"): -1,
        (TEMPLATES, "far"): 1,
    },
    "SL09": {(TEMPLATES, "far"): 1, (CAPTIONS, "far"): -1},
}
OF_PAIRS = {("synthetic", "test"): 1, ("retrieved", "test"): -1}  # SL02
AT_CHANCE = 2.0  # points: a set on which no arm is further above chance has no exponents
DRAWS = 200  # bootstraps of classes


def cells(
    w: World,
    runs: pd.DataFrame,
    judged: pd.DataFrame,
    paired: pd.DataFrame,
    rarity: store.Artifact | None,
    margins: Mapping[str, float],
) -> dict[str, list[Cell]]:
    """Claim -> its cell, for every claim whose arms this world has.

    ``runs``, ``paired`` are from ``exponents.read``, ``judged`` from ``scaling``. ``margins``,
    in points, are for the floor rule of accuracies; exponents have theirs at ``AT_CHANCE``.
    """
    spans = exponents.ranges(w)
    first, largest = spans["full"]
    chance = 100 / len(tables.benchmark(w, w.tasks[0]).classes)
    there = set(runs["arm"])
    read = {}
    for claim, (one, other) in LEVELS.items():
        if {one, other} <= there:
            n = first if claim == "SL07" else largest
            read[claim] = level(runs, one, other, n, chance, margins[claim])
    for claim, weights in SLOPES.items():
        needed, places = map(set, zip(*weights, strict=True))
        if needed <= there and (places == {"test"} or set(runs["eval_set"]) > {"test"}):
            read[claim] = contrast(runs, weights, spans, chance)
    read["SL06"] = [Cell("drawn arms", tradeoff(w, judged))]
    x = of_draws(judged, "synthetic", "recognizability")
    found = {}
    for name, span in spans.items():
        found["calibrated", name] = class_correlation(w, x, runs, "synthetic", span)
    read["SL11"] = agreed(found, not above(runs, "test", ["synthetic"], largest, chance))
    sizes = sorted(paired["n"].unique())
    chance = 100 / len(tables.benchmark(w, pairs.paired_task(w)).classes)
    read["SL10"] = level(paired, "both", "retrieved", sizes[0], chance, margins["SL10"])
    if len(sizes) >= fits.FEWEST:
        halves = exponents.halved(sizes)
        read["SL02"] = contrast(paired, OF_PAIRS, halves, chance, ["calibrated"])
    return read | ({"SL12": thinning(rarity)} if rarity else {})


def points(runs: pd.DataFrame, arm: str, eval_set: str, n: int) -> np.ndarray:
    """Accuracy of an arm with ``n`` images in points, (seeds, 1 + ``FOLDS``)."""
    part = runs[(runs["arm"] == arm) & (runs["n"] == n)]
    return 100 * exponents.curves(exponents.of_set(part, eval_set), "top1").to_numpy()


def level(
    runs: pd.DataFrame, one: str, other: str, n: int, chance: float, margin: float
) -> list[Cell]:
    """Test accuracy of one arm minus that of another with ``n`` images, in points.

    At the floor both are within ``margin`` of chance, or of all right.
    """
    values = [points(runs, arm, "test", n) for arm in (one, other)]
    floor = all(min(v[:, 0].mean() - chance, 100 - v[:, 0].mean()) < margin for v in values)
    return [Cell(f"{n} images", exponents.estimated(values[0] - values[1]), floor)]


def above(runs: pd.DataFrame, eval_set: str, names: list[str], n: int, chance: float) -> bool:
    """Whether any of the arms ``names`` knows something about a set with ``n`` images."""
    best = max(points(runs, arm, eval_set, n)[:, 0].mean() for arm in names)
    return bool(best > chance + AT_CHANCE)


def contrast(
    runs: pd.DataFrame,
    weights: Mapping[tuple[str, str], int],
    spans: Mapping[str, tuple[int, int]],
    chance: float,
    measures: list[str] | None = None,
) -> list[Cell]:
    """A weighted sum of exponents; "far" is the mean of the shifted sets that are above chance."""
    names = [arm for arm, _ in weights]
    known = {}
    for name in runs["eval_set"].unique():
        known[name] = above(runs, name, names, spans["full"][1], chance)
    shifted = [name for name in known if name != "test"]
    places = {"test": ["test"], "far": [name for name in shifted if known[name]] or shifted}
    found = {}
    for measure, name in itertools.product(measures or exponents.MEASURES, spans):
        parts = []
        for (arm, place), weight in weights.items():
            part = runs[runs["arm"] == arm]
            for eval_set in places[place]:
                curves = exponents.curves(exponents.of_set(part, eval_set), measure)
                k = exponents.slopes(curves, spans[name])[0]
                parts.append(weight * k / len(places[place]))
        found[measure, name] = exponents.estimated(sum(parts))
    return agreed(found, not all(known[places[place][0]] for _, place in weights))


def agreed(found: Mapping[tuple[str, str], Estimate], floor: bool) -> list[Cell]:
    """One cell whose interval spans those of the calibrated loss on both ranges.

    So a verdict needs both. If not all estimates, by measure and range, have one sign, it spans
    them all: it holds zero, and can only say that all are small.
    """
    from scipy import stats

    one_sign = len({estimate.value > 0 for estimate in found.values()}) == 1
    joined = [e for key, e in found.items() if key[0] == "calibrated" or not one_sign]
    _, lows, highs, _, df, seeds, images = zip(*joined, strict=True)
    low, high = min(lows), max(highs)
    se = (high - low) / 2 / stats.t.ppf(0.975, min(df)) if min(df) > 0 else np.inf
    spanned = inference.around((low + high) / 2, se, min(df), seeds[0], max(images))
    return [Cell("both ranges" if one_sign else "measures or ranges disagree", spanned, floor)]


def of_draws(judged: pd.DataFrame, arm: str, column: str) -> np.ndarray:
    """A judge's values of an arm's classes, (1 + draws, classes): the images, then bootstraps."""
    wide = judged[judged["arm"] == arm].pivot(index="draw", columns="class", values=column)
    return wide.to_numpy()


def tradeoff(w: World, judged: pd.DataFrame) -> Estimate:
    """SL06: rank correlation of recognizability and diversity over prompts and guidance scales.

    Arms are fixed, classes and images resampled.
    """
    names = [n for n in judged["arm"].unique() if n.startswith(("synthetic", "guid", "prompt"))]
    columns = ("recognizability", "diversity")
    both = np.array([[of_draws(judged, name, column) for name in names] for column in columns])
    rng = randomness.rng(w, "scaling", "tradeoff")
    classes = both.shape[-1]
    again = []
    for draw in range(1, both.shape[2]):
        chosen = rng.integers(classes, size=classes)
        again.append(np.nanmean(both[:, :, draw, chosen], axis=-1))
    x, y = np.nanmean(both[:, :, 0], axis=-1)
    return fits.rank_correlation(x, y, again, classes)


def class_correlation(
    w: World, x: np.ndarray, runs: pd.DataFrame, arm: str, span: tuple[int, int]
) -> Estimate:
    """SL11: rank correlation over classes of ``x`` with k of the calibrated loss on the test set.

    ``x`` (1 + draws, classes) as of ``of_draws``, or (1, classes) of what has no images. Classes,
    drawn images, seeds and test images are resampled, the last as pseudovalues of folds.
    """
    k = exponents.by_class(runs, arm, span)
    whole = k[0].groupby("class").mean().to_numpy()
    pseudo = FOLDS * k[[0]].to_numpy() - (FOLDS - 1) * k.drop(columns=0).to_numpy()
    pseudo = pseudo.reshape(len(whole), -1, FOLDS)
    rng = randomness.rng(w, "scaling", "ranks")
    again = []
    for draw in range(DRAWS):
        chosen = [rng.integers(n, size=n) for n in pseudo.shape]
        again.append((x[draw % len(x), chosen[0]], pseudo[np.ix_(*chosen)].mean((1, 2))))
    return fits.rank_correlation(x[0], whole, again, len(whole))


def thinning(rarity: store.Artifact) -> list[Cell]:
    """SL12: k of a class's loss, thinned minus not thinned, paired by class, mean of a lot.

    Lots take the place of seeds. At the floor recognizability did not fall: nothing is decided.
    """
    runs = rarity.table("runs.parquet")
    table = rarity.table("classes.parquet")
    fell = exponents.changes(table, ["recognizability"])["recognizability"].groupby("lot").mean()
    found = {}
    for name, span in exponents.halved(sorted(runs["n"].unique())).items():
        of_class = [
            exponents.by_class(runs, pool, span).groupby("class").mean().assign(pool=pool)
            for pool in runs["arm"].unique()
        ]
        merged = table[["lot", "pool", "class", "thinned"]].merge(
            pd.concat(of_class), on=["pool", "class"]
        )
        change = exponents.changes(merged, list(range(1 + FOLDS)))
        found["calibrated", name] = exponents.estimated(change.groupby("lot").mean())
    return agreed(found, len(fell) < 2 or inference.interval(fell)[2] >= 0)
