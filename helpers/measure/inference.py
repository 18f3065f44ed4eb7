"""Intervals and verdicts: what numbers from a few runs on some test images may say.

Runs (seeds) and test images are both samples; a variance has a part of each. Where it cannot be
known, from one seed or from values that never vary, the interval is infinite.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from helpers.engine.late import scipy
from helpers.errors import StudyError, unknown

HOLDS, REVERSED, EQUIVALENT, UNDECIDED = "holds", "reversed", "equivalent", "undecided"
FLOOR = "not testable here"
SIGNS = ("+", "-", "0", "noninferior")
COMBINE = ("one", "all", "either")
ALPHA = 0.05
UNLIKE = 0.2  # p of Bartlett's test below which the variances of other sizes are not pooled
JOINED = 1.5  # power of the shares by which degrees of freedom join
MOST = 10_000  # seeds that anybody would train
Column = Sequence[float] | np.ndarray


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
        return float(scipy.stats.t.sf((self.value - x) / self.se, self.df)) if self.df else 0.5


def around(
    value: float, se: float, df: float, seeds: int, images: float = 0.0, tests: int = 1
) -> Estimate:
    """An estimate with its t interval, widened if it was picked among ``tests`` (Bonferroni);
    without any (``df`` 0) if ``se`` is zero or not finite."""
    if not (0 < se < np.inf and np.isfinite(value)):
        return Estimate(float(value), -np.inf, np.inf, np.inf, 0.0, seeds)
    half = float(se * scipy.stats.t.ppf(1 - ALPHA / 2 / tests, df))
    return Estimate(float(value), value - half, value + half, float(se), float(df), seeds, images)


def crossed(values: np.ndarray, strata: Column, others: Sequence[Column] = ()) -> Estimate:
    """Mean of ``values`` (seeds, images), such as 100 (a - b) of correctness, by random effects.

    ``strata`` (images,): classes, which are fixed. ``others``: means (seeds,) at other sizes, to
    pool the variance over seeds with. Raises ``StudyError`` on other shapes or undefined values.
    """
    values = np.asarray(values, float)
    _, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    if values.ndim != 2 or values.shape[1] != len(inverse) or not np.isfinite(values).all():
        raise StudyError(f"wanted finite (seeds, images) and as many classes: {values.shape}.")
    whole, seeds, free = values.mean(1), len(values), len(inverse) - len(counts)
    if seeds < 2 or free < 1:
        return around(whole.mean(), np.inf, 0, seeds)
    of_class = values @ (inverse[:, None] == np.arange(len(counts))) / counts
    within = values - of_class[:, inverse]
    image = (within.mean(0) ** 2).sum() / free / len(inverse)
    both = within.var(0, ddof=1).sum() / seeds / free / len(inverse)
    variance, df = _over_seeds(np.vstack([whole, *others]))
    return _joined(whole, (variance / seeds, image, both), df, free)


def jackknifed(whole: Column, without: np.ndarray) -> Estimate:
    """Mean of any statistic: ``whole`` (seeds,) on all images, ``without`` (seeds, folds) a fold.

    Folds are stratified by class. An undefined entry makes the interval infinite.
    """
    whole, without = np.asarray(whole, float), np.asarray(without, float)
    if without.ndim != 2 or whole.shape != without.shape[:1]:
        raise StudyError(f"wanted (seeds,) and (seeds, folds): {whole.shape}, {without.shape}.")
    folds = without.shape[1]
    pseudo = whole[:, None] + (folds - 1) * (without.mean(1, keepdims=True) - without)
    if not np.isfinite(pseudo).all():
        return around(whole.mean(), np.inf, 0, len(whole))
    return crossed(pseudo, np.zeros(folds))


def _over_seeds(table: np.ndarray) -> tuple[float, float]:
    """Variance over seeds of the first row of ``table`` (sizes, seeds), and degrees of freedom.

    Pooled over all rows unless Bartlett's test finds them unlike. As training sets are nested, rows
    correlate; Huynh and Feldt's epsilon says how many they are worth.
    """
    rows, free = len(table), table.shape[1] - 1
    covariance = np.atleast_2d(np.cov(table))
    own = covariance.diagonal()
    varied = own > (1e-12 * np.abs(table).max()) ** 2
    if rows < 2 or free < 2 or not varied.all() or scipy.stats.bartlett(*table).pvalue < UNLIKE:
        return own[0], free
    # Without bias: the trace of the squared covariance matrix, and the square of its trace.
    squares = free**2 * ((covariance**2).sum() - own.sum() ** 2 / free) / (free - 1) / (free + 2)
    squared = own.sum() ** 2 - 2 * squares / free
    epsilon = np.clip(squared / max(rows * squares, 1e-12 * squared), 1 / rows, 1)
    return own.mean(), free * rows * epsilon


def _joined(whole: np.ndarray, parts: Column, free_seeds: float, free_images: int) -> Estimate:
    """The mean of ``whole`` (seeds,) with variances over seeds, over images, and contained in both.

    A part smaller than what it contains adds nothing. Degrees of freedom join by shares to 1.5:
    by Satterthwaite's squares a family errs twice as often, by plain shares (Cochran) too rarely.
    """
    seed, image, both = parts
    variance = max(seed, both) + max(image, both) - both
    if not variance > (1e-12 * np.abs(whole).max()) ** 2:  # nothing varies but by rounding
        return around(whole.mean(), np.inf, 0, len(whole))
    shares = np.array([seed, image]) / variance
    df = 1 / max((shares**JOINED / (free_seeds, free_images)).sum(), 1e-9)
    return around(whole.mean(), np.sqrt(variance), df, len(whole), max(image - both, 0.0))


def pigeonhole(
    statistic: Callable, arrays: Sequence, strata: Column, rng: Generator, draws: int
) -> Estimate:
    """``statistic(*means)`` of arrays (..., seeds, images), with both drawn again (within classes).

    ``means`` are over both. One seed fewer is drawn, or its part would be too small. Where more
    than a twentieth of the draws have no finite value, the interval is infinite.
    """
    seeds, images = np.shape(arrays[0])[-2:]
    value = statistic(*(np.mean(array, (-2, -1)) for array in arrays))
    counts = np.unique(strata, return_counts=True)[1]
    free = images - len(counts)
    if seeds < 2 or free < 1:
        return around(value, np.inf, 0, seeds)
    by_class = np.argsort(strata, kind="stable")
    often = [rng.multinomial(count, np.full(count, 1 / count), draws) for count in counts]
    columns = np.concatenate(often, axis=1) / images  # draws x images
    runs = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), draws) / (seeds - 1)
    whole = [np.mean(array, -1) for array in arrays]
    parts = [np.asarray(array)[..., by_class] @ columns.T for array in arrays]
    again = np.empty((draws, 3))  # by its seeds, by its images, and what only both explain
    for i, row in enumerate(again):
        row[0] = statistic(*(means @ runs[i] for means in whole))
        row[1] = statistic(*(means[..., i].mean(-1) for means in parts))
        row[2] = statistic(*(means[..., i] @ runs[i] for means in parts)) - row[0] - row[1]
    again = again[np.isfinite(again).all(1)]
    if len(again) < 0.95 * draws:
        return around(value, np.inf, 0, seeds)
    spread = again.var(0, ddof=1) * (1, images / free, images / free)
    return _joined(np.full(seeds, value), spread, seeds - 1, free)


class Cell(NamedTuple):
    """A part of a claim; ``floor``: both arms near chance or the ceiling; ``unit``: of seeds."""

    name: str
    estimate: Estimate
    floor: bool = False
    unit: str = "seeds"


class Verdict(NamedTuple):
    """A verdict, the cell that decides, its p (two-sided), and the p of "outside the margin"."""

    verdict: str
    cell: Cell
    p: float = 1.0
    p_inside: float = 1.0


def verdict(estimate: Estimate, sign: str, margin: float) -> str:
    """The word of ``combined`` for one cell."""
    return combined([Cell("", estimate)], sign, margin).verdict


def combined(cells: Sequence[Cell], sign: str, margin: float, combine: str = "one") -> Verdict:
    """The verdict on a claim about ``one`` cell, or of which ``all`` or ``either`` must hold.

    "+", "-": *equivalent* inside +-margin, else *holds* or *reversed* where zero is excluded. "0":
    *holds* inside, *reversed* beyond; "noninferior": above -margin, below. Else *undecided*.
    All: the worst cell decides; one that is reversed suffices, after Holm. Either: the other way
    round. Cells at the floor are left out; where they are half and the rest does not settle it,
    *not testable here*. Raises ``StudyError`` on another sign, or cells that do not fit.
    """
    if not cells or combine not in COMBINE or (combine == "one" and len(cells) > 1):
        raise StudyError(f"{len(cells)} cells were given for a claim about {combine!r}.")
    tested = [cell for cell in cells if not cell.floor]
    if not tested:
        return Verdict(FLOOR, cells[0])
    either = combine == "either"
    every, some = (REVERSED, HOLDS) if either else (HOLDS, REVERSED)
    p = np.array([_doubled(cell.estimate, sign, margin) for cell in tested]).T
    p = p[[1, 0, 2]] if either else p
    clear = np.where(p[2] < ALPHA, 2.0, p)  # what is inside the margin neither holds nor reverses
    count, worst = len(tested), p[0].argmax()
    inside = p[2].max() if either else count * p[2, worst]
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


def seeds_needed(estimate: Estimate, sign: str, margin: float, tests: int = 1) -> float:
    """The seeds in all that decide a claim, one of ``tests`` (Bonferroni); inf: no number of them
    does, nan: nothing is known."""
    value, _, _, se, _, seeds, images = estimate
    if not np.isfinite(se):
        return np.nan
    size = abs(value)
    reach = {"0": abs(size - margin), "noninferior": abs(value + margin)}
    enough = reach.get(sign, max(size, margin - size))

    def decide(n: int) -> bool:
        falling = max(se**2 - images, 0) * seeds / n
        df = (n - 1) * ((images + falling) / max(falling, 1e-9 * se**2)) ** JOINED
        return around(0, np.sqrt(images + falling), df, n, tests=tests).high < enough

    n = bisect_left(range(MOST + 1), True, max(seeds + 1, 2), key=decide)
    return float(n) if n <= MOST else np.inf


def interval(values: Column) -> tuple[float, float, float]:
    """Mean, 95 % t-interval over seeds: (mean, low, high); one value is its own interval."""
    mean, error = float(np.mean(values)), float(np.std(values)) / max(len(values) - 1, 1) ** 0.5
    return around(mean, error, len(values) - 1, len(values))[:3] if error else (mean, mean, mean)


def share_interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the share ``right / n``: (low, high); 0 to 1 where ``n`` is 0."""
    if n == 0:
        return 0.0, 1.0
    low, high = scipy.stats.binomtest(int(right), int(n)).proportion_ci(method="wilson")
    return float(low), float(high)
