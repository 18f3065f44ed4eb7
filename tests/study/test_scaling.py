"""Scaling runs: sizes, nested subsets, members of an ensemble, distances by hand."""

import dataclasses
import types

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.data.tables import Split
from helpers.engine import store
from helpers.errors import StudyError
from helpers.measure import folds
from helpers.study import arms, runs, scaling

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
        rng = np.random.default_rng(list(name.encode()))
        return rng.normal(size=(2, len(images_of(None, None, name)), 8)).astype(np.float32)

    monkeypatch.setattr(arms, "images_of", images_of)
    monkeypatch.setattr(arms, "embedding", embedding)
    held_out = {name: images_of(W, None, name) for name in (folds.VALIDATION, "test")}
    monkeypatch.setattr(arms, "evaluation_sets", lambda w: held_out)
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


def test_every_seed_of_a_block_is_trained_on_images_of_its_own(offered, monkeypatch):
    trained_on = []
    train = scaling.heads.train

    def watched(features, labels, rows, *others):
        trained_on.extend(features[0, of_seed] for of_seed in rows)
        return train(features, labels, rows, *others)

    monkeypatch.setattr(scaling.heads, "train", watched)
    monkeypatch.setattr(arms, "shared_rows", lambda w: np.arange(96))
    kept = scaling.run(W, None, "mixed", 24, range(1, 3))
    table = folds.unpacked(kept["table"])
    assert kept[["arm", "n", "runs"]].iloc[0].tolist() == ["mixed", 24, 2]
    assert table["seed"].tolist() == [1, 2] and table["images"].eq(200).all()
    assert set(table["class"]) == {"all"} and table["calibrated"].notna().all()
    real, drawn = (arms.embedding(None, name)[0] for name in ("retrieved", "synthetic"))
    for x in trained_on:
        assert len(x) == 24
        assert [sum((row == of).all(1).any() for row in x) for of in (real, drawn)] == [12, 12]
    assert not np.array_equal(*trained_on)
    alone = folds.unpacked(scaling.run(W, None, "synthetic", 12, range(1))["table"])
    assert set(alone["class"]) == {"all", "a", "b", "c"}


FEW = {"guidances": (), "prompts": (), "generators": ("long",), "steps": 4, "hidden": 8}
DESK = dataclasses.replace(worlds.replace(W, scaling=FEW), name="desk", keeps_runs=True)


@pytest.fixture
def desk(offered, monkeypatch, tmp_path):
    """``made(folder, **settings)`` builds ``scaled`` of the desk: its runs, and how many are new.

    Stops after ``most`` of them, as if killed.
    """
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path / "shown"))
    monkeypatch.setattr(runs.places, "TOP", tmp_path)
    monkeypatch.setattr(store.workers.gpu, "cores", lambda: 1)
    monkeypatch.setattr(arms, "shared_rows", lambda w: np.arange(96))
    monkeypatch.setattr(store, "load", lambda name, w: types.SimpleNamespace(path=None))
    monkeypatch.setattr(scaling, "judged", lambda w, folder, name: pd.DataFrame({"arm": [name]}))
    run = scaling.run

    def made(folder, most=10**6, **settings):
        blocks = []

        def counted(*arguments):
            if len(blocks) == most:
                raise KeyboardInterrupt
            blocks.append(arguments[2:])
            return run(*arguments)

        monkeypatch.setattr(scaling, "run", counted)
        path = tmp_path / folder
        scaling.make.__wrapped__(path, worlds.replace(DESK, scaling=settings))
        return store.read_table(path / "runs.parquet"), blocks

    return made


def test_finished_runs_are_kept_for_other_machines_and_more_seeds_add_only_theirs(desk):
    ran, blocks = desk("first", seeds=5)
    assert len(blocks) == 4 * 6 + 5  # arms x sizes, and real images with drawn ones
    again, new = desk("second", seeds=5)
    assert not new, "rows beside the figures say it all"
    pd.testing.assert_frame_equal(ran, again, check_exact=True)
    more, new = desk("third", seeds=10)
    assert len(new) == len(blocks) and {tuple(seeds) for *_, seeds in new} == {(5, 6, 7, 8, 9)}
    first = more[more["seed"] < 5].reset_index(drop=True)
    pd.testing.assert_frame_equal(ran, first, check_exact=True)
    kept = runs.kept(DESK, "06")
    assert not kept["run"].duplicated().any() and kept["recipe"].nunique() == 1
    _, new = desk("fourth", seeds=5, sizes=(12, 20, 24, 32, 40, 48))
    assert {n for _, n, _ in new} == {20}, "a size between others changes none of them"
    _, new = desk("fifth", seeds=5, steps=5)
    assert len(new) == len(blocks), "other settings are other runs"


def test_a_killed_build_goes_on_and_finds_the_same(desk, monkeypatch, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        desk("killed", most=7, seeds=5)
    assert not len(runs.kept(DESK, "06"))
    ran, new = desk("killed", seeds=5)
    assert len(new) == 4 * 6 + 5 - 7
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path / "without rows"))
    whole, new = desk("whole", seeds=5)
    assert len(new) == 4 * 6 + 5
    pd.testing.assert_frame_equal(ran, whole, check_exact=True)
