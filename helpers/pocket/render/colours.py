"""Colours, RGB in 0..255, as a scene's time of day and weather show them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from helpers.pocket.render.canvas import Canvas
from helpers.pocket.render.scenes import LIVERIES, Scene

Colour = tuple[int, int, int]


class Hour(NamedTuple):
    """By what a time of day multiplies red, green and blue, and the ends of its sky."""

    light: tuple[float, float, float]
    zenith: Colour
    skyline: Colour


HOURS = {
    "morning": Hour((1.0, 0.96, 0.88), (125, 165, 215), (252, 226, 196)),
    "noon": Hour((1.0, 1.0, 1.0), (55, 125, 225), (192, 222, 250)),
    "dusk": Hour((0.92, 0.77, 0.76), (84, 72, 138), (240, 150, 120)),
    "night": Hour((0.68, 0.71, 0.84), (14, 20, 52), (62, 74, 118)),
}
OVERCAST = {  # how far, and towards which colour, the weather pulls the sky
    "clear": (0.0, (0, 0, 0)),
    "cloudy": (0.4, (198, 204, 212)),
    "rain": (0.7, (136, 144, 158)),
    "fog": (0.55, (208, 211, 214)),
}
SOIL = {
    "runway": (160, 161, 164),
    "sky": (205, 220, 238),
    "sea": (98, 170, 200),
    "hangar": (198, 194, 186),
    "meadow": (132, 190, 92),
    "mountains": (182, 170, 146),
    "city": (186, 180, 178),
    "sunset": (222, 166, 112),
}


def blend(a: Iterable[float], b: Iterable[float], share: float) -> Colour:
    """The colour ``share`` (0..1) of the way from ``a`` to ``b``."""
    return tuple(int(p + (q - p) * share) for p, q in zip(a, b, strict=True))


def lit(colour: Iterable[float], scene: Scene) -> Colour:
    """A colour as the scene's time of day shows it."""
    light = HOURS[scene.time].light
    return tuple(int(c * share) for c, share in zip(colour, light, strict=True))


def livery(scene: Scene) -> tuple[Colour, Colour]:
    """The lit main and accent colour of the scene's livery."""
    _, main, accent = LIVERIES[scene.livery % len(LIVERIES)]
    return lit(main, scene), lit(accent, scene)


def ground_colour(scene: Scene) -> Colour:
    """The colour of the ground where objects stand."""
    return lit(SOIL[scene.background], scene)


def sky_colour(scene: Scene, height: float) -> Colour:
    """The colour of the sky; ``height`` runs from 0 (horizon) to 1 (top of the picture)."""
    _, high, low = HOURS[scene.time]
    share, grey = OVERCAST[scene.weather]
    if scene.background == "sunset":
        low = blend((255, 132, 42), low, 0.22)
        high = blend((150, 62, 120), high, 0.3)
        share *= 0.55
    if scene.background == "sky":
        low = blend(low, ground_colour(scene), 0.6)
    return blend(blend(low, high, height), lit(grey, scene), share)


def shadow(
    canvas: Canvas, scene: Scene, half: float, y: float = 0.2, ry: float = 1.3, share: float = 0.25
) -> None:
    """Darken the ground under an object that is ``2 * half`` units long, by ``share`` (0..1)."""
    dark = blend(ground_colour(scene), (0, 0, 0), share)
    canvas.at(canvas.place, canvas.depth, is_object=False).ellipse(0, y, half, ry, dark)
