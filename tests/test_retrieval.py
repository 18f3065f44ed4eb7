"""Semantic search on planted neighbours, rules united, filters by hand, copies found, errors."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.data import copies
from helpers.pocket.world.pool import near_copy


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 12))
def test_every_duplicate_repeats_one_that_stays_and_blocks_leave_no_trace(seed, n, block):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)) + 2 * rng.normal(size=(5, 6))[rng.integers(0, 5, n)]
    x = np.rint(copies.SCALE * x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.int16)
    again, near = (
        copies.duplicates(x, 0.95, block),
        x.astype(int) @ x.T.astype(int) > 0.95 * copies.SCALE**2,
    )
    for i in range(n):
        assert again[i] == (near[i, :i] & ~again[:i]).any()


def test_copies_are_found_and_strangers_are_not():
    from tests.test_pocket import AIRCRAFT, render, sample_scene

    def pictures(n, start):
        made = []
        for i in range(start, start + n):
            scene = sample_scene(np.random.default_rng(i), "benchmark")
            made.append(render(list(AIRCRAFT.values())[i % 24], scene, i).pixels)
        return np.stack(made)

    held_out, others = pictures(40, 0), pictures(40, 1_000)
    stolen = np.stack([near_copy(p, np.random.default_rng(i)) for i, p in enumerate(held_out)])
    held_out, stolen, others = map(copies.descriptor, (held_out, stolen, others))
    assert np.median(copies.nearest(stolen, held_out)) > np.quantile(
        copies.nearest(others, held_out), 0.95
    )
    for made in (held_out, stolen, others):  # products stay exact in float32
        assert np.square(made.astype(int)).sum(1).max() < 2**24
