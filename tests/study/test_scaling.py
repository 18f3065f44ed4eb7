"""Scaling runs: sizes, nested subsets, members of an ensemble, distances by hand."""

import types

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.data.tables import Split
from helpers.errors import StudyError
from helpers.study import arms, scaling

W = worlds.get("smoke")


def test_judges_numbers_by_hand(monkeypatch):
    labels = np.array([0, 0, 1, 1])
    split = Split(np.zeros((4, 1, 1, 3), np.uint8), labels)
    features = np.array([[3.0, 0.0], [0.0, 5.0], [1.0, 1.0], [1.0, 1.0]], np.float32)
    monkeypatch.setattr(arms, "images_of", lambda w, folder, name: split)
    monkeypatch.setattr(scaling, "subset", lambda *_: np.arange(4))
    bench = types.SimpleNamespace(classes=("a", "b"), val=split)
    monkeypatch.setattr(scaling.tables, "benchmark", lambda w, task: bench)
    seen = pd.DataFrame({"variant": ["a", "b", "b", "c"]})
    monkeypatch.setattr(worlds.backend(W), "judge", lambda w, images: seen)
    monkeypatch.setattr(worlds.backend(W), "judge_features", lambda w, images: features)
    monkeypatch.setattr(scaling, "frechet", lambda real, drawn: 1.5)
    table = scaling.judged(worlds.replace(W, scaling={"sizes": (4,)}), None, "train")
    first = table[table["draw"] == 0]
    assert first["recognizability"].tolist() == pytest.approx([2 / 3, 0.5])
    assert first["diversity"].tolist() == pytest.approx([((4.5 + 12.5) / 2) ** 0.5, 0])
    assert first["distance"].tolist() == pytest.approx([2**0.5, 0])
    again = table[table["draw"] > 0]
    assert again["draw"].nunique() == scaling.DRAWS and again["recognizability"].nunique() > 3
    assert again["diversity"].notna().all()  # images are drawn again inside their classes


def test_published_worlds_double_their_sizes():
    for name in ("pocket", "paper"):
        sizes = np.array(worlds.get(name).scaling.sizes)
        assert len(sizes) >= 5 and (sizes[1:] == 2 * sizes[:-1]).all()


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


def test_no_set_gives_more_than_half_of_its_images(offered):
    assert list(scaling.shares(W, None, "retrieved")) == [12, 24, 32, 40, 48, 96]
    assert list(scaling.shares(W, None, "mixed")) == [12, 24, 32, 40, 48, 96]
    assert list(scaling.shares(W, None, "guidance-1")) == [12, 24, 32, 40, 48]
    few = scaling.shares(W, None, arms.FEW_REAL)
    assert few[12] == {"train": 12, "synthetic": 48}
    with pytest.raises(StudyError, match="fewer than 2 times 12 images"):
        scaling.shares(W, None, "small")


def test_arms_of_one_set_of_captions_share_their_subsets_and_seeds_do_not(offered, monkeypatch):
    rows = np.random.default_rng(0).permutation(200)[:96]
    monkeypatch.setattr(arms, "shared_rows", lambda w: rows)
    labels = np.arange(200) % 3
    guided = Split(np.zeros((96, 1, 1, 3), np.uint8), labels[rows])
    of_set = arms.images_of
    monkeypatch.setattr(
        arms, "images_of", lambda w, f, name: guided if "-" in name else of_set(w, f, name)
    )
    other = scaling.subset(W, None, "guidance-1", 24, 0)
    assert (rows[other] == scaling.subset(W, None, "synthetic", 24, 0)).all()
    assert set(other) < set(scaling.subset(W, None, "guidance-1", 48, 0))
    assert set(other) != set(scaling.subset(W, None, "guidance-1", 24, 1))
    assert set(other) != set(scaling.subset(W, None, "prompt-templates", 24, 0))


def test_every_size_and_seed_of_a_block_is_measured(offered, monkeypatch):
    subsets = []
    train = scaling.heads.train

    def watched(features, labels, rows, seeds, classes, settings):
        subsets.extend(rows)
        return train(features, labels, rows, seeds, classes, settings)

    monkeypatch.setattr(scaling.heads, "train", watched)
    monkeypatch.setattr(arms, "shared_rows", lambda w: np.arange(96))
    table = scaling.run(W, None, "mixed", range(1, 3))
    runs = table[["arm", "n", "seed", "eval_set"]].drop_duplicates()
    assert len(runs) == len(subsets) == 6 * 2 and set(runs["seed"]) == {1, 2}
    assert table.groupby(["n", "seed"])["images"].sum().eq(200).all()
    assert set(table["class"]) == {"all"} and table["calibrated"].notna().all()
    for n, rows in zip(runs["n"], subsets, strict=True):
        assert len(rows) == n and (rows < 200).sum() == n - n // 2  # half of them are real
    alone = scaling.run(W, None, "synthetic", range(1))
    assert set(alone["class"]) == {"all", "a", "b", "c"}
