"""What is kept of a run: means by hand, the same folds in every arm, and no image twice."""

import numpy as np
import pandas as pd
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
    table = folds.measured(logits, labels, 2.0, ("a", "b")).set_index("class")
    assert table["images"].to_dict() == {folds.ALL: 3, "a": 2, "b": 1}
    assert table.loc[folds.ALL, "top1"] == pytest.approx(2 / 3)
    assert table.loc[folds.ALL, "loss"] == pytest.approx(-np.log([0.5, 0.9, 0.2]).mean())
    root = np.sqrt([0.8, 0.2])
    assert table.loc["b", "calibrated"] == pytest.approx(-np.log(root[1] / root.sum()))
    assert table.loc["b", "top1"] == 0
    assert set(folds.measured(logits, labels, 1.0)["class"]) == {folds.ALL}


def test_a_fold_left_out_is_out_of_the_mean_and_of_nothing_else():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=70)
    logits = rng.normal(size=(70, 4))  # no image shows the fourth class
    table = folds.measured(logits, labels, 1.5, "abcd").set_index("class")
    assert list(table.index) == [folds.ALL, "a", "b", "c"]
    right = logits.argmax(1) == labels
    fold = folds.fold_of(labels)
    for i in range(folds.FOLDS):
        assert table.loc[folds.ALL, f"top1-{i}"] == pytest.approx(right[fold != i].mean())
        rest = (fold != i) & (labels == 1)
        assert table.loc["b", f"top1-{i}"] == pytest.approx(right[rest].mean())
        alone = folds.measured(logits[fold != i], labels[fold != i], 1.5).iloc[0]
        assert table.loc[folds.ALL, f"calibrated-{i}"] == pytest.approx(alone["calibrated"])


def test_what_was_measured_survives_in_few_bytes():
    rng = np.random.default_rng(0)
    parts = []
    for seed in range(2):
        table = folds.measured(rng.normal(size=(70, 3)), rng.integers(3, size=70), 1, "abc")
        parts.append(table.assign(arm="train", n=12, seed=seed, eval_set="test"))
    runs = pd.concat(parts, ignore_index=True)
    kept = folds.packed(runs)
    assert kept[["arm", "n", "runs"]].iloc[0].tolist() == ["train", 12, 2]
    of_all = runs[runs["class"] == folds.ALL]
    assert kept["top1"].iloc[0] == pytest.approx(of_all["top1"].mean(), abs=1e-4)
    assert len(kept["table"].iloc[0]) < 150 * len(runs)
    both = folds.unpacked([*kept["table"], *kept["table"]])
    pd.testing.assert_frame_equal(both[: len(runs)], runs, rtol=1e-11)
