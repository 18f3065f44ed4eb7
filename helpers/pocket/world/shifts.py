"""Two sets that no training set of the study looks like: the classes as line sketches, and in textures and contexts never seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.tables import Split
from helpers.engine import store
from helpers.engine.randomness import entropy
from helpers.errors import unknown
from helpers.pocket.render.pictures import TASKS, Picture, factors, render, subject
from helpers.pocket.render.scenes import Scene, sample_scene
from helpers.pocket.world.benchmarks import SHARD
from helpers.worlds import World

SHIFTS = ("sketch", "unseen")
PATTERNS = ("stripes", "checks", "dots", "marble")


def shifted(w: World, task: str) -> dict[str, Split]:
    """The shifted test sets of a task by name, rendered on first use: classes balanced, scenes other than those of the test set.

    Raises ``StudyError`` on a task that the world does not have.
    """
    if task not in w.tasks:
        raise unknown(f"task in world {w.name!r}", task, w.tasks)
    done = (store.folder("shifted", w, task=task) / "manifest.json").exists()
    artifact = (
        store.load("shifted", w, task=task)
        if done
        else store.make("shifted", w, lambda p: _build(p, w, task), task=task)
    )
    names = list(TASKS[task])
    sets = {}
    for shift in SHIFTS:
        facts = store.read_table(artifact.path / f"{shift}.parquet")
        images = np.concatenate([np.load(f) for f in artifact.files(f"{shift}_*.npy")])
        sets[shift] = Split(images, facts["class"].map(names.index).to_numpy(np.int64), facts)
    return sets


def scene_of(w: World, task: str, shift: str, i: int) -> tuple[str, Scene, int]:
    """Class name, scene and seed of the i-th image of a shifted set."""
    names, seed = tuple(TASKS[task]), entropy(w.pool.seed, "shifted", task, shift, i)
    return names[i % len(names)], sample_scene(np.random.default_rng(seed), "benchmark"), seed


def _build(path: Path, w: World, task: str) -> None:
    jobs, n = {}, w.scaling.shifted_per_class * len(TASKS[task])
    for shift in SHIFTS:
        jobs |= {
            f"{shift}_{s:06d}.npy": (w, task, shift, s, min(s + SHARD, n))
            for s in range(0, n, SHARD)
        }
        rows = [scene_of(w, task, shift, i) for i in range(n)]
        facts = pd.DataFrame(
            [{"class": name, "seed": str(seed), **factors(scene)} for name, scene, seed in rows]
        )
        store.write(path / f"{shift}.parquet", facts)
    store.fill(path, jobs, images_of, "shards of shifted sets rendered")


def images_of(w: World, task: str, shift: str, start: int, stop: int) -> np.ndarray:
    """Render the images ``start`` to ``stop`` of a shifted set: (stop - start, size, size, 3) uint8."""
    made = []
    for i in range(start, stop):
        name, scene, seed = scene_of(w, task, shift, i)
        if shift == "sketch":
            made.append(
                render(
                    subject(task, name),
                    dataclasses.replace(scene, style="sketch"),
                    seed,
                    w.image_size,
                ).pixels
            )
        else:
            clear = dataclasses.replace(scene, weather="clear", time="noon", style="photo")
            picture = render(subject(task, name), clear, seed, w.image_size)
            made.append(redressed(picture, np.random.default_rng(entropy(seed, "unseen"))))
    return np.stack(made)


def pattern(size: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A texture that the renderer has nowhere else: (size, size) float in 0..1. Raises ``StudyError`` on an unknown kind."""
    if kind not in PATTERNS:
        raise unknown("pattern", kind, PATTERNS)
    y, x = np.mgrid[:size, :size] / size
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(0.08, 0.2), rng.uniform(0, 2 * np.pi)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    across, down = (np.sin(2 * np.pi * t / period + phase) for t in (u, v))
    if kind == "stripes":
        return 0.5 + 0.5 * across
    if kind == "checks":
        return (across * down > 0).astype(float)
    if kind == "dots":
        return (across * down > 0.45).astype(float)
    return 0.5 + 0.5 * np.sin(
        2 * np.pi * (u + 0.12 * np.sin(9 * v + phase) + 0.06 * np.sin(23 * u)) / (2 * period)
        + phase
    )


def redressed(picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """The same object at the same place with a patterned coat, before a patterned backdrop: uint8 (size, size, 3).

    The coat tints and shades what is there, so that edges, windows and black tyres stay countable.
    """
    size = len(picture.pixels)
    seen, share = picture.pixels.astype(np.float32) / 255, (picture.mask / 255.0)[..., None]
    (back, front), kinds = (
        rng.uniform(0.25, 0.95, (2, 2, 3)),
        rng.choice(PATTERNS, 2, replace=False),
    )
    backdrop = _between(back, pattern(size, kinds[0], rng))
    coat = seen * (0.45 + 0.75 * _between(front, pattern(size, kinds[1], rng)))
    return ((share * coat + (1 - share) * backdrop).clip(0, 1) * 255).round().astype(np.uint8)


def _between(colours: np.ndarray, where: np.ndarray) -> np.ndarray:
    return colours[0] + (colours[1] - colours[0]) * where[..., None]
