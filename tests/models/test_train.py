"""The schedule by hand; the order of images."""

import numpy as np
import pytest

from helpers.models.train import Batches, Schedule


def test_cosine_by_hand():
    rates = [Schedule(10, 8, 1.0, warmup=2).rate(i) for i in range(10)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2] == 1.0
    assert rates[6] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.5 * (1 + np.cos(np.pi * 7 / 8)))


@pytest.mark.parametrize(
    ("cooldown", "step", "rate"),
    [(None, 0, 0.1), (None, 9, 1.0), (None, 54, 0.5), (50, 49, 1.0), (50, 75, 0.5), (50, 99, 0.02)],
)
def test_rate_with_and_without_a_cooldown(cooldown, step, rate):
    schedule = Schedule(100, 8, 1.0, warmup=10, cooldown=cooldown)
    assert schedule.rate(step) == pytest.approx(rate, abs=0.02)


def test_batches_are_permutations_end_to_end_drawn_when_needed():
    rng = np.random.default_rng(0)
    drawn = []

    def permutation():
        drawn.append(rng.permutation(5))
        return drawn[-1]

    order = Batches(3, permutation)
    batches = [next(order)]
    assert len(drawn) == 1
    batches += [next(order) for _ in range(4)]
    assert np.array_equal(np.concatenate(batches), np.concatenate(drawn))
    assert all(sorted(p) == [0, 1, 2, 3, 4] for p in drawn)
    assert len(order.waiting) == 0
