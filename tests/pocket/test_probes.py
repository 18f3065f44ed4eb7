"""Probe sets change one factor and no other; corruptions do more harm with severity."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from helpers import pocket, worlds
from helpers.errors import StudyError
from helpers.measure.metrics import DEPTH_AWARE, IMAGE_SPACE, SEVERITIES, shape_bias
from helpers.pocket.render.pictures import TASKS, render
from helpers.pocket.render.scenes import sample_scene
from helpers.pocket.world import probes
from helpers.pocket.world.corruptions import corrupt

SMOKE = worlds.get("smoke")
SCENE = sample_scene(np.random.default_rng(0), "benchmark")


@pytest.fixture(scope="module")
def plan():
    """Every rendered set of flowers: name -> what its images show."""
    names = probes.rendered("flowers")
    return {name: [probes.probe(SMOKE, "flowers", name, i) for i in range(56)] for name in names}


def test_only_the_background_is_swapped(plan):
    for name in ("mixed_same", "mixed_rand"):
        for swapped, original in zip(plan[name], plan["original"], strict=True):
            background = original.scene.background
            scene = dataclasses.replace(swapped.scene, background=background)
            assert swapped._replace(scene=scene) == original
    before, after = ([p.scene.background for p in plan[n]] for n in ("original", "mixed_rand"))
    assert 0.5 < np.mean(np.array(before) != np.array(after)) < 1


def test_context_sets_have_as_many_uncommon_attributes_as_they_say(plan):
    weathers, styles = probes.uncommon("weather"), probes.uncommon("style")
    assert weathers == ("rain", "fog")
    assert styles == ("poster", "faded", "sketch")
    for k in range(3):
        scenes = [p.scene for p in plan[f"context_{k}"]]
        assert {(s.weather in weathers) + (s.style in styles) for s in scenes} == {k}
    assert np.mean([p.scene.style in styles for p in plan["context_1"]]) == 0.5


def test_cues_are_in_conflict_and_groups_match_the_classes(plan):
    groups = probes.groups("flowers")
    assert list(groups.index) == list(TASKS["flowers"])
    assert groups.loc["corn poppy"].tolist() == ["4", "red"]
    facts = pd.DataFrame([p.facts for p in plan["cue_conflict"]])
    answers = np.arange(len(facts)) % len(groups)
    assert set(shape_bias(answers, facts, groups)) >= {"shape_hits", "texture_hits"}
    for thing, _, _, f in plan["cue_conflict"]:
        shape, paint = TASKS["flowers"][f["class"]], TASKS["flowers"][f["painted"]]
        assert (thing.petals, thing.shape) == (shape.petals, shape.shape)
        assert (thing.hue, thing.saturation) == (paint.hue, paint.saturation)
    assert len(set(zip(facts["shape"], facts["texture"], strict=True))) >= 8


@pytest.mark.parametrize("task", list(TASKS))
def test_things_of_no_class_are_of_no_class(task):
    known = list(TASKS[task].values())
    for i in range(20):
        thing = probes.unseen(task, np.random.default_rng(i))
        assert render(thing, SCENE, i, 16).mask.any()
        assert thing not in known
        assert type(thing) is type(known[0])
    columns = ["shape", "texture"] if task in probes.PAINT else []
    assert list(probes.groups(task).columns) == columns


def test_probe_sets_from_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    few = {"pool": {"benchmark_per_class": 2}, "robustness": {"probe_images": 3}}
    w = worlds.get("smoke", **few, image_size=16)
    sets = pocket.probe_sets(w, "flowers").sets
    assert set(sets) == {*probes.rendered("flowers"), *probes.CORRUPTED}
    assert len(probes.CORRUPTED) == 40
    assert {s.images.shape for s in sets.values()} == {(3, 16, 16, 3)}
    assert sets["jpeg-5"].labels.tolist() == sets["original"].labels.tolist()
    assert (sets["ood_far"].labels == -1).all()
    again = pocket.probe_sets(w, "flowers").sets
    assert np.array_equal(again["snow-2"].images, sets["snow-2"].images)


@pytest.fixture(scope="module")
def pictures():
    w = worlds.get("pocket")
    shown = [probes.probe(w, "flowers", "original", i) for i in range(6)]
    return probes.pictures(w, shown), probes.pictures(w, shown, "depth")


@pytest.mark.parametrize("kind", [*IMAGE_SPACE, *DEPTH_AWARE])
def test_every_corruption_does_more_harm_with_severity(pictures, kind):
    images, depth = pictures
    corrupted = [corrupt(images, depth, kind, s, np.random.default_rng(0)) for s in SEVERITIES]
    harm = [np.abs(x.astype(float) - images).mean() for x in corrupted]
    assert harm == sorted(harm)
    assert harm[0] > 0.3
    assert corrupted[0].shape == images.shape
    assert corrupted[0].dtype == np.uint8
    assert np.array_equal(corrupted[2], corrupt(images, depth, kind, 3, np.random.default_rng(0)))


def test_depth_decides_where_fog_and_blur_fall():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (1, 32, 32, 3), dtype=np.uint8)
    depth = np.full((1, 32, 32), 20, np.uint8)
    depth[:, :, 16:] = 240
    change = {
        kind: np.abs(corrupt(images, depth, kind, 3, rng).astype(float) - images)[0].mean((0, 2))
        for kind in DEPTH_AWARE
    }
    assert change["near_focus"][:16].max() <= 0.5 < change["near_focus"][16:].min()
    assert change["far_focus"][16:].max() <= 0.5 < change["far_focus"][:16].min()
    assert change["fog_3d"][:16].max() < change["fog_3d"][16:].min()


BLANK = np.zeros((1, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: corrupt(BLANK, BLANK[..., 0], "jpg", 1, None), "Did you mean 'jpeg'"),
        (lambda: corrupt(BLANK, BLANK[..., 0], "jpeg", 6, None), "unknown severity"),
        (lambda: pocket.probe_sets(SMOKE, "boats"), "unknown task"),
    ],
)
def test_messages_say_what_is_valid(call, message):
    with pytest.raises(StudyError, match=message):
        call()


def test_the_probed_task_can_put_cues_in_conflict():
    assert all(worlds.get(name).robustness.task in probes.PAINT for name in ("smoke", "pocket"))
