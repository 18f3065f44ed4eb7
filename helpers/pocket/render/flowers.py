"""Flowers: species with countable petals, seen from the front.

Drawn in local units, the bottom of the stem at (0, 0), y pointing down.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from helpers.pocket.render.canvas import Canvas, turned
from helpers.pocket.render.colours import Colour, blend, lit
from helpers.pocket.render.scenes import Scene


@dataclass(frozen=True)
class Flower:
    """One species; ``petals`` counts tepals or bracts where these make the show."""

    name: str  # as in Oxford Flowers-102
    petals: int
    shape: str  # round, pointed, heart, long
    hue: tuple[float, float]  # range in 0..1
    saturation: float
    centre: str  # small, large, trumpet, striped, spiral
    centre_colour: Colour = (246, 206, 60)
    leaves: str = "oval"  # oval, narrow


FLOWERS = (
    Flower("bougainvillea", 3, "pointed", (0.87, 0.90), 0.75, "small", (250, 246, 214)),
    Flower("wallflower", 4, "round", (0.12, 0.15), 0.85, "small", (150, 120, 30), "narrow"),
    Flower("buttercup", 5, "round", (0.13, 0.16), 0.88, "small", (186, 160, 30)),
    Flower("daffodil", 6, "pointed", (0.14, 0.16), 0.70, "trumpet", (245, 150, 30), "narrow"),
    Flower("pink primrose", 4, "heart", (0.91, 0.94), 0.38, "striped", (250, 240, 150)),
    Flower("mallow", 5, "heart", (0.88, 0.92), 0.48, "striped", (240, 226, 236)),
    Flower("corn poppy", 4, "round", (0.99, 1.02), 0.86, "large", (44, 34, 44)),
    Flower("balloon flower", 5, "pointed", (0.68, 0.71), 0.58, "small", (240, 240, 250)),
    Flower("spring crocus", 6, "pointed", (0.73, 0.77), 0.50, "small", (250, 150, 30), "narrow"),
    Flower("frangipani", 5, "round", (0.13, 0.15), 0.05, "small"),
    Flower("windflower", 6, "round", (0.75, 0.80), 0.05, "small"),
    Flower("oxeye daisy", 21, "long", (0.12, 0.15), 0.03, "large", (244, 190, 40), "narrow"),
    Flower("sunflower", 21, "long", (0.12, 0.14), 0.88, "large", (96, 58, 30)),
    Flower("rose", 20, "heart", (0.96, 1.0), 0.75, "spiral"),
)
HEAD = -27.0  # y of the middle of the head
RADII = {"small": 2.4, "large": 5.0, "trumpet": 5.2, "striped": 2.6}  # of centres


def draw_flower(canvas: Canvas, flower: Flower, scene: Scene, rng: np.random.Generator) -> None:
    """Draw a flower about 41 units tall: stem, leaves and a head of radius 14, all petals shown."""
    hue = rng.uniform(*flower.hue)
    turn = rng.uniform(0, 2 * np.pi / flower.petals)
    lean = rng.uniform(-2, 2)
    green = lit(blend((62, 140, 62), (96, 160, 60), rng.random()), scene)
    _stem(canvas, flower, lean, green)
    rgb = colorsys.hsv_to_rgb(hue % 1, flower.saturation, rng.uniform(0.9, 1.0))
    petal = lit([255 * c for c in rgb], scene)
    if flower.centre == "spiral":
        _spiral(canvas, lean, turn, petal)
    else:
        _petals(canvas, flower, lean, turn, petal)
        _centre(canvas, flower, lean, turn, scene)


def _stem(canvas: Canvas, flower: Flower, x: float, green: Colour) -> None:
    canvas.line(0, 0, x, HEAD, 1.6, green)
    length, width, angle = (8.5, 0.9, -1.0) if flower.leaves == "narrow" else (6, 2.2, -0.45)
    y = -2 + length * np.sin(angle)
    for side in (-1, 1):
        canvas.ellipse(side * length * np.cos(angle), y, length, width, green, side * angle)


def _outline(shape: str, length: float, width: float) -> np.ndarray:
    """Outline of a petal from the centre along +x, as (n, 2) points."""
    t = np.linspace(0, 1, 13)
    reach = t * length
    half = {
        "round": np.sin(np.pi * t**1.5) ** 0.6,
        "pointed": np.sin(np.pi * t**0.9) ** 0.9,
        "heart": t**0.8 * (1 - t**8) ** 0.5 * 1.15,
        "long": np.sin(np.pi * t) ** 0.5,
    }[shape] * width
    if shape == "heart":  # a lobe beyond the end, and a notch
        half = np.append(half[:-1], (0.5 * width, 0))
        reach = np.append(reach[:-1], (1.02 * length, 0.76 * length))
    return np.concatenate([np.stack([reach, half], 1), np.stack([reach, -half], 1)[::-1]])


def _petals(canvas: Canvas, flower: Flower, x: float, turn: float, petal: Colour) -> None:
    slim = 0.8 if flower.shape == "pointed" else 0.92
    width = min(6.4, 9.5 * np.tan(np.pi / flower.petals)) * slim
    outer = _outline(flower.shape, 14.4, width + 0.4)
    inner = _outline(flower.shape, 13.6, width - 0.4)
    rim = blend(petal, (70, 40, 60), 0.55)
    vein = blend(petal, (90, 40, 70), 0.22)
    for i in range(flower.petals):
        angle = turn + 2 * np.pi * i / flower.petals
        canvas.polygon(turned(outer, angle, (x, HEAD)), rim)
        canvas.polygon(turned(inner, angle, (x, HEAD)), petal)
        if flower.petals < 12:
            _ray(canvas, x, angle, 8.5, 0.7, vein)


def _ray(canvas: Canvas, x: float, angle: float, length: float, width: float, fill: Colour) -> None:
    """A line from the middle of the head outwards."""
    canvas.line(x, HEAD, x + length * np.cos(angle), HEAD + length * np.sin(angle), width, fill)


def _centre(canvas: Canvas, flower: Flower, x: float, turn: float, scene: Scene) -> None:
    colour = lit(flower.centre_colour, scene)
    radius = RADII[flower.centre]
    if flower.centre == "striped":
        stripes = flower.petals * 3
        for angle in turn + np.arange(stripes) * 2 * np.pi / stripes:
            _ray(canvas, x, angle, 7, 0.5, lit((170, 50, 110), scene))
    canvas.ellipse(x, HEAD, radius + 0.5, radius + 0.5, blend(colour, (60, 30, 20), 0.5))
    canvas.ellipse(x, HEAD, radius, radius, colour)
    if flower.centre == "trumpet":
        canvas.ellipse(x, HEAD, 3.2, 3.2, blend(colour, (120, 50, 10), 0.5))
    elif flower.centre == "large":
        highlight = blend(colour, (255, 220, 160), 0.25)
        canvas.ellipse(x - 0.8, HEAD - 0.8, 2.6, 2.6, highlight)


def _spiral(canvas: Canvas, x: float, turn: float, petal: Colour) -> None:
    """Rings of overlapping petals, as a rose shows them."""
    edge = blend(petal, (60, 0, 20), 0.5)
    for ring, radius in enumerate((12.4, 10.0, 7.4, 4.8)):
        colour = blend(petal, (60, 0, 20), 0.09 * ring)
        count = 6 - ring
        for i in range(count):
            angle = turn + 0.6 * ring + 2 * np.pi * i / count
            left = x + 0.62 * radius * np.cos(angle)
            top = HEAD + 0.62 * radius * np.sin(angle)
            across = angle + np.pi / 2
            canvas.ellipse(left, top, 0.6 * radius, 0.5 * radius, edge, across)
            canvas.ellipse(left, top, 0.54 * radius, 0.43 * radius, colour, across)
    canvas.ellipse(x, HEAD, 1.7, 1.7, edge)
