"""One picture of one subject in one scene: pixels, depth, mask, and every factor that made it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from helpers.engine.randomness import entropy
from helpers.errors import unknown
from helpers.pocket.render.aircraft import draw_aircraft
from helpers.pocket.render.blueprints import AIRCRAFT, Blueprint
from helpers.pocket.render.canvas import Canvas
from helpers.pocket.render.objects import CARS, FLOWERS, OTHERS, Car, Flower, draw_car, draw_flower
from helpers.pocket.render.scenes import Scene, camera, draw_background

TASKS: dict[str, dict[str, Blueprint | Flower | Car]] = {
    "aircraft": AIRCRAFT,
    "flowers": {f.name: f for f in FLOWERS},
    "cars": {c.name: c for c in CARS},
}


@dataclass(frozen=True)
class Picture:
    """``pixels`` (size, size, 3), ``depth`` (size, size; 0 near .. 255 far) and ``mask`` (255 on the object), all uint8."""

    pixels: np.ndarray
    depth: np.ndarray
    mask: np.ndarray


def subject(task: str, name: str) -> Blueprint | Flower | Car:
    """The drawable thing behind a class name. Raises ``StudyError`` on an unknown task or class."""
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    if name not in TASKS[task]:
        raise unknown(f"class of {task}", name, TASKS[task])
    return TASKS[task][name]


def render(
    thing: Blueprint | Flower | Car | str, scene: Scene, seed: int, size: int = 64
) -> Picture:
    """Draw a subject, or one of ``objects.OTHERS`` by name, in a scene; the same arguments give the same picture."""
    canvas = Canvas(size)
    draw_background(canvas, scene, _rng(seed, "background"))
    _paint(canvas.at(scene.placement, scene.distance), thing, scene, _rng(seed, "subject"))
    depth = canvas.pixels("depth")
    return Picture(
        camera(canvas.pixels(), scene, _rng(seed, "camera"), depth), depth, canvas.pixels("mask")
    )


def _rng(seed: int, part: str) -> np.random.Generator:
    return np.random.default_rng(
        entropy(seed, part)
    )  # apart, so that swapping one part leaves the others as they are


def _paint(canvas: Canvas, thing, scene: Scene, rng: np.random.Generator) -> None:
    if isinstance(thing, Blueprint):
        draw_aircraft(canvas, thing, scene, rng)
    elif isinstance(thing, Flower):
        draw_flower(canvas, thing, scene, rng)
    elif isinstance(thing, Car):
        draw_car(canvas, thing, scene, rng)
    elif thing in OTHERS:
        OTHERS[thing](canvas, scene, rng)
    else:
        raise unknown("thing to draw", thing, OTHERS)


def factors(scene: Scene) -> dict:
    """The scene's factors as one flat table row."""
    return dataclasses.asdict(scene)
