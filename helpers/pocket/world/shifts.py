"""Two sets that no training set looks like: classes as sketches, and in textures never seen."""

from __future__ import annotations

import dataclasses

import numpy as np

from helpers.data.tables import Split
from helpers.engine import store
from helpers.errors import unknown
from helpers.pocket.chance import stream
from helpers.pocket.render.pictures import Picture, render, subject
from helpers.pocket.world.benchmarks import SHIFTS, check_task, read, scene_of, write
from helpers.worlds import World

PATTERNS = ("stripes", "checks", "dots", "marble")


def shifted(w: World, task: str) -> dict[str, Split]:
    """The shifted test sets of a task by name, rendered on first use.

    Classes are balanced, scenes are new. Raises ``StudyError`` on a task that is not there.
    """
    check_task(w, task)
    sets = {shift: (task, shift, w.scaling.shifted_per_class) for shift in SHIFTS}
    artifact = store.get("shifted", w, lambda path: write(path, w, sets, picture), task=task)
    return {shift: read(artifact, shift, task) for shift in SHIFTS}


def picture(w: World, task: str, shift: str, i: int) -> np.ndarray:
    """The i-th image of the set "sketch" or "unseen": (size, size, 3) uint8."""
    name, scene, seed = scene_of(w, task, shift, i)
    thing = subject(task, name)
    if shift == "sketch":
        scene = dataclasses.replace(scene, style="sketch")
        return render(thing, scene, seed, w.image_size).pixels
    clear = dataclasses.replace(scene, weather="clear", time="noon", style="photo")
    return redressed(render(thing, clear, seed, w.image_size), stream(seed, "unseen"))


def pattern(size: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A texture that the renderer has nowhere else: (size, size) float in 0..1.

    Raises ``StudyError`` on an unknown kind.
    """
    if kind not in PATTERNS:
        raise unknown("pattern", kind, PATTERNS)
    angle = rng.uniform(0, np.pi)
    period = rng.uniform(0.08, 0.2)
    phase = rng.uniform(0, 2 * np.pi)
    # coordinates along the pattern (u) and across it (v)
    y, x = np.mgrid[:size, :size] / size
    u = np.cos(angle) * x + np.sin(angle) * y
    v = np.cos(angle) * y - np.sin(angle) * x
    wave = np.sin(2 * np.pi * u / period + phase)
    cross = wave * np.sin(2 * np.pi * v / period + phase)
    if kind == "stripes":
        return 0.5 + 0.5 * wave
    if kind == "checks":
        return (cross > 0).astype(float)
    if kind == "dots":
        return (cross > 0.45).astype(float)
    bent = u + 0.12 * np.sin(9 * v + phase) + 0.06 * np.sin(23 * u)
    return 0.5 + 0.5 * np.sin(2 * np.pi * bent / (2 * period) + phase)


def redressed(picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """The same object with a patterned coat, before a patterned backdrop: uint8 (size, size, 3).

    The coat tints and shades what is there: edges, windows and black tyres stay countable.
    """
    size = len(picture.pixels)
    pixels = picture.pixels.astype(np.float32) / 255
    share = (picture.mask / 255.0)[..., None]
    back, front = rng.uniform(0.25, 0.95, (2, 2, 3))
    behind, worn = rng.choice(PATTERNS, 2, replace=False)
    backdrop = _between(back, pattern(size, behind, rng))
    coat = pixels * (0.45 + 0.75 * _between(front, pattern(size, worn, rng)))
    return ((share * coat + (1 - share) * backdrop).clip(0, 1) * 255).round().astype(np.uint8)


def _between(colours: np.ndarray, share: np.ndarray) -> np.ndarray:
    return colours[0] + (colours[1] - colours[0]) * share[..., None]
