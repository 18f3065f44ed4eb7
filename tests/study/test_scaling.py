"""Scaling runs: sizes, nested subsets, members of an ensemble, distances by hand."""

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.data.tables import Split
from helpers.errors import StudyError
from helpers.study import arms, scaling

W = worlds.get("smoke")


def test_spread_and_pairwise_distance_by_hand():
    assert scaling.spread(np.array([[0.0, 0.0], [2.0, 0.0]]))[0] == pytest.approx(1.0)
    assert scaling.spread(np.array([[3.0, 0.0], [0.0, 5.0]]))[1] == pytest.approx(2**0.5)
    assert np.isnan(scaling.spread(np.ones((1, 4)))).all()


def test_published_worlds_double_their_sizes():
    for name in ("pocket", "paper"):
        sizes = np.array(worlds.get(name).scaling.sizes)
        assert len(sizes) >= 6 and (sizes[1:] == 2 * sizes[:-1]).all()


@pytest.fixture
def offered(monkeypatch):
    """Sets of 200 images, and of 10 in "small", with three classes and an embedding each."""

    def images_of(w, folder, name):
        n = 10 if name == "small" else 200
        return Split(np.zeros((n, 1, 1, 3), np.uint8), np.arange(n) % 3)

    def embedding(folder, name):
        rng = np.random.default_rng(len(name))
        return rng.normal(size=(2, len(images_of(None, None, name)), 8)).astype(np.float32)

    monkeypatch.setattr(arms, "images_of", images_of)
    monkeypatch.setattr(arms, "embedding", embedding)
    monkeypatch.setattr(arms, "evaluation_sets", lambda w: {"test": images_of(w, None, "test")})
    bench = type("Benchmark", (), {"classes": ("a", "b", "c")})
    monkeypatch.setattr(scaling.tables, "benchmark", lambda w, task: bench)


def test_only_sources_that_offer_more_go_beyond_the_common_sizes(offered):
    assert scaling.sizes(W, None, "retrieved") == [12, 24, 48, 96, 192]
    assert scaling.sizes(W, None, "mixed") == [12, 24, 48, 96, 192]
    assert scaling.sizes(W, None, "guidance-1") == [12, 24, 48, 96]
    with pytest.raises(StudyError, match="offers 10 images"):
        scaling.sizes(W, None, "small")


def test_every_size_and_seed_of_an_arm_is_measured_class_by_class(offered, monkeypatch):
    subsets = []

    def train(features, labels, rows, seeds, classes, settings):
        subsets.extend(rows)
        return len(rows)

    def evaluate(members, features, labels, classes):
        values = np.arange(members * classes, dtype=float).reshape(members, classes)
        return values, values / 100

    monkeypatch.setattr(scaling.heads, "train", train)
    monkeypatch.setattr(scaling.heads, "evaluate", evaluate)
    table = scaling.run(W, None, "mixed")
    assert list(table) == ["arm", "n", "seed", "eval_set", "class", "images", "loss", "top1"]
    assert len(table) == 3 * len(subsets) == 3 * 5 * W.scaling.seeds
    assert table["images"].groupby(table["class"]).first().tolist() == [67, 67, 66]
    for n, rows in zip(table["n"][::3], subsets, strict=True):
        assert len(rows) == n and (rows < 200).sum() == n - n // 2  # half of them are real
    few = scaling.few_real(W, None, 96)
    assert few["n"].min() == 0 and set(few["added"]) == {96}
    assert pd.unique(few["arm"]).tolist() == [scaling.FEW_REAL]
