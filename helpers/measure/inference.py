"""Intervals and verdicts: what numbers from a few runs on some test images may say.

Runs (seeds) and test images are both samples; a variance has a part of each. Where it cannot be
known, from one seed or from values that never vary, the interval is infinite.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from helpers.errors import StudyError, unknown

HOLDS, REVERSED, EQUIVALENT, UNDECIDED = "holds", "reversed", "equivalent", "undecided"
FLOOR = "not testable here"
SIGNS = ("+", "-", "0", "noninferior")
COMBINE = ("one", "all", "either")
ALPHA = 0.05
UNLIKE = 0.2  # p of Bartlett's test below which the variances of other sizes are not pooled
JOINED = 1.5  # power of the shares by which degrees of freedom join
MOST = 10_000  # seeds that anybody would train
Array = np.ndarray
Column = Sequence[float] | Array
Columns = Sequence[Column]


class Estimate(NamedTuple):
    """A value with its 95 % t interval; ``images``: the part of ``se`` squared that seeds keep."""

    value: float
    low: float
    high: float
    se: float
    df: float
    seeds: int
    images: float = 0.0

    def p_above(self, x: float) -> float:
        """One-sided p of the hypothesis "at most ``x``"; 0.5 where nothing is known."""
        from scipy import stats

        known = 0 < self.se < np.inf and np.isfinite(self.value)
        return float(stats.t.sf((self.value - x) / self.se, self.df)) if known else 0.5

    @property
    def p(self) -> float:
        """Two-sided p of the hypothesis "zero"."""
        return 2 * min(self.p_above(0), 1 - self.p_above(0))


def around(value: float, se: float, df: float, seeds: int, images: float = 0.0) -> Estimate:
    """An estimate with its t interval; an infinite one where ``se`` is zero or not finite."""
    from scipy import stats

    if not (0 < se < np.inf and np.isfinite(value)):
        return Estimate(float(value), -np.inf, np.inf, np.inf, 0.0, seeds)
    half = float(se * stats.t.ppf(1 - ALPHA / 2, df))
    return Estimate(float(value), value - half, value + half, float(se), float(df), seeds, images)


def crossed(values: Array, strata: Column, others: Columns = ()) -> Estimate:
    """Mean of ``values`` (seeds, images) by crossed random effects of seeds and images.

    A value is a combination of correctness (0 or 1) of paired runs in the unit wanted, such as
    100 (a - b). ``strata`` (images,): classes, which are fixed. ``others``: means of the same
    contrast at other sizes, (seeds,) each, to pool the variance over seeds with (``_over_seeds``).
    Raises ``StudyError`` on shapes that do not fit and on values that are not finite.
    """
    values = np.asarray(values, float)
    _, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    if values.ndim != 2 or values.shape[1] != len(inverse) or not np.isfinite(values).all():
        raise StudyError(f"wanted finite (seeds, images) and as many classes: {values.shape}.")
    of_class = values @ (inverse[:, None] == np.arange(len(counts))) / counts
    free = len(inverse) - len(counts)
    within = values - of_class[:, inverse]
    return _of_parts(values.mean(1), within, 1 / max(free * len(inverse), 1), free, others)


def jackknifed(whole: Column, without: Array, others: Columns = ()) -> Estimate:
    """Mean of any statistic: ``whole`` (seeds,) on all test images, ``without`` (seeds, folds).

    Folds of images, the same in every arm and stratified by class, are left out one at a time.
    ``others`` as in ``crossed``. An undefined (not finite) entry makes the interval infinite.
    """
    whole, without = np.asarray(whole, float), np.asarray(without, float)
    if without.ndim != 2 or whole.shape != without.shape[:1]:
        raise StudyError(f"wanted (seeds,) and (seeds, folds): {whole.shape}, {without.shape}.")
    folds = without.shape[1]
    within = without - without.mean(1, keepdims=True)
    return _of_parts(whole, within, (folds - 1) / max(folds, 1), folds - 1, others)


def _of_parts(whole: Array, within: Array, weight: float, free: int, others: Columns) -> Estimate:
    """The mean of ``whole`` (seeds,), with deviations by seed and image or fold, ``within``."""
    seeds = len(whole)
    if seeds < 2 or free < 1 or not np.isfinite(whole.sum() + within.sum()):
        return around(whole.mean(), np.inf, 0, seeds)
    of_image = within.mean(0)
    image = weight * (of_image**2).sum()
    both = weight * ((within - of_image) ** 2).sum() / (seeds - 1) / seeds
    variance, df = _over_seeds(np.vstack([whole, *others]))
    return _joined(whole, (variance / seeds, image, both), df, free)


def _over_seeds(table: Array) -> tuple[float, float]:
    """Variance over seeds of the first row of ``table`` (sizes, seeds), and degrees of freedom.

    Pooled over all rows unless Bartlett's test finds them unlike. Training sets of a seed are
    nested, so rows correlate; Huynh and Feldt's epsilon says how many rows they are worth.
    """
    from scipy import stats

    rows, free = len(table), table.shape[1] - 1
    covariance = np.atleast_2d(np.cov(table))
    own = covariance.diagonal()
    varied = own > (1e-12 * np.abs(table).max()) ** 2
    if rows < 2 or free < 2 or not varied.all() or stats.bartlett(*table).pvalue < UNLIKE:
        return own[0], free
    # Without bias: the trace of the squared covariance matrix, and the square of its trace.
    squares = free**2 * ((covariance**2).sum() - own.sum() ** 2 / free) / (free - 1) / (free + 2)
    squared = own.sum() ** 2 - 2 * squares / free
    epsilon = np.clip(squared / max(rows * squares, 1e-12 * squared), 1 / rows, 1)
    return own.mean(), free * rows * epsilon


def _joined(whole: Array, parts: Column, free_seeds: float, free_images: int) -> Estimate:
    """The mean of ``whole`` (seeds,) with variances over seeds, over images, and contained in both.

    A part smaller than what it contains adds nothing. Degrees of freedom join by shares of the
    variance to the power of 1.5: Satterthwaite's squares forget that a few seeds may agree by
    chance, so that a family of claims errs twice as often; plain shares (Cochran) cover too much.
    """
    seed, image, both = parts
    weights = np.array([seed > both, image > both, 1.0])
    weights[2] -= weights[:2].sum()
    variance = weights @ parts
    if not variance > (1e-12 * np.abs(whole).max()) ** 2:  # nothing varies but by rounding
        return around(whole.mean(), np.inf, 0, len(whole))
    shares = np.array([seed, image]) / variance
    df = 1 / max((shares**JOINED / (free_seeds, free_images)).sum(), 1e-9)
    return around(whole.mean(), np.sqrt(variance), df, len(whole), max(image - both, 0.0))


def pigeonhole(
    statistic: Callable,
    arrays: Sequence,
    strata: Column,
    rng: np.random.Generator,
    draws: int = 500,
) -> Estimate:
    """``statistic(*arrays)`` with seeds and images (within classes) drawn again.

    The last two axes of every array are (seeds, images), the same in all. Each draw is evaluated
    with its seeds, its images and both, which tells the parts of the variance apart. One seed fewer
    than there are is drawn, or its part would be too small. Where more than a twentieth of the
    draws have no finite value, the interval is infinite.
    """
    value = statistic(*arrays)
    seeds, images = np.shape(arrays[0])[-2:]
    _, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    free = images - len(counts)
    if seeds < 2 or free < 1:
        return around(value, np.inf, 0, seeds)
    by_class = np.argsort(inverse, kind="stable")
    first = np.repeat(np.cumsum(counts) - counts, counts)
    again = np.empty((draws, 3))
    for row in again:
        runs = rng.integers(seeds, size=seeds - 1)
        columns = by_class[first + rng.integers(np.repeat(counts, counts))]
        fewer = [array[..., runs, :] for array in arrays]
        row[0] = statistic(*fewer)
        row[1] = statistic(*(array[..., columns] for array in arrays))
        row[2] = statistic(*(array[..., columns] for array in fewer)) - row[0] - row[1]
    again = again[np.isfinite(again).all(1)]
    if len(again) < 0.95 * draws:
        return around(value, np.inf, 0, seeds)
    parts = again.var(0, ddof=1) * (1, images / free, images / free)
    return _joined(np.full(seeds, value), parts, seeds - 1, free)


class Cell(NamedTuple):
    """A part of a claim, such as one task; ``floor``: both arms are near chance or the ceiling."""

    name: str
    estimate: Estimate
    floor: bool = False


class Verdict(NamedTuple):
    """A verdict, the cell that decides, its p (two-sided), and the p of "outside the margin"."""

    verdict: str
    cell: Cell
    p: float = 1.0
    p_inside: float = 1.0


def verdict(estimate: Estimate, sign: str, margin: float) -> str:
    """The verdict on a claim of one cell, by its sign ("+", "-", "0", "noninferior") and margin.

    "+" and "-": *equivalent* if the interval lies inside +-margin, else *holds* or *reversed* if it
    excludes zero. "0": *holds* inside, *reversed* beyond. "noninferior": *holds* above -margin,
    *reversed* below. Else *undecided*. Raises ``StudyError`` on another sign.
    """
    return combined([Cell("", estimate)], sign, margin).verdict


def combined(cells: Sequence[Cell], sign: str, margin: float, combine: str = "one") -> Verdict:
    """The verdict on a claim about ``one`` cell, or of which ``all`` or ``either`` must hold.

    All: the worst cell decides; *reversed* if one cell is, after Holm. Either: one that holds after
    Holm suffices; *reversed* and *equivalent* if all are. Cells at the floor are left out; where
    they are half or more and the rest does not settle it, the claim is *not testable here*.
    """
    tested = [cell for cell in cells if not cell.floor]
    if not cells or combine not in COMBINE or (combine == "one" and len(cells) > 1):
        raise StudyError(f"{len(cells)} cells were given for a claim about {combine!r}.")
    if not tested:
        return Verdict(FLOOR, cells[0])
    p = np.array([_doubled(cell.estimate, sign, margin) for cell in tested]).T
    every, some = HOLDS, REVERSED
    if combine == "either":
        every, some = REVERSED, HOLDS
        p = p[[1, 0, 2]]
    clear = np.where(p[2] < ALPHA, 2.0, p)  # what is inside the margin neither holds nor reverses
    count, worst = len(tested), p[0].argmax()
    inside = p[2].max() if combine == "either" else count * p[2, worst]
    by = {every: clear[0].max(), EQUIVALENT: inside, some: count * clear[1].min()}
    word = [UNDECIDED, *(name for name in by if by[name] < ALPHA)][-1]
    if 2 * count <= len(cells) and word != some:
        return Verdict(FLOOR, next(cell for cell in cells if cell.floor))
    cell = tested[clear[1].argmin() if word == some else worst]
    decisive = by[word] if word in (every, some) else min(p[0].max(), count * p[1].min())
    return Verdict(word, cell, min(1.0, float(decisive)), min(1.0, float(inside)))


def _doubled(estimate: Estimate, sign: str, margin: float) -> tuple[float, float, float]:
    """Twice the one-sided p of the claim, of its opposite, and of "inside the margin"."""
    above, over, under = (2 * estimate.p_above(x) for x in (0, margin, -margin))
    inside = max(under, 2 - over)
    sides = {
        "+": (above, 2 - above, inside),
        "-": (2 - above, above, inside),
        "0": (inside, min(over, 2 - under), 2.0),
        "noninferior": (under, 2 - under, 2.0),
    }
    if sign not in sides:
        raise unknown("sign of a claim", sign, sides)
    return sides[sign]


def holm(p: Column) -> np.ndarray:
    """Holm's adjusted p values along the last axis: of a family, 5 % err with any below 0.05."""
    p = np.asarray(p, float)
    order = p.argsort(-1)
    ranked = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    ranked = np.maximum.accumulate(ranked, -1).clip(max=1)
    return np.take_along_axis(ranked, order.argsort(-1), -1)


def seeds_needed(estimate: Estimate, sign: str, margin: float) -> float:
    """The seeds in all that decide a claim if its value and the parts of its variance stay.

    ``inf`` where test images alone leave it open (or 10,000 seeds do), ``nan`` if nothing is known.
    """
    from scipy import stats

    value, _, _, se, _, seeds, images = estimate
    if not np.isfinite(se):
        return np.nan
    size = abs(value)
    reach = {"0": abs(size - margin), "noninferior": abs(value + margin)}
    n = np.arange(max(seeds + 1, 2), MOST + 1)
    falling = max(se**2 - images, 0) * seeds / n
    df = (n - 1) * ((images + falling) / np.maximum(falling, 1e-9 * se**2)) ** JOINED
    half = stats.t.ppf(1 - ALPHA / 2, df) * np.sqrt(images + falling)
    enough = half < reach.get(sign, max(size, margin - size))
    return float(n[enough.argmax()]) if enough.any() else np.inf


def interval(values: Column) -> tuple[float, float, float]:
    """Mean, 95 % t-interval over seeds: (mean, low, high); one value is its own interval."""
    mean, error = float(np.mean(values)), float(np.std(values)) / max(len(values) - 1, 1) ** 0.5
    return around(mean, error, len(values) - 1, len(values))[:3] if error else (mean, mean, mean)


def share_interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the share ``right / n``: (low, high); 0 to 1 where ``n`` is 0."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    low, high = binomtest(int(right), int(n)).proportion_ci(method="wilson")
    return float(low), float(high)
