"""Backgrounds: sky, weather, ground, and what is typical of a place."""

from __future__ import annotations

import numpy as np

from helpers.pocket.render.canvas import PICTURE, Canvas
from helpers.pocket.render.colours import Colour, blend, ground_colour, lit, sky_colour
from helpers.pocket.render.scenes import GROUND, HORIZON, Scene

Generator = np.random.Generator
FARTHEST = 230  # depth of ground; places and sky behind it lie between this and 255


def draw_background(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    """Fill the canvas with sky, weather, ground and what is typical of the scene's background."""
    _sky(canvas, scene)
    if scene.time == "night" and scene.weather == "clear":
        far = _at(canvas, 255)
        for x, y in rng.uniform((0, 0), (64, 26), (14, 2)):
            far.rectangle(x, y, x + 0.7, y + 0.7, (225, 228, 240))
        moon = rng.uniform(8, 56)
        far.ellipse(moon, 8, 3, 3, (240, 238, 215))
        far.ellipse(moon + 1.4, 7.4, 2.6, 2.6, (24, 30, 62))
    if scene.background != "hangar":
        _clouds(_at(canvas, 250), scene, rng)
    _BACKDROPS[scene.background](canvas, scene, rng)


def _at(canvas: Canvas, depth: int) -> Canvas:
    """The canvas in picture units, drawn on at a depth 0..255."""
    return canvas.at(PICTURE, depth, is_object=False)


def _on_ground(canvas: Canvas, scene: Scene, y: float) -> Canvas:
    """The canvas at the depth of the ground at ``y``: perspective, with the object's at GROUND."""
    depth = scene.distance * (GROUND - 32) / (y - 32)
    return _at(canvas, int(min(depth, FARTHEST)))


def _sky(canvas: Canvas, scene: Scene) -> None:
    far = _at(canvas, 255)
    bottom = 64.0 if scene.background == "sky" else HORIZON
    for top in np.linspace(0, bottom, 12, endpoint=False):
        far.rectangle(0, top, 64, bottom, sky_colour(scene, 1 - top / bottom))


def _clouds(far: Canvas, scene: Scene, rng: Generator) -> None:
    tone = blend(lit((255, 255, 255), scene), sky_colour(scene, 0.5), 0.12)
    if scene.weather == "rain":
        tone = lit((100, 106, 118), scene)
    shade = blend(tone, (90, 100, 120), 0.22)
    count = {"clear": 1, "cloudy": 4, "rain": 4, "fog": 0}[scene.weather]
    for x, y, size in rng.uniform((0, 3, 0.8), (64, 19, 1.6), (count, 3)):
        far.ellipse(x, y + 1.1 * size, 7.5 * size, 1.6 * size, shade)
        for dx, dy, r in ((-4, 0, 2.4), (0, -1.3, 3.3), (4, 0.1, 2.2)):
            far.ellipse(x + dx * size, y + dy * size, 1.25 * r * size, 0.8 * r * size, tone)


def _ground(canvas: Canvas, scene: Scene, far_colour: Colour | None = None) -> None:
    near = ground_colour(scene)
    far_colour = far_colour or blend(near, sky_colour(scene, 0), 0.3)
    for top in np.linspace(HORIZON, 64, 8)[:-1]:
        colour = blend(far_colour, near, min(1.0, (top - HORIZON) / 10))
        _on_ground(canvas, scene, top + 1.6).rectangle(0, top, 64, 64, colour)


def _runway(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    _ground(canvas, scene)
    _tower(_at(canvas, 215), scene, rng.uniform(6, 58))
    verge = _on_ground(canvas, scene, 40)
    verge.rectangle(0, HORIZON - 1.5, 64, HORIZON, lit((58, 104, 62), scene))
    verge.rectangle(0, HORIZON, 64, 41.5, lit((112, 168, 82), scene))
    verge.rectangle(0, 42.6, 64, 43.3, lit((240, 240, 235), scene))
    paint = _on_ground(canvas, scene, 58)
    shift = rng.uniform(-14, 0)
    for x in np.arange(shift, 64, 16):
        stripe = [(x + 1, 57.2), (x + 10, 57.2), (x + 9, 59.4), (x, 59.4)]
        paint.polygon(stripe, lit((246, 246, 240), scene))
    for x in np.arange(shift / 2 + 3, 64, 9):
        paint.ellipse(x, 62.6, 0.7, 0.7, (255, 226, 120))


def _tower(far: Canvas, scene: Scene, x: float) -> None:
    top = HORIZON - 14
    low = HORIZON - 11
    far.rectangle(x - 9, HORIZON - 4, x + 6, HORIZON, lit((196, 190, 184), scene))
    far.rectangle(x - 1.4, low, x + 1.4, HORIZON, lit((214, 208, 200), scene))
    glass = [(x - 3, top), (x + 3, top), (x + 2, low), (x - 2, low)]
    far.polygon(glass, lit((70, 110, 140), scene))
    far.rectangle(x - 3.4, HORIZON - 15, x + 3.4, top, lit((190, 60, 50), scene))


def _open_sky(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    far = _at(canvas, 245)
    white = blend(ground_colour(scene), lit((250, 252, 255), scene), 0.6)
    for x, y in zip(np.arange(0, 70, 11), rng.uniform(58, 62, 7), strict=True):
        far.ellipse(x, y + 0.6, 9, 4.2, blend(white, sky_colour(scene, 0.3), 0.35))
        far.ellipse(x + 4, y + 4, 8, 4.6, white)


def _sea(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    _ground(canvas, scene, lit((48, 112, 176), scene))
    x = rng.uniform(5, 59)
    island = [(x - 11, HORIZON), (x - 4, HORIZON - 3.5), (x + 3, HORIZON - 2), (x + 12, HORIZON)]
    _at(canvas, 225).polygon(island, lit((96, 122, 118), scene))
    for x, y, width in rng.uniform((0, 40, 2), (64, 63, 5), (13, 3)):
        glint = lit((206, 232, 238) if y > 44 else (120, 176, 212), scene)
        _on_ground(canvas, scene, y).ellipse(x, y, width * (y - 30) / 30, 0.5, glint)


def _hangar(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    far = _at(canvas, 200)
    wall = lit((150, 142, 130), scene)
    left = rng.uniform(8, 20)
    right = left + 36
    # walls with a gate, and the meadow seen through it
    far.rectangle(0, 0, left, HORIZON, wall)
    far.rectangle(right, 0, 64, HORIZON, wall)
    far.rectangle(0, 0, 64, 16, wall)
    _at(canvas, 230).rectangle(left, HORIZON - 3, right, HORIZON, lit((126, 150, 112), scene))
    for x in np.arange(2, 64, 6):
        bottom = 16 if left < x < right else HORIZON
        far.rectangle(x, 10, x + 0.8, bottom, blend(wall, (60, 60, 66), 0.35))
    # the floor, light falling in, a yellow line
    _ground(canvas, scene)
    beam = [(left, HORIZON), (right, HORIZON), (left + 42, 44), (left - 6, 44)]
    glow = blend(ground_colour(scene), (255, 255, 250), 0.45)
    _on_ground(canvas, scene, 44).polygon(beam, glow)
    _on_ground(canvas, scene, 58).rectangle(0, 57.5, 64, 58.8, lit((240, 200, 50), scene))
    # the roof with its lamps
    roof = _at(canvas, 160)
    steel = lit((92, 84, 86), scene)
    roof.rectangle(0, 0, 64, 2.2, steel)
    roof.rectangle(0, 8.6, 64, 9.8, steel)
    for x in np.arange(0, 64, 8):
        roof.line(x, 9, x + 4, 2, 0.9, steel)
        roof.line(x + 4, 2, x + 8, 9, 0.9, steel)
    for x in (12, 32, 52):
        roof.ellipse(x, 11, 3.2, 1.3, (255, 246, 205))


def _meadow(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    hills = _at(canvas, 235)
    green = lit((94, 156, 80), scene)
    peak = rng.uniform(8, 56)
    hills.ellipse(peak, HORIZON + 3, 34, 9, blend(green, sky_colour(scene, 0), 0.4))
    hills.ellipse(peak - 38, HORIZON + 2, 30, 6, green)
    hills.ellipse(peak + 40, HORIZON + 2, 30, 6, green)
    _ground(canvas, scene, green)
    trees = _at(canvas, 205)
    for x, size in rng.uniform((0, 2.0), (64, 3.2), (4, 2)):
        trees.rectangle(x - 0.5, HORIZON - 1, x + 0.5, HORIZON + 2, lit((92, 66, 46), scene))
        trees.ellipse(x, HORIZON - size, 0.9 * size, 1.2 * size, lit((48, 108, 52), scene))
    petals = ((250, 240, 245), (250, 215, 70), (226, 84, 92))
    kinds = rng.integers(len(petals), size=10)
    for (x, y), kind in zip(rng.uniform((0, 55), (64, 63), (10, 2)), kinds, strict=True):
        _on_ground(canvas, scene, y).ellipse(x, y, 0.9, 0.8, lit(petals[kind], scene))


def _mountains(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    rock = lit((106, 108, 128), scene)
    start = rng.uniform(-8, 6)
    for step, height in enumerate(rng.uniform(17, 30, 4)):
        behind = step % 2 == 0
        colour = blend(rock, sky_colour(scene, 0.2), 0.4 if behind else 0.0)
        _peak(_at(canvas, 240 if behind else 234), scene, start + 19 * step, height, colour)
    _ground(canvas, scene)
    ridge = np.stack([np.arange(0, 66, 1.6), np.full(42, HORIZON)], 1)
    ridge[::2, 1] -= rng.uniform(2.5, 5, 21)
    woods = [(0, HORIZON + 1), *ridge, (66, HORIZON + 1)]
    _at(canvas, 205).polygon(woods, lit((48, 84, 72), scene))
    for x, y in rng.uniform((0, 56), (64, 63), (5, 2)):
        _on_ground(canvas, scene, y).ellipse(x, y, 2.2, 1.0, lit((146, 136, 122), scene))


def _peak(far: Canvas, scene: Scene, x: float, height: float, colour: Colour) -> None:
    top = HORIZON - height
    foot = 0.62 * height
    far.polygon([(x - foot, HORIZON), (x, top), (x + foot, HORIZON)], colour)
    lee = [(x, top), (x + foot, HORIZON), (x + 0.12 * height, HORIZON)]
    far.polygon(lee, blend(colour, (40, 44, 66), 0.25))
    snow = 0.36 * height
    cap = np.array([(0, 0), (0.62, 1), (0.2, 0.7), (-0.1, 1.05), (-0.62, 1)]) * snow
    far.polygon(np.add(cap, (x, top)), lit((250, 250, 252), scene))


def _city(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    far = _at(canvas, 215)
    stones = ((120, 126, 146), (158, 134, 124), (104, 118, 136), (164, 158, 152))
    x = rng.uniform(-5, 0)
    widths = rng.uniform(7, 12, 8)
    heights = rng.uniform(9, 28, 8)
    kinds = rng.integers(len(stones), size=8)
    for width, height, kind in zip(widths, heights, kinds, strict=True):
        _block(far, scene, x, width, height, lit(stones[kind], scene))
        x += width
    _ground(canvas, scene)
    kerb = _on_ground(canvas, scene, 42)
    kerb.rectangle(0, HORIZON, 64, 40.4, lit((112, 110, 118), scene))
    kerb.rectangle(0, 40.4, 64, 41.4, lit((222, 218, 210), scene))
    paint = _on_ground(canvas, scene, 60)
    for start in np.arange(rng.uniform(-8, 0), 64, 8):
        paint.rectangle(start, 56.5, start + 4, 63, lit((238, 236, 228), scene))


def _block(far: Canvas, scene: Scene, x: float, width: float, height: float, wall: Colour) -> None:
    """A tower block: panes in columns, and between them the floors, one comb of wall."""
    top = HORIZON - height
    right = x + width - 0.5
    dark = scene.time in ("dusk", "night")
    pane = (255, 222, 128) if dark else blend(wall, (216, 234, 250), 0.6)
    far.rectangle(x, top, right, HORIZON, wall)
    for left in np.arange(x + 1.1, x + width - 1.8, 2.7):
        far.rectangle(left, top + 1.5, left + 1.4, HORIZON - 2, pane)
    comb = []
    for y in np.arange(top + 3.1, HORIZON - 3, 3.9):
        comb += [(x, y), (right, y), (right, y + 1.6), (x, y + 1.6)]
    far.polygon([*comb, (x, HORIZON)], wall)


def _sunset(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    sun = _at(canvas, 254)
    x = rng.uniform(10, 54)
    for radius, share in ((13, 0.25), (10, 0.5), (7.5, 1.0)):
        sun.ellipse(x, 33, radius, radius, blend(sky_colour(scene, 0.15), (255, 236, 150), share))
    streaks = _at(canvas, 250)
    for left, y, width in rng.uniform((0, 12, 9), (64, 31, 17), (4, 3)):
        streaks.ellipse(left, y, width, 0.8, blend(sky_colour(scene, 0.8), (255, 150, 120), 0.3))
    hills = _at(canvas, 235)
    start = rng.uniform(-10, 10)
    hills.ellipse(start, HORIZON + 1, 26, 5, lit((122, 68, 88), scene))
    hills.ellipse(start + 52, HORIZON + 1, 32, 4, lit((140, 76, 84), scene))
    _ground(canvas, scene, lit((196, 112, 84), scene))
    for y, width in ((39.5, 8), (42, 6), (56.5, 5), (59.5, 8)):
        _on_ground(canvas, scene, y).ellipse(x, y, width, 0.6, lit((255, 214, 140), scene))


_BACKDROPS = {
    "runway": _runway,
    "sky": _open_sky,
    "sea": _sea,
    "hangar": _hangar,
    "meadow": _meadow,
    "mountains": _mountains,
    "city": _city,
    "sunset": _sunset,
}
