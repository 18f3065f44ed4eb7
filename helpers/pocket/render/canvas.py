"""A small drawing surface: anti-aliased shapes in colour, with a depth layer and an object mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

UNIT = 64.0  # coordinates of the renderer are in 64ths of the image side, whatever the image size
_TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)


def turned(
    points: Sequence | np.ndarray, angle: float, to: tuple[float, float] = (0, 0)
) -> np.ndarray:
    """Points (n, 2) turned by ``angle`` radians about the origin, which then moves to ``to``."""
    points = np.asarray(points, float)
    if angle:
        c = np.cos(angle)
        s = np.sin(angle)
        points = points @ np.array([[c, s], [-s, c]])
    return points + to


@dataclass(frozen=True)
class Placement:
    """Where local coordinates land: scale, turn by ``angle`` radians, mirror, move to (x, y)."""

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    angle: float = 0.0
    flip: bool = False

    def apply(self, points: Sequence | np.ndarray) -> np.ndarray:
        """Local points (n, 2) in picture units."""
        if self == PICTURE:
            return np.asarray(points, float)
        stretch = (-self.scale if self.flip else self.scale, self.scale)
        return turned(points, self.angle) * stretch + (self.x, self.y)


PICTURE = Placement()  # local coordinates are those of the picture
LAYERS = {"rgb": ("RGB", 0), "depth": ("L", 255), "mask": ("L", 0)}  # mode, and value where empty


class Stroke(NamedTuple):
    """A filled polygon, corners x, y, x, y ... in pixels, and its value in every layer."""

    corners: list[float]
    rgb: tuple[int, ...]
    depth: int
    mask: int


@dataclass(frozen=True)
class Canvas:
    """A picture of ``size`` pixels, drawn at ``supersample`` times that and averaged down.

    It keeps its strokes, and draws them into a layer when that is asked for: ``rgb``; ``depth``,
    0 near .. 255 far; and ``mask``, 255 on the object.
    """

    size: int
    supersample: int = 4
    place: Placement = PICTURE
    depth: int = 255
    is_object: bool = False
    strokes: list[Stroke] = field(default_factory=list)

    def at(self, place: Placement, depth: int, is_object: bool = True) -> Canvas:
        """The same picture, drawn through another coordinate frame, at a depth 0 .. 255."""
        return Canvas(self.size, self.supersample, place, depth, is_object, self.strokes)

    def polygon(self, points: Sequence | np.ndarray, fill: tuple[int, int, int]) -> None:
        """Fill a polygon; ``points`` (n, 2) in local units, 64 = image side; ``fill`` RGB."""
        xy = self.place.apply(points) * (self.size * self.supersample / UNIT)
        rgb = tuple(map(int, fill))
        self.strokes.append(Stroke(xy.ravel().tolist(), rgb, self.depth, 255 * self.is_object))

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill, angle: float = 0.0) -> None:
        """Fill an ellipse around (x, y) with half-axes (rx, ry), turned by ``angle`` radians."""
        self.polygon(turned(_CIRCLE * (rx, ry), angle, (x, y)), fill)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill) -> None:
        """Fill the axis-parallel rectangle between two corners, in local units."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, fill) -> None:
        """Fill a straight stroke of the given width between two points, in local units."""
        along = np.array([x1 - x0, y1 - y0])
        across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-9) * width / 2
        start = np.array([x0, y0])
        end = np.array([x1, y1])
        self.polygon([start + across, end + across, end - across, start - across], fill)

    def pixels(self, layer: str = "rgb") -> np.ndarray:
        """A layer averaged down, uint8: (size, size, 3) of ``rgb``, (size, size) of the others."""
        mode, empty = LAYERS[layer]
        side = self.size * self.supersample
        image = Image.new(mode, (side, side), empty)
        pen = ImageDraw.Draw(image)
        for stroke in self.strokes:
            pen.polygon(stroke.corners, fill=getattr(stroke, layer))
        return np.asarray(image.reduce(self.supersample))
