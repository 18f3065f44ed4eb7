"""Corruptions of pictures in five severities: five of ImageNet-C, three of 3DCC that use depth.

The first five have Tiny-ImageNet-C's constants (hendrycks/robustness), for 64 pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image

from helpers.errors import unknown
from helpers.measure.metrics import DEPTH_AWARE, IMAGE_SPACE, SEVERITIES
from helpers.pocket.render.camera import fog, grey, jpeg

Generator = np.random.Generator


def corrupt(
    images: np.ndarray, depth: np.ndarray, kind: str, severity: int, rng: Generator
) -> np.ndarray:
    """Corrupt images (n, s, s, 3) uint8 at a severity of 1 to 5; uint8 like the input.

    ``depth`` (n, s, s) uint8. Raises ``StudyError`` on an unknown corruption or severity.
    """
    if kind not in (*IMAGE_SPACE, *DEPTH_AWARE):
        raise unknown("corruption", kind, (*IMAGE_SPACE, *DEPTH_AWARE))
    if severity not in SEVERITIES:
        raise unknown("severity", severity, SEVERITIES)
    x = images.astype(np.float32) / 255
    if kind in DEPTH_AWARE:
        return _bytes(_BY_DEPTH[kind](x, depth.astype(np.float32) / 255, severity - 1))
    return _bytes(_IN_IMAGE[kind](x, severity - 1, rng))


def _bytes(x: np.ndarray) -> np.ndarray:
    return (np.clip(x, 0, 1) * 255).round().astype(np.uint8)


def _shot_noise(x: np.ndarray, level: int, rng: Generator) -> np.ndarray:
    photons = (250, 100, 50, 30, 15)[level]
    return rng.poisson(x * photons) / photons


def _motion_blur(x: np.ndarray, level: int, rng: Generator) -> np.ndarray:
    reach, sigma = ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3))[level]
    return _streaks(x, reach, sigma, np.deg2rad(rng.uniform(-45, 45, len(x))))


def _streaks(x: np.ndarray, reach: float, sigma: float, angles: np.ndarray) -> np.ndarray:
    """Blur one-sidedly along a line, with Gaussian weights; lengths in 64ths of the picture."""
    size = x.shape[1]
    steps = np.arange(max(2, round(reach * size / 64)) + 1)
    weights = np.exp(-0.5 * (steps / (sigma * size / 64)) ** 2)
    blurred = np.zeros_like(x)
    for image, out, angle in zip(x, blurred, angles, strict=True):
        for step, weight in zip(steps, weights / weights.sum(), strict=True):
            rows = np.clip(np.arange(size) + round(step * np.sin(angle)), 0, size - 1)
            columns = np.clip(np.arange(size) + round(step * np.cos(angle)), 0, size - 1)
            out += weight * image[np.ix_(rows, columns)]
    return blurred


def _snow(x: np.ndarray, level: int, rng: Generator) -> np.ndarray:
    from scipy.ndimage import zoom

    mean, spread, factor, floor, reach, sigma, keep = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
    )[level]
    size = x.shape[1]
    flakes = zoom(rng.normal(mean, spread, x.shape[:3]), (1, factor, factor), order=1)
    flakes = flakes[:, :size, :size, None].astype(np.float32)
    flakes[flakes < floor] = 0
    flakes = _streaks(flakes.clip(0, 1), reach, sigma, np.deg2rad(rng.uniform(-135, -45, len(x))))
    pale = np.maximum(x, grey(x) * 1.5 + 0.5)
    return keep * x + (1 - keep) * pale + flakes + flakes[:, ::-1, ::-1]


def _pixelate(x: np.ndarray, level: int, rng: Generator) -> np.ndarray:
    size = x.shape[1]
    small = round(size * (0.9, 0.8, 0.7, 0.6, 0.5)[level])
    box = Image.Resampling.BOX
    coarse = [Image.fromarray(image).resize((small, small), box) for image in _bytes(x)]
    images = [np.asarray(image.resize((size, size), box)) for image in coarse]
    return np.stack(images).astype(np.float32) / 255


def _jpeg(x: np.ndarray, level: int, rng: Generator) -> np.ndarray:
    quality = (65, 58, 50, 40, 25)[level]
    return np.stack([jpeg(image, quality) for image in _bytes(x)]).astype(np.float32) / 255


def _fog(x: np.ndarray, depth: np.ndarray, level: int) -> np.ndarray:
    haze = np.array([212, 216, 220], np.float32) / 255
    return fog(x, depth, haze, (0.5, 1.0, 1.5, 2.2, 3.0)[level])


def _focused(x: np.ndarray, depth: np.ndarray, level: int, end: Callable) -> np.ndarray:
    """Blur by the distance from where the lens is focused, the nearest or farthest depth."""
    from scipy.ndimage import gaussian_filter

    # five copies, sharp to blurred as one depth unit out of focus; sigmas in pixels
    widest = (0.8, 1.4, 2.0, 2.8, 3.6)[level] * x.shape[1] / 64
    blurred = [gaussian_filter(x, (0, s, s, 0)) for s in np.linspace(0, widest, 5)[1:]]
    stack = np.stack([x, *blurred])
    # every pixel between the two copies that are nearest to its blur
    blur = np.abs(depth - end(depth, (1, 2), keepdims=True))[..., None] * 4
    low = np.minimum(blur.astype(int), 3)
    sharp = np.take_along_axis(stack, low[None], 0)[0]
    soft = np.take_along_axis(stack, (low + 1)[None], 0)[0]
    return sharp + (soft - sharp) * (blur - low)


_IN_IMAGE = {
    "shot_noise": _shot_noise,
    "motion_blur": _motion_blur,
    "snow": _snow,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}
_BY_DEPTH = {
    "fog_3d": _fog,
    "near_focus": functools.partial(_focused, end=np.min),
    "far_focus": functools.partial(_focused, end=np.max),
}
