"""What is kept of a run: sums by hand, the same folds in every arm, and no image twice."""

import numpy as np
import pytest

from helpers.measure import folds


def test_each_class_is_dealt_out_evenly_and_small_classes_fill_all_folds():
    labels = np.repeat(np.arange(24), 20)
    fold = folds.fold_of(labels)
    for label in range(24):
        assert np.bincount(fold[labels == label]).tolist() == [2] * folds.FOLDS
    assert set(folds.fold_of(np.arange(24) % 24)) == set(range(folds.FOLDS))


def test_losses_and_accuracy_by_hand():
    labels = np.array([0, 0, 1])
    logits = np.log(np.array([[0.5, 0.5], [0.9, 0.1], [0.8, 0.2]]))
    table = folds.measured(logits, labels, 2.0, ("a", "b"))
    all_ = table[table["class"] == folds.ALL]
    of_class = table[table["class"] != folds.ALL]
    assert all_["images"].sum() == of_class["images"].sum() == 3
    assert (all_["top1"] * all_["images"]).sum() == pytest.approx(2)
    total = (all_["loss"] * all_["images"]).sum()
    assert total == pytest.approx(-np.log([0.5, 0.9, 0.2]).sum())
    last = of_class[of_class["class"] == "b"].iloc[0]
    root = np.sqrt([0.8, 0.2])
    assert last["calibrated"] == pytest.approx(-np.log(root[1] / root.sum()))
    assert last["top1"] == 0 and last["images"] == 1
    assert set(folds.measured(logits, labels, 1.0)["class"]) == {folds.ALL}
