"""Scaling laws recover exponents and floors that are known."""

import numpy as np
import pytest

from helpers.errors import StudyError
from helpers.measure import fits

SIZES = np.array([12, 24, 48, 96, 192, 384, 768])


def runs_of(curve, noise=0.0, seeds=4):
    rng = np.random.default_rng(0)
    n, seed = np.repeat(SIZES, seeds), np.tile(np.arange(seeds), len(SIZES))
    return n, curve(n) * np.exp(noise * rng.normal(size=len(n))), seed


@pytest.mark.parametrize("k", [0.05, 0.25, 0.53])
def test_power_law_recovers_the_exponent_inside_its_interval(k):
    law = fits.power_law(*runs_of(lambda n: 3.0 * n**-k, 0.03), 24, 384, np.random.default_rng(1))
    assert (
        law.k == pytest.approx(k, abs=0.03)
        and law.k_low <= law.k <= law.k_high
        and law.k_high - law.k_low < 0.1
    )
    assert (law.n_min, law.n_max, law.points) == (24, 384, 5)
    assert np.exp(law.b) * 100**-law.k == pytest.approx(3.0 * 100**-k, rel=0.06)


def test_points_outside_the_declared_range_do_not_count():
    n, loss, seed = runs_of(lambda n: 3.0 * n**-0.3)
    bent = np.where((n < 24) | (n > 384), 99.0, loss)
    assert fits.power_law(n, bent, seed, 24, 384, np.random.default_rng(0)).k == pytest.approx(0.3)


def test_saturation_is_preferred_only_where_there_is_a_floor():
    k, floor, evidence = fits.saturating(*runs_of(lambda n: 0.8 + 6.0 * n**-0.7, 0.01)[:2], 12, 768)
    _, _, of_straight = fits.saturating(*runs_of(lambda n: 3.0 * n**-0.3, 0.01)[:2], 12, 768)
    assert evidence > 0
    assert floor == pytest.approx(0.8, abs=0.1)
    assert k == pytest.approx(0.7, abs=0.12)
    assert of_straight <= 0


def test_fits_refuse_what_they_cannot_fit():
    n, loss, seed = runs_of(lambda n: 3.0 * n**-0.3)
    with pytest.raises(StudyError, match="at least 3 sizes"):
        fits.power_law(n, loss, seed, 300, 1_000, np.random.default_rng(0))
    with pytest.raises(StudyError, match="above 0"):
        fits.saturating(n, 0 * loss, 12, 768)
    with pytest.raises(StudyError, match="every seed"):
        fits.power_law(n[1:], loss[1:], seed[1:], 12, 768, np.random.default_rng(0))


def test_rank_correlation_by_hand():
    x = np.arange(20)
    assert fits.rank_correlation(x, x**3, np.random.default_rng(0))[0] == pytest.approx(1)
    rho, low, high = fits.rank_correlation(
        x, np.random.default_rng(3).permutation(20), np.random.default_rng(0)
    )
    assert low <= rho <= high and low < 0 < high
    assert np.isnan(fits.rank_correlation(x, 0 * x, np.random.default_rng(0))[0])
