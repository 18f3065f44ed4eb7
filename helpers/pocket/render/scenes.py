"""Scenes: where an object is shown and how it is photographed, with every factor recorded; backgrounds and camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from helpers.pocket.render.canvas import Canvas, Placement

BACKGROUNDS = ("runway", "sky", "sea", "hangar", "meadow", "mountains", "city", "sunset")
TIMES = ("morning", "noon", "dusk", "night")
WEATHERS = ("clear", "cloudy", "rain", "fog")
STYLES = ("photo", "poster", "faded", "sketch")
GROUND, HORIZON = 50.0, 38.0  # units: where objects stand, and where ground meets sky
LIVERIES = (  # (main, accent) RGB
    ((244, 244, 240), (200, 30, 45)),
    ((240, 242, 246), (25, 70, 160)),
    ((242, 244, 240), (20, 130, 80)),
    ((238, 236, 230), (235, 130, 20)),
    ((192, 202, 212), (175, 25, 50)),
    ((205, 210, 214), (30, 50, 110)),
    ((250, 205, 40), (190, 35, 30)),
    ((240, 130, 35), (250, 250, 245)),
    ((215, 50, 50), (250, 240, 225)),
    ((235, 120, 160), (110, 30, 100)),
    ((150, 90, 190), (250, 220, 80)),
    ((70, 115, 205), (250, 210, 50)),
    ((85, 175, 230), (245, 245, 250)),
    ((50, 165, 165), (250, 240, 200)),
    ((70, 160, 85), (245, 245, 235)),
    ((170, 200, 85), (40, 95, 60)),
    ((225, 205, 165), (120, 60, 35)),
    ((175, 125, 85), (250, 235, 200)),
    ((190, 225, 240), (200, 60, 110)),
    ((240, 215, 220), (150, 40, 60)),
)
LIGHT = {
    "morning": (1.0, 0.96, 0.88),
    "noon": (1.0, 1.0, 1.0),
    "dusk": (0.92, 0.77, 0.76),
    "night": (0.68, 0.71, 0.84),
}
ZENITH = {
    "morning": (125, 165, 215),
    "noon": (55, 125, 225),
    "dusk": (84, 72, 138),
    "night": (14, 20, 52),
}
SKYLINE = {
    "morning": (252, 226, 196),
    "noon": (192, 222, 250),
    "dusk": (240, 150, 120),
    "night": (62, 74, 118),
}
OVERCAST = {
    "clear": (0.0, (0, 0, 0)),
    "cloudy": (0.4, (198, 204, 212)),
    "rain": (0.7, (136, 144, 158)),
    "fog": (0.55, (208, 211, 214)),
}  # how far, and towards which colour, the weather pulls the sky
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
RANGES = {
    "benchmark": {
        "scale": (0.9, 1.05),
        "pitch": (-0.03, 0.03),
        "distance": (60, 120),
        "blur": (0.0, 0.3),
        "noise": (0.0, 3.0),
        "exposure": (0.94, 1.08),
        "contrast": (0.92, 1.08),
    },
    "pool": {
        "scale": (0.8, 1.1),
        "pitch": (-0.08, 0.08),
        "distance": (45, 150),
        "blur": (0.0, 0.7),
        "noise": (0.0, 8.0),
        "exposure": (0.86, 1.16),
        "contrast": (0.82, 1.18),
    },
}
STYLE_SHARES = {"benchmark": (1.0, 0.0, 0.0, 0.0), "pool": (0.79, 0.07, 0.07, 0.07)}
WEATHER_SHARES = (0.45, 0.29, 0.13, 0.13)
BLURRED_SHARE = 0.25


@dataclass(frozen=True)
class Scene:
    """Every factor of a picture but its object; x, y, scale, pitch and flip place the object's bottom centre."""

    background: str
    time: str
    weather: str
    livery: int
    x: float  # units, 64 = image side
    y: float  # units, downwards
    scale: float
    pitch: float  # radians
    flip: bool
    distance: int  # depth of the object, 0 near .. 255 far
    blur: float  # sigma in pixels of a 64-pixel picture
    noise: float  # standard deviation in grey levels
    exposure: float
    contrast: float
    style: str

    def __post_init__(self):
        for name, value, valid in (
            ("background", self.background, BACKGROUNDS),
            ("time", self.time, TIMES),
            ("weather", self.weather, WEATHERS),
            ("style", self.style, STYLES),
        ):
            check(name, value, valid)

    @property
    def placement(self) -> Placement:
        """Where the object goes, in picture units."""
        return Placement(self.x, self.y, self.scale, self.pitch, self.flip)


def check(what: str, given: str, valid) -> None:
    """Raise ValueError, naming the valid choices, unless ``given`` is one of them."""
    if given not in valid:
        raise ValueError(f"unknown {what} {given!r}; valid: {', '.join(valid)}")


def sample_scene(rng: np.random.Generator, domain: str, background: str | None = None) -> Scene:
    """Draw a scene of ``domain`` ("benchmark" or "pool"); a given ``background`` leaves the other factors as they were."""
    check("domain", domain, RANGES)
    drawn = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    time, weather = TIMES[rng.integers(len(TIMES))], rng.choice(WEATHERS, p=WEATHER_SHARES)
    style, livery = rng.choice(STYLES, p=STYLE_SHARES[domain]), rng.integers(len(LIVERIES))
    values = {name: float(rng.uniform(*limits)) for name, limits in RANGES[domain].items()}
    across, down, flip, blurred = (
        rng.uniform(-1, 1),
        rng.uniform(-1, 1),
        rng.random() < 0.5,
        rng.random() < BLURRED_SHARE,
    )
    slack = min(4.0, 32 - 27 * values["scale"])
    values |= {"distance": int(values["distance"]), "blur": values["blur"] * blurred}
    return Scene(
        background=background or drawn,
        time=time,
        weather=str(weather),
        style=str(style),
        livery=int(livery),
        x=32 + slack * float(across),
        y=GROUND + 1.5 * float(down),
        flip=bool(flip),
        **values,
    )


def blend(a, b, share: float) -> tuple[int, int, int]:
    """The RGB colour ``share`` (0..1) of the way from ``a`` to ``b``."""
    return tuple(int(p + (q - p) * share) for p, q in zip(a, b, strict=True))


def lit(colour, scene: Scene) -> tuple[int, int, int]:
    """An RGB colour as the scene's time of day shows it."""
    return tuple(int(c * light) for c, light in zip(colour, LIGHT[scene.time], strict=True))


def ground_colour(scene: Scene) -> tuple[int, int, int]:
    """RGB of the ground around GROUND, for shadows and the like."""
    return lit(SOIL[scene.background], scene)


def sky_colour(scene: Scene, height: float) -> tuple[int, int, int]:
    """RGB of the sky, ``height`` running from 0 (horizon) to 1 (top of the picture)."""
    low, high = SKYLINE[scene.time], ZENITH[scene.time]
    if scene.background == "sunset":
        low, high = blend((255, 132, 42), low, 0.22), blend((150, 62, 120), high, 0.3)
    if scene.background == "sky":
        low = blend(low, ground_colour(scene), 0.6)
    share, grey = OVERCAST[scene.weather]
    return blend(
        blend(low, high, height),
        lit(grey, scene),
        share * (0.55 if scene.background == "sunset" else 1.0),
    )


def draw_background(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Fill the canvas with sky, weather, ground and what is typical of the scene's background."""
    _sky(canvas, scene)
    if scene.time == "night" and scene.weather == "clear":
        _stars(_far(canvas, 255), rng)
    if scene.background != "hangar":
        _clouds(_far(canvas, 250), scene, rng)
    _BACKDROPS[scene.background](canvas, scene, rng)


def _far(canvas: Canvas, depth: int) -> Canvas:
    return canvas.at(Placement(), depth, is_object=False)


def _sky(canvas, scene):
    far, bottom = _far(canvas, 255), 64.0 if scene.background == "sky" else HORIZON
    for top in np.linspace(0, bottom, 12, endpoint=False):
        far.rectangle(0, top, 64, bottom, sky_colour(scene, 1 - top / bottom))


def _stars(far, rng):
    for x, y in rng.uniform((0, 0), (64, 26), (14, 2)):
        far.rectangle(x, y, x + 0.7, y + 0.7, (225, 228, 240))
    x = rng.uniform(8, 56)
    far.ellipse(x, 8, 3, 3, (240, 238, 215))
    far.ellipse(x + 1.4, 7.4, 2.6, 2.6, (24, 30, 62))


def _clouds(far, scene, rng):
    tone = blend(lit((255, 255, 255), scene), sky_colour(scene, 0.5), 0.12)
    if scene.weather == "rain":
        tone = lit((100, 106, 118), scene)
    count = {"clear": 1, "cloudy": 4, "rain": 4, "fog": 0}[scene.weather]
    for x, y, size in rng.uniform((0, 3, 0.8), (64, 19, 1.6), (count, 3)):
        _cloud(far, x, y, size, tone)


def _cloud(far, x, y, size, tone):
    shade = blend(tone, (90, 100, 120), 0.22)
    far.ellipse(x, y + 1.1 * size, 7.5 * size, 1.6 * size, shade)
    for dx, dy, r in ((-4, 0, 2.4), (0, -1.3, 3.3), (4, 0.1, 2.2)):
        far.ellipse(x + dx * size, y + dy * size, 1.25 * r * size, 0.8 * r * size, tone)


def _ground(canvas, scene, far_colour=None):
    near = ground_colour(scene)
    far_colour = far_colour or blend(near, sky_colour(scene, 0), 0.3)
    for top in np.linspace(HORIZON, 64, 8)[:-1]:
        depth = (
            scene.distance * (GROUND - 32) / (top + 1.6 - 32)
        )  # perspective, with the object's distance at GROUND
        colour = blend(far_colour, near, min(1.0, (top - HORIZON) / 10))
        _far(canvas, int(min(depth, 230))).rectangle(0, top, 64, 64, colour)


def _near(canvas, scene, y):
    return _far(canvas, int(min(scene.distance * (GROUND - 32) / (y - 32), 230)))


def _runway(canvas, scene, rng):
    _ground(canvas, scene)
    _tower(_far(canvas, 215), scene, rng.uniform(6, 58))
    verge = _near(canvas, scene, 40)
    verge.rectangle(0, HORIZON - 1.5, 64, HORIZON, lit((58, 104, 62), scene))
    verge.rectangle(0, HORIZON, 64, 41.5, lit((112, 168, 82), scene))
    verge.rectangle(0, 42.6, 64, 43.3, lit((240, 240, 235), scene))
    paint, shift = _near(canvas, scene, 58), rng.uniform(-14, 0)
    for x in np.arange(shift, 64, 16):
        paint.polygon(
            [(x + 1, 57.2), (x + 10, 57.2), (x + 9, 59.4), (x, 59.4)], lit((246, 246, 240), scene)
        )
    for x in np.arange(shift / 2 + 3, 64, 9):
        paint.ellipse(x, 62.6, 0.7, 0.7, (255, 226, 120))


def _tower(far, scene, x):
    far.rectangle(x - 9, HORIZON - 4, x + 6, HORIZON, lit((196, 190, 184), scene))
    far.rectangle(x - 1.4, HORIZON - 11, x + 1.4, HORIZON, lit((214, 208, 200), scene))
    far.polygon(
        [
            (x - 3, HORIZON - 14),
            (x + 3, HORIZON - 14),
            (x + 2, HORIZON - 11),
            (x - 2, HORIZON - 11),
        ],
        lit((70, 110, 140), scene),
    )
    far.rectangle(x - 3.4, HORIZON - 15, x + 3.4, HORIZON - 14, lit((190, 60, 50), scene))


def _open_sky(canvas, scene, rng):
    far = _far(canvas, 245)
    white = blend(ground_colour(scene), lit((250, 252, 255), scene), 0.6)
    for x, y in zip(np.arange(0, 70, 11), rng.uniform(58, 62, 7), strict=True):
        far.ellipse(x, y + 0.6, 9, 4.2, blend(white, sky_colour(scene, 0.3), 0.35))
        far.ellipse(x + 4, y + 4, 8, 4.6, white)


def _sea(canvas, scene, rng):
    _ground(canvas, scene, lit((48, 112, 176), scene))
    island, x = _far(canvas, 225), rng.uniform(5, 59)
    island.polygon(
        [(x - 11, HORIZON), (x - 4, HORIZON - 3.5), (x + 3, HORIZON - 2), (x + 12, HORIZON)],
        lit((96, 122, 118), scene),
    )
    for x, y, width in rng.uniform((0, 40, 2), (64, 63, 5), (13, 3)):
        glint = lit((206, 232, 238) if y > 44 else (120, 176, 212), scene)
        _near(canvas, scene, y).ellipse(x, y, width * (y - 30) / 30, 0.5, glint)


def _hangar(canvas, scene, rng):
    wall, far = lit((150, 142, 130), scene), _far(canvas, 200)
    left = rng.uniform(8, 20)
    far.rectangle(0, 0, left, HORIZON, wall)
    far.rectangle(left + 36, 0, 64, HORIZON, wall)
    far.rectangle(0, 0, 64, 16, wall)
    _far(canvas, 230).rectangle(left, HORIZON - 3, left + 36, HORIZON, lit((126, 150, 112), scene))
    for x in np.arange(2, 64, 6):
        far.rectangle(
            x, 10, x + 0.8, 16 if left < x < left + 36 else HORIZON, blend(wall, (60, 60, 66), 0.35)
        )
    _ground(canvas, scene)
    _near(canvas, scene, 44).polygon(
        [(left, HORIZON), (left + 36, HORIZON), (left + 42, 44), (left - 6, 44)],
        blend(ground_colour(scene), (255, 255, 250), 0.45),
    )
    _near(canvas, scene, 58).rectangle(0, 57.5, 64, 58.8, lit((240, 200, 50), scene))
    _roof(_far(canvas, 160), scene)


def _roof(far, scene):
    steel = lit((92, 84, 86), scene)
    far.rectangle(0, 0, 64, 2.2, steel)
    far.rectangle(0, 8.6, 64, 9.8, steel)
    for x in np.arange(0, 64, 8):
        far.line(x, 9, x + 4, 2, 0.9, steel)
        far.line(x + 4, 2, x + 8, 9, 0.9, steel)
    for x in (12, 32, 52):
        far.ellipse(x, 11, 3.2, 1.3, (255, 246, 205))


def _meadow(canvas, scene, rng):
    hills, green = _far(canvas, 235), lit((94, 156, 80), scene)
    peak = rng.uniform(8, 56)
    hills.ellipse(peak, HORIZON + 3, 34, 9, blend(green, sky_colour(scene, 0), 0.4))
    hills.ellipse(peak - 38, HORIZON + 2, 30, 6, green)
    hills.ellipse(peak + 40, HORIZON + 2, 30, 6, green)
    _ground(canvas, scene, green)
    for x, size in rng.uniform((0, 2.0), (64, 3.2), (4, 2)):
        trees = _far(canvas, 205)
        trees.rectangle(x - 0.5, HORIZON - 1, x + 0.5, HORIZON + 2, lit((92, 66, 46), scene))
        trees.ellipse(x, HORIZON - size, 0.9 * size, 1.2 * size, lit((48, 108, 52), scene))
    bloom = rng.integers(3, size=10)
    for (x, y), kind in zip(rng.uniform((0, 55), (64, 63), (10, 2)), bloom, strict=True):
        colour = ((250, 240, 245), (250, 215, 70), (226, 84, 92))[kind]
        _near(canvas, scene, y).ellipse(x, y, 0.9, 0.8, lit(colour, scene))


def _mountains(canvas, scene, rng):
    rock, start = lit((106, 108, 128), scene), rng.uniform(-8, 6)
    for step, height in enumerate(rng.uniform(17, 30, 4)):
        colour = blend(rock, sky_colour(scene, 0.2), (0.4, 0.0)[step % 2])
        _peak(_far(canvas, 240 - 6 * (step % 2)), scene, (start + 19 * step, height), colour)
    _ground(canvas, scene)
    ridge = np.stack([np.arange(0, 66, 1.6), np.full(42, HORIZON)], 1)
    ridge[::2, 1] -= rng.uniform(2.5, 5, 21)
    _far(canvas, 205).polygon(
        [(0, HORIZON + 1), *ridge, (66, HORIZON + 1)], lit((48, 84, 72), scene)
    )
    for x, y in rng.uniform((0, 56), (64, 63), (5, 2)):
        _near(canvas, scene, y).ellipse(x, y, 2.2, 1.0, lit((146, 136, 122), scene))


def _peak(far, scene, place, colour):
    x, height = place
    top, slope = HORIZON - height, 0.62
    far.polygon([(x - slope * height, HORIZON), (x, top), (x + slope * height, HORIZON)], colour)
    far.polygon(
        [(x, top), (x + slope * height, HORIZON), (x + 0.12 * height, HORIZON)],
        blend(colour, (40, 44, 66), 0.25),
    )
    snow = 0.36 * height
    far.polygon(
        [
            (x, top),
            (x + slope * snow, top + snow),
            (x + 0.2 * snow, top + 0.7 * snow),
            (x - 0.1 * snow, top + 1.05 * snow),
            (x - slope * snow, top + snow),
        ],
        lit((250, 250, 252), scene),
    )


def _city(canvas, scene, rng):
    far, x = _far(canvas, 215), rng.uniform(-5, 0)
    for width, height, hue in zip(
        rng.uniform(7, 12, 8), rng.uniform(9, 28, 8), rng.integers(4, size=8), strict=True
    ):
        stone = ((120, 126, 146), (158, 134, 124), (104, 118, 136), (164, 158, 152))[hue]
        _tower_block(far, scene, (x, width, height), lit(stone, scene))
        x += width
    _ground(canvas, scene)
    kerb = _near(canvas, scene, 42)
    kerb.rectangle(0, HORIZON, 64, 40.4, lit((112, 110, 118), scene))
    kerb.rectangle(0, 40.4, 64, 41.4, lit((222, 218, 210), scene))
    shift, paint = rng.uniform(-8, 0), _near(canvas, scene, 60)
    for start in np.arange(shift, 64, 8):
        paint.rectangle(start, 56.5, start + 4, 63, lit((238, 236, 228), scene))


def _tower_block(far, scene, block, colour):
    x, width, height = block
    far.rectangle(x, HORIZON - height, x + width - 0.5, HORIZON, colour)
    pane = (
        (255, 222, 128) if scene.time in ("dusk", "night") else blend(colour, (216, 234, 250), 0.6)
    )
    for left in np.arange(x + 1.1, x + width - 1.8, 2.7):
        far.rectangle(left, HORIZON - height + 1.5, left + 1.4, HORIZON - 2, pane)
    floors, right = np.arange(HORIZON - height + 3.1, HORIZON - 3, 3.9), x + width - 0.5
    comb = [point for y in floors for point in ((x, y), (right, y), (right, y + 1.6), (x, y + 1.6))]
    far.polygon([*comb, (x, HORIZON)], colour)


def _sunset(canvas, scene, rng):
    sun, x = _far(canvas, 254), rng.uniform(10, 54)
    for radius, share in ((13, 0.25), (10, 0.5), (7.5, 1.0)):
        sun.ellipse(x, 33, radius, radius, blend(sky_colour(scene, 0.15), (255, 236, 150), share))
    streaks = _far(canvas, 250)
    for left, y, width in rng.uniform((0, 12, 9), (64, 31, 17), (4, 3)):
        streaks.ellipse(left, y, width, 0.8, blend(sky_colour(scene, 0.8), (255, 150, 120), 0.3))
    hills, start = _far(canvas, 235), rng.uniform(-10, 10)
    hills.ellipse(start, HORIZON + 1, 26, 5, lit((122, 68, 88), scene))
    hills.ellipse(start + 52, HORIZON + 1, 32, 4, lit((140, 76, 84), scene))
    _ground(canvas, scene, lit((196, 112, 84), scene))
    for y, width in ((39.5, 8), (42, 6), (56.5, 5), (59.5, 8)):
        _near(canvas, scene, y).ellipse(x, y, width, 0.6, lit((255, 214, 140), scene))


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


def camera(
    pixels: np.ndarray, scene: Scene, rng: np.random.Generator, depth: np.ndarray | None = None
) -> np.ndarray:
    """Photograph a drawn picture: uint8 (s, s, 3) in and out; ``depth`` uint8 (s, s) makes fog thicken with distance."""
    size = pixels.shape[0]
    seen = pixels.astype(np.float32)
    if scene.weather == "fog":
        seen = _fog(
            seen, scene, np.full((size, size), scene.distance, np.uint8) if depth is None else depth
        )
    seen = ((seen - 128) * scene.contrast + 128) * scene.exposure
    seen = _FINISHES[scene.style](seen.clip(0, 255))
    if scene.weather == "rain" and scene.background != "hangar":
        seen = _rain(seen, rng)
    if scene.blur > 0:
        picture = Image.fromarray(seen.clip(0, 255).astype(np.uint8))
        seen = np.asarray(
            picture.filter(ImageFilter.GaussianBlur(scene.blur * size / 64)), np.float32
        )
    seen = seen + scene.noise * rng.standard_normal(seen.shape, np.float32)
    return seen.clip(0, 255).round().astype(np.uint8)


def _fog(seen, scene, depth):
    share = 1 - np.exp(-depth.astype(np.float32) / 255 * 1.1)[..., None]
    return seen + (np.array(lit((212, 216, 220), scene), np.float32) - seen) * share


def _rain(seen, rng):
    size = seen.shape[0]
    length = np.arange(size // 12 + 1)
    rows, columns = rng.integers(size, size=(2, 36, 1))
    streaks = np.zeros((size, size, 1), np.float32)
    streaks[(rows + length) % size, (columns - length // 3) % size] = 0.3
    return seen + (np.float32(225) - seen) * streaks


def _grey(seen):
    return (seen @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def _poster(seen):
    vivid = (_grey(seen) + 1.35 * (seen - _grey(seen))).clip(0, 255)
    return np.round(vivid / 51) * 51


def _faded(seen):
    return _grey(seen) * 0.5 + seen * 0.34 + np.array([46, 38, 24], np.float32)


def _sketch(seen):
    grey = _grey(seen)[..., 0]
    edges = np.hypot(*np.gradient(grey))
    return np.repeat((88 + 0.64 * grey - 1.5 * edges)[..., None], 3, 2).clip(0, 255)


_FINISHES = {"photo": np.asarray, "poster": _poster, "faded": _faded, "sketch": _sketch}
