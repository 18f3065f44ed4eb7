"""Drawing a blueprint from the side, every detail from the blueprint and nothing else.

Drawn in local units, nose to the left, tyres on y = 0 around x = 0, y pointing down.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from helpers.pocket.render.blueprints import Blueprint
from helpers.pocket.render.canvas import Canvas
from helpers.pocket.render.colours import Colour, blend, lit, livery, shadow
from helpers.pocket.render.scenes import Scene

TYRE = (30, 30, 34)
HUB = (206, 208, 212)
INTAKE = (44, 46, 54)
WHEEL = 1.85  # radius of a main wheel
SPACING = 4.9  # between the axles of a leg
LEG_GAP = 1.8  # extra distance between legs
CLEARANCE = 7.0  # between ground and belly


class Paint(NamedTuple):
    """The colours of one aircraft, as lit in its scene."""

    main: Colour
    accent: Colour
    dark: Colour
    grey: Colour
    shade: Colour
    glass: Colour
    steel: Colour


def draw_aircraft(canvas: Canvas, plane: Blueprint, scene: Scene, rng: np.random.Generator) -> None:
    """Draw an aircraft 38 to 54 units long in the colours of the scene's livery.

    Tyres and hubs keep their colours whatever the light, so that wheels can be counted.
    """
    main, accent = livery(scene)
    paint = Paint(
        main,
        accent,
        dark=blend(main, (30, 34, 44), 0.72),
        grey=lit((166, 170, 178), scene),
        shade=blend(main, (40, 44, 56), 0.28),
        glass=lit((52, 66, 84), scene),
        steel=lit((150, 154, 162), scene),
    )
    if scene.background != "sky":
        shadow(canvas, scene, 0.42 * plane.length, y=0.8, ry=1.0, share=0.22)
    if plane.wing == "low":
        _legs(canvas, plane, paint)
    _tail(canvas, plane, paint)
    _fuselage(canvas, plane, paint)
    _markings(canvas, plane, paint, rng)
    if plane.wing == "high":
        _legs(canvas, plane, paint)
    _wing(canvas, plane, paint)
    _engines(canvas, plane, paint)
    _wheels(canvas, plane)


def _tube(plane: Blueprint) -> tuple[float, float, float]:
    """The fuselage: half its length, its radius, and y of its axis."""
    return plane.length / 2, plane.diameter / 2, -CLEARANCE - plane.diameter / 2


def axle_positions(plane: Blueprint) -> list[list[float]]:
    """x of every axle of the main gear, leg by leg, in units from the middle of the aircraft."""
    width = (plane.axles - 1) * SPACING + (len(plane.legs) - 1) * LEG_GAP
    centre, foremost = (-0.24, -0.3) if plane.gear == "tailwheel" else (0.05, -0.11)
    start = centre * plane.length - width / 2
    x = float(np.clip(start, foremost * plane.length, 20))
    legs = []
    for axles in plane.legs:
        legs.append([x + i * SPACING for i in range(axles)])
        x += axles * SPACING + LEG_GAP
    return legs


def _support(plane: Blueprint) -> tuple[float, float]:
    """x and radius of the nose wheel or the tail wheel."""
    return (0.43 * plane.length, 1.3) if plane.gear == "tailwheel" else (-0.37 * plane.length, 1.45)


def _legs(canvas: Canvas, plane: Blueprint, paint: Paint) -> None:
    fixed = plane.gear == "fixed"
    strut = paint.main if fixed else paint.steel
    top = -CLEARANCE - 1.5
    for leg in axle_positions(plane):
        x = float(np.mean(leg))
        if fixed:
            canvas.line(x - 2.6, top, x, -WHEEL, 1.5, strut)
        else:
            canvas.line(x, top, x, -WHEEL, 1.2, strut)
            canvas.rectangle(x - 2.0, top, x - 0.9, -4.6, paint.shade)
        if len(leg) > 1:
            canvas.line(leg[0], -WHEEL, leg[-1], -WHEEL, 0.9, paint.steel)
    x, radius = _support(plane)
    canvas.line(x, -CLEARANCE - 1, x, -radius, 1.0, strut)


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
    half, r, y = _tube(plane)
    reach, power = (1.9, 0.5) if plane.nose == "round" else (4.2, 0.9)
    t = np.linspace(0, 1, 8)
    x = -half + reach * r * t
    upper = np.stack([x, y + 0.15 * r - (1.15 * r) * t**power], 1)
    lower = np.stack([x, y + 0.15 * r + (0.85 * r) * t**power], 1)[::-1]
    top = [(half - 1.5, y - r), (half, y - 0.72 * r)]
    bottom = [(half - 0.4, y - 0.3 * r), (0.22 * plane.length, y + r)]
    return np.concatenate([upper, np.array([*top, *bottom]), lower])


def _fuselage(canvas: Canvas, plane: Blueprint, paint: Paint) -> None:
    half, r, y = _tube(plane)
    if plane.engine_place == "fuselage":  # the nozzle
        canvas.rectangle(half - 3, y - 0.5 * r, half + 1.6, y + 0.55 * r, paint.dark)
    if plane.decks == 1.5:
        x = -half + 6
        front = [(x - 3.4, y - 0.6 * r), (x - 1, y - r - 1.7), (x + 2, y - r - 2.3)]
        canvas.polygon([*front, (x + 11, y - r - 2.1), (x + 16, y - r + 0.3)], paint.main)
        canvas.line(x + 0.5, y - r - 0.6, x + 10, y - r - 0.6, 0.8, paint.glass)
    outline = _outline(plane)
    canvas.polygon(outline, paint.main)
    belly = np.maximum(outline[:, 1], y + 0.55 * r)
    canvas.polygon(np.stack([outline[:, 0], belly], 1), paint.shade)


def _markings(canvas: Canvas, plane: Blueprint, paint: Paint, rng: np.random.Generator) -> None:
    """A stripe in the accent colour, cockpit, and rows of cabin windows where there are any."""
    half, r, y = _tube(plane)
    stripe = 0.34 * plane.length
    canvas.rectangle(-half + 1.6 * r, y + 0.12 * r, stripe, y + 0.42 * r, paint.accent)
    if plane.engine_place == "nose":
        canvas.ellipse(-0.1 * plane.length, y - 0.85 * r, 4.6, 1.9, paint.glass)
        return
    x = -half + (1.0 * r if plane.nose == "round" else 3.4 * r)
    low = y - 0.35 * r
    high = y - 0.8 * r
    canvas.polygon([(x, low), (x + 0.35 * r, high), (x + 2.6, high), (x + 2.6, low)], paint.glass)
    if plane.engine_place == "fuselage":
        return
    for row in (-0.55, -0.08) if plane.decks == 2 else (-0.28,):
        middle = y + row * r
        for left in np.arange(x + 5 + rng.uniform(0, 0.6), 0.3 * plane.length, 1.9):
            canvas.rectangle(left, middle - 0.45, left + 0.95, middle + 0.5, paint.glass)


def _tail(canvas: Canvas, plane: Blueprint, paint: Paint) -> None:
    half, r, y = _tube(plane)
    height = 0.17 * plane.length + 2.2
    top = y - r - height
    root = half - 0.19 * plane.length
    lean = 0.1 * plane.length * max(0.35, min(plane.sweep, 1.2))
    fillet = [(root - 4, y - 0.9 * r), (root + 1, y - r - 0.25 * height), (half - 1, y - 0.6 * r)]
    canvas.polygon(fillet, paint.accent)
    front = [(root, y - 0.8 * r), (root + 1.1 * lean, top)]
    back = [(half - 0.4 + 0.5 * lean, top), (half - 0.8, y - 0.8 * r)]
    canvas.polygon([*front, *back], paint.accent)
    # the tailplane, on top of the fin or on the fuselage
    high = (root + 1.1 * lean, top, 7.5, 0.0)
    low = (half - 4.5, y - 0.62 * r, 6.5, 1.6)
    x, y, span, drop = high if plane.tail == "T" else low
    front = [(x - 2.2, y - 0.7), (x + span - 1.5, y - 0.7 + drop)]
    canvas.polygon([*front, (x + span, y + 0.7 + drop), (x, y + 1.1)], paint.dark)


def _wing(canvas: Canvas, plane: Blueprint, paint: Paint) -> None:
    _, r, y = _tube(plane)
    x = -0.1 * plane.length
    chord = 0.2 * plane.length + 1.5
    level, drop = (y + 0.62 * r, 2.0) if plane.wing == "low" else (y - 0.92 * r, 1.4)
    tip = x + 0.16 * plane.length * plane.sweep + 0.5 * chord
    end = tip + 0.42 * chord
    low = level + drop
    near = [(x, level - 0.9), (x + chord, level - 0.6)]
    canvas.polygon([*near, (end, low), (tip, low + 0.3)], paint.grey)
    canvas.line(x, level - 0.8, tip, low, 0.7, paint.dark)
    if plane.winglets:
        foot = [(tip + 0.8, low + 0.2), (end + 0.6, low)]
        canvas.polygon([*foot, (end + 2.4, low - 5.2), (end + 0.9, low - 5.2)], paint.accent)
    if plane.wing == "high" and plane.engine_place == "nose":
        canvas.line(x + 4, level + 1, x + 2, y + 0.8 * r, 0.8, paint.dark)


def _wing_engines(plane: Blueprint) -> list[tuple[float, float]]:
    """Centre of every engine under the wing, outer ones further back."""
    _, r, y = _tube(plane)
    first = -0.19 * plane.length
    level = y + r - 0.3 if plane.wing == "low" else y - 0.35 * r
    if plane.engine_place == "centre tail" or plane.engines == 1:
        return [(first - 1, level)]
    return [(first - 3.2, level), (first + 7.2, level - 0.9)]


def _engines(canvas: Canvas, plane: Blueprint, paint: Paint) -> None:
    half, r, y = _tube(plane)
    place = plane.engine_place
    if place in ("wing", "centre tail"):
        for x, level in _wing_engines(plane):
            _nacelle(canvas, x, level, (7.4, 1.9), plane.propeller, paint)
    if place == "tail":
        _nacelle(canvas, 0.27 * plane.length, y - 0.5 * r, (8.4, 1.8), plane.propeller, paint)
    if place == "centre tail" or (place == "tail" and plane.engines == 2):
        _nacelle(canvas, half - 4.6, y - r - 1.5, (8.6, 1.55), False, paint)
    if place == "nose":
        _propeller(canvas, -half - 0.4, y + 0.15 * r, 6.2, paint)
        canvas.ellipse(-half, y + 0.15 * r, 1.3, 1.2, paint.accent)
    if place == "fuselage":
        x = -0.17 * plane.length
        top = y - 0.6 * r
        bottom = y + 0.5 * r
        duct = [(x, top), (x + 9, top), (x + 9, bottom), (x + 1.5, bottom)]
        canvas.polygon(duct, paint.shade)
        mouth = [(x, top), (x + 1.6, top), (x + 2.4, bottom), (x + 1.2, bottom)]
        canvas.polygon(mouth, INTAKE)


def _nacelle(
    canvas: Canvas, x: float, y: float, size: tuple[float, float], propeller: bool, paint: Paint
) -> None:
    """An engine in its pod around (x, y); ``size`` is its length and radius."""
    length, radius = size
    half = length / 2
    front = x - half
    back = x + half + 0.8
    top = [(front, y - radius), (x + 0.3 * half, y - radius), (back, y - 0.45 * radius)]
    bottom = [(back, y + 0.45 * radius), (x + 0.3 * half, y + radius), (front, y + radius)]
    canvas.polygon([*top, *bottom], paint.dark)
    canvas.rectangle(front + 1.2, y - radius + 0.5, x + 0.5 * half, y + radius - 0.9, paint.grey)
    if propeller:
        _propeller(canvas, front - 0.6, y, 5.0, paint)
    else:
        canvas.ellipse(front, y, 0.75, radius, INTAKE)


def _propeller(canvas: Canvas, x: float, y: float, radius: float, paint: Paint) -> None:
    canvas.ellipse(x, y - 0.5 * radius, 0.75, 0.5 * radius, INTAKE)
    canvas.ellipse(x, y + 0.5 * radius, 0.75, 0.5 * radius, INTAKE)
    canvas.ellipse(x, y, 0.8, 0.8, paint.steel)
