"""Cars: models with countable doors, seen from the side.

Drawn in local units, facing left, wheels on y = 0 around x = 0, y pointing down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from helpers.pocket.render.canvas import Canvas
from helpers.pocket.render.colours import Colour, blend, lit, livery, shadow
from helpers.pocket.render.scenes import Scene

TYRE = (30, 30, 34)
RIM = (196, 200, 206)
GLASS = (150, 190, 214)
DARK = (46, 44, 50)
CREW_CAB = 0.15  # how much further back the cabin of a pickup with two doors reaches, in lengths


class Profile(NamedTuple):
    """The outline of a body: x as a share of the length from the middle, y as one of the height."""

    nose: float  # y of the nose
    hood: float  # x where hood and windscreen meet
    roof: float  # x where the roof starts
    rear: float  # x where the roof ends
    end: float  # x where the cabin ends
    belt: float  # y of the lower edge of the windows
    tail: float  # y of the tail
    door: float  # width of the only door of a side, as a share of the length


PROFILES = {
    "sedan": Profile(0.52, -0.20, -0.05, 0.17, 0.33, 0.64, 0.62, 0.27),
    "wagon": Profile(0.52, -0.20, -0.05, 0.42, 0.49, 0.64, 0.62, 0.27),
    "coupe": Profile(0.50, -0.18, 0.00, 0.14, 0.40, 0.63, 0.60, 0.27),
    "hatchback": Profile(0.54, -0.29, -0.10, 0.33, 0.49, 0.62, 0.56, 0.30),
    "suv": Profile(0.60, -0.22, -0.15, 0.44, 0.49, 0.63, 0.62, 0.26),
    "van": Profile(0.48, -0.40, -0.25, 0.47, 0.495, 0.56, 0.56, 0.20),
    "pickup": Profile(0.58, -0.22, -0.12, 0.04, 0.08, 0.62, 0.60, 0.20),
    "convertible": Profile(0.52, -0.18, -0.05, 0.14, 0.36, 0.64, 0.62, 0.25),
}


@dataclass(frozen=True)
class Car:
    """One model; lengths in metres."""

    name: str  # as in Stanford Cars
    body: str  # one of PROFILES
    doors: int  # hinged side doors on the side we see
    arches: str  # round, square
    lights: str  # round, slim, block
    length: float
    height: float
    rear_windows: bool = True

    @property
    def profile(self) -> Profile:
        """The outline of the body."""
        profile = PROFILES[self.body]
        if self.body == "pickup" and self.doors == 2:
            return profile._replace(rear=profile.rear + CREW_CAB, end=profile.end + CREW_CAB)
        return profile


CARS = (
    Car("Audi 100 Sedan 1994", "sedan", 2, "round", "block", 4.79, 1.43),
    Car("Audi 100 Wagon 1994", "wagon", 2, "round", "block", 4.79, 1.44),
    Car("Audi S5 Coupe 2012", "coupe", 1, "round", "slim", 4.64, 1.37),
    Car("Audi S5 Convertible 2012", "convertible", 1, "round", "slim", 4.64, 1.38),
    Car("MINI Cooper Roadster Convertible 2012", "convertible", 1, "round", "round", 3.73, 1.39),
    Car("FIAT 500 Abarth 2012", "hatchback", 1, "round", "round", 3.67, 1.49),
    Car("Nissan Leaf Hatchback 2012", "hatchback", 2, "round", "slim", 4.45, 1.55),
    Car("Jeep Wrangler SUV 2012", "suv", 1, "square", "round", 3.88, 1.80),
    Car("Jeep Patriot SUV 2012", "suv", 2, "square", "round", 4.41, 1.66),
    Car("Ford F-150 Regular Cab 2012", "pickup", 1, "round", "block", 5.41, 1.90),
    Car("Chevrolet Silverado 1500 Regular Cab 2012", "pickup", 1, "square", "block", 5.22, 1.87),
    Car(
        "Chevrolet Silverado 1500 Hybrid Crew Cab 2012", "pickup", 2, "square", "block", 5.85, 1.87
    ),
    Car("Chevrolet Express Cargo Van 2007", "van", 1, "round", "block", 5.69, 2.07, False),
    Car("Chevrolet Express Van 2007", "van", 1, "round", "block", 5.69, 2.07),
)


def draw_car(canvas: Canvas, car: Car, scene: Scene, rng: np.random.Generator) -> None:
    """Draw a car 43 to 51 units long in the colours of the scene's livery."""
    main, accent = livery(scene)
    dark = lit(DARK, scene)
    pane = lit(blend(GLASS, (255, 255, 255), rng.uniform(0.1, 0.3)), scene)
    length = 28 + 4 * car.length
    height = car.height * length / car.length
    shadow(canvas, scene, length / 2)
    _body(canvas, car, (length, height), main)
    _windows(canvas, car, (length, height), pane)
    _doors(canvas, car, (length, height), main)
    _trim(canvas, car, (length, height), accent, dark)
    _running_gear(canvas, car, (length, height), dark)


def _scaled(points: Sequence[tuple[float, float]], box: tuple[float, float]) -> np.ndarray:
    """Points in shares of length and height, y upwards, in local units."""
    length, height = box
    return np.array(points) * (length, -height)


def _body(canvas: Canvas, car: Car, box: tuple[float, float], main: Colour) -> None:
    nose, hood, front, rear, end, belt, tail, _ = car.profile
    top = [] if car.body == "convertible" else [(front, 1), (rear, 1)]
    trunk = [(end, tail)] if end < 0.45 else []
    hull = [(-0.5, 0.2), (-0.5, nose - 0.08), (-0.47, nose), (hood, belt)]
    hull += [*top, *trunk, (0.5, tail), (0.5, 0.2)]
    canvas.polygon(_scaled(hull, box), main)
    sill = [(-0.5, 0.2), (-0.5, 0.3), (0.5, 0.3), (0.5, 0.2), (0.46, 0.15), (-0.46, 0.15)]
    canvas.polygon(_scaled(sill, box), blend(main, DARK, 0.35))


def _windows(canvas: Canvas, car: Car, box: tuple[float, float], pane: Colour) -> None:
    _, hood, front, rear, end, belt, *_ = car.profile
    if car.body == "convertible":
        screen = [(hood, belt), (front, 0.98), (front + 0.03, 0.98), (hood + 0.06, belt)]
        canvas.polygon(_scaled(screen, box), pane)
        for x in (0.06,) if car.length < 4 else (0.06, 0.2):
            seat = [(x, 0.6), (x + 0.01, 0.84), (x + 0.06, 0.84), (x + 0.07, 0.6)]
            canvas.polygon(_scaled(seat, box), DARK)
        return
    top, bottom = (rear - 0.01, end - 0.05) if car.rear_windows else (-0.1, -0.1)
    band = [(hood + 0.05, belt), (front + 0.015, 0.93), (top, 0.93), (bottom, belt)]
    canvas.polygon(_scaled(band, box), pane)


def _doors(canvas: Canvas, car: Car, box: tuple[float, float], main: Colour) -> None:
    """The gaps around the doors, their handles, and a van's posts between the windows."""
    length, height = box
    profile = car.profile
    gap = blend(main, (10, 10, 20), 0.62)
    start = profile.hood + 0.07
    half = (min(profile.end, 0.36) - start) / 2
    step = profile.door if car.doors == 1 else min(0.22, half)
    for i in range(car.doors + 1):
        x = start + i * step
        low = 0.24 if i < car.doors or car.doors == 1 else 0.36
        open_above = i == 0 or x > profile.rear or car.body == "convertible"
        top = profile.belt if open_above else 0.98
        canvas.line(x * length, -low * height, x * length, 0.8 - top * height, 0.75, gap)
    for i in range(car.doors):
        x = (start + (i + 0.72) * step) * length
        y = -(profile.belt - 0.1) * height
        canvas.rectangle(x - 1.3, y, x + 0.9, y + 0.9, gap)
    if car.body == "van" and car.rear_windows:
        for x in (0.1, 0.28):
            post = x * length
            canvas.rectangle(post, -0.96 * height, post + 1, -profile.belt * height, main)


def _trim(canvas: Canvas, car: Car, box: tuple[float, float], accent: Colour, dark: Colour) -> None:
    """A stripe in the accent colour, bumpers, tail light and head lights."""
    length, height = box
    canvas.rectangle(-0.5 * length, -0.41 * height, 0.5 * length, -0.37 * height, accent)
    for left in (-0.51 * length, 0.45 * length):
        canvas.rectangle(left, -0.29 * height, left + 0.06 * length, -0.2 * height, dark)
    top = -(car.profile.tail - 0.03) * height
    bottom = -(car.profile.tail - 0.17) * height
    canvas.rectangle(0.47 * length, top, 0.5 * length, bottom, (214, 40, 44))
    x = -0.465 * length
    y = -(car.profile.nose - 0.09) * height
    lamp = (255, 246, 196)
    if car.lights == "round":
        canvas.ellipse(x, y, 2.1, 2.1, dark)
        canvas.ellipse(x, y, 1.6, 1.6, lamp)
    elif car.lights == "slim":
        slit = [(x - 1.4, y - 0.2), (x + 4.4, y - 1.6), (x + 3.8, y + 0.2), (x - 1.4, y + 1.2)]
        canvas.polygon(slit, lamp)
    else:
        canvas.rectangle(x - 1.6, y - 1.6, x + 1.4, y + 1.6, lamp)


def _running_gear(canvas: Canvas, car: Car, box: tuple[float, float], dark: Colour) -> None:
    length, height = box
    radius = (0.25 if car.height < 1.6 else 0.22) * height
    for x in (-0.31 * length, 0.31 * length):
        if car.arches == "round":
            canvas.ellipse(x, -radius, radius + 0.8, radius + 0.8, dark)
        else:
            wide = radius + 1.3
            top = -2 * radius - 1.3
            left = [(x - wide - 1, -radius), (x - wide + 0.4, top)]
            right = [(x + wide - 0.4, top), (x + wide + 1, -radius)]
            canvas.polygon([*left, *right], dark)
        canvas.ellipse(x, -radius, radius, radius, TYRE)
        canvas.ellipse(x, -radius, 0.55 * radius, 0.55 * radius, RIM)
