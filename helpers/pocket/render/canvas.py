"""A small drawing surface: anti-aliased shapes in colour, with a depth layer and an object mask drawn alongside."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageDraw

UNIT = (
    64.0  # every coordinate in the renderer is in 64ths of the image side, whatever the image size
)
_CIRCLE = np.stack(
    [
        np.cos(np.linspace(0, 2 * np.pi, 24, endpoint=False)),
        np.sin(np.linspace(0, 2 * np.pi, 24, endpoint=False)),
    ],
    1,
)


@dataclass(frozen=True)
class Placement:
    """Where local coordinates land: scale, then turn by ``angle`` radians, mirror, and move to (x, y)."""

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    angle: float = 0.0
    flip: bool = False

    def apply(self, points: np.ndarray) -> np.ndarray:
        c, s = np.cos(self.angle), np.sin(self.angle)
        turned = np.asarray(points, float) @ np.array([[c, s], [-s, c]]) * self.scale
        return turned * ((-1, 1) if self.flip else (1, 1)) + (self.x, self.y)


@dataclass(frozen=True)
class Canvas:
    """An RGB picture of ``size`` pixels, drawn at ``supersample`` times that and averaged down.

    ``depth`` (metres / 255, 255 = far) and ``mask`` (255 on the object) are drawn with the same shapes.
    """

    size: int
    supersample: int = 4
    place: Placement = Placement()
    depth_value: int = 255
    is_object: bool = False
    layers: dict = field(default_factory=dict)

    def __post_init__(self):
        if not self.layers:
            side = (self.size * self.supersample,) * 2
            pictures = {
                "rgb": Image.new("RGB", side),
                "depth": Image.new("L", side, 255),
                "mask": Image.new("L", side),
            }
            self.layers.update(
                {name: ImageDraw.Draw(picture) for name, picture in pictures.items()}
            )
            self.layers.update({f"{name}_image": picture for name, picture in pictures.items()})

    def at(self, place: Placement, depth: int, is_object: bool = True) -> Canvas:
        """The same picture, drawn on through another coordinate frame and at another depth (0 near .. 255 far)."""
        return replace(self, place=place, depth_value=depth, is_object=is_object)

    def polygon(self, points, fill: tuple[int, int, int]) -> None:
        """Fill a polygon; ``points`` (n, 2) in local units (64 = image side), ``fill`` RGB in 0..255."""
        xy = self.place.apply(points) * (self.size * self.supersample / UNIT)
        flat = [tuple(p) for p in xy]
        self.layers["rgb"].polygon(flat, fill=tuple(int(c) for c in fill))
        self.layers["depth"].polygon(flat, fill=self.depth_value)
        self.layers["mask"].polygon(flat, fill=255 if self.is_object else 0)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill, angle: float = 0.0) -> None:
        """Fill an ellipse centred at (x, y) with half-axes (rx, ry), turned by ``angle`` radians."""
        c, s = np.cos(angle), np.sin(angle)
        self.polygon((_CIRCLE * (rx, ry)) @ np.array([[c, s], [-s, c]]) + (x, y), fill)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill) -> None:
        """Fill the axis-parallel rectangle between two corners, in local units."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, fill) -> None:
        """Fill a straight stroke of the given width between two points, in local units."""
        along = np.array([x1 - x0, y1 - y0])
        across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-9) * width / 2
        start, end = np.array([x0, y0]), np.array([x1, y1])
        self.polygon([start + across, end + across, end - across, start - across], fill)

    def pixels(self, layer: str = "rgb") -> np.ndarray:
        """The picture so far, averaged down: uint8, (size, size, 3) for ``rgb``, (size, size) for ``depth`` and ``mask``."""
        return np.asarray(self.layers[f"{layer}_image"].reduce(self.supersample))
