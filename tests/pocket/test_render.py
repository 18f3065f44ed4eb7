"""What is drawn is what the blueprint says, and the same seed gives the same picture."""

import dataclasses

import numpy as np
import pytest

from helpers import pocket, worlds
from helpers.errors import StudyError
from helpers.pocket.render.aircraft import WHEEL
from helpers.pocket.render.blueprints import AIRCRAFT, chimera
from helpers.pocket.render.pictures import TASKS, render
from helpers.pocket.render.scenes import Scene, sample_scene
from helpers.study import plots

SMOKE = worlds.get("smoke")
PLAIN = Scene(
    "sea", "noon", "clear", 0, 32.0, 50.0, 1.0, 0.0, False, 90, 0.0, 0.0, 1.0, 1.0, "photo"
)


def count_wheels(plane) -> int:
    """Runs of tyre-black pixels in a row through the upper half of the main wheels, size 256."""
    pixels = render(plane, PLAIN, 3, 256).pixels.astype(int)
    row = pixels[int(4 * (PLAIN.y - WHEEL - 1.0))]
    black = (np.abs(row - (30, 30, 34)) < 30).all(1)
    return int((black[1:] & ~black[:-1]).sum())


@pytest.mark.parametrize("name", AIRCRAFT)
def test_every_axle_of_the_blueprint_is_drawn(name):
    plane = AIRCRAFT[name]
    # a nose wheel reaches the row, or not
    support = 1 if count_wheels(dataclasses.replace(plane, legs=(1,))) == 2 else 0
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
    inside = []
    for i, (name, plane) in enumerate([*AIRCRAFT.items()] * 8):
        scene, gear = sample_scene(np.random.default_rng(i), domain), pocket.main_gear(SMOKE, name)
        left, top, right, bottom = plots.gear_box(render(plane, scene, i).pixels, gear)
        ends = sorted(scene.x / 64 + (-1 if scene.flip else 1) * scene.scale * x for x in gear)
        inside.append(
            left - 0.01 <= ends[0]
            and ends[1] <= right + 0.01
            and top < scene.y / 64 - 0.1
            and bottom > scene.y / 64
        )
        assert right - left == pytest.approx(27 / 64)
    # of the pool's sketches and posters a few have darker things there than wheels
    assert np.mean(inside) > 0.97


def test_chimeras_take_details_apart_from_the_type():
    rng = np.random.default_rng(0)
    planes = [chimera(AIRCRAFT["A321"], rng) for _ in range(300)]
    assert {p.axles for p in planes} == {1, 2, 3, 4, 5}
    assert {p.tail for p in planes} == {"T", "conventional"}
    assert {p.length for p in planes} == {AIRCRAFT["A321"].length}
    assert all(count_wheels(p) in (p.axles, p.axles + 1) for p in planes[:40])


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


def test_scene_rejects_unknown_names():
    with pytest.raises(StudyError, match=r"unknown background.*runway"):
        sample_scene(np.random.default_rng(0), "benchmark", background="moon")
