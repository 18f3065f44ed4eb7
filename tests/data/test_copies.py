"""Copies of pictures are found, and strangers are not."""

import types

import numpy as np
import pytest

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


@pytest.fixture(scope="module")
def drawings():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (92, 8, 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 4, 4, 1), np.uint8))


def bench(train, val, test):
    splits = {"train": train, "val": val, "test": test}
    splits = {name: types.SimpleNamespace(images=images) for name, images in splits.items()}
    return types.SimpleNamespace(task="drawings", **splits)


def test_what_a_benchmark_repeats_does_not_set_the_threshold(drawings, capsys):
    train, val, test, pool = np.split(drawings, [40, 72, 82])
    clean = copies.threshold(bench(train, val, test))
    assert clean == copies.FLOOR and "repeats" not in capsys.readouterr().out
    val = np.concatenate([train[:3], val[3:]])
    limit = copies.threshold(bench(train, val, np.concatenate([test, train[:2]])))
    said = capsys.readouterr().out
    assert "drawings repeats itself: 3 of 32 pictures of val are also in train" in said
    assert "drawings repeats itself: 2 of 12 pictures of test are also in train" in said
    assert f"of a similarity above {limit:.3f}" in said
    stolen = np.stack([near_copy(p, np.random.default_rng(i)) for i, p in enumerate(test)])
    candidates = np.concatenate([test, stolen, pool])
    found = copies.nearest(copies.descriptor(candidates), copies.descriptor(test)) > limit
    assert limit == clean and found[:10].all() and not found[20:].any()
    assert copies.threshold(bench(train, train[:5], test)) == copies.FLOOR


def test_of_many_independent_pairs_the_quantile_counts(drawings):
    many = np.random.default_rng(1).integers(0, 256, (1_010, 16, 16, 3), dtype=np.uint8)
    few = drawings[:10, :16, :16]
    x, y = copies.descriptor(many), copies.descriptor(few)
    expected = float(np.quantile(copies.nearest(x, y), copies.QUANTILE))
    assert copies.threshold(bench(few, many, few[:1])) == expected < copies.FLOOR
