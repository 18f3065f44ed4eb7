"""Scenes: where an object is shown and how it is photographed, with every factor recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from helpers.errors import unknown
from helpers.pocket.chance import pick, weighted


class Livery(NamedTuple):
    """Two RGB colours that an object is painted in, and what captions call them."""

    words: str
    main: tuple[int, int, int]
    accent: tuple[int, int, int]


BACKGROUNDS = ("runway", "sky", "sea", "hangar", "meadow", "mountains", "city", "sunset")
TIMES = ("morning", "noon", "dusk", "night")
WEATHER_SHARES = {"clear": 0.45, "cloudy": 0.29, "rain": 0.13, "fog": 0.13}
STYLE_SHARES = {
    "benchmark": {"photo": 1.0, "poster": 0.0, "faded": 0.0, "sketch": 0.0},
    "pool": {"photo": 0.79, "poster": 0.07, "faded": 0.07, "sketch": 0.07},
}
WEATHERS = tuple(WEATHER_SHARES)
STYLES = tuple(STYLE_SHARES["pool"])
GROUND = 50.0  # units: where objects stand
HORIZON = 38.0  # units: where ground meets sky
LIVERIES = (
    Livery("white and red", (244, 244, 240), (200, 30, 45)),
    Livery("white and blue", (240, 242, 246), (25, 70, 160)),
    Livery("white and green", (242, 244, 240), (20, 130, 80)),
    Livery("white and orange", (238, 236, 230), (235, 130, 20)),
    Livery("silver and red", (192, 202, 212), (175, 25, 50)),
    Livery("silver and blue", (205, 210, 214), (30, 50, 110)),
    Livery("yellow", (250, 205, 40), (190, 35, 30)),
    Livery("orange", (240, 130, 35), (250, 250, 245)),
    Livery("red", (215, 50, 50), (250, 240, 225)),
    Livery("pink", (235, 120, 160), (110, 30, 100)),
    Livery("purple", (150, 90, 190), (250, 220, 80)),
    Livery("blue", (70, 115, 205), (250, 210, 50)),
    Livery("light blue", (85, 175, 230), (245, 245, 250)),
    Livery("teal", (50, 165, 165), (250, 240, 200)),
    Livery("green", (70, 160, 85), (245, 245, 235)),
    Livery("light green", (170, 200, 85), (40, 95, 60)),
    Livery("beige", (225, 205, 165), (120, 60, 35)),
    Livery("brown", (175, 125, 85), (250, 235, 200)),
    Livery("pale blue", (190, 225, 240), (200, 60, 110)),
    Livery("pale pink", (240, 215, 220), (150, 40, 60)),
)
RANGES = {  # factor drawn evenly (meaning and unit: ``Scene``) -> limits in each domain
    "scale": {"benchmark": (0.9, 1.05), "pool": (0.8, 1.1)},
    "pitch": {"benchmark": (-0.03, 0.03), "pool": (-0.08, 0.08)},
    "distance": {"benchmark": (60, 120), "pool": (45, 150)},
    "blur": {"benchmark": (0.0, 0.3), "pool": (0.0, 0.7)},
    "noise": {"benchmark": (0.0, 3.0), "pool": (0.0, 8.0)},
    "exposure": {"benchmark": (0.94, 1.08), "pool": (0.86, 1.16)},
    "contrast": {"benchmark": (0.92, 1.08), "pool": (0.82, 1.18)},
}
BLURRED_SHARE = 0.25  # of the pictures; the others are sharp


@dataclass(frozen=True)
class Scene:
    """Every factor of a picture but its object.

    ``x`` ... ``flip`` place the object's bottom centre. Raises ``StudyError`` on unknown names.
    """

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
        valid = {"background": BACKGROUNDS, "time": TIMES, "weather": WEATHERS, "style": STYLES}
        for factor, names in valid.items():
            if getattr(self, factor) not in names:
                raise unknown(factor, getattr(self, factor), names)


def sample_scene(rng: np.random.Generator, domain: str, background: str | None = None) -> Scene:
    """Draw a scene of ``domain``, "benchmark" or "pool".

    ``background`` replaces the drawn one and leaves all other factors as they are without it.
    """
    if domain not in STYLE_SHARES:
        raise unknown("domain", domain, STYLE_SHARES)
    values: dict = {
        "background": pick(BACKGROUNDS, rng),
        "time": pick(TIMES, rng),
        "weather": weighted(WEATHER_SHARES, rng),
        "style": weighted(STYLE_SHARES[domain], rng),
        "livery": int(rng.integers(len(LIVERIES))),
    }
    for name, limits in RANGES.items():
        values[name] = float(rng.uniform(*limits[domain]))
    slack = min(4.0, 32 - 27 * values["scale"])
    values["x"] = 32 + slack * float(rng.uniform(-1, 1))
    values["y"] = GROUND + 1.5 * float(rng.uniform(-1, 1))
    values["flip"] = bool(rng.random() < 0.5)
    values["blur"] *= rng.random() < BLURRED_SHARE
    values["distance"] = int(values["distance"])
    if background is not None:
        values["background"] = background
    return Scene(**values)
