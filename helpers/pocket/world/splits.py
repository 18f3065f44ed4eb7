"""Labelled sets of rendered pictures: classes take turns, and every picture has its own seed.

These are the train, val and test split of a task and its shifted test sets (shifts.py says what is
shifted). A set is kept as files of ``SHARD`` images and one table with the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.tables import Split
from helpers.engine import store
from helpers.engine.randomness import entropy
from helpers.errors import unknown
from helpers.pocket.render.pictures import TASKS, factors
from helpers.pocket.render.scenes import Scene, sample_scene
from helpers.worlds import World

SPLITS = ("train", "val", "test")
SHIFTS = ("sketch", "unseen")
SHARD = 200  # images per file


def check_task(w: World, task: str) -> None:
    """Raise ``StudyError`` on a task that the world does not have."""
    if task not in w.tasks:
        raise unknown(f"task in world {w.name!r}", task, w.tasks)


def scene_of(w: World, task: str, split: str, i: int) -> tuple[str, Scene, int]:
    """Class name, scene and seed of the i-th image: everything that is needed to render it."""
    kind = "shifted" if split in SHIFTS else "benchmark"
    seed = entropy(w.pool.seed, kind, task, split, i)
    names = tuple(TASKS[task])
    return names[i % len(names)], sample_scene(np.random.default_rng(seed), "benchmark"), seed


def write(
    path: Path, w: World, sets: Mapping[str, tuple[str, str]], per_class: int, draw: Callable
) -> None:
    """Write ``sets``, file name -> (task, split), with ``per_class`` images of every class.

    ``draw(w, task, split, i)``, an importable function, gives one image (size, size, 3) uint8.
    """
    jobs = {}
    for name, (task, split) in sets.items():
        n = per_class * len(TASKS[task])
        rows = []
        for i in range(n):
            cls, scene, seed = scene_of(w, task, split, i)
            rows.append({"class": cls, "seed": str(seed), **factors(scene)})
        store.write(path / f"{name}.parquet", pd.DataFrame(rows))
        for start in range(0, n, SHARD):
            part = range(start, min(start + SHARD, n))
            jobs[f"{name}_{start:06d}.npy"] = (draw, w, task, split, part)
    store.fill(path, jobs, images, "shards of splits rendered")


def images(draw: Callable, w: World, task: str, split: str, rows: Sequence[int]) -> np.ndarray:
    """Render some images of a set by ``draw``: (len(rows), size, size, 3) uint8."""
    return np.stack([draw(w, task, split, i) for i in rows])


def read(artifact: store.Artifact, name: str, task: str) -> Split:
    """A set that ``write`` has written."""
    pixels = np.concatenate([np.load(file) for file in artifact.files(f"{name}_*.npy")])
    facts = store.read_table(artifact.path / f"{name}.parquet")
    names = list(TASKS[task])
    return Split(pixels, facts["class"].map(names.index).to_numpy(np.int64), facts)
