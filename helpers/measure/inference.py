"""Intervals: what a number from a few runs may say."""

from __future__ import annotations

import numpy as np


def interval(values) -> tuple[float, float, float]:
    """Mean with its 95 % t-interval over seeds: (mean, low, high); the interval is the mean where there is one value."""
    from scipy import stats

    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def share_interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``right`` out of ``n``: (low, high) in 0..1."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.959964, right / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float((centre - half) / (1 + z * z / n)), float((centre + half) / (1 + z * z / n))
