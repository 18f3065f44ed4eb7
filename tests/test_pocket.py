"""The miniature: what is drawn is what the blueprint says, the pool is as dirty as announced, everything follows a seed."""

import dataclasses

import numpy as np
import pytest

from helpers import pocket, worlds
from helpers.errors import StudyError
from helpers.pocket.render.aircraft import WHEEL
from helpers.pocket.render.blueprints import AIRCRAFT, chimera
from helpers.pocket.render.pictures import TASKS, render, subject
from helpers.pocket.render.scenes import Scene, sample_scene
from helpers.pocket.world import pool
from helpers.pocket.world.benchmarks import benchmark, details, scene_of
from helpers.study import plots

SMOKE = worlds.get("smoke")
PLAIN = Scene(
    "sea", "noon", "clear", 0, 32.0, 50.0, 1.0, 0.0, False, 90, 0.0, 0.0, 1.0, 1.0, "photo"
)


def count_wheels(plane) -> int:
    """Runs of tyre-black pixels in one row through the upper half of the main wheels, at four times the size."""
    pixels = render(plane, PLAIN, 3, 256).pixels.astype(int)
    row = pixels[int(4 * (PLAIN.y - WHEEL - 1.0))]
    black = (np.abs(row - (30, 30, 34)) < 30).all(1)
    return int((black[1:] & ~black[:-1]).sum())


@pytest.mark.parametrize("name", AIRCRAFT)
def test_every_axle_of_the_blueprint_is_drawn(name):
    plane = AIRCRAFT[name]
    support = (
        1 if count_wheels(dataclasses.replace(plane, legs=(1,))) == 2 else 0
    )  # a nose wheel reaches the row, or not
    assert count_wheels(plane) == plane.axles + support


def test_published_gear_facts():
    axles = {name: plane.axles for name, plane in AIRCRAFT.items()}
    assert (axles["A321"], axles["757-200"]) == (1, 2)
    assert (axles["MD-80"], axles["Tu-134"], axles["Tu-154"]) == (1, 2, 3)
    assert (axles["A330-300"], axles["777-300"], axles["747-400"], axles["A380"]) == (2, 3, 4, 5)
    assert AIRCRAFT["A330-300"].engines == 1 and AIRCRAFT["A340-300"].engines == 2
    assert {n for n, p in AIRCRAFT.items() if p.gear == "tailwheel"} == {"DC-3", "Spitfire"}


@pytest.mark.parametrize("domain", ["benchmark", "pool"])
def test_the_box_around_the_main_gear_holds_all_of_its_wheels(domain):
    held = []
    for i, (name, plane) in enumerate([*AIRCRAFT.items()] * 8):
        scene, gear = sample_scene(np.random.default_rng(i), domain), pocket.main_gear(SMOKE, name)
        left, top, right, bottom = plots.gear_box(render(plane, scene, i).pixels, gear)
        ends = sorted(scene.x / 64 + (-1 if scene.flip else 1) * scene.scale * x for x in gear)
        held.append(
            left - 0.01 <= ends[0]
            and ends[1] <= right + 0.01
            and top < scene.y / 64 - 0.1
            and bottom > scene.y / 64
        )
        assert right - left == pytest.approx(27 / 64)
    assert (
        np.mean(held) > 0.97
    )  # of the pool's sketches and posters a few have darker things there than wheels


def test_chimeras_take_details_apart_from_the_type():
    rng = np.random.default_rng(0)
    made = [chimera(AIRCRAFT["A321"], rng) for _ in range(300)]
    assert {p.axles for p in made} == {1, 2, 3, 4, 5} and {p.tail for p in made} == {
        "T",
        "conventional",
    }
    assert {p.length for p in made} == {AIRCRAFT["A321"].length}
    assert all(count_wheels(p) in (p.axles, p.axles + 1) for p in made[:40])


def test_same_seed_same_picture_and_background_leaves_the_object():
    thing = AIRCRAFT["A320"]
    first, again = render(thing, PLAIN, 5), render(thing, PLAIN, 5)
    assert np.array_equal(first.pixels, again.pixels)
    other = render(thing, dataclasses.replace(PLAIN, background="city"), 5)
    assert np.array_equal(first.mask, other.mask) and not np.array_equal(first.pixels, other.pixels)
    assert first.depth[first.mask > 200].max() <= 200 and first.pixels.dtype == np.uint8


@pytest.mark.parametrize("task", TASKS)
def test_classes_of_a_task_look_different(task):
    pictures = [render(thing, PLAIN, 1).pixels.astype(int) for thing in TASKS[task].values()]
    for i, a in enumerate(pictures):
        for b in pictures[i + 1 :]:
            assert (np.abs(a - b).max(2) > 40).sum() >= 4


def test_plan_is_dirty_as_announced():
    table = pool.plan(worlds.get("pocket", pool={"rows": 4_000}))
    planes = table[table["kind"] == "aircraft"]
    assert 0.37 < len(planes) / len(table) < 0.45
    assert 0.20 < (planes["caption_kind"] == "generic").mean() < 0.30
    wrong = planes[planes["caption_kind"] == "wrong"]
    assert len(wrong) and (wrong["said"] != wrong["cls"]).all()
    right = planes[planes["caption_kind"].isin(["class", "relation", "background"])]
    assert (right["said"] == right["cls"]).all()
    traps = table[table["caption_kind"] == "trap"]
    assert traps["caption"].str.contains("Tornado").any() and (traps["cls"] == "").all()
    assert (table["copy_of"] >= 0).sum() > 50 and (table["test_copy_of"] >= 0).sum() > 20


def test_class_frequencies_fall_by_the_announced_factor():
    shares = pool.class_shares(SMOKE, "aircraft")
    assert shares.sum() == pytest.approx(1) and shares.max() / shares.min() == pytest.approx(
        pool.RAREST
    )


def test_public_columns_are_laions_and_tell_nothing_more():
    table = pool.plan(SMOKE).iloc[:50]
    public = pool.laion_columns(SMOKE, table, 0)
    assert list(public) == [
        "SAMPLE_ID",
        "URL",
        "TEXT",
        "HEIGHT",
        "WIDTH",
        "LICENSE",
        "NSFW",
        "similarity",
    ]
    assert list(public["TEXT"]) == list(table["caption"]) and public["SAMPLE_ID"].is_unique


def test_near_copies_are_near():
    name, scene, seed = scene_of(SMOKE, "aircraft", "test", 0)
    image = render(subject("aircraft", name), scene, seed).pixels
    copy = pool.near_copy(image, np.random.default_rng(0))
    assert copy.shape == image.shape and not np.array_equal(copy, image)
    assert np.corrcoef(copy.ravel(), image.ravel())[0, 1] > 0.7


def test_pool_and_benchmark_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    w = worlds.get("smoke", pool={"rows": 60, "shard_rows": 25, "benchmark_per_class": 2})
    made = pool.open_pool(w)
    assert len(made) == 60 == len(made.captions()) == len(made.truth())
    rows = np.array([59, 0, 30])
    assert np.array_equal(made.fetch(rows), np.stack([made.fetch([r])[0] for r in rows]))
    assert (
        made.captions(rows).equals(made.captions().iloc[rows].reset_index(drop=True))
        and len(made.captions([])) == 0
    )
    with pytest.raises(StudyError, match="0 .. 59"):
        made.fetch([60])
    bench = benchmark(w, "aircraft")
    assert bench.test.images.shape == (48, 32, 32, 3) and len(bench.classes) == 24
    assert np.array_equal(np.bincount(bench.test.labels), np.full(24, 2))
    assert not np.array_equal(bench.train.images, bench.test.images)
    with pytest.raises(StudyError, match="flowers"):
        benchmark(w, "flower")


def test_details_table():
    table = details("aircraft")
    assert list(table.index) == list(AIRCRAFT) and table.loc["A380", "axles"] == 5
    assert {"petals", "shape"} <= set(details("flowers")) and {"body", "doors"} <= set(
        details("cars")
    )


def test_scene_rejects_unknown_names():
    with pytest.raises(ValueError, match="runway"):
        sample_scene(np.random.default_rng(0), "benchmark", background="moon")
