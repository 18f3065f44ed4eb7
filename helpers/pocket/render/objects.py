"""What scenes show besides aircraft: flowers and cars with countable facts, and the odds and ends of the pool.

Painters draw in local units with the bottom centre of the object at (0, 0) and y pointing down; cars face left.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from helpers.pocket.render.canvas import Canvas
from helpers.pocket.render.scenes import LIVERIES, Scene, blend, ground_colour, lit

TYRE, RIM, GLASS, DARK = (30, 30, 34), (196, 200, 206), (150, 190, 214), (46, 44, 50)


@dataclass(frozen=True)
class Flower:
    """One species as seen from the front; ``petals`` counts tepals or bracts where these make the show."""

    name: str  # as in Oxford Flowers-102
    petals: int
    shape: str  # round, pointed, heart, long
    hue: tuple[float, float]  # range in 0..1
    saturation: float
    centre: str  # small, large, trumpet, striped, spiral
    centre_colour: tuple[int, int, int] = (246, 206, 60)
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


def draw_flower(canvas: Canvas, flower: Flower, scene: Scene, rng: np.random.Generator) -> None:
    """Draw a flower about 41 units tall: stem, leaves and a head of radius 14 that shows every petal."""
    hue, turn, lean = (
        rng.uniform(*flower.hue),
        rng.uniform(0, 2 * np.pi / flower.petals),
        rng.uniform(-2, 2),
    )
    green = lit(blend((62, 140, 62), (96, 160, 60), rng.random()), scene)
    _stem(canvas, flower, lean, green)
    value = rng.uniform(0.9, 1.0)
    petal = lit([255 * c for c in colorsys.hsv_to_rgb(hue % 1, flower.saturation, value)], scene)
    if flower.centre == "spiral":
        _spiral(canvas, (lean, -27), petal, turn)
    else:
        _head(canvas, flower, (lean, -27, turn), petal)
        _centre(canvas, flower, (lean, -27, turn), scene)


def _stem(canvas, flower, lean, green):
    canvas.line(0, 0, lean, -27, 1.6, green)
    narrow = flower.leaves == "narrow"
    for side in (-1, 1):
        length, width, angle = (8.5, 0.9, -1.0) if narrow else (6, 2.2, -0.45)
        x, y = side * length * np.cos(angle), -2 + length * np.sin(angle)
        canvas.ellipse(x, y, length, width, green, side * angle)


def _outline(shape: str, length: float, width: float) -> np.ndarray:
    """Petal outline from the centre along +x, as (n, 2) points."""
    t = np.linspace(0, 1, 13)
    half = {
        "round": np.sin(np.pi * t**1.5) ** 0.6,
        "pointed": np.sin(np.pi * t**0.9) ** 0.9,
        "heart": t**0.8 * (1 - t**8) ** 0.5 * 1.15,
        "long": np.sin(np.pi * t) ** 0.5,
    }[shape] * width
    reach = t * length
    if shape == "heart":
        half, reach = (
            np.append(half[:-1], (0.5 * width, 0)),
            np.append(reach[:-1], (1.02 * length, 0.76 * length)),
        )
    return np.concatenate([np.stack([reach, half], 1), np.stack([reach, -half], 1)[::-1]])


def _turned(points, x, y, angle):
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]]) + (x, y)


def _head(canvas, flower, pose, petal):
    x, y, turn = pose
    width = min(6.4, 9.5 * np.tan(np.pi / flower.petals)) * (
        0.8 if flower.shape == "pointed" else 0.92
    )
    rim, vein = blend(petal, (70, 40, 60), 0.55), blend(petal, (90, 40, 70), 0.22)
    for i in range(flower.petals):
        angle = turn + 2 * np.pi * i / flower.petals
        canvas.polygon(_turned(_outline(flower.shape, 14.4, width + 0.4), x, y, angle), rim)
        canvas.polygon(_turned(_outline(flower.shape, 13.6, width - 0.4), x, y, angle), petal)
        if flower.petals < 12:
            canvas.line(x, y, x + 8.5 * np.cos(angle), y + 8.5 * np.sin(angle), 0.7, vein)


def _centre(canvas, flower, pose, scene):
    x, y, turn = pose
    colour = lit(flower.centre_colour, scene)
    radius = {"small": 2.4, "large": 5.0, "trumpet": 5.2, "striped": 2.6}[flower.centre]
    if flower.centre == "striped":
        for angle in turn + np.arange(flower.petals * 3) * 2 * np.pi / (flower.petals * 3):
            canvas.line(
                x, y, x + 7 * np.cos(angle), y + 7 * np.sin(angle), 0.5, lit((170, 50, 110), scene)
            )
    canvas.ellipse(x, y, radius + 0.5, radius + 0.5, blend(colour, (60, 30, 20), 0.5))
    canvas.ellipse(x, y, radius, radius, colour)
    if flower.centre == "trumpet":
        canvas.ellipse(x, y, 3.2, 3.2, blend(colour, (120, 50, 10), 0.5))
    elif flower.centre == "large":
        canvas.ellipse(x - 0.8, y - 0.8, 2.6, 2.6, blend(colour, (255, 220, 160), 0.25))


def _spiral(canvas, place, petal, turn):
    x, y = place
    for ring, radius in enumerate((12.4, 10.0, 7.4, 4.8)):
        count = 6 - ring
        for i in range(count):
            angle = turn + 0.6 * ring + 2 * np.pi * i / count
            left, top = x + 0.62 * radius * np.cos(angle), y + 0.62 * radius * np.sin(angle)
            canvas.ellipse(
                left,
                top,
                0.6 * radius,
                0.5 * radius,
                blend(petal, (60, 0, 20), 0.5),
                angle + np.pi / 2,
            )
            canvas.ellipse(
                left,
                top,
                0.54 * radius,
                0.43 * radius,
                blend(petal, (60, 0, 20), 0.09 * ring),
                angle + np.pi / 2,
            )
    canvas.ellipse(x, y, 1.7, 1.7, blend(petal, (60, 0, 20), 0.5))


@dataclass(frozen=True)
class Car:
    """One model seen from the side; lengths in metres."""

    name: str  # as in Stanford Cars
    body: str  # sedan, hatchback, coupe, suv, pickup, van, convertible, wagon
    doors: int  # hinged side doors on the side we see
    arches: str  # round, square
    lights: str  # round, slim, block
    length: float
    height: float
    rear_windows: bool = True


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
    Car(
        "Chevrolet Express Cargo Van 2007",
        "van",
        1,
        "round",
        "block",
        5.69,
        2.07,
        rear_windows=False,
    ),
    Car("Chevrolet Express Van 2007", "van", 1, "round", "block", 5.69, 2.07),
)
SHAPES = {  # nose height, hood end, roof start, roof end, cabin end, belt height, tail height; in lengths and heights
    "sedan": (0.52, -0.20, -0.05, 0.17, 0.33, 0.64, 0.62),
    "wagon": (0.52, -0.20, -0.05, 0.42, 0.49, 0.64, 0.62),
    "coupe": (0.50, -0.18, 0.00, 0.14, 0.40, 0.63, 0.60),
    "hatchback": (0.54, -0.29, -0.10, 0.33, 0.49, 0.62, 0.56),
    "suv": (0.60, -0.22, -0.15, 0.44, 0.49, 0.63, 0.62),
    "van": (0.48, -0.40, -0.25, 0.47, 0.495, 0.56, 0.56),
    "pickup": (0.58, -0.22, -0.12, 0.04, 0.08, 0.62, 0.60),
    "convertible": (0.52, -0.18, -0.05, 0.14, 0.36, 0.64, 0.62),
}
CREW_CAB = 0.15  # how much further back the cabin of a pickup with four doors reaches, in lengths


def draw_car(canvas: Canvas, car: Car, scene: Scene, rng: np.random.Generator) -> None:
    """Draw a car from the side, 43 to 51 units long, facing left, wheels on y = 0, in the colours of the livery."""
    main, accent = (lit(c, scene) for c in LIVERIES[scene.livery % len(LIVERIES)])
    length = 28 + 4 * car.length
    height, shine = car.height * length / car.length, rng.uniform(0.1, 0.3)
    _shadow(canvas, scene, length / 2)
    shape = _cabin(car)
    _body(canvas, car, shape, (length, height), main)
    _glass(canvas, car, shape, (length, height), lit(blend(GLASS, (255, 255, 255), shine), scene))
    _doors(canvas, car, shape, (length, height), main)
    _trim(canvas, car, (length, height), (accent, lit(DARK, scene)))
    _running_gear(canvas, car, (length, height), lit(DARK, scene))


def _shadow(canvas, scene, half):
    dark = blend(ground_colour(scene), (0, 0, 0), 0.25)
    canvas.at(canvas.place, canvas.depth_value, is_object=False).ellipse(0, 0.2, half, 1.3, dark)


def _cabin(car):
    nose, hood, front, rear, end, belt, tail = SHAPES[car.body]
    reach = CREW_CAB if car.body == "pickup" and car.doors == 2 else 0.0
    return nose, hood, front, rear + reach, end + reach, belt, tail


def _scaled(points, box):
    return np.array(points) * (box[0], -box[1])


def _body(canvas, car, shape, box, main):
    nose, hood, front, rear, end, belt, tail = shape
    top = [(front, 1), (rear, 1)] if car.body != "convertible" else []
    back = [(end, tail), (0.5, tail)] if end < 0.45 else [(0.5, tail)]
    edge = [(-0.5, 0.2), (-0.5, nose - 0.08), (-0.47, nose), (hood, belt), *top, *back, (0.5, 0.2)]
    canvas.polygon(_scaled(edge, box), main)
    sill = [(-0.5, 0.2), (-0.5, 0.3), (0.5, 0.3), (0.5, 0.2), (0.46, 0.15), (-0.46, 0.15)]
    canvas.polygon(_scaled(sill, box), blend(main, DARK, 0.35))


def _glass(canvas, car, shape, box, pane):
    _, hood, front, rear, end, belt, _ = shape
    if car.body == "convertible":
        canvas.polygon(
            _scaled([(hood, belt), (front, 0.98), (front + 0.03, 0.98), (hood + 0.06, belt)], box),
            pane,
        )
        for x in (0.06, 0.2)[: 1 if car.length < 4 else 2]:
            canvas.polygon(
                _scaled([(x, 0.6), (x + 0.01, 0.84), (x + 0.06, 0.84), (x + 0.07, 0.6)], box), DARK
            )
        return
    stop = (rear - 0.01, end - 0.05) if car.rear_windows else (-0.1, -0.1)
    edge = [(hood + 0.05, belt), (front + 0.015, 0.93), (stop[0], 0.93), (stop[1], belt)]
    canvas.polygon(_scaled(edge, box), pane)


def _doors(canvas, car, shape, box, main):
    _, hood, _, rear, end, belt, _ = shape
    start = hood + 0.07
    width = {
        "van": 0.2,
        "convertible": 0.25,
        "coupe": 0.27,
        "hatchback": 0.3,
        "suv": 0.26,
        "pickup": 0.2,
    }
    step = width[car.body] if car.doors == 1 else min(0.22, (min(end, 0.36) - start) / 2)
    gap, roof = blend(main, (10, 10, 20), 0.62), 0.98 if car.body != "convertible" else belt
    for i in range(car.doors + 1):
        x = start + i * step
        low = 0.24 if i < car.doors or car.doors == 1 else 0.36
        top = belt if i == 0 or x > rear else roof
        canvas.line(x * box[0], -low * box[1], x * box[0], 0.8 - top * box[1], 0.75, gap)
    for i in range(car.doors):
        x = (start + (i + 0.72) * step) * box[0]
        canvas.rectangle(
            x - 1.3, -(belt - 0.1) * box[1], x + 0.9, -(belt - 0.1) * box[1] + 0.9, gap
        )
    if car.body == "van" and car.rear_windows:
        for x in (0.1, 0.28):
            canvas.rectangle(x * box[0], -0.96 * box[1], x * box[0] + 1, -belt * box[1], main)


def _trim(canvas, car, box, colours):
    accent, dark = colours
    length, height = box
    nose, tail = SHAPES[car.body][0], SHAPES[car.body][6]
    canvas.rectangle(-0.5 * length, -0.41 * height, 0.5 * length, -0.37 * height, accent)
    for left in (-0.51 * length, 0.45 * length):
        canvas.rectangle(left, -0.29 * height, left + 0.06 * length, -0.2 * height, dark)
    canvas.rectangle(
        0.47 * length, -(tail - 0.03) * height, 0.5 * length, -(tail - 0.17) * height, (214, 40, 44)
    )
    x, y, lamp = -0.465 * length, -(nose - 0.09) * height, (255, 246, 196)
    if car.lights == "round":
        canvas.ellipse(x, y, 2.1, 2.1, dark)
        canvas.ellipse(x, y, 1.6, 1.6, lamp)
    elif car.lights == "slim":
        canvas.polygon(
            [(x - 1.4, y - 0.2), (x + 4.4, y - 1.6), (x + 3.8, y + 0.2), (x - 1.4, y + 1.2)], lamp
        )
    else:
        canvas.rectangle(x - 1.6, y - 1.6, x + 1.4, y + 1.6, lamp)


def _running_gear(canvas, car, box, dark):
    radius = 0.25 * box[1] if car.height < 1.6 else 0.22 * box[1]
    for x in (-0.31 * box[0], 0.31 * box[0]):
        wide = radius + (0.8 if car.arches == "round" else 1.3)
        if car.arches == "round":
            canvas.ellipse(x, -radius, wide, wide, dark)
        else:
            canvas.polygon(
                [
                    (x - wide - 1, -radius),
                    (x - wide + 0.4, -2 * radius - 1.3),
                    (x + wide - 0.4, -2 * radius - 1.3),
                    (x + wide + 1, -radius),
                ],
                dark,
            )
        canvas.ellipse(x, -radius, radius, radius, TYRE)
        canvas.ellipse(x, -radius, 0.55 * radius, 0.55 * radius, RIM)


def _house(canvas, scene, rng):
    wall, roof = (lit(c, scene) for c in LIVERIES[scene.livery % len(LIVERIES)])
    x = rng.uniform(4, 10)
    canvas.rectangle(x, -34, x + 4, -22, lit((150, 84, 70), scene))
    canvas.rectangle(-16, -20, 16, 0, wall)
    canvas.polygon([(-19, -20), (0, -35), (19, -20)], blend(roof, DARK, 0.2))
    canvas.rectangle(-3, -11, 3, 0, lit((110, 70, 48), scene))
    for left in (-12, 6.5):
        canvas.rectangle(left - 0.7, -16.2, left + 6.2, -8.3, lit((250, 250, 245), scene))
        canvas.rectangle(left, -15.5, left + 5.5, -9, lit((120, 170, 205), scene))


def _boat(canvas, scene, rng):
    hull, sail = (lit(c, scene) for c in LIVERIES[scene.livery % len(LIVERIES)])
    tip = rng.uniform(13, 17)
    canvas.rectangle(-0.7, -40, 0.7, -7, lit((110, 78, 54), scene))
    canvas.polygon([(1.6, -38), (1.6, -10), (tip, -10)], lit((248, 246, 238), scene))
    canvas.polygon([(-1.6, -34), (-1.6, -10), (-12, -10)], sail)
    canvas.polygon([(-20, -8), (21, -8), (15, 0), (-15, 0)], hull)
    canvas.polygon([(-19, -6.4), (20, -6.4), (19, -4.8), (-18, -4.8)], sail)


def _tree(canvas, scene, rng):
    leaf = lit(blend((52, 120, 48), (120, 150, 50), rng.random()), scene)
    canvas.polygon([(-2.6, 0), (-1.4, -20), (1.4, -20), (2.6, 0)], lit((112, 78, 52), scene))
    for x, y, radius in ((-7, -20, 7.5), (7, -21, 7.5), (0, -25, 9.5), (-4, -31, 7), (5, -31, 7)):
        canvas.ellipse(x, y, radius, radius, blend(leaf, (20, 50, 30), 0.25))
        canvas.ellipse(x - 0.8, y - 1, radius - 1.2, radius - 1.4, leaf)


def _ball(canvas, scene, rng):
    main, accent = (lit(c, scene) for c in LIVERIES[scene.livery % len(LIVERIES)])
    turn = rng.uniform(0, np.pi)
    _shadow(canvas, scene, 12)
    canvas.ellipse(0, -14, 14, 14, blend(main, DARK, 0.3))
    canvas.ellipse(-0.6, -14.6, 13.2, 13.2, main)
    canvas.ellipse(-0.6, -14.6, 13.2, 3.6, accent, turn)
    canvas.ellipse(-0.6, -14.6, 13.2, 1.0, main, turn)
    canvas.ellipse(-5, -20, 2.6, 2.0, blend(main, (255, 255, 255), 0.7))


def _storm(canvas, scene, rng):
    dust = lit((112, 110, 118), scene)
    for height, sway in zip(np.linspace(0, 40, 15), rng.uniform(-1.2, 1.2, 15), strict=True):
        half, x = 1.8 + 15 * (height / 40) ** 1.6, 3.5 * np.sin(height / 9) + sway
        canvas.ellipse(x, -height - 0.6, half, 2.1, blend(dust, (30, 30, 36), 0.5))
        canvas.ellipse(
            x - 0.4,
            -height - 1.2,
            0.9 * half,
            1.4,
            blend(dust, (230, 230, 235), 0.35 * height / 40),
        )
    for x in (-5, 0, 5):
        canvas.ellipse(x, -0.6, 4, 1.8, lit((160, 148, 130), scene))


def _spitfire_car(canvas, scene, rng):
    roadster = Car("Triumph Spitfire", "convertible", 1, "round", "round", 3.68, 1.2)
    draw_car(canvas, roadster, scene, rng)


def _kit_box(canvas, scene, rng):
    main, accent = (lit(c, scene) for c in LIVERIES[scene.livery % len(LIVERIES)])
    canvas.polygon(
        [(-22, -26), (-18, -31), (26, -31), (22, -26)], blend(main, (255, 255, 255), 0.3)
    )
    canvas.polygon([(22, -26), (26, -31), (26, -4), (22, 0)], blend(main, DARK, 0.35))
    canvas.rectangle(-22, -26, 22, 0, main)
    canvas.rectangle(-22, -26, 22, -20.5, accent)
    canvas.rectangle(-20, -24.4, rng.uniform(2, 10), -22.2, main)
    canvas.rectangle(-20, -18.5, 20, -2, lit((130, 186, 236), scene))
    canvas.polygon(
        [(-16, -9), (-12, -11.4), (11, -11.4), (14, -17), (17, -17), (15.5, -9), (-12, -7.6)],
        (246, 246, 248),
    )
    canvas.polygon([(-2, -9.4), (4, -9.4), (11, -4.4), (7, -4.4)], lit((150, 158, 170), scene))


def _part(canvas, scene, rng):
    steel, turn = lit((150, 156, 166), scene), rng.uniform(0, 0.6)
    for angle in turn + np.arange(10) * np.pi / 5:
        canvas.line(
            0, -17, 17 * np.cos(angle), -17 + 17 * np.sin(angle), 5.2, blend(steel, DARK, 0.3)
        )
    canvas.ellipse(0, -17, 13.6, 13.6, steel)
    canvas.ellipse(0, -17, 10, 10, blend(steel, (255, 255, 255), 0.4))
    for angle in turn + np.arange(5) * np.pi * 0.4:
        canvas.ellipse(7 * np.cos(angle), -17 + 7 * np.sin(angle), 1.6, 1.6, lit(DARK, scene))
    canvas.ellipse(0, -17, 3.6, 3.6, lit(DARK, scene))


def _shirt(canvas, scene, rng):
    main, accent = (lit(c, scene) for c in LIVERIES[scene.livery % len(LIVERIES)])
    edge = [
        (-6, -36),
        (-12, -34),
        (-22, -25),
        (-17, -19),
        (-12, -23),
        (-12, 0),
        (12, 0),
        (12, -23),
        (17, -19),
        (22, -25),
        (12, -34),
        (6, -36),
    ]
    canvas.polygon(np.array(edge) * 1.04 + (0, 0.4), blend(main, DARK, 0.4))
    canvas.polygon(edge, main)
    canvas.ellipse(0, -36, 5.4, 3.4, blend(main, DARK, 0.45))
    y = rng.uniform(-20, -16)
    canvas.polygon([(-8, y), (7, y - 3), (8, y - 6), (9.5, y - 6), (9, y), (-6, y + 2)], accent)
    canvas.polygon([(-1, y), (3, y), (6, y + 5), (4, y + 5)], accent)


def _mug(canvas, scene, rng):
    main, accent = (lit(c, scene) for c in LIVERIES[scene.livery % len(LIVERIES)])
    _shadow(canvas, scene, 14)
    canvas.ellipse(13, -14, 8, 8, blend(main, DARK, 0.25))
    canvas.ellipse(13, -14, 5, 5, blend(ground_colour(scene), (0, 0, 0), 0.08))
    canvas.rectangle(-13, -27, 13, -2, main)
    canvas.ellipse(0, -2, 13, 2.6, main)
    canvas.ellipse(0, -27, 13, 3, blend(main, (255, 255, 255), 0.4))
    canvas.ellipse(0, -26.6, 11, 2.2, lit((92, 56, 36), scene))
    canvas.rectangle(-13, rng.uniform(-19, -16), 13, -10, accent)


def _dog(canvas, scene, rng):
    coats = ((176, 124, 74), (224, 190, 140), (120, 88, 66), (236, 230, 220))
    fur = lit(coats[rng.integers(len(coats))], scene)
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


OTHERS = {
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
