"""Images that stay on disk are indexed and saved like an array in memory."""

import numpy as np

from helpers.data import shards, tables


def test_lazy_images_are_indexed_like_an_array(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (11, 4, 4, 3), dtype=np.uint8)
    lazy = shards.Lazy(images[:3], images[3:3], images[3:])
    keys = (2, -1, slice(1, 9, 2), np.array([10, 0, 3, 3]), [4, 2], np.arange(11) % 2 == 0)
    assert all(np.array_equal(lazy[k], images[k]) for k in keys) and len(lazy[5:5]) == 0
    assert np.array_equal(lazy.take([7, 1, 2]).take([1, 0]), images[[1, 7]]) and np.array_equal(
        np.asarray(lazy), images
    )
    split = tables.Split(lazy, np.arange(11))
    assert np.array_equal(split.take([9, 2]).plus(split).images[:4], images[[9, 2, 0, 1]])
    np.save(tmp_path / "whole.npy", images)
    with (tmp_path / "lazy.npy").open("wb") as file:
        lazy.save(file, chunk=4)
    assert (tmp_path / "lazy.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
