"""Things that are of no task: the odds and ends of the pool, by name.

Drawn in local units, the bottom centre at (0, 0), y pointing down.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from helpers.pocket.chance import pick
from helpers.pocket.render.canvas import Canvas
from helpers.pocket.render.cars import DARK, TYRE, Car, draw_car
from helpers.pocket.render.colours import blend, ground_colour, lit, livery, shadow
from helpers.pocket.render.scenes import Scene

Generator = np.random.Generator
WHITE = (255, 255, 255)


def _house(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    wall, roof = livery(scene)
    x = rng.uniform(4, 10)
    canvas.rectangle(x, -34, x + 4, -22, lit((150, 84, 70), scene))
    canvas.rectangle(-16, -20, 16, 0, wall)
    canvas.polygon([(-19, -20), (0, -35), (19, -20)], blend(roof, DARK, 0.2))
    canvas.rectangle(-3, -11, 3, 0, lit((110, 70, 48), scene))
    for left in (-12, 6.5):
        canvas.rectangle(left - 0.7, -16.2, left + 6.2, -8.3, lit((250, 250, 245), scene))
        canvas.rectangle(left, -15.5, left + 5.5, -9, lit((120, 170, 205), scene))


def _boat(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    hull, sail = livery(scene)
    tip = rng.uniform(13, 17)
    canvas.rectangle(-0.7, -40, 0.7, -7, lit((110, 78, 54), scene))
    canvas.polygon([(1.6, -38), (1.6, -10), (tip, -10)], lit((248, 246, 238), scene))
    canvas.polygon([(-1.6, -34), (-1.6, -10), (-12, -10)], sail)
    canvas.polygon([(-20, -8), (21, -8), (15, 0), (-15, 0)], hull)
    canvas.polygon([(-19, -6.4), (20, -6.4), (19, -4.8), (-18, -4.8)], sail)


def _tree(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    leaf = lit(blend((52, 120, 48), (120, 150, 50), rng.random()), scene)
    canvas.polygon([(-2.6, 0), (-1.4, -20), (1.4, -20), (2.6, 0)], lit((112, 78, 52), scene))
    for x, y, radius in ((-7, -20, 7.5), (7, -21, 7.5), (0, -25, 9.5), (-4, -31, 7), (5, -31, 7)):
        canvas.ellipse(x, y, radius, radius, blend(leaf, (20, 50, 30), 0.25))
        canvas.ellipse(x - 0.8, y - 1, radius - 1.2, radius - 1.4, leaf)


def _ball(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    main, accent = livery(scene)
    turn = rng.uniform(0, np.pi)
    shadow(canvas, scene, 12)
    canvas.ellipse(0, -14, 14, 14, blend(main, DARK, 0.3))
    canvas.ellipse(-0.6, -14.6, 13.2, 13.2, main)
    canvas.ellipse(-0.6, -14.6, 13.2, 3.6, accent, turn)
    canvas.ellipse(-0.6, -14.6, 13.2, 1.0, main, turn)
    canvas.ellipse(-5, -20, 2.6, 2.0, blend(main, WHITE, 0.7))


def _storm(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    dust = lit((112, 110, 118), scene)
    for height, sway in zip(np.linspace(0, 40, 15), rng.uniform(-1.2, 1.2, 15), strict=True):
        half = 1.8 + 15 * (height / 40) ** 1.6
        x = 3.5 * np.sin(height / 9) + sway
        pale = blend(dust, (230, 230, 235), 0.35 * height / 40)
        canvas.ellipse(x, -height - 0.6, half, 2.1, blend(dust, (30, 30, 36), 0.5))
        canvas.ellipse(x - 0.4, -height - 1.2, 0.9 * half, 1.4, pale)
    for x in (-5, 0, 5):
        canvas.ellipse(x, -0.6, 4, 1.8, lit((160, 148, 130), scene))


def _spitfire_car(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    roadster = Car("Triumph Spitfire", "convertible", 1, "round", "round", 3.68, 1.2)
    draw_car(canvas, roadster, scene, rng)


def _kit_box(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    main, accent = livery(scene)
    canvas.polygon([(-22, -26), (-18, -31), (26, -31), (22, -26)], blend(main, WHITE, 0.3))
    canvas.polygon([(22, -26), (26, -31), (26, -4), (22, 0)], blend(main, DARK, 0.35))
    canvas.rectangle(-22, -26, 22, 0, main)
    canvas.rectangle(-22, -26, 22, -20.5, accent)
    canvas.rectangle(-20, -24.4, rng.uniform(2, 10), -22.2, main)
    canvas.rectangle(-20, -18.5, 20, -2, lit((130, 186, 236), scene))
    plane = [(-16, -9), (-12, -11.4), (11, -11.4), (14, -17), (17, -17), (15.5, -9), (-12, -7.6)]
    canvas.polygon(plane, (246, 246, 248))
    canvas.polygon([(-2, -9.4), (4, -9.4), (11, -4.4), (7, -4.4)], lit((150, 158, 170), scene))


def _part(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    steel = lit((150, 156, 166), scene)
    tooth = blend(steel, DARK, 0.3)
    turn = rng.uniform(0, 0.6)
    for angle in turn + np.arange(10) * np.pi / 5:
        canvas.line(0, -17, 17 * np.cos(angle), -17 + 17 * np.sin(angle), 5.2, tooth)
    canvas.ellipse(0, -17, 13.6, 13.6, steel)
    canvas.ellipse(0, -17, 10, 10, blend(steel, WHITE, 0.4))
    for angle in turn + np.arange(5) * np.pi * 0.4:
        canvas.ellipse(7 * np.cos(angle), -17 + 7 * np.sin(angle), 1.6, 1.6, lit(DARK, scene))
    canvas.ellipse(0, -17, 3.6, 3.6, lit(DARK, scene))


def _shirt(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    main, accent = livery(scene)
    left = [(-6, -36), (-12, -34), (-22, -25), (-17, -19), (-12, -23), (-12, 0)]
    edge = [*left, *((-x, y) for x, y in reversed(left))]
    canvas.polygon(np.array(edge) * 1.04 + (0, 0.4), blend(main, DARK, 0.4))
    canvas.polygon(edge, main)
    canvas.ellipse(0, -36, 5.4, 3.4, blend(main, DARK, 0.45))
    y = rng.uniform(-20, -16)
    canvas.polygon([(-8, y), (7, y - 3), (8, y - 6), (9.5, y - 6), (9, y), (-6, y + 2)], accent)
    canvas.polygon([(-1, y), (3, y), (6, y + 5), (4, y + 5)], accent)


def _mug(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    main, accent = livery(scene)
    shadow(canvas, scene, 14)
    canvas.ellipse(13, -14, 8, 8, blend(main, DARK, 0.25))
    canvas.ellipse(13, -14, 5, 5, blend(ground_colour(scene), (0, 0, 0), 0.08))
    canvas.rectangle(-13, -27, 13, -2, main)
    canvas.ellipse(0, -2, 13, 2.6, main)
    canvas.ellipse(0, -27, 13, 3, blend(main, WHITE, 0.4))
    canvas.ellipse(0, -26.6, 11, 2.2, lit((92, 56, 36), scene))
    canvas.rectangle(-13, rng.uniform(-19, -16), 13, -10, accent)


def _dog(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    coats = ((176, 124, 74), (224, 190, 140), (120, 88, 66), (236, 230, 220))
    fur = lit(pick(coats, rng), scene)
    shade = blend(fur, DARK, 0.35)
    canvas.line(14, -16, 21, -25, 2.2, fur)
    for x, colour in ((-8, shade), (12, shade), (-11, fur), (9, fur)):
        canvas.rectangle(x - 1.6, -10, x + 1.6, 0, colour)
    canvas.ellipse(0, -13.5, 15, 6, fur)
    canvas.line(-10, -14, -15, -23, 7, fur)
    canvas.ellipse(-15, -24.5, 6, 5.2, fur)
    canvas.ellipse(-20, -23, 4, 2.8, fur)
    canvas.ellipse(-12.6, -24, 2.2, 4.6, shade, -0.2)
    canvas.ellipse(-23.4, -24, 1.3, 1.2, TYRE)
    canvas.ellipse(-17, -26, 0.9, 0.9, TYRE)
    canvas.line(-11.6, -18, -17.6, -18.4, 1.6, lit((206, 40, 50), scene))


OTHERS: dict[str, Callable[[Canvas, Scene, Generator], None]] = {
    "house": _house,
    "boat": _boat,
    "tree": _tree,
    "ball": _ball,
    "storm": _storm,
    "spitfire car": _spitfire_car,
    "kit box": _kit_box,
    "part": _part,
    "shirt": _shirt,
    "mug": _mug,
    "dog": _dog,
}
