"""The three tasks of the miniature: held-out renderings with other seeds, and cleaner scenes, than the pool's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.tables import Benchmark, Split
from helpers.engine import store
from helpers.engine.randomness import entropy
from helpers.errors import unknown
from helpers.pocket.render.blueprints import Blueprint
from helpers.pocket.render.cars import Car
from helpers.pocket.render.flowers import Flower
from helpers.pocket.render.pictures import TASKS, factors, render, subject
from helpers.pocket.render.scenes import BACKGROUNDS, Scene, sample_scene
from helpers.pocket.world import wording
from helpers.worlds import World

NOUNS = {"aircraft": "aircraft", "flowers": "flower", "cars": "car"}
DETAILS = {  # what can be counted or named in a picture, per task
    "flowers": ("petals", "shape", "centre"),
    "cars": ("body", "doors", "arches", "lights"),
}
SPLITS = ("train", "val", "test")
SHARD = 200  # images per file


def benchmark(w: World, task: str) -> Benchmark:
    """Images, labels, class names and templates of a task, rendered on first use.

    Raises ``StudyError`` on a task that the world does not have.
    """
    if task not in w.tasks:
        raise unknown(f"task in world {w.name!r}", task, w.tasks)
    made = store.folder("benchmarks", w)
    done = (made / "manifest.json").exists()
    artifact = (
        store.load("benchmarks", w)
        if done
        else store.make("benchmarks", w, lambda path: _build(path, w))
    )
    noun = NOUNS[task]
    splits = {split: _split(artifact, task, split) for split in SPLITS}
    splits["train"].facts["caption"] = [_captioned(w, task, i) for i in range(len(splits["train"]))]
    return Benchmark(
        task,
        tuple(TASKS[task]),
        noun,
        f"a photo of {'an' if noun[0] in 'aeiou' else 'a'} {noun}",
        (f"a photo of a {{}}, a type of {noun}.", "a photo of the {}."),
        BACKGROUNDS,
        details(task),
        **splits,
        descriptions=tuple(described(thing) for thing in TASKS[task].values()),
    )


def details(task: str) -> pd.DataFrame:
    """Ground truth of the countable details: one row per class (index), one column per attribute."""
    rows = {}
    for name, thing in TASKS[task].items():
        facts = thing.attributes if task == "aircraft" else dataclasses.asdict(thing)
        rows[name] = {k: v for k, v in facts.items() if task == "aircraft" or k in DETAILS[task]}
    return pd.DataFrame.from_dict(rows, orient="index")


def described(thing: Blueprint | Flower | Car) -> str:
    """A thing's recorded details in words, as a dictionary would put it, and few enough for the text encoder's 32 tokens."""
    if isinstance(thing, Blueprint):
        return f"{thing.axles} axles, {thing.engine_place} engine, {thing.wing} wing{', T tail' if thing.tail == 'T' else ''}"
    if isinstance(thing, Flower):
        return f"{thing.petals} {thing.shape} petals, {thing.centre} centre"
    return f"{thing.body}, {thing.doors} doors, {thing.lights} lights"


def _captioned(w: World, task: str, i: int) -> str:
    """The i-th train image as the pool's writers would caption it."""
    name, scene, seed = scene_of(w, task, "train", i)
    return wording.caption(
        task, name, scene, np.random.default_rng(entropy(seed, "caption")), "background"
    )[0]


def scene_of(w: World, task: str, split: str, i: int) -> tuple[str, Scene, int]:
    """Class name, scene and seed of the i-th image of a split: everything that is needed to render it again."""
    names = tuple(TASKS[task])
    seed = entropy(w.pool.seed, "benchmark", task, split, i)
    return names[i % len(names)], sample_scene(np.random.default_rng(seed), "benchmark"), seed


def _build(path: Path, w: World) -> None:
    jobs = {}
    for task in TASKS:
        n = w.pool.benchmark_per_class * len(TASKS[task])
        for split in SPLITS:
            for start in range(0, n, SHARD):
                jobs[f"{task}_{split}_{start:06d}.npy"] = (
                    w,
                    task,
                    split,
                    start,
                    min(start + SHARD, n),
                )
    store.fill(path, jobs, images_of, "benchmark shards rendered")
    for task in TASKS:
        for split in SPLITS:
            rows = [
                scene_of(w, task, split, i)
                for i in range(w.pool.benchmark_per_class * len(TASKS[task]))
            ]
            facts = pd.DataFrame(
                [{"class": name, "seed": str(seed), **factors(scene)} for name, scene, seed in rows]
            )
            store.write(path / f"{task}_{split}.parquet", facts)


def images_of(w: World, task: str, split: str, start: int, stop: int) -> np.ndarray:
    """Render the images ``start`` to ``stop`` of a split: (stop - start, size, size, 3) uint8."""
    made = []
    for i in range(start, stop):
        name, scene, seed = scene_of(w, task, split, i)
        made.append(render(subject(task, name), scene, seed, w.image_size).pixels)
    return np.stack(made)


def _split(artifact: store.Artifact, task: str, split: str) -> Split:
    images = np.concatenate([np.load(f) for f in artifact.files(f"{task}_{split}_*.npy")])
    facts = store.read_table(artifact.path / f"{task}_{split}.parquet")
    names = list(TASKS[task])
    return Split(images, facts["class"].map(names.index).to_numpy(np.int64), facts)
