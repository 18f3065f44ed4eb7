"""One picture of one subject in one scene: pixels, depth, mask, and every factor that made it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from helpers.errors import unknown
from helpers.pocket.chance import stream
from helpers.pocket.render.aircraft import draw_aircraft
from helpers.pocket.render.backgrounds import draw_background
from helpers.pocket.render.blueprints import AIRCRAFT, Blueprint
from helpers.pocket.render.camera import camera
from helpers.pocket.render.canvas import Canvas, Placement
from helpers.pocket.render.cars import CARS, Car, draw_car
from helpers.pocket.render.flowers import FLOWERS, Flower, draw_flower
from helpers.pocket.render.scenes import Scene
from helpers.pocket.render.things import OTHERS

Subject = Blueprint | Flower | Car  # what is of a class, or could be
TASKS: dict[str, dict[str, Subject]] = {
    "aircraft": AIRCRAFT,
    "flowers": {flower.name: flower for flower in FLOWERS},
    "cars": {car.name: car for car in CARS},
}


@dataclass(frozen=True)
class Picture:
    """Three uint8 layers of one picture; those that few ask for are drawn when they are."""

    pixels: np.ndarray  # (size, size, 3)
    canvas: Canvas

    @property
    def depth(self) -> np.ndarray:
        """The distance: (size, size), 0 near .. 255 far."""
        return self.canvas.pixels("depth")

    @property
    def mask(self) -> np.ndarray:
        """Where the object is: (size, size), 255 on it."""
        return self.canvas.pixels("mask")


def subject(task: str, name: str) -> Subject:
    """The drawable thing behind a class name. Raises ``StudyError`` on an unknown task or class."""
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    if name not in TASKS[task]:
        raise unknown(f"class of {task}", name, TASKS[task])
    return TASKS[task][name]


def render(thing: Subject | str, scene: Scene, seed: int, size: int = 64) -> Picture:
    """Draw a subject, or one of ``things.OTHERS`` by name; same arguments give the same picture.

    Background, subject and camera have a generator each. Raises ``StudyError`` on unknown names.
    """
    canvas = Canvas(size)
    draw_background(canvas, scene, stream(seed, "background"))
    place = Placement(scene.x, scene.y, scene.scale, scene.pitch, scene.flip)
    _draw(canvas.at(place, scene.distance), thing, scene, stream(seed, "subject"))
    return Picture(camera(canvas, scene, stream(seed, "camera")), canvas)


def _draw(canvas: Canvas, thing: Subject | str, scene: Scene, rng: np.random.Generator) -> None:
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
