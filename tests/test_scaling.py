"""Scaling: fits recover known exponents, ensembles equal single trainings, metrics by hand, shifted sets, arms by one factor."""

import numpy as np
import pytest

from helpers import worlds
from helpers.data import tables
from helpers.errors import StudyError
from helpers.models import heads

W = worlds.get("smoke")


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    x = np.eye(3)[labels] @ rng.normal(size=(3, 16)) + 0.7 * rng.normal(size=(120, 16))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return np.stack([x, x]), labels


def test_a_member_does_not_depend_on_its_neighbours(blobs):
    features, labels = blobs
    subsets, seeds = [np.arange(6), np.arange(60), np.arange(30)], [5, 6, 5]
    together = heads.train(features, labels, subsets, seeds, 3, W.scaling)
    alone = heads.train(features, labels, subsets[1:2], seeds[1:2], 3, W.scaling)
    for a, b in zip(together.parameters, alone.parameters, strict=True):
        assert np.allclose(a[1].numpy(), b[0].numpy(), atol=1e-3)
    untrained = heads.start(16, 3, seeds, 8).parameters[0]
    assert (untrained[0] == untrained[2]).all() and not (untrained[0] == untrained[1]).all()


def test_heads_learn_and_are_measured_per_class(blobs):
    features, labels = blobs
    trained = heads.train(
        features[:, :90], labels[:90], [np.arange(3), np.arange(90)], [0, 0], 3, W.scaling
    )
    loss, top1 = heads.evaluate(trained, features[0, 90:], labels[90:], 3)
    assert (
        loss.shape == top1.shape == (2, 3)
        and loss[1].mean() < loss[0].mean()
        and top1[1].mean() > 0.8
    )
    with pytest.raises(StudyError, match="without images"):
        heads.train(features, labels, [np.zeros(0, int)], [0], 3, W.scaling)


def test_published_points_are_complete_and_marked_by_family():
    from helpers import paper, pocket

    table = paper.published(worlds.get("paper"))
    assert table.groupby("family").size().to_dict() == {"language-supervised": 12, "supervised": 12}
    one = table[(table["prompt"] == "captions") & (table["n"] == 16_000_000)].iloc[0]
    assert (one["top1"], one["loss"]) == (0.604, 1.81) and table["top1"].between(0, 1).all()
    assert not len(pocket.published(W)) and list(pocket.published(W)) == list(table)


@pytest.fixture(scope="module")
def store_of(tmp_path_factory):
    """A tiny smoke world with a pool of its own in the store."""
    monkey = pytest.MonkeyPatch()
    monkey.setenv("STUDY_RUNS", str(tmp_path_factory.mktemp("runs")))
    tables.benchmark.cache_clear()
    yield worlds.get("smoke", pool={"rows": 400, "shard_rows": 400, "benchmark_per_class": 2})
    monkey.undo()
