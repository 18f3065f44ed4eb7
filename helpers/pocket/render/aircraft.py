"""Drawing a blueprint from the side: nose to the left, tyres on y = 0, every detail from the blueprint and nothing else."""

from __future__ import annotations

import numpy as np

from helpers.pocket.render.blueprints import Blueprint
from helpers.pocket.render.canvas import Canvas
from helpers.pocket.render.scenes import LIVERIES, Scene, blend, ground_colour, lit

TYRE, HUB, STEEL, INTAKE = (30, 30, 34), (206, 208, 212), (150, 154, 162), (44, 46, 54)
WHEEL, SPACING, LEG_GAP = (
    1.85,
    4.9,
    1.8,
)  # radius, distance between axles, extra distance between legs
CLEARANCE = 7.0  # between ground and belly


def draw_aircraft(canvas: Canvas, plane: Blueprint, scene: Scene, rng: np.random.Generator) -> None:
    """Draw ``plane`` in the colours of the scene's livery; the bottom centre of the picture of it is the origin.

    38 to 54 units long; wheels are raw black whatever the light, so that they can be counted.
    """
    main, accent = (lit(c, scene) for c in LIVERIES[scene.livery % len(LIVERIES)])
    colours = {
        "main": main,
        "accent": accent,
        "dark": blend(main, (30, 34, 44), 0.72),
        "grey": lit((166, 170, 178), scene),
        "shade": blend(main, (40, 44, 56), 0.28),
        "glass": lit((52, 66, 84), scene),
        "steel": lit(STEEL, scene),
    }
    if scene.background != "sky":
        _shadow(canvas, plane, scene)
    if plane.wing == "low":
        _legs(canvas, plane, colours)
    _tail(canvas, plane, colours)
    if plane.engine_place in ("wing", "fuselage"):
        _far_engines(canvas, plane, colours)
    _fuselage(canvas, plane, colours)
    _markings(canvas, plane, colours, rng)
    if plane.wing == "high":
        _legs(canvas, plane, colours)
    _wing(canvas, plane, colours)
    _engines(canvas, plane, colours)
    _wheels(canvas, plane)


def _shadow(canvas: Canvas, plane: Blueprint, scene: Scene) -> None:
    dark = blend(ground_colour(scene), (0, 0, 0), 0.22)
    canvas.at(canvas.place, canvas.depth_value, is_object=False).ellipse(
        0, 0.8, 0.42 * plane.length, 1.0, dark
    )


def _middle(plane: Blueprint) -> float:
    return -CLEARANCE - plane.diameter / 2


def axle_positions(plane: Blueprint) -> list[list[float]]:
    """x of every axle of the main gear, leg by leg."""
    count = sum(plane.legs)
    width = (count - 1) * SPACING + (len(plane.legs) - 1) * LEG_GAP
    centre = -0.24 * plane.length if plane.gear == "tailwheel" else 0.05 * plane.length
    x = float(
        np.clip(
            centre - width / 2,
            -0.3 * plane.length if plane.gear == "tailwheel" else -0.11 * plane.length,
            20,
        )
    )
    legs = []
    for axles in plane.legs:
        legs.append([x + i * SPACING for i in range(axles)])
        x += axles * SPACING + LEG_GAP
    return legs


def _support(plane: Blueprint) -> tuple[float, float]:
    """x and radius of the nose wheel or the tail wheel."""
    return (0.43 * plane.length, 1.3) if plane.gear == "tailwheel" else (-0.37 * plane.length, 1.45)


def _legs(canvas: Canvas, plane: Blueprint, colours: dict) -> None:
    fixed = plane.gear == "fixed"
    for leg in axle_positions(plane):
        x, top = float(np.mean(leg)), -CLEARANCE - 1.5
        start = x - 2.6 if fixed else x
        canvas.line(
            start,
            top,
            x,
            -WHEEL,
            1.5 if fixed else 1.2,
            colours["main"] if fixed else colours["steel"],
        )
        if not fixed:
            canvas.rectangle(x - 2.0, top, x - 0.9, -4.6, colours["shade"])
        if len(leg) > 1:
            canvas.line(leg[0], -WHEEL, leg[-1], -WHEEL, 0.9, colours["steel"])
    x, radius = _support(plane)
    canvas.line(x, -CLEARANCE - 1, x, -radius, 1.0, colours["main"] if fixed else colours["steel"])


def _wheels(canvas: Canvas, plane: Blueprint) -> None:
    for leg in axle_positions(plane):
        for x in leg:
            canvas.ellipse(x, -WHEEL, WHEEL, WHEEL, TYRE)
            canvas.ellipse(x, -WHEEL, 0.6, 0.6, HUB)
    x, radius = _support(plane)
    canvas.ellipse(x, -radius, radius, radius, TYRE)
    canvas.ellipse(x, -radius, 0.45, 0.45, HUB)


def _outline(plane: Blueprint) -> np.ndarray:
    """The fuselage as a polygon: a nose, a tube, and a tail cone that rises."""
    half, r, y = plane.length / 2, plane.diameter / 2, _middle(plane)
    nose = 1.9 * r if plane.nose == "round" else 4.2 * r
    power = 0.5 if plane.nose == "round" else 0.9
    t = np.linspace(0, 1, 8)
    upper = np.stack([-half + nose * t, y + 0.15 * r - (1.15 * r) * t**power], 1)
    lower = np.stack([-half + nose * t, y + 0.15 * r + (0.85 * r) * t**power], 1)[::-1]
    end = [
        (half - 1.5, y - r),
        (half, y - 0.72 * r),
        (half - 0.4, y - 0.3 * r),
        (0.22 * plane.length, y + r),
    ]
    return np.concatenate([upper, np.array(end), lower])


def _fuselage(canvas: Canvas, plane: Blueprint, colours: dict) -> None:
    half, r, y = plane.length / 2, plane.diameter / 2, _middle(plane)
    if plane.decks == 1.5:
        x = -half + 6
        canvas.polygon(
            [
                (x - 3.4, y - 0.6 * r),
                (x - 1, y - r - 1.7),
                (x + 2, y - r - 2.3),
                (x + 11, y - r - 2.1),
                (x + 16, y - r + 0.3),
            ],
            colours["main"],
        )
        canvas.line(x + 0.5, y - r - 0.6, x + 10, y - r - 0.6, 0.8, colours["glass"])
    canvas.polygon(_outline(plane), colours["main"])
    belly = _outline(plane)
    canvas.polygon(
        np.stack([belly[:, 0], np.maximum(belly[:, 1], y + 0.55 * r)], 1), colours["shade"]
    )


def _markings(canvas: Canvas, plane: Blueprint, colours: dict, rng: np.random.Generator) -> None:
    half, r, y = plane.length / 2, plane.diameter / 2, _middle(plane)
    canvas.rectangle(
        -half + 1.6 * r, y + 0.12 * r, 0.34 * plane.length, y + 0.42 * r, colours["accent"]
    )
    if plane.engine_place == "nose":
        canvas.ellipse(-0.1 * plane.length, y - 0.85 * r, 4.6, 1.9, colours["glass"])
        return
    x = -half + (1.0 * r if plane.nose == "round" else 3.4 * r)
    canvas.polygon(
        [
            (x, y - 0.35 * r),
            (x + 0.35 * r, y - 0.8 * r),
            (x + 2.6, y - 0.8 * r),
            (x + 2.6, y - 0.35 * r),
        ],
        colours["glass"],
    )
    if plane.engine_place == "fuselage":
        return
    rows = (-0.55, -0.08) if plane.decks == 2 else (-0.28,)
    for row in rows:
        for left in np.arange(x + 5 + rng.uniform(0, 0.6), 0.3 * plane.length, 1.9):
            canvas.rectangle(
                left, y + row * r - 0.45, left + 0.95, y + row * r + 0.5, colours["glass"]
            )


def _tail(canvas: Canvas, plane: Blueprint, colours: dict) -> None:
    half, r, y = plane.length / 2, plane.diameter / 2, _middle(plane)
    height = 0.17 * plane.length + 2.2
    top, root, lean = (
        y - r - height,
        0.19 * plane.length,
        0.1 * plane.length * max(0.35, min(plane.sweep, 1.2)),
    )
    fin = [
        (half - root, y - 0.8 * r),
        (half - root + 1.1 * lean, top),
        (half - 0.4 + 0.5 * lean, top),
        (half - 0.8, y - 0.8 * r),
    ]
    canvas.polygon(
        [
            (half - root - 4, y - 0.9 * r),
            (half - root + 1, y - r - 0.25 * height),
            (half - 1, y - 0.6 * r),
        ],
        colours["accent"],
    )
    canvas.polygon(fin, colours["accent"])
    x, level = (
        (half - 4.5, y - 0.62 * r)
        if plane.tail == "conventional"
        else (half - root + 1.1 * lean, top)
    )
    span = 7.5 if plane.tail == "T" else 6.5
    drop = 0.0 if plane.tail == "T" else 1.6
    canvas.polygon(
        [
            (x - 2.2, level - 0.7),
            (x + span - 1.5, level - 0.7 + drop),
            (x + span, level + 0.7 + drop),
            (x, level + 1.1),
        ],
        colours["dark"],
    )


def _wing(canvas: Canvas, plane: Blueprint, colours: dict) -> None:
    r, y = plane.diameter / 2, _middle(plane)
    x, chord = -0.1 * plane.length, 0.2 * plane.length + 1.5
    level = y + 0.62 * r if plane.wing == "low" else y - 0.92 * r
    drop = 2.0 if plane.wing == "low" else 1.4
    back = 0.16 * plane.length * plane.sweep
    tip = x + back + 0.5 * chord
    canvas.polygon(
        [
            (x, level - 0.9),
            (x + chord, level - 0.6),
            (tip + 0.42 * chord, level + drop),
            (tip, level + drop + 0.3),
        ],
        colours["grey"],
    )
    canvas.line(x, level - 0.8, tip, level + drop, 0.7, colours["dark"])
    if plane.winglets:
        end = tip + 0.42 * chord
        canvas.polygon(
            [
                (tip + 0.8, level + drop + 0.2),
                (end + 0.6, level + drop),
                (end + 2.4, level + drop - 5.2),
                (end + 0.9, level + drop - 5.2),
            ],
            colours["accent"],
        )
    if plane.wing == "high" and plane.engine_place == "nose":
        canvas.line(x + 4, level + 1, x + 2, y + 0.8 * r, 0.8, colours["dark"])


def _nacelles(plane: Blueprint) -> list[tuple[float, float]]:
    """Centre of every engine under the wing, outer ones further back."""
    r, y, first = plane.diameter / 2, _middle(plane), -0.19 * plane.length
    level = y + r - 0.3 if plane.wing == "low" else y - 0.35 * r
    count = 1 if plane.engine_place == "centre tail" else plane.engines
    if count == 1:
        return [(first - 1, level)]
    return [(first - 3.2, level), (first + 7.2, level - 0.9)]


def _far_engines(canvas: Canvas, plane: Blueprint, colours: dict) -> None:
    if plane.engine_place == "fuselage":
        half, r, y = plane.length / 2, plane.diameter / 2, _middle(plane)
        canvas.rectangle(half - 3, y - 0.5 * r, half + 1.6, y + 0.55 * r, colours["dark"])


def _engines(canvas: Canvas, plane: Blueprint, colours: dict) -> None:
    half, r, y = plane.length / 2, plane.diameter / 2, _middle(plane)
    if plane.engine_place in ("wing", "centre tail"):
        for x, level in _nacelles(plane):
            _nacelle(canvas, (x, level), (7.4, 1.9), plane.propeller, colours)
    if plane.engine_place == "tail":
        _nacelle(canvas, (0.27 * plane.length, y - 0.5 * r), (8.4, 1.8), plane.propeller, colours)
    if plane.engine_place == "centre tail" or (plane.engine_place == "tail" and plane.engines == 2):
        _nacelle(canvas, (half - 4.6, y - r - 1.5), (8.6, 1.55), False, colours)
    if plane.engine_place == "nose":
        _propeller(canvas, -half - 0.4, y + 0.15 * r, 6.2, colours)
        canvas.ellipse(-half, y + 0.15 * r, 1.3, 1.2, colours["accent"])
    if plane.engine_place == "fuselage":
        x = -0.17 * plane.length
        canvas.polygon(
            [(x, y - 0.6 * r), (x + 9, y - 0.6 * r), (x + 9, y + 0.5 * r), (x + 1.5, y + 0.5 * r)],
            colours["shade"],
        )
        canvas.polygon(
            [
                (x, y - 0.6 * r),
                (x + 1.6, y - 0.6 * r),
                (x + 2.4, y + 0.5 * r),
                (x + 1.2, y + 0.5 * r),
            ],
            INTAKE,
        )


def _nacelle(canvas: Canvas, centre: tuple, size: tuple, propeller: bool, colours: dict) -> None:
    (x, y), (length, radius) = centre, size
    half = length / 2
    canvas.polygon(
        [
            (x - half, y - radius),
            (x + 0.3 * half, y - radius),
            (x + half + 0.8, y - 0.45 * radius),
            (x + half + 0.8, y + 0.45 * radius),
            (x + 0.3 * half, y + radius),
            (x - half, y + radius),
        ],
        colours["dark"],
    )
    canvas.rectangle(
        x - half + 1.2, y - radius + 0.5, x + 0.5 * half, y + radius - 0.9, colours["grey"]
    )
    if propeller:
        _propeller(canvas, x - half - 0.6, y, 5.0, colours)
    else:
        canvas.ellipse(x - half, y, 0.75, radius, INTAKE)


def _propeller(canvas: Canvas, x: float, y: float, radius: float, colours: dict) -> None:
    canvas.ellipse(x, y - 0.5 * radius, 0.75, 0.5 * radius, INTAKE)
    canvas.ellipse(x, y + 0.5 * radius, 0.75, 0.5 * radius, INTAKE)
    canvas.ellipse(x, y, 0.8, 0.8, colours["steel"])
