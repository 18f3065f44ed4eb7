"""Generators of notebook 08 that were tuned on a few real images of the task, or in their words.

After DataDream (ECCV 2024) and Beyond Objects; recipes and differences are in ``draw``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import nested_subset
from helpers.data.tables import Benchmark, Split
from helpers.engine import randomness, store
from helpers.errors import StudyError, unknown
from helpers.models import clip, lora
from helpers.study import finetune
from helpers.worlds import World

GUIDES = ("plain", "class", "data set", "words", "context", "retrieved")
UNTUNED = ("plain", "words")  # of these guides
AT_ALL_SHOTS = ("plain", "data set")  # the others only with the most real images


def real_images(w: World, task: str, k: int, seed: int) -> Split:
    """``k`` images of every class of the train split, those for more holding those for fewer.

    They are as large as the pool's, which a benchmark's need not be: sets hold both.
    """
    bench = tables.benchmark(w, task)
    rng = randomness.rng(w, "mixes", task, "real", seed)
    few = bench.train.take(nested_subset(bench.train.labels, k * len(bench.classes), rng))
    side = tables.source_set(w, task, "retrieved").images[:1].shape[1]
    return dataclasses.replace(few, images=clip.shrunk(np.asarray(few.images), side))


def sources(w: World, k: int) -> dict[str, str]:
    """The sources of the guides that are tuned, or asked, with ``k`` real images of every class;
    what is "plain" does not see them and is the same for all ``k``."""
    first, last = w.mixes.shots[0], w.mixes.shots[-1]
    asked = [how for how in w.mixes.guides if k == last or how in AT_ALL_SHOTS]
    return {how: f"guided:{how} {first if how == 'plain' else k}" for how in asked}


def fill(path: Path, w: World, seed: int) -> None:
    """Have all guides of the first task draw for a seed, each once; what is there is left."""
    jobs = {}
    for source in itertools.chain(*(sources(w, k).values() for k in w.mixes.shots)):
        about = (w.mixes.tasks[0], source.partition(":")[2], seed)
        jobs[file_of(*about)] = (w, path, *about)
    store.fill(path, jobs, draw, f"sets of guided generators, seed {seed}")


def learned(w: World, task: str, guide: str, k: int, seed: int) -> Split:
    """What a guide is tuned on: ``k`` real images of every class, or as many retrieved ones."""
    real = real_images(w, task, k, seed)
    if guide != "retrieved":
        return real
    return finetune.training_images(w, finetune.Run(task, guide, "", len(real), seed, 0.0))


def images(w: World, path: Path, task: str, how: str, seed: int) -> Split:
    """What ``draw`` drew, from the artifact's folder; a guide's sources end with ``how``."""
    drawn = np.load(path / file_of(task, how, seed), mmap_mode="r")
    return Split(drawn, np.arange(len(drawn)) % len(tables.benchmark(w, task).classes))


def file_of(task: str, how: str, seed: int) -> str:
    """Where an artifact keeps them."""
    return f"guided/{task}-{how}-{seed:07d}.npy"


def draw(w: World, path: Path, task: str, how: str, seed: int) -> np.ndarray:
    """``w.mixes.size`` images (n, side, side, 3) uint8, classes in turns, by a tuned generator.

    "plain": not tuned. "class", "data set": on the real images, an adapter for each or one for all
    [DataDream]. "context": one for all, whose texts say what surrounds the object, and every class
    drawn in all surroundings [Beyond Objects]; "words": the same words, not tuned. "retrieved": one
    adapter, on as many retrieved images.
    """
    guide, _, k = how.rpartition(" ")
    if guide not in GUIDES:
        raise unknown("guide of a generator", guide, GUIDES)
    bench = tables.benchmark(w, task)
    real = learned(w, task, guide, int(k), seed)
    ways, texts = wordings(bench, real, guide in ("context", "words"))
    rng = randomness.rng(w, "mixes", task, how, seed)
    labels = np.arange(w.mixes.size) % len(bench.classes)
    captions = [ways[rng.integers(len(ways))].format(bench.classes[label]) for label in labels]
    seeds = [randomness.entropy(w.seed, "guided", task, seed, i) for i in range(len(labels))]
    groups = [(real.labels >= 0, labels >= 0)]
    if guide == "class":
        groups = [(real.labels == label, labels == label) for label in np.unique(labels)]
    steps = max(w.adapter.steps // len(groups), min(w.adapter.steps, w.adapter.class_steps))
    steps = steps if guide not in UNTUNED else 0
    parts = []
    for known, asked in groups:
        rows = np.flatnonzero(asked)
        shown = np.flatnonzero(known)
        asked_for = [captions[i] for i in rows], [seeds[i] for i in rows]
        shown_with = [texts[i] for i in shown]
        with tuned(w, path, real.take(shown), shown_with, seed, steps):
            parts.append(worlds.backend(w).draw(w, *asked_for))
    order = np.concatenate([np.flatnonzero(asked) for _, asked in groups])
    return np.concatenate(parts)[np.argsort(order)]


@contextlib.contextmanager
def tuned(
    w: World, path: Path, real: Split, texts: Sequence[str], seed: int, steps: int
) -> Iterator[None]:
    """Within it, the world's generator draws as one that was tuned on images and their texts."""
    if not steps:
        yield
        return
    warmup = min(w.adapter.warmup, max(1, steps // 10))  # an adapter of one class has few updates
    settings = dataclasses.replace(w.adapter, steps=steps, warmup=warmup)
    pipe = worlds.backend(w).pipeline(w)
    with tempfile.TemporaryDirectory(dir=path) as folder:
        lora.tune(pipe, np.asarray(real.images), list(texts), settings, seed, Path(folder))
        with lora.adapted(pipe, Path(folder)):
            yield


def wordings(bench: Benchmark, real: Split, context: bool) -> tuple[list[str], list[str]]:
    """How classes are asked for, "a photo of a {}", and the text of each image to tune on.

    With ``context`` images have their own captions, and classes are asked for in the words of all
    of them that name their class.
    """
    names = [bench.classes[label] for label in real.labels]
    if not context:
        return [bench.templates[0]], [bench.templates[0].format(name) for name in names]
    if "caption" not in real.facts:
        lack = f"{bench.task} has no captions of its train images, which 'context' needs"
        raise StudyError(f"{lack}; take it out of mixes guides.")
    texts = list(real.facts["caption"])
    pairs = zip(texts, names, strict=True)
    ways = [text.replace(name, "{}") for text, name in pairs if name in text]
    return ways or [bench.templates[0]], texts
