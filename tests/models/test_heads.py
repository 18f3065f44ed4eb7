"""Ensembles of small classifiers equal single trainings, learn, and are measured per class."""

import numpy as np
import pytest

from helpers import worlds
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
    subsets = [np.arange(6), np.arange(60), np.arange(30)]
    seeds = [5, 6, 5]
    together = heads.train(features, labels, subsets, seeds, 3, W.scaling)
    alone = heads.train(features, labels, subsets[1:2], seeds[1:2], 3, W.scaling)
    for a, b in zip(together.parameters, alone.parameters, strict=True):
        assert np.allclose(a[1].numpy(), b[0].numpy(), atol=1e-3)
    untrained = heads.start(16, 3, seeds, 8).parameters[0]
    assert (untrained[0] == untrained[2]).all()
    assert not (untrained[0] == untrained[1]).all()


def test_heads_learn_and_are_measured_per_class(blobs):
    features, labels = blobs
    subsets = [np.arange(3), np.arange(90)]
    trained = heads.train(features[:, :90], labels[:90], subsets, [0, 0], 3, W.scaling)
    loss, top1 = heads.evaluate(trained, features[0, 90:], labels[90:], 3)
    assert loss.shape == top1.shape == (2, 3)
    assert loss[1].mean() < loss[0].mean()
    assert top1[1].mean() > 0.8


def test_a_head_needs_images(blobs):
    with pytest.raises(StudyError, match="without images"):
        heads.train(*blobs, [np.zeros(0, int)], [0], 3, W.scaling)
