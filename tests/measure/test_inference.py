"""Intervals by hand."""

import numpy as np
import pytest

from helpers.measure import inference


def test_intervals():
    mean, low, high = inference.interval([1.0, 2.0, 3.0])
    assert (
        mean == 2
        and high - mean == pytest.approx(4.302653 / 3**0.5, rel=1e-5)
        and mean - low == pytest.approx(high - mean)
    )
    assert inference.interval([2.0]) == (2, 2, 2)
    assert inference.share_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)
    assert inference.share_interval(np.int64(0), np.int64(0)) == (0, 1)
