"""Training sets of notebook 08: which mixes there are, and which images they have."""

import dataclasses
import types

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.data import tables
from helpers.data.tables import Benchmark, Split
from helpers.errors import StudyError
from helpers.study import finetune, guided, mixes

W = worlds.get("smoke", mixes={"counts": (8, 16), "size": 12, "shots": (2,)})
CLASSES = ("Airbus A320", "An-12", "DC-10")


def images(value, n, caption="{} over the sea"):
    """``n`` images that all have one value, three classes in turns."""
    labels = np.arange(n) % 3
    names = [CLASSES[label] for label in labels]
    facts = {"label": labels, "class": names, "caption": [caption.format(name) for name in names]}
    return Split(np.full((n, 4, 4, 3), value, np.uint8), labels, pd.DataFrame(facts))


@pytest.fixture
def sets(monkeypatch):
    """Sources of one value each: retrieved 1, synthetic 2, real train images 3."""
    real = images(3, 30)
    bench = Benchmark(
        "aircraft",
        CLASSES,
        "aircraft",
        "",
        ("a photo of a {}.",),
        (),
        pd.DataFrame(),
        real,
        real,
        real,
    )
    offered = {"retrieved": images(1, 48), "synthetic": images(2, 96)}
    monkeypatch.setattr(mixes.tables, "benchmark", lambda w, task: bench)
    source_set = lambda w, task, source, keep="": offered[source]  # noqa: E731
    for module in (mixes.tables, finetune.tables):
        monkeypatch.setattr(module, "source_set", source_set)
    return bench


def test_the_map_has_every_pair_of_numbers_at_equal_and_at_growing_updates():
    grid = mixes.grid(W)
    names = [mix.name for mix in grid]
    assert len(names) == len(set(names)) == 2 * (3 * 3 - 1)
    assert "retrieved 8 + synthetic 16, 2 steps" in names and "synthetic 16" in names
    assert {mix.n for mix in grid} == {8, 16, 24, 32}
    few = worlds.replace(W, finetune={"largest_of": (("aircraft", 8),)})
    assert {mix.n for mix in mixes.grid(few)} == {8, 16}


def test_every_cause_and_every_opponent_has_its_controls():
    names = {mix.name for mix in mixes.causes(W)}
    for source in ("retrieved:0.5 seen", "retrieved:0.3 wrong"):
        assert {f"{source} 12 + synthetic 12, 2 steps", f"{source} 12, 2 steps"} <= names
    assert "retrieved 12 + drawn:templates 12, 2 steps" in names
    names = {mix.name for mix in mixes.opponents(W)}
    assert "real:2 12, 2 steps" in names
    assert "retrieved 12 + guided:retrieved 2 12, 2 steps" in names, "retrieve, then generate"
    for source in ("retrieved", "synthetic", *(f"guided:{guide} 2" for guide in guided.GUIDES)):
        assert {f"{source} 12 + real:2 12, 2 steps", f"{source} 12, 2 steps"} <= names


def test_few_real_images_count_once_for_half_or_for_four_fifths(sets):
    mixes_of = mixes.weights(W)
    assert [mix.parts[1] for mix in mixes_of.values()][:3] == [
        ("real:2", 6),
        ("real:2", 12),
        ("real:2", 48),
    ]
    assert {source for source, _ in mixes_of} == {"retrieved", "guided:retrieved 2"}
    assert set(mixes_of.values()) <= set(mixes.opponents(W))


def test_what_sees_no_real_image_is_drawn_once_for_all_numbers_of_them():
    more = worlds.replace(W, mixes={"shots": (1, 2)})
    asked = [guided.sources(more, k) for k in (1, 2)]
    assert asked[0] == {"plain": "guided:plain 1", "data set": "guided:data set 1"}
    assert asked[1]["plain"] == "guided:plain 1" and asked[1]["words"] == "guided:words 2"


def test_a_retriever_that_sees_less_finds_some_of_the_same(sets, tmp_path):
    seen = mixes.part(W, tmp_path, "aircraft", "retrieved:0.25 seen", 48, 0)
    assert 0 < len(seen) < 48 and set(seen.images.ravel()) == {1}
    assert len(mixes.part(W, tmp_path, "aircraft", "retrieved:1 seen", 24, 0)) == 24


def test_wrong_labels_are_others_and_as_many_as_said(sets, tmp_path):
    right = mixes.part(W, tmp_path, "aircraft", "retrieved", 48, 0)
    wrong = mixes.part(W, tmp_path, "aircraft", "retrieved:0.5 wrong", 48, 0)
    changed = wrong.labels != right.labels
    assert 12 < changed.sum() < 36 and set(wrong.labels) <= {0, 1, 2}
    pd.testing.assert_frame_equal(wrong.facts, right.facts)
    none = mixes.part(W, tmp_path, "aircraft", "retrieved:0 wrong", 48, 0)
    assert (none.labels == right.labels).all()


def test_real_images_are_nested_and_repeated(sets, tmp_path):
    few, more = (guided.real_images(W, "aircraft", k, 0) for k in (1, 4))
    assert len(few) == 3 and sorted(few.labels) == [0, 1, 2] and len(more) == 12
    often = mixes.part(W, tmp_path, "aircraft", "real:1", 12, 0)
    assert np.bincount(often.labels).tolist() == [4, 4, 4] and set(often.images.ravel()) == {3}


def test_unknown_parts_are_named(sets, tmp_path):
    with pytest.raises(StudyError, match="unknown part of a mix 'borrowed'"):
        mixes.part(W, tmp_path, "aircraft", "borrowed", 12, 0)
    with pytest.raises(StudyError, match="unknown guide of a generator 'dreams'"):
        guided.draw(W, tmp_path, "aircraft", "dreams 2", 0)


def test_context_is_asked_for_in_every_class(sets):
    real = guided.real_images(W, "aircraft", 2, 0)
    ways, texts = guided.wordings(sets, real, context=True)
    assert set(ways) == {"{} over the sea"} and texts == real.facts["caption"].tolist()
    ways, texts = guided.wordings(sets, real, context=False)
    assert ways == ["a photo of a {}."] and set(texts) == {f"a photo of a {c}." for c in CLASSES}
    without = Split(real.images, real.labels, real.facts.drop(columns="caption"))
    with pytest.raises(StudyError, match="take it out of mixes guides"):
        guided.wordings(sets, without, context=True)


def test_guided_generators_are_tuned_on_their_images_and_asked_in_turns(
    sets, tmp_path, monkeypatch
):
    tuned_on = []

    def tune(pipe, images, captions, settings, seed, folder):
        tuned_on.append((len(images), set(captions), settings.steps, int(images.max())))
        assert settings.warmup <= settings.steps // 8, "most updates have a full learning rate"

    asked = []

    def draw(w, captions, seeds):
        asked.extend(captions)
        return np.zeros((len(captions), w.image_size, w.image_size, 3), np.uint8)

    backend = types.SimpleNamespace(pipeline=lambda w: None, draw=draw)
    monkeypatch.setattr(guided.worlds, "backend", lambda w: backend)
    monkeypatch.setattr(guided.lora, "tune", tune)
    monkeypatch.setattr(
        guided.lora, "adapted", lambda pipe, folder: guided.contextlib.nullcontext()
    )
    drawn = guided.draw(W, tmp_path, "aircraft", "data set 2", 0)
    assert drawn.shape == (12, W.image_size, W.image_size, 3)
    assert tuned_on == [(6, {f"a photo of a {c}." for c in CLASSES}, 24, 3)]
    assert [asked.count(f"a photo of a {c}.") for c in CLASSES] == [4, 4, 4]
    tuned_on.clear()
    guided.draw(W, tmp_path, "aircraft", "class 2", 0)
    assert [row[0] for row in tuned_on] == [2, 2, 2] and {row[2] for row in tuned_on} == {8}
    tuned_on.clear()
    guided.draw(W, tmp_path, "aircraft", "retrieved 2", 0)
    assert tuned_on[0][3] == 1
    tuned_on.clear()
    guided.draw(W, tmp_path, "aircraft", "plain 2", 0)
    guided.draw(W, tmp_path, "aircraft", "words 2", 0)
    assert "over the sea" in asked[-1]
    assert not tuned_on and not list(tmp_path.iterdir())


def test_real_images_are_as_large_as_those_they_are_trained_with(sets, monkeypatch):
    large = images(1, 48)
    large = dataclasses.replace(large, images=np.full((48, 6, 6, 3), 1, np.uint8))
    monkeypatch.setattr(tables, "source_set", lambda *asked: large)
    few = guided.real_images(W, "aircraft", 2, 0)
    assert few.images.shape == (6, 6, 6, 3) and (few.images == 3).all()
    assert len(few.plus(large)) == 54


def test_which_runs_there_are_is_no_part_of_the_recipe():
    same = finetune.recipe(W, "mixed")
    more = worlds.replace(W, mixes={"seeds": 40, "counts": (8, 16, 32), "guides": ("plain",)})
    assert finetune.recipe(more, "mixed") == same
    assert finetune.recipe(worlds.replace(W, mixes={"size": 16}), "mixed") != same
    assert finetune.recipe(worlds.replace(W, adapter={"steps": 7}), "mixed") != same


def test_a_mix_has_the_rate_of_its_sources_at_as_many_different_images(sets, tmp_path, monkeypatch):
    grid = [("retrieved", 12, 1e-4), ("retrieved", 48, 1e-2), ("synthetic", 12, 1e-6)]
    grid.append(("synthetic", 48, 1e-4))
    columns = ["task", "source", "n", "metric", "lr"]
    rows = [("aircraft", source, n, m, lr) for source, n, lr in grid for m in finetune.METRICS]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "rates.csv", index=False)
    monkeypatch.setattr(finetune, "RATES", tmp_path / "rates.csv")
    w = worlds.replace(W, finetune={"selection_seeds": 0})

    def rate(*parts):
        return mixes.rate_of(w, mixes.Mix("aircraft", parts))

    assert rate(("retrieved", 48)) == 1e-2 and rate(("drawn:templates", 48)) == 1e-4
    assert rate(("retrieved", 24), ("synthetic", 24)) == 1e-3
    assert rate(("retrieved:0.5 seen", 12), ("guided:plain 2", 36)) == pytest.approx(3.16e-4)
    assert rate(("real:4", 48)) == 1e-4, "twelve images, over and over"
    assert rate(("retrieved:0.25 seen", 48)) == 1e-4, "of 48 images that there are"


def test_rates_at_equal_updates_are_chosen_on_validation(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(mixes, "rate_of", lambda w, mix: 1e-3)
    asked = []

    def collect(path, w, number, recipe, jobs, function, label):
        runs = [job[2:] for job in jobs.values()]
        asked.extend(runs)
        rows = [(mix.task, mix.name, run.lr, -abs(run.lr - 3e-3)) for mix, run, _ in runs]
        return pd.DataFrame(rows, columns=["task", "source", "lr", "zero_shot"])

    monkeypatch.setattr(mixes, "collect", collect)
    equal = mixes.Mix("aircraft", (("retrieved", 12), ("synthetic", 12)), 2)
    growing = mixes.Mix("aircraft", (("retrieved", 12),))
    rival = mixes.Mix("aircraft", (("guided:class 2", 12), ("real:2", 12)), 2)
    plain = mixes.Mix("aircraft", (("synthetic", 12), ("real:2", 12)), 2)
    three = [equal, growing, rival]
    assert set(mixes.choose_rates(tmp_path, W, three).values()) == {1e-3} and not asked
    w = worlds.replace(W, mixes={"selection_seeds": 2})
    assert mixes.choose_rates(tmp_path, w, three) == {equal: 3e-3, growing: 1e-3, rival: 3e-3}
    assert {mix for mix, _, _ in asked} == {equal, plain}, "tuned generators as the study's own"
    assert {split for *_, split in asked} == {"val"}
    assert {run.seed for _, run, _ in asked} == set(range(1_000_000, 1_000_002))
    tried = {run.lr for _, run, _ in asked}
    assert tried == {3.33e-4, 1e-3, 3e-3, 9e-3}, "an edge that is best has another one beyond it"
    assert pd.read_parquet(tmp_path / "rates.parquet")["chosen"].sum() == 2
