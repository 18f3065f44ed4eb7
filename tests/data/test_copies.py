"""Copies of pictures are found, and strangers are not."""

import numpy as np

from helpers.data import copies
from helpers.pocket.render.blueprints import AIRCRAFT
from helpers.pocket.render.pictures import render
from helpers.pocket.render.scenes import sample_scene
from helpers.pocket.world.pool import near_copy


def test_copies_are_found_and_strangers_are_not():
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
