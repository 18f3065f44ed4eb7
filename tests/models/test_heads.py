"""Ensembles of small classifiers equal single trainings, learn, and are measured by fold."""

import numpy as np
import pytest

from helpers import worlds
from helpers.errors import StudyError
from helpers.measure import folds
from helpers.measure.folds import ALL
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
    for a, b in zip(together, alone, strict=True):
        assert np.allclose(a[1].numpy(), b[0].numpy(), atol=1e-3)
    untrained = heads.start(16, 3, seeds, 8)[0]
    assert (untrained[0] == untrained[2]).all()
    assert not (untrained[0] == untrained[1]).all()


def test_heads_learn_and_are_measured_by_class_at_the_temperature_of_validation(blobs):
    features, labels = blobs
    subsets = [np.arange(3), np.arange(90)]
    trained = heads.train(features[:, :90], labels[:90], subsets, [0, 0], 3, W.scaling)
    held_out = (features[0, 90:], labels[90:])
    sets = {folds.VALIDATION: held_out, "test": held_out, "far": held_out}
    few, many = heads.evaluate(trained, sets, ("a", "b", "c"))
    assert set(many["eval_set"]) == {"test", "far"}
    assert set(many[many["eval_set"] == "far"]["class"]) == {ALL}
    assert set(many[many["eval_set"] == "test"]["class"]) == {ALL, "a", "b", "c"}
    few, many = (table[table["class"] == ALL] for table in (few, many))
    assert (many["loss"] < few["loss"]).all() and (many["top1"] > 0.8).all()
    # the temperature is that of these very images: it cannot make their loss larger
    for table in (few, many):
        assert (table["calibrated"] <= table["loss"] + 1e-6).all()


def test_a_head_needs_images(blobs):
    with pytest.raises(StudyError, match="without images"):
        heads.train(*blobs, [np.zeros(0, int)], [0], 3, W.scaling)
