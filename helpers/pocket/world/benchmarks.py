"""The three tasks of the miniature: renderings with other seeds than the pool's, and cleaner."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.data.tables import Benchmark
from helpers.engine import store
from helpers.pocket.chance import stream
from helpers.pocket.render import blueprints
from helpers.pocket.render.blueprints import Blueprint
from helpers.pocket.render.flowers import Flower
from helpers.pocket.render.pictures import TASKS, Subject, render, subject
from helpers.pocket.render.scenes import BACKGROUNDS
from helpers.pocket.world import splits, wording
from helpers.worlds import World

NOUNS = {"aircraft": "aircraft", "flowers": "flower", "cars": "car"}
DETAILS = {  # what can be counted or named in a picture, per task
    "aircraft": blueprints.DETAILS,
    "flowers": ("petals", "shape", "centre"),
    "cars": ("body", "doors", "arches", "lights"),
}


def benchmark(w: World, task: str) -> Benchmark:
    """Images, labels, class names and templates of a task, rendered on first use.

    Raises ``StudyError`` on a task that the world does not have.
    """
    splits.check_task(w, task)
    sets = {f"{t}_{split}": (t, split) for t in TASKS for split in splits.SPLITS}
    per_class = w.pool.benchmark_per_class
    artifact = store.get(
        "benchmarks", w, lambda path: splits.write(path, w, sets, per_class, picture)
    )
    train, val, test = (splits.read(artifact, f"{task}_{name}", task) for name in splits.SPLITS)
    train.facts["caption"] = [_caption(w, task, i) for i in range(len(train))]
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


def picture(w: World, task: str, split: str, i: int) -> np.ndarray:
    """The i-th image of a split: (size, size, 3) uint8."""
    name, scene, seed = splits.scene_of(w, task, split, i)
    return render(subject(task, name), scene, seed, w.image_size).pixels


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


def _caption(w: World, task: str, i: int) -> str:
    """The i-th train image as the pool's writers would caption it."""
    name, scene, seed = splits.scene_of(w, task, "train", i)
    return wording.caption(task, name, scene, stream(seed, "caption"), "background")[0]
