"""Scaling laws fitted to losses: the power law, a form that saturates, and which is preferred."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from helpers.errors import StudyError

FEWEST = 3  # sizes: a line through two points always fits
DRAWS = 1_000  # bootstraps behind an interval
Column = Sequence[float] | np.ndarray


class PowerLaw(NamedTuple):
    """log L = -k log N + b on the sizes ``n_min`` to ``n_max``, with a 95 % interval of k."""

    k: float
    b: float
    k_low: float
    k_high: float
    n_min: int
    n_max: int
    points: int  # sizes in the fit


def power_law(
    n: Column, loss: Column, seed: Column, low: int, high: int, rng: np.random.Generator
) -> PowerLaw:
    """Least squares in logarithms on ``low <= n <= high``; ``n, loss, seed`` have an entry per run.

    The interval comes from bootstraps over seeds, whole curves at a time, as the sizes of a seed
    are nested. Raises ``StudyError`` on fewer than three sizes, a loss that is not positive, or
    seeds that lack a size.
    """
    n, loss, seed = _within(low, high, n, loss, seed)
    sizes, row = np.unique(n, return_inverse=True)
    seeds, column = np.unique(seed, return_inverse=True)
    logs = np.full((len(sizes), len(seeds)), np.nan)
    logs[row, column] = np.log(loss)
    if np.isnan(logs).any():
        raise StudyError("every seed needs a run at every size of the fit; run notebook 06 again.")
    x = np.log(sizes)
    centred = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    k = -float(centred @ logs.mean(1))
    b = float(logs.mean() + k * x.mean())
    again = logs[:, rng.integers(len(seeds), size=(DRAWS, len(seeds)))].mean(-1)
    k_low, k_high = map(float, np.quantile(-centred @ again, (0.025, 0.975)))
    return PowerLaw(k, b, k_low, k_high, int(sizes[0]), int(sizes[-1]), len(sizes))


def saturating(n: Column, loss: Column, low: int, high: int) -> tuple[float, float, float]:
    """L = floor + a N^-k by least squares in log L on these runs: (k, floor, evidence).

    The evidence is AICc of the power law minus that of this form, above 0 for a floor; as sizes of
    one seed are nested, a few units are a tie. Raises ``StudyError`` as ``power_law`` does.
    """
    from scipy.optimize import curve_fit

    n, loss = _within(low, high, n, loss)
    x = np.log(n)
    y = np.log(loss)
    slope, start = np.polyfit(x, y, 1)

    def curve(x: np.ndarray, log_a: float, k: float, floor: float) -> np.ndarray:
        return np.log(floor + np.exp(log_a - k * x))

    bounds = ((-20, 0, 0), (20, 5, float(loss.min())))
    guess = np.clip((start, max(-slope, 0.01), 0.5 * loss.min()), *bounds)
    (log_a, k, floor), _ = curve_fit(curve, x, y, guess, bounds=bounds, max_nfev=20_000)
    straight = _aicc(y - np.polyval((slope, start), x), 2)
    bent = _aicc(y - curve(x, log_a, k, floor), 3)
    return float(k), float(floor), straight - bent


def _within(low: int, high: int, n: Column, loss: Column, *others: Column) -> list[np.ndarray]:
    """The entries of all columns where ``low <= n <= high``: enough sizes, and losses above 0."""
    n = np.asarray(n, float)
    loss = np.asarray(loss, float)
    inside = (n >= low) & (n <= high)
    if len(np.unique(n[inside])) < FEWEST:
        sizes = f"there are {np.unique(n[inside])} of {np.unique(n)}; widen the range or add sizes"
        raise StudyError(f"a fit from {low} to {high} needs at least {FEWEST} sizes; {sizes}.")
    if not (loss[inside] > 0).all():
        raise StudyError("a power law is fitted to logarithms; every loss must be above 0.")
    return [np.asarray(column)[inside] for column in (n, loss, *others)]


def _aicc(residuals: np.ndarray, parameters: int) -> float:
    """Akaike's criterion of a least-squares fit, corrected for few points; the variance counts."""
    m = len(residuals)
    p = parameters + 1
    fit = m * np.log(max(float((residuals**2).mean()), 1e-24))
    return fit + 2 * p + 2 * p * (p + 1) / max(m - p - 1, 1)


def rank_correlation(x: Column, y: Column, rng: np.random.Generator) -> tuple[float, float, float]:
    """Spearman's rho, its 95 % bootstrap interval over rows: (rho, low, high); nan if constant."""
    from scipy.stats import spearmanr

    x = np.asarray(x, float)
    y = np.asarray(y, float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of draws in which a column is constant: they are left out
        rho = spearmanr(x, y).statistic
        drawn = [rng.integers(len(x), size=len(x)) for _ in range(DRAWS)]
        again = [spearmanr(x[rows], y[rows]).statistic for rows in drawn]
        low, high = np.nanquantile(again, (0.025, 0.975))
    return float(rho), float(low), float(high)
