"""What notebook 06 says on the declared claims SL01 to SL12. No builder imports this.

Each claim is read off as cells (``inference.Cell``), all of which must hold; intervals contain
seeds and test images. Exponents decide where both ranges and both measures agree in sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.engine import places, randomness, store
from helpers.measure import fits, inference
from helpers.measure.folds import FOLDS
from helpers.measure.inference import Cell, Estimate
from helpers.study import arms, exponents, pairs
from helpers.worlds import World

CAPTIONS = "prompt-training-captions"
TEMPLATES = "prompt-templates"
USUAL = "guidance-7.5"
AT_CHANCE = 2.0  # points: sets on which no arm is further above chance have no exponents
DRAWS = 200  # bootstraps of classes
Span = tuple[int, int]
Contrast = Callable[[str, Span], np.ndarray]  # (measure, range) -> (seeds, 1 + FOLDS)


class Results(NamedTuple):
    """The finished tables of notebook 06; ``rarity`` is None where nobody has made it."""

    runs: pd.DataFrame
    metrics: pd.DataFrame
    paired: pd.DataFrame
    rarity: store.Artifact | None


def results(
    scaled: store.Artifact, paired: store.Artifact, rarity: store.Artifact | None
) -> Results:
    """The tables of finished artifacts."""
    runs = exponents.read(scaled, "runs.parquet")
    metrics = scaled.table("metrics.parquet")
    return Results(runs, metrics, exponents.read(paired, "results.parquet"), rarity)


def cells(w: World, found: Results, margins: Mapping[str, float]) -> dict[str, list[Cell]]:
    """Claim -> its cells, for every claim whose arms this world has.

    ``margins``: claim -> margin in points, for the floor rule of SL03, SL04, SL07 and SL10.
    """
    spans = exponents.ranges(w)
    read = of_levels(w, found.runs, spans["full"], margins)
    read |= of_exponents(w, found.runs, spans)
    read |= of_pairs(w, found.paired, margins["SL10"])
    read["SL06"] = [Cell("drawn arms", tradeoff(w, found.metrics))]
    x = of_draws(found.metrics, "synthetic", "recognizability")
    ranks = {name: class_correlation(w, x, found.runs, "synthetic", spans[name]) for name in spans}
    chance = 100 / x.shape[1]
    floor = "test" not in above_chance(found.runs, ["synthetic"], spans["full"][1], chance)
    read["SL11"] = agreed([ranks.values()], ranks, floor)
    if found.rarity is not None:
        read["SL12"] = thinning(found.rarity)
    return read


def of_levels(
    w: World, runs: pd.DataFrame, span: Span, margins: Mapping[str, float]
) -> dict[str, list[Cell]]:
    """SL03, SL04 and SL07: contrasts of test accuracy in points, with the floor rule."""
    contrasts = {
        "SL03": (CAPTIONS, TEMPLATES, span[1]),
        "SL04": ("synthetic", USUAL, span[1]),
        "SL07": (arms.FEW_REAL, "train", span[0]),
    }
    chance = 100 / len(tables.benchmark(w, w.tasks[0]).classes)
    there = set(runs["arm"])
    return {
        claim: [level(runs, one, other, n, chance, margins[claim])]
        for claim, (one, other, n) in contrasts.items()
        if {one, other} <= there
    }


def level(runs: pd.DataFrame, one: str, other: str, n: int, chance: float, margin: float) -> Cell:
    """Test accuracy of one arm minus that of another with ``n`` images, in points.

    At the floor both are within ``margin`` of chance, or of all right.
    """
    values = [points(runs, arm, "test", n) for arm in (one, other)]
    floor = all(min(v[:, 0].mean() - chance, 100 - v[:, 0].mean()) < margin for v in values)
    return Cell(f"{n} images", exponents.estimated(values[0] - values[1]), floor)


def points(runs: pd.DataFrame, arm: str, eval_set: str, n: int) -> np.ndarray:
    """Accuracy of an arm with ``n`` images in points, (seeds, 1 + ``FOLDS``)."""
    part = runs[(runs["arm"] == arm) & (runs["n"] == n)]
    return 100 * exponents.curves(exponents.of_set(part, eval_set), "top1").to_numpy()


def k(
    runs: pd.DataFrame, arm: str, eval_sets: Sequence[str], measure: str, span: Span
) -> np.ndarray:
    """Exponents of an arm, mean over evaluation sets: (seeds, 1 + ``FOLDS``)."""
    part = runs[runs["arm"] == arm]
    of_sets = [exponents.curves(exponents.of_set(part, name), measure) for name in eval_sets]
    return np.mean([exponents.slopes(table, span)[0] for table in of_sets], axis=0)


def of_exponents(w: World, runs: pd.DataFrame, spans: Mapping[str, Span]) -> dict[str, list[Cell]]:
    """SL01, SL08 and SL09: exponents on the test set and far from it."""
    chance = 100 / len(tables.benchmark(w, w.tasks[0]).classes)
    above = above_chance(runs, ("train", TEMPLATES, CAPTIONS), spans["full"][1], chance)
    shifted = [name for name in runs["eval_set"].unique() if name != "test"]
    far = [name for name in shifted if name in above] or shifted
    floor = not set(far) & set(above)
    near = ("test",)

    def at_home(measure: str, span: Span) -> np.ndarray:
        return k(runs, "train", near, measure, span) - k(runs, CAPTIONS, near, measure, span)

    def turned(measure: str, span: Span) -> np.ndarray:
        gaps = [
            k(runs, "train", sets, measure, span) - k(runs, TEMPLATES, sets, measure, span)
            for sets in (near, far)
        ]
        return gaps[0] - gaps[1]

    def away(measure: str, span: Span) -> np.ndarray:
        return k(runs, TEMPLATES, far, measure, span) - k(runs, CAPTIONS, far, measure, span)

    there = set(runs["arm"])
    read = {}
    if {"train", CAPTIONS} <= there:
        read["SL01"] = both_ranges(at_home, spans, "test" not in above)
    if {"train", TEMPLATES} <= there and far:
        read["SL08"] = both_ranges(turned, spans, floor)
    if {CAPTIONS, TEMPLATES} <= there and far:
        read["SL09"] = both_ranges(away, spans, floor)
    return read


def above_chance(runs: pd.DataFrame, names: Iterable[str], n: int, chance: float) -> list[str]:
    """Evaluation sets on which an arm of ``names`` is above ``chance`` (points) with ``n`` images.

    On others exponents would be compared of arms that know nothing (``AT_CHANCE``).
    """
    there = [name for name in names if name in set(runs["arm"])]
    best = {
        eval_set: max(points(runs, arm, eval_set, n)[:, 0].mean() for arm in there)
        for eval_set in runs["eval_set"].unique()
    }
    return [name for name in best if best[name] > chance + AT_CHANCE]


def both_ranges(contrast: Contrast, spans: Mapping[str, Span], floor: bool = False) -> list[Cell]:
    """Cells of a contrast of exponents: those of the calibrated loss decide (``agreed``)."""
    found = [
        {name: exponents.estimated(contrast(measure, span)) for name, span in spans.items()}
        for measure in exponents.MEASURES
    ]
    return agreed([of_ranges.values() for of_ranges in found], found[-1], floor)


def agreed(
    every: Iterable[Iterable[Estimate]], deciding: Mapping[str, Estimate], floor: bool = False
) -> list[Cell]:
    """A cell per range; where estimates differ in sign, one that spans the intervals of them all.

    It holds zero, and so settles nothing but that all are small.
    """
    found = [estimate for estimates in every for estimate in estimates]
    if len({estimate.value > 0 for estimate in found}) == 1:
        return [Cell(f"range {name}", estimate, floor) for name, estimate in deciding.items()]
    from scipy import stats

    low = min(estimate.low for estimate in found)
    high = max(estimate.high for estimate in found)
    df = min(estimate.df for estimate in found)
    se = (high - low) / 2 / stats.t.ppf(0.975, df) if df else np.inf
    spanned = inference.around((low + high) / 2, se, df, found[0].seeds)
    return [Cell("ranges and measures differ in sign", spanned, floor)]


def of_pairs(w: World, paired: pd.DataFrame, margin: float) -> dict[str, list[Cell]]:
    """SL02 and SL10: language supervision by synthetic, real, and both images."""
    sizes = sorted(paired["n"].unique())
    chance = 100 / len(tables.benchmark(w, pairs.paired_task(w)).classes)
    read = {"SL10": [level(paired, "both", "retrieved", sizes[0], chance, margin)]}
    floor = "test" not in above_chance(paired, ("synthetic", "retrieved"), sizes[-1], chance)
    if len(sizes) >= fits.FEWEST:
        cells = []
        for name, span in exponents.halved(sizes).items():
            of_source = [
                k(paired, source, ("test",), "calibrated", span)
                for source in ("synthetic", "retrieved")
            ]
            change = exponents.estimated(of_source[0] - of_source[1])
            cells.append(Cell(f"range {name}", change, floor))
        read["SL02"] = cells
    return read


def of_draws(metrics: pd.DataFrame, arm: str, column: str) -> np.ndarray:
    """A judge's values of an arm's classes, (1 + draws, classes): the images, then bootstraps."""
    wide = metrics[metrics["arm"] == arm].pivot(index="draw", columns="class", values=column)
    return wide.to_numpy()


def tradeoff(w: World, metrics: pd.DataFrame) -> Estimate:
    """SL06: rank correlation of recognizability and diversity over prompts and guidance scales.

    Arms are fixed, classes and images resampled.
    """
    names = [n for n in metrics["arm"].unique() if n.startswith(("synthetic", "guid", "prompt"))]
    x, y = (
        np.stack([of_draws(metrics, name, column) for name in names])
        for column in ("recognizability", "diversity")
    )
    classes = x.shape[2]
    rng = randomness.rng(w, "scaling", "tradeoff")
    again = []
    for draw in range(1, x.shape[1]):
        columns = rng.integers(classes, size=classes)
        again.append(tuple(np.nanmean(v[:, draw, columns], axis=1) for v in (x, y)))
    whole = np.nanmean([x[:, 0], y[:, 0]], axis=2)
    return fits.rank_correlation(whole[0], whole[1], again, classes)


def class_correlation(
    w: World, x: np.ndarray, runs: pd.DataFrame, arm: str, span: Span
) -> Estimate:
    """SL11: rank correlation over classes of ``x`` with k of the calibrated loss on the test set.

    ``x`` (1 + draws, classes) as of ``of_draws``, or (1, classes) of what has no images. Classes,
    drawn images, seeds and test images are resampled, the last as pseudovalues of folds.
    """
    slopes = exponents.by_class(runs, arm, span)
    whole = slopes[0].groupby("class").mean().to_numpy()
    pseudo = (FOLDS * slopes[[0]].to_numpy() - (FOLDS - 1) * slopes.drop(columns=0)).to_numpy()
    pseudo = pseudo.reshape(len(whole), -1, FOLDS)
    rng = randomness.rng(w, "scaling", "ranks")
    again = []
    for draw in range(DRAWS):
        classes, seeds, folds = (rng.integers(n, size=n) for n in pseudo.shape)
        again.append(
            (x[draw % len(x), classes], pseudo[np.ix_(classes, seeds, folds)].mean((1, 2)))
        )
    return fits.rank_correlation(x[0], whole, again, len(whole))


def thinning(rarity: store.Artifact) -> list[Cell]:
    """SL12: k of a class's loss, thinned minus not thinned, paired by class, mean of a lot.

    Lots take the place of seeds. At the floor recognizability did not fall: nothing is decided.
    """
    runs = exponents.read(rarity, "runs.parquet")
    table = rarity.table("classes.parquet")
    fell = exponents.changes(table, ["recognizability"])["recognizability"].groupby("lot").mean()
    failed = len(fell) < 2 or inference.interval(fell)[2] >= 0
    found = {}
    for name, span in exponents.halved(sorted(runs["n"].unique())).items():
        parts = []
        for pool in runs["arm"].unique():
            of_class = exponents.by_class(runs, pool, span).groupby("class").mean()
            parts.append(of_class.assign(pool=pool).reset_index())
        merged = table[["lot", "pool", "class", "thinned"]].merge(pd.concat(parts))
        change = exponents.changes(merged, list(range(1 + FOLDS)))
        found[name] = exponents.estimated(change.groupby("lot").mean())
    return agreed([found.values()], found, failed)


def declared() -> pd.DataFrame:
    """The declared claims by ``id``, with ``expected_sign`` and ``margin``."""
    claims = pd.read_csv(places.PACKAGE / "study" / "claims.csv", index_col="id")
    claims = claims[claims.index.str.startswith("SL")]
    return claims.assign(margin=claims["margin"].astype(float))


def verdicts(read: Mapping[str, list[Cell]], claims: pd.DataFrame) -> pd.DataFrame:
    """A row per claim that was read: what is claimed, the deciding cell, its interval, verdict."""
    rows = []
    for claim, cells in sorted(read.items()):
        about = claims.loc[claim]
        sign, margin = about["expected_sign"], about["margin"]
        found = inference.combined(cells, sign, margin, "all")
        e = found.cell.estimate
        needed = inference.seeds_needed(e, sign, margin)
        rows.append(
            {
                "claim": f"{claim} {about['claim']}",
                "decides": found.cell.name,
                "value": f"{e.value:+.2f} ({e.low:+.2f} to {e.high:+.2f})",
                "margin": f"{sign}, {margin:g}",
                "verdict": found.verdict,
                "seeds": f"{needed:g}" if found.verdict == inference.UNDECIDED else "",
            }
        )
    return pd.DataFrame(rows)
