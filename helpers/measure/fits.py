"""Scaling laws fitted to losses: the power law, a form that saturates, and which is preferred."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from helpers.engine.late import scipy
from helpers.errors import StudyError
from helpers.measure import inference
from helpers.measure.inference import Column

FEWEST = 3  # sizes: a line through two points always fits


def power_law(n: Column, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """k and b of log L = -k log N + b by least squares in logarithms.

    ``n`` (sizes,), ``losses`` (sizes, ...): a curve, or many side by side; both results have the
    shape (...). Raises ``StudyError`` on fewer than three sizes, a loss that is not positive, or a
    curve that lacks a size.
    """
    x, y = _logarithms(n, losses)
    if np.isnan(y).any():
        raise StudyError("every seed needs a run at every size of the fit; run notebook 06 again.")
    centred = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    k = -np.tensordot(centred, y, 1)
    return k, y.mean(0) + k * x.mean()


def saturating(n: Column, loss: Column) -> tuple[float, float, float]:
    """L = floor + a N^-k by least squares in log L on these runs: (k, floor, evidence).

    The evidence is AICc of the power law minus that of this form, above 0 for a floor; as sizes of
    one seed are nested, a few units are a tie. Raises ``StudyError`` as ``power_law`` does.
    """
    x, y = _logarithms(n, loss)
    slope, start = np.polyfit(x, y, 1)

    def curve(x: np.ndarray, log_a: float, k: float, floor: float) -> np.ndarray:
        return np.log(floor + np.exp(log_a - k * x))

    lowest = float(np.exp(y.min()))
    limits: dict[str, Any] = {"bounds": ((-20, 0, 0), (20, 5, lowest)), "max_nfev": 20_000}
    guess = np.clip((start, max(-slope, 0.01), 0.5 * lowest), *limits["bounds"])
    (log_a, k, floor), _ = scipy.optimize.curve_fit(curve, x, y, guess, **limits)

    def aicc(fitted: np.ndarray, p: int) -> float:  # the variance counts among the p parameters
        variance = max(float(((y - fitted) ** 2).mean()), 1e-24)
        return len(y) * np.log(variance) + 2 * p + 2 * p * (p + 1) / max(len(y) - p - 1, 1)

    evidence = aicc(np.polyval((slope, start), x), 3) - aicc(curve(x, log_a, k, floor), 4)
    return float(k), float(floor), evidence


def _logarithms(n: Column, losses: Column) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of sizes and losses: of enough sizes, and of losses above 0."""
    n = np.asarray(n, float)
    losses = np.asarray(losses, float)
    if len(np.unique(n)) < FEWEST:
        sizes = f"there are {np.unique(n)}; widen the range or add sizes"
        raise StudyError(f"a fit needs at least {FEWEST} sizes; {sizes}.")
    if (losses <= 0).any():
        raise StudyError("a power law is fitted to logarithms; every loss must be above 0.")
    return np.log(n), np.log(losses)


def rank_correlation(
    x: Column, y: Column, again: Iterable[tuple[Column, Column]], units: int
) -> inference.Estimate:
    """Spearman's rho, with the standard error of the bootstraps ``again`` of x and y.

    ``units`` is the number of what is resampled: the t interval has 2 degrees of freedom less, and
    ends at -1 and 1. NaN where x or y is constant.
    """
    ranks = scipy.stats.rankdata(np.array([(x, y), *again], float), axis=-1)
    ranks -= ranks.mean(-1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of draws in which a column is constant: they are left out
        rho, *others = ranks.prod(-2).sum(-1) / np.sqrt((ranks**2).sum(-1).prod(-1))
        se = np.nanstd(others, ddof=1)
    found = inference.around(rho, se, max(units - 2, 1), units)
    low, high = np.clip(found[1:3], -1, 1) if found.df else found[1:3]
    return found._replace(low=float(low), high=float(high))
