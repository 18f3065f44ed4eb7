"""Intervals: what a number from a few runs may say."""

from collections.abc import Sequence

import numpy as np


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Mean, 95 % t-interval over seeds: (mean, low, high); one value is its own interval."""
    from scipy import stats

    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def share_interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the share ``right / n``: (low, high); 0 to 1 where ``n`` is 0."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    low, high = binomtest(int(right), int(n)).proportion_ci(method="wilson")
    return float(low), float(high)
