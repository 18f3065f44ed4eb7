"""What images of guided generators show: numbers that are known beforehand, and whole tables."""

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.data import tables
from helpers.engine import store
from helpers.errors import NotKnown
from helpers.study import guided, looks

W = worlds.get("smoke")
K = W.mixes.shots[-1]


@pytest.fixture
def mixed(smoke, monkeypatch):
    """The folder of ``mixed`` in a store in which the whole study has run."""
    monkeypatch.setenv("STUDY_RUNS", str(smoke[0] / "runs"))
    return store.load("mixed", W).path


def test_every_guide_and_control_is_looked_at_with_every_seed(mixed):
    table = pd.read_parquet(mixed / "looks.parquet")
    assert set(table["way"]) == {*looks.CONTROLS, *guided.GUIDES}
    assert (table.groupby(["way", "k"])["seed"].nunique() == W.mixes.seeds).all()
    shares = table[["near", "axles", "type", "read"]]
    assert (shares.isna() | ((shares >= 0) & (shares <= 1))).all().all()
    assert set(table.loc[table["near"].isna(), "way"]) == {looks.REAL}
    first = table.iloc[0]
    again = looks.measured(W, mixed, first["way"], "", first["k"], first["seed"])
    pd.testing.assert_series_equal(again.iloc[0], first[list(again)], check_names=False)


def test_a_guide_that_gives_back_what_it_learned_draws_near_copies_only(mixed, tmp_path):
    task = W.mixes.tasks[0]
    few = guided.real_images(W, task, K, 0)
    few = few.take(np.argsort(few.labels, kind="stable").reshape(-1, K).T.ravel())  # in turns
    file = tmp_path / guided.file_of(task, f"data set {K}", 0)
    store.write(file, np.asarray(few.images))
    found = looks.measured(W, tmp_path, "data set", f"data set {K}", K, 0).iloc[0]
    real = looks.measured(W, tmp_path, looks.REAL, "", K, 0).iloc[0]
    assert found["near"] == 1
    for number in ("axles", "type", "background", "spread"):
        assert found[number] == pytest.approx(real[number], abs=1e-5), number
    noise = np.random.default_rng(0).integers(0, 256, few.images.shape, dtype=np.uint8)
    store.write(file, noise)
    assert looks.measured(W, tmp_path, "data set", f"data set {K}", K, 0)["near"].item() == 0


def test_what_learned_from_retrieved_images_is_held_against_these(mixed):
    task = W.mixes.tasks[0]
    real, retrieved = (guided.learned(W, task, way, K, 0) for way in ("plain", "retrieved"))
    assert len(real) == len(retrieved) == K * len(tables.benchmark(W, task).classes)
    offered = tables.source_set(W, task, "retrieved").facts["row"]
    assert set(retrieved.facts["row"]) <= set(offered) and "row" not in real.facts


def test_the_autoencoder_gives_back_images_of_the_same_form(mixed):
    images = np.asarray(guided.real_images(W, W.mixes.tasks[0], 3, 0).images)
    again = looks.rebuilt(W, images)
    assert again.shape == images.shape and again.dtype == np.uint8
    both = np.concatenate([looks.rebuilt(W, images[:5]), looks.rebuilt(W, images[5:])])
    assert np.abs(both.astype(int) - again).max() <= 1, "whichever go through it together"


def test_a_judge_is_asked_once_for_the_same_images(mixed, monkeypatch):
    images = np.asarray(guided.real_images(W, W.mixes.tasks[0], 3, 1).images)
    first = looks.judged(W, images)
    pd.testing.assert_frame_equal(first, worlds.backend(W).judge(W, images), check_dtype=False)
    features = looks.judge_features(W, images)
    again = lambda w, images: pytest.fail("asked again")  # noqa: E731
    monkeypatch.setattr(worlds.backend(W), "judge", again)
    monkeypatch.setattr(
        worlds.backend(W), "judge_features", lambda w, x: x.reshape(len(x), -1)[:, :2]
    )
    pd.testing.assert_frame_equal(looks.judged(W, images), first)
    assert (looks.judge_features(W, images) == features).all() and len(features) == len(images)
    assert looks.judge_features(W, images[1:]).shape == (len(images) - 1, 2), "others are asked"


def test_where_there_is_no_judge_nothing_is_left(mixed, monkeypatch):
    def nobody(w, images):
        raise NotKnown("no judge")

    monkeypatch.setattr(worlds.backend(W), "judge", nobody)
    before = set(mixed.parent.iterdir())
    with pytest.raises(NotKnown):
        looks.judged(W, np.zeros((1, 8, 8, 3), np.uint8))
    assert set(mixed.parent.iterdir()) == before
