"""Arms differ from the default in one factor; prompts are made of what a benchmark offers."""

import types

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.data import tables
from helpers.errors import StudyError
from helpers.study import arms

W = worlds.get("smoke")


@pytest.fixture(scope="module")
def small_world(tmp_path_factory):
    """A smoke world with tiny benchmarks of its own in the store."""
    monkey = pytest.MonkeyPatch()
    monkey.setenv("STUDY_RUNS", str(tmp_path_factory.mktemp("runs")))
    tables.benchmark.cache_clear()
    yield worlds.get("smoke", image_size=16, pool={"benchmark_per_class": 2})
    monkey.undo()


def test_drawn_arms_differ_from_the_default_in_one_factor():
    every = arms.arms(worlds.get("pocket"))
    base = every["synthetic"]
    for arm in arms.drawn(worlds.get("pocket")).values():
        changed = [
            f for f in ("prompt", "guidance", "generator") if getattr(arm, f) != getattr(base, f)
        ]
        assert len(changed) == 1, arm
    guidances = {
        arm.guidance
        for arm in every.values()
        if arm.source == "synthetic" and arm.prompt == arms.DEFAULT
    }
    assert {1.0, 2.0, 7.5} <= guidances
    keys = [(arm.source, arm.prompt, arm.guidance) for arm in every.values()]
    assert len(set(keys)) == len(keys)  # so that a row of the tables names its arm


def drawn_in_02(n):
    table = pd.DataFrame({"caption": [f"text {i}" for i in range(n)], "label": np.arange(n) % 3})
    table["class"] = table["label"].map({0: "a", 1: "b", 2: "c"})
    table["seed"] = [str(1_000 + i) for i in range(n)]
    return tables.Split(np.zeros((n, 2, 2, 3), np.uint8), table["label"].to_numpy(), table)


def test_arms_of_other_guidance_take_the_captions_and_seeds_of_the_default(monkeypatch):
    split = drawn_in_02(200)
    monkeypatch.setattr(arms, "unfiltered", lambda w, task: split)
    every = arms.arms(W)
    default, other = (arms.captions_for(W, every[n]) for n in ("synthetic", "guidance-1"))
    pd.testing.assert_frame_equal(default, other)
    assert len(default) == 2 * W.scaling.sizes[-1]
    assert set(default["seed"]) <= set(split.facts["seed"])
    monkeypatch.setattr(arms, "unfiltered", lambda w, task: drawn_in_02(20))
    with pytest.raises(StudyError, match="drew only 20 of aircraft"):
        arms.captions_for(W, every["synthetic"])


def test_an_arm_of_another_prompt_has_seeds_of_its_own(monkeypatch):
    table = drawn_in_02(6).facts.drop(columns="seed")
    monkeypatch.setattr(arms, "prompts", lambda w, task, kind: table)
    rows = arms.captions_for(W, arms.Arm("prompt-x", "synthetic", "x"))
    assert len(rows) == rows["seed"].nunique() == 2 * W.scaling.sizes[-1]
    assert rows["caption"].value_counts().eq(W.scaling.sizes[-1] // 3).all()


def test_prompts_with_descriptions_and_train_captions(small_world):
    table = arms.prompts(small_world, "aircraft", "class and description")
    table = table.set_index("class")["caption"]
    assert table["A380"].startswith("A380, 5 axles") and len(table) == 24
    captions = arms.prompts(small_world, "flowers", "training captions")
    assert len(captions) == 28 and all(
        c.lower() in t.lower() for c, t in zip(captions["class"], captions["caption"], strict=True)
    )
    assert set(arms.LEAKS) == {"alt text", "training captions"}
    with pytest.raises(
        StudyError, match=r"unknown kind of prompt 'template'. Did you mean 'templates'"
    ):
        arms.prompts(small_world, "aircraft", "template")


def test_a_recipe_leaves_out_which_runs_there_are_and_nothing_else():
    first = arms.recipe(W, "scaled", 48)
    which = {"seeds": 40, "sizes": (12, 48), "guidances": (), "prompts": (), "pairs": (14,)}
    which |= {"pair_seeds": 9, "lots": 3, "generators": ("middle",)}
    more = worlds.replace(W, scaling=which, finetune={"seeds": 7})
    assert arms.recipe(more, "scaled", 48) == first
    pairs = arms.recipe(W, "paired", 28)
    assert arms.recipe(worlds.replace(more, robustness={"seeds": 9}), "paired", 28) == pairs
    how = ({"steps": 41}, {"beyond": 2}, {"shifted_per_class": 5}, {"hidden": 8})
    changed = [worlds.replace(W, scaling=settings) for settings in how]
    changed.append(worlds.replace(W, synthesis={"steps": 5}))
    others = {arms.recipe(w, "scaled", 48) for w in changed} | {arms.recipe(W, "scaled", 96)}
    assert len({first, pairs, *others}) == 8


def test_prompts_nobody_wrote_are_refused(monkeypatch):
    bench = tables.Benchmark(
        "cars",
        ("a",),
        "car",
        "",
        ("{}",),
        (),
        pd.DataFrame(),
        *[tables.Split(np.zeros(0), np.zeros(0))] * 3,
    )
    monkeypatch.setattr(tables, "benchmark", lambda w, task: bench)
    for kind in ("class and description", "training captions"):
        with pytest.raises(StudyError, match="take it out of scaling prompts"):
            arms.prompts(W, "cars", kind)
    assert not {"class and description", "training captions"} & set(
        worlds.get("paper").scaling.prompts
    )


def test_sources_give_twice_the_largest_size_at_most(monkeypatch):
    labels = np.arange(1_000) % 3
    many = tables.Split(np.zeros((1_000, 1, 1, 3), np.uint8), labels)
    monkeypatch.setattr(tables, "source_set", lambda w, task, source: many)
    monkeypatch.setattr(tables, "benchmark", lambda w, task: types.SimpleNamespace(train=many))
    arms.images_of.cache_clear()
    assert len(arms.images_of(W, None, "retrieved")) == 2 * 48 * 2
    arms.images_of.cache_clear()
