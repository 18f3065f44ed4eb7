"""Scaling laws fitted to losses: the power law with a bootstrap interval, a form that saturates, and which of them is preferred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helpers.errors import StudyError

FEWEST = 3  # sizes: a line through two points always fits


@dataclass(frozen=True)
class PowerLaw:
    """log L = -k log N + b on the sizes ``n_min`` to ``n_max``, with a 95 % interval of k."""

    k: float
    b: float
    k_low: float
    k_high: float
    n_min: int
    n_max: int
    points: int  # sizes in the fit

    def loss(self, n) -> np.ndarray:
        """The loss that the law gives for sizes ``n``."""
        return np.exp(self.b) * np.asarray(n, float) ** -self.k


@dataclass(frozen=True)
class Saturating:
    """L = floor + a N^-k, and ``evidence``: AICc of the plain power law minus its own, above 0 where this form is preferred."""

    k: float
    a: float
    floor: float
    evidence: float

    @property
    def preferred(self) -> bool:
        """Whether a floor explains the points better than a straight line, its additional parameter counted."""
        return self.evidence > 0


def _chosen(n, loss, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    n, loss = np.asarray(n, float), np.asarray(loss, float)
    inside = (n >= low) & (n <= high)
    if len(np.unique(n[inside])) < FEWEST:
        raise StudyError(
            f"a fit from {low} to {high} images needs at least {FEWEST} sizes; there are "
            f"{sorted({int(v) for v in n[inside]})} of {sorted({int(v) for v in n})}. Widen the range, or add sizes."
        )
    if not (loss[inside] > 0).all():
        raise StudyError("a power law is fitted to logarithms; every loss must be above 0.")
    return n[inside], loss[inside]


def power_law(
    n, loss, seed, low: int, high: int, rng: np.random.Generator, draws: int = 1_000
) -> PowerLaw:
    """Least squares in logarithms on ``low <= n <= high``; one entry of ``n``, ``loss``, ``seed`` per run.

    The interval comes from ``draws`` bootstraps over seeds, whole curves at a time, as the sizes of one seed are nested.
    Raises ``StudyError`` on fewer than three sizes, a loss that is not positive, or seeds that lack a size.
    """
    inside = (np.asarray(n) >= low) & (np.asarray(n) <= high)
    n, loss = _chosen(n, loss, low, high)
    sizes, row = np.unique(n, return_inverse=True)
    seeds, column = np.unique(np.asarray(seed)[inside], return_inverse=True)
    logs = np.full((len(sizes), len(seeds)), np.nan)
    logs[row, column] = np.log(loss)
    if np.isnan(logs).any():
        raise StudyError(
            "every seed needs a run at every size of the fit; run notebook 06 again to complete them."
        )
    x = np.log(sizes)
    centred = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    k = -float(centred @ logs.mean(1))
    again = logs[:, rng.integers(len(seeds), size=(draws, len(seeds)))].mean(-1)
    k_low, k_high = np.quantile(-centred @ again, (0.025, 0.975))
    return PowerLaw(
        k,
        float(logs.mean() + k * x.mean()),
        float(k_low),
        float(k_high),
        int(sizes[0]),
        int(sizes[-1]),
        len(sizes),
    )


def aicc(residuals: np.ndarray, parameters: int) -> float:
    """Akaike's criterion of a least-squares fit, corrected for few points; the variance counts as a parameter."""
    m, p = len(residuals), parameters + 1
    return (
        m * np.log(max(float((residuals**2).mean()), 1e-24))
        + 2 * p
        + 2 * p * (p + 1) / max(m - p - 1, 1)
    )


def saturating(n, loss, low: int, high: int) -> Saturating:
    """Fit L = floor + a N^-k by least squares in log L (scipy), and compare it with the power law on the same points.

    One entry of ``n``, ``loss`` per run. Sizes of one seed are nested, so evidence within a few units of 0 is a tie.
    """
    from scipy.optimize import curve_fit

    n, loss = _chosen(n, loss, low, high)
    x, y = np.log(n), np.log(loss)
    slope, start = np.polyfit(x, y, 1)

    def curve(x, log_a, k, floor):
        return np.log(floor + np.exp(log_a - k * x))

    guess = (start, max(-slope, 0.01), 0.5 * loss.min())
    bounds = ((-20, 0, 0), (20, 5, float(loss.min())))
    (log_a, k, floor), _ = curve_fit(
        curve, x, y, np.clip(guess, *bounds), bounds=bounds, max_nfev=20_000
    )
    straight = aicc(y - np.polyval((slope, start), x), 2)
    return Saturating(
        float(k),
        float(np.exp(log_a)),
        float(floor),
        straight - aicc(y - curve(x, log_a, k, floor), 3),
    )


def rank_correlation(
    x, y, rng: np.random.Generator, draws: int = 1_000
) -> tuple[float, float, float]:
    """Spearman's rho of two columns with a bootstrap interval over rows: (rho, low, high); nan where a column is constant."""
    from scipy.stats import rankdata

    x, y = np.asarray(x, float), np.asarray(y, float)

    def rho(rows):
        a, b = rankdata(x[rows]), rankdata(y[rows])
        spread = a.std() * b.std()
        return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else float("nan")

    again = [rho(rng.integers(len(x), size=len(x))) for _ in range(draws)]
    low, high = (
        np.nanquantile(again, (0.025, 0.975)) if not np.isnan(again).all() else (float("nan"),) * 2
    )
    return rho(np.arange(len(x))), float(low), float(high)
