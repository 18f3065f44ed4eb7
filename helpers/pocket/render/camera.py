"""The camera: weather before the lens, exposure, style, blur and noise of a drawn picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from helpers.pocket.render.canvas import Canvas
from helpers.pocket.render.colours import lit
from helpers.pocket.render.scenes import Scene


def camera(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Photograph what is drawn: uint8 (size, size, 3); fog thickens with the distance."""
    image = canvas.pixels().astype(np.float32)
    if scene.weather == "fog":
        haze = np.array(lit((212, 216, 220), scene), np.float32)
        image = fog(image, canvas.pixels("depth").astype(np.float32) / 255, haze, 1.1)
    image = ((image - 128) * scene.contrast + 128) * scene.exposure
    image = _FINISHES[scene.style](image.clip(0, 255))
    if scene.weather == "rain" and scene.background != "hangar":
        image = _rain(image, rng)
    if scene.blur > 0:
        sharp = Image.fromarray(image.clip(0, 255).astype(np.uint8))
        blurred = sharp.filter(ImageFilter.GaussianBlur(scene.blur * canvas.size / 64))
        image = np.asarray(blurred, np.float32)
    image = image + scene.noise * rng.standard_normal(image.shape, np.float32)
    return image.clip(0, 255).round().astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """A picture, uint8 (height, width, 3), as JPEG encodes and decodes it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=quality)
    return np.asarray(Image.open(buffer))


def fog(image: np.ndarray, depth: np.ndarray, haze: np.ndarray, thickness: float) -> np.ndarray:
    """Images (..., 3) fading into the colour ``haze`` (3,) with ``depth`` (...), 0..1."""
    share = 1 - np.exp(-depth * thickness)[..., None]
    return image + (haze - image) * share


def _rain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = image.shape[0]
    steps = np.arange(size // 12 + 1)
    rows, columns = rng.integers(size, size=(2, 36, 1))
    streaks = np.zeros((size, size, 1), np.float32)
    streaks[(rows + steps) % size, (columns - steps // 3) % size] = 0.3
    return image + (np.float32(225) - image) * streaks


def grey(image: np.ndarray) -> np.ndarray:
    """Luminance (..., 1) of float images (..., 3)."""
    return (image @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def _poster(image: np.ndarray) -> np.ndarray:
    vivid = (grey(image) + 1.35 * (image - grey(image))).clip(0, 255)
    return np.round(vivid / 51) * 51


def _faded(image: np.ndarray) -> np.ndarray:
    return grey(image) * 0.5 + image * 0.34 + np.array([46, 38, 24], np.float32)


def _sketch(image: np.ndarray) -> np.ndarray:
    light = grey(image)
    edges = np.hypot(*np.gradient(light[..., 0]))[..., None]
    return np.repeat(88 + 0.64 * light - 1.5 * edges, 3, 2).clip(0, 255)


_FINISHES = {"photo": np.asarray, "poster": _poster, "faded": _faded, "sketch": _sketch}
