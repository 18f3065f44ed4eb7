"""A small drawing surface: anti-aliased shapes in colour, with a depth layer and an object mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
    c = np.cos(angle)
    s = np.sin(angle)
    return np.asarray(points, float) @ np.array([[c, s], [-s, c]]) + to


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
        mirror = (-1, 1) if self.flip else (1, 1)
        return turned(points, self.angle) * self.scale * mirror + (self.x, self.y)


class Layer(NamedTuple):
    """A picture and the pen that draws in it."""

    image: Image.Image
    pen: ImageDraw.ImageDraw


@dataclass(frozen=True)
class Canvas:
    """An RGB picture of ``size`` pixels, drawn at ``supersample`` times that and averaged down.

    Every shape is drawn into three layers: ``rgb``; ``depth``, 0 near .. 255 far; and ``mask``,
    255 on the object.
    """

    size: int
    supersample: int = 4
    place: Placement = Placement()
    depth: int = 255
    is_object: bool = False
    layers: dict[str, Layer] = field(default_factory=dict)

    def __post_init__(self):
        if not self.layers:
            side = self.size * self.supersample
            for name, mode, blank in (("rgb", "RGB", 0), ("depth", "L", 255), ("mask", "L", 0)):
                image = Image.new(mode, (side, side), blank)
                self.layers[name] = Layer(image, ImageDraw.Draw(image))

    def at(self, place: Placement, depth: int, is_object: bool = True) -> Canvas:
        """The same picture, drawn through another coordinate frame, at a depth 0 .. 255."""
        return replace(self, place=place, depth=depth, is_object=is_object)

    def polygon(self, points: Sequence | np.ndarray, fill: tuple[int, int, int]) -> None:
        """Fill a polygon; ``points`` (n, 2) in local units, 64 = image side; ``fill`` RGB."""
        xy = self.place.apply(points) * (self.size * self.supersample / UNIT)
        corners = [tuple(point) for point in xy]
        self.layers["rgb"].pen.polygon(corners, fill=tuple(int(c) for c in fill))
        self.layers["depth"].pen.polygon(corners, fill=self.depth)
        self.layers["mask"].pen.polygon(corners, fill=255 if self.is_object else 0)

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
        return np.asarray(self.layers[layer].image.reduce(self.supersample))
