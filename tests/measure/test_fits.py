"""Scaling laws recover exponents and floors that are known."""

import numpy as np
import pytest
from scipy import stats

from helpers.errors import StudyError
from helpers.measure import fits

SIZES = np.array([12, 24, 48, 96, 192, 384, 768])


@pytest.mark.parametrize("k", [0.05, 0.25, 0.53])
def test_power_law_recovers_exponents_of_many_curves_at_once(k):
    curves = np.stack([3.0 * SIZES**-k, 7.0 * SIZES**-0.1], axis=1)
    found, b = fits.power_law(SIZES, curves)
    assert found == pytest.approx([k, 0.1])
    assert np.exp(b) == pytest.approx([3, 7])
    noisy = curves[:, 0] * np.exp(0.03 * np.random.default_rng(0).normal(size=len(SIZES)))
    assert fits.power_law(SIZES, noisy)[0] == pytest.approx(k, abs=0.03)


def test_saturation_is_preferred_only_where_there_is_a_floor():
    n = np.repeat(SIZES, 4)
    noise = np.exp(0.01 * np.random.default_rng(0).normal(size=len(n)))
    k, floor, evidence = fits.saturating(n, (0.8 + 6.0 * n**-0.7) * noise)
    _, _, of_straight = fits.saturating(n, 3.0 * n**-0.3 * noise)
    assert evidence > 0
    assert floor == pytest.approx(0.8, abs=0.1)
    assert k == pytest.approx(0.7, abs=0.12)
    assert of_straight <= 0


def test_fits_refuse_what_they_cannot_fit():
    loss = 3.0 * SIZES**-0.3
    with pytest.raises(StudyError, match="at least 3 sizes"):
        fits.power_law(SIZES[:2], loss[:2])
    with pytest.raises(StudyError, match="above 0"):
        fits.saturating(SIZES, 0 * loss)
    with pytest.raises(StudyError, match="every seed"):
        fits.power_law(SIZES, np.where(SIZES == 24, np.nan, loss))


def test_rank_correlation_by_hand_and_its_interval_from_bootstraps():
    x = np.arange(20)
    rng = np.random.default_rng(0)
    y = x + 6 * rng.normal(size=20)

    def again(y):
        rows = [rng.integers(20, size=20) for _ in range(300)]
        return [(x[r], y[r]) for r in rows]

    assert fits.rank_correlation(x, x**3, again(y), 20).value == pytest.approx(1)
    found = fits.rank_correlation(x, y, again(y), 20)
    assert 0 < found.low < found.value < found.high <= 1 and found.df == 18
    tied = (x // 4, np.round(y / 9))
    assert fits.rank_correlation(*tied, [], 20).value == pytest.approx(stats.spearmanr(*tied)[0])
    assert np.isnan(fits.rank_correlation(x, 0 * x, again(0 * x), 20).value)


def test_intervals_of_rank_correlations_end_where_there_is_no_more():
    x = np.arange(6)
    y = np.array([0, 1, 2, 3, 5, 4])
    again = [(x, y), (x, x), (x, y[[1, 0, 2, 3, 4, 5]])]
    up, down = (fits.rank_correlation(x, side, again, 6) for side in (y, -y))
    assert up.high == 1 and down.low == -1 and -1 < down.high < up.low < 1
    assert up.value - up.low == pytest.approx(up.se * stats.t.ppf(0.975, 4))
