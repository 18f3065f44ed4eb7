"""Corruptions of pictures, five severities each: five of ImageNet-C and three of 3DCC, which use the renderer's depth.

Constants of the first five are those of Tiny-ImageNet-C, made for 64 pixels (hendrycks/robustness); lengths follow the size.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from helpers.errors import unknown
from helpers.measure.probes import DEPTH_AWARE, IMAGE_SPACE, SEVERITIES


def corrupt(
    images: np.ndarray, depth: np.ndarray, kind: str, severity: int, rng: np.random.Generator
) -> np.ndarray:
    """Corrupt images (n, s, s, 3) uint8, with ``depth`` (n, s, s) uint8, at a severity of 1 to 5; uint8 like the input.

    Raises ``StudyError`` on an unknown corruption or severity.
    """
    if kind not in (*IMAGE_SPACE, *DEPTH_AWARE):
        raise unknown("corruption", kind, (*IMAGE_SPACE, *DEPTH_AWARE))
    if severity not in SEVERITIES:
        raise unknown("severity", severity, SEVERITIES)
    x, level = images.astype(np.float32) / 255, severity - 1
    if kind in DEPTH_AWARE:
        return _bytes(_by_depth(x, depth.astype(np.float32) / 255, kind, level))
    how = {
        "shot_noise": _shot_noise,
        "motion_blur": _motion_blur,
        "snow": _snow,
        "pixelate": _pixelate,
        "jpeg": _jpeg,
    }[kind]
    return _bytes(how(x, level, rng))


def _shot_noise(x, level, rng):
    photons = (250, 100, 50, 30, 15)[level]
    return rng.poisson(x * photons) / photons


def _motion_blur(x, level, rng):
    reach, sigma = ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3))[level]
    return _streaks(x, reach, sigma, np.deg2rad(rng.uniform(-45, 45, len(x))))


def _streaks(x, reach, sigma, angles):
    """Blur one-sidedly along a line, Gaussian weights over whole pixels; lengths are in 64ths of the picture."""
    size = x.shape[1]
    steps = np.arange(max(2, round(reach * size / 64)) + 1)
    weights = np.exp(-0.5 * (steps / (sigma * size / 64)) ** 2)
    made = np.zeros_like(x)
    for image, out, angle in zip(x, made, angles, strict=True):
        for step, weight in zip(steps, weights / weights.sum(), strict=True):
            rows, columns = (
                np.clip(np.arange(size) + round(step * f(angle)), 0, size - 1)
                for f in (np.sin, np.cos)
            )
            out += weight * image[np.ix_(rows, columns)]
    return made


def _snow(x, level, rng):
    from scipy.ndimage import zoom

    mean, spread, factor, floor, reach, sigma, keep = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
    )[level]
    size = x.shape[1]
    flakes = zoom(rng.normal(mean, spread, x.shape[:3]), (1, factor, factor), order=1)[
        :, :size, :size, None
    ].astype(np.float32)
    flakes[flakes < floor] = 0
    flakes = _streaks(flakes.clip(0, 1), reach, sigma, np.deg2rad(rng.uniform(-135, -45, len(x))))
    pale = np.maximum(x, (x @ np.array([0.299, 0.587, 0.114], np.float32))[..., None] * 1.5 + 0.5)
    return keep * x + (1 - keep) * pale + flakes + flakes[:, ::-1, ::-1]


def _pixelate(x, level, rng):
    share, size = (0.9, 0.8, 0.7, 0.6, 0.5)[level], x.shape[1]
    small = (round(size * share),) * 2
    made = [
        Image.fromarray(i)
        .resize(small, Image.Resampling.BOX)
        .resize((size, size), Image.Resampling.BOX)
        for i in _bytes(x)
    ]
    return np.stack([np.asarray(i) for i in made]).astype(np.float32) / 255


def _jpeg(x, level, rng):
    made = []
    for image in _bytes(x):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "jpeg", quality=(65, 58, 50, 40, 25)[level])
        made.append(np.asarray(Image.open(buffer)))
    return np.stack(made).astype(np.float32) / 255


def _bytes(x):
    return (np.clip(x, 0, 1) * 255).round().astype(np.uint8)


def _by_depth(x, depth, kind, level):
    """Fog that thickens with depth, or a lens focused on the nearest or the farthest point of the picture (3DCC)."""
    from scipy.ndimage import gaussian_filter

    if kind == "fog_3d":
        share = 1 - np.exp(-depth * (0.5, 1.0, 1.5, 2.2, 3.0)[level])[..., None]
        return x + (np.array([212, 216, 220], np.float32) / 255 - x) * share
    plane = (
        depth.min((1, 2), keepdims=True)
        if kind == "near_focus"
        else depth.max((1, 2), keepdims=True)
    )
    widest = (
        (0.8, 1.4, 2.0, 2.8, 3.6)[level] * x.shape[1] / 64
    )  # sigma in pixels, one depth unit out of focus
    stack = np.stack(
        [x if s == 0 else gaussian_filter(x, (0, s, s, 0)) for s in np.linspace(0, widest, 5)]
    )
    blur = np.abs(depth - plane)[..., None] * 4
    low = np.minimum(blur.astype(int), 3)
    sharp, soft = (np.take_along_axis(stack, (low + step)[None], 0)[0] for step in (0, 1))
    return sharp + (soft - sharp) * (blur - low)
