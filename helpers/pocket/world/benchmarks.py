"""The three tasks of the miniature: renderings with other seeds than the pool's, and cleaner.

Classes take turns, every picture has its own seed; a set is kept in files of ``SHARD`` images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.tables import Benchmark, Split
from helpers.engine import store
from helpers.engine.randomness import entropy
from helpers.errors import unknown
from helpers.pocket.chance import stream
from helpers.pocket.render import blueprints
from helpers.pocket.render.blueprints import Blueprint
from helpers.pocket.render.flowers import Flower
from helpers.pocket.render.pictures import TASKS, Subject, factors, render, subject
from helpers.pocket.render.scenes import BACKGROUNDS, Scene, sample_scene
from helpers.pocket.world import wording
from helpers.worlds import World

SPLITS = ("train", "val", "test")
SHIFTS = ("sketch", "unseen")
SHARD = 200  # images per file
NOUNS = {"aircraft": "aircraft", "flowers": "flower", "cars": "car"}
DETAILS = {  # what can be counted or named in a picture, per task
    "aircraft": blueprints.DETAILS,
    "flowers": ("petals", "shape", "centre"),
    "cars": ("body", "doors", "arches", "lights"),
}


def check_task(w: World, task: str) -> None:
    """Raise ``StudyError`` on a task that the world does not have."""
    if task not in w.tasks:
        raise unknown(f"task in world {w.name!r}", task, w.tasks)


def benchmark(w: World, task: str) -> Benchmark:
    """Images, labels, class names and templates of a task, rendered on first use.

    Raises ``StudyError`` on a task that the world does not have.
    """
    check_task(w, task)
    sets = {f"{t}_{split}": (t, split, per_class(w, t, split)) for t in TASKS for split in SPLITS}
    artifact = store.get("benchmarks", w, lambda path: write(path, w, sets, picture))
    train, val, test = (read(artifact, f"{task}_{name}", task) for name in SPLITS)
    noun = NOUNS[task]
    return Benchmark(
        task,
        classes=tuple(TASKS[task]),
        noun=noun,
        domain=f"a photo of {wording.article(noun)}",
        templates=(f"a photo of a {{}}, a type of {noun}.", "a photo of the {}."),
        backgrounds=BACKGROUNDS,
        details=details(task),
        train=train,
        val=val,
        test=test,
        descriptions=tuple(described(thing) for thing in TASKS[task].values()),
    )


def per_class(w: World, task: str, split: str) -> int:
    """Images of every class in a split."""
    usual = w.pool.benchmark_per_class
    return dict(w.pool.test_per_class_of).get(task, usual) if split == "test" else usual


def scene_of(w: World, task: str, split: str, i: int) -> tuple[str, Scene, int]:
    """Class name, scene and seed of the i-th image: everything that is needed to render it."""
    kind = "shifted" if split in SHIFTS else "benchmark"
    seed = entropy(w.pool.seed, kind, task, split, i)
    names = tuple(TASKS[task])
    return names[i % len(names)], sample_scene(np.random.default_rng(seed), "benchmark"), seed


def picture(w: World, task: str, split: str, i: int) -> np.ndarray:
    """The i-th image of a split: (size, size, 3) uint8."""
    name, scene, seed = scene_of(w, task, split, i)
    return render(subject(task, name), scene, seed, w.image_size).pixels


def write(path: Path, w: World, sets: Mapping[str, tuple[str, str, int]], draw: Callable) -> None:
    """Write ``sets``: file name -> (task, split, images of every class).

    ``draw(w, task, split, i)``, an importable function, gives one image (size, size, 3) uint8.
    """
    jobs = {}
    for name, (task, split, count) in sets.items():
        n = count * len(TASKS[task])
        rows = []
        for i in range(n):
            cls, scene, seed = scene_of(w, task, split, i)
            row = {"class": cls, "seed": str(seed), **factors(scene)}
            if split == "train":  # as the pool's writers would caption it
                rng = stream(seed, "caption")
                row["caption"] = wording.caption(task, cls, scene, rng, "background")[0]
            rows.append(row)
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


def details(task: str) -> pd.DataFrame:
    """Ground truth of the countable details: a row per class (index), a column per attribute."""
    rows = {}
    for name, thing in TASKS[task].items():
        rows[name] = {detail: getattr(thing, detail) for detail in DETAILS[task]}
    return pd.DataFrame.from_dict(rows, orient="index")


def described(thing: Subject) -> str:
    """A thing's details as a dictionary would put them, within the text encoder's 32 tokens."""
    if isinstance(thing, Blueprint):
        tail = ", T tail" if thing.tail == "T" else ""
        return f"{thing.axles} axles, {thing.engine_place} engine, {thing.wing} wing{tail}"
    if isinstance(thing, Flower):
        return f"{thing.petals} {thing.shape} petals, {thing.centre} centre"
    return f"{thing.body}, {thing.doors} doors, {thing.lights} lights"
