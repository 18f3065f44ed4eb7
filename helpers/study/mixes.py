"""Notebook 08: training sets that mix retrieved, drawn and a few real images of the task.

A source is named by a word and what was done to it, ``kind:how``. ``retrieved`` and ``synthetic``
are the images of notebook 04; ``retrieved:0.25 seen`` are those that a retriever finds who sees a
quarter of the pool, ``retrieved:0.25 wrong`` has a quarter of its labels exchanged; ``real:5`` are
5 images of every class from the train split, over and over; ``drawn:templates`` is an arm of
notebook 05; ``guided:context 5`` are drawn by a generator that was tuned on 5 real images of every
class (``GUIDES``), after DataDream (ECCV 2024) and Beyond Objects.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import nested_subset
from helpers.data.tables import Benchmark, Split
from helpers.engine import randomness, store
from helpers.errors import StudyError, unknown
from helpers.models import lora
from helpers.study import analysis, finetune
from helpers.study.runs import collect
from helpers.worlds import World

GUIDES = ("plain", "class", "data set", "context", "retrieved")  # what the generator was tuned on


@dataclass(frozen=True)
class Mix:
    """A training set: (source, images) of each part; with 0 ``steps`` updates grow with images."""

    task: str
    parts: tuple[tuple[str, int], ...]
    steps: int = 0

    @property
    def name(self) -> str:
        """The parts in words: "retrieved 120 + synthetic 480, 90 steps"."""
        parts = " + ".join(f"{source} {n}" for source, n in self.parts)
        return parts + (f", {self.steps} steps" if self.steps else "")

    @property
    def n(self) -> int:
        """Images in all."""
        return sum(n for _, n in self.parts)


@store.builds("mixed")
def make(path: Path, w: World) -> None:
    """All runs of notebook 08: ``results.parquet``, in the form of notebook 04's.

    ``source`` is ``Mix.name`` and ``n`` ``Mix.n``. All metrics have the rate of zero-shot accuracy.
    """
    store.load("analysed", w)  # whose arms are parts of mixes: asked for before hours are spent
    mixes = list(dict.fromkeys([*grid(w), *causes(w), *opponents(w)]))
    rows = []
    jobs = {}
    guided = {}
    for mix in sorted(mixes, key=lambda mix: mix.n, reverse=True):
        first = finetune.Run(mix.task, mix.name, "mixed", mix.n, 0, rate_of(w, mix))
        rows += [{**dataclasses.asdict(first), "metric": metric} for metric in finetune.METRICS]
        for seed in range(w.mixes.seeds):
            run = dataclasses.replace(first, seed=seed)
            jobs[f"runs/{mix.task}/{mix.name}-{seed:07d}.parquet"] = (w, path, mix, run)
            for how in (s.partition(":")[2] for s, _ in mix.parts if s.startswith("guided:")):
                guided[f"guided/{mix.task}-{how}-{seed:07d}.npy"] = (w, path, mix.task, how, seed)
    store.fill(path, guided, draw_guided, "sets of guided generators")
    runs = collect(path, w, "08", finetune.recipe(w, "mixed"), jobs, measured, "runs on mixes")
    store.write(path / "results.parquet", finetune.by_metric(w, runs, pd.DataFrame(rows)))


def rate_of(w: World, mix: Mix) -> float:
    """The learning rate of a mix: that of its sources at as many *different* images."""
    classes = len(tables.benchmark(w, mix.task).classes)
    images = dict.fromkeys(finetune.SOURCES, 0)
    n = 0
    for source, count in mix.parts:
        kind, _, how = source.partition(":")
        images["retrieved" if kind in ("retrieved", "real") else "synthetic"] += count
        n += min(count, int(how) * classes) if kind == "real" else count
    return finetune.rated_mix(w, mix.task, images, n).query("metric == 'zero_shot'")["lr"].item()


def grid(w: World) -> list[Mix]:
    """The map: every number of retrieved images with every number of synthetic ones.

    Twice: with as many updates for all, and with updates that grow with the images.
    """
    mixes = []
    for task in w.mixes.tasks:
        largest = finetune.sizes_of(w, task)[-1]
        counts = [0, *(n for n in w.mixes.counts if n <= largest)]
        if len(counts) < 2:
            ends = f"begins with {w.mixes.counts[0]} images, finetune sizes end with {largest}"
            raise StudyError(f"the map of {task} {ends}: lower mixes counts, or raise those sizes.")
        for r, s in itertools.product(counts, counts):
            parts = tuple((source, n) for source, n in (("retrieved", r), ("synthetic", s)) if n)
            mixes += [Mix(task, parts, steps) for steps in (w.mixes.steps, 0) if parts]
    return mixes


def causes(w: World) -> list[Mix]:
    """What may move the border, one at a time: access and labels, then generators and prompts.

    Each source alone, and with as many images of the other one beside.
    """
    n = w.mixes.size
    real = [f"retrieved:{share:g} seen" for share in w.mixes.access]
    real += [f"retrieved:{share:g} wrong" for share in w.mixes.noise]
    drawn = [f"drawn:captions-{generator}" for generator in analysis.others(w)]
    drawn += ["drawn:alt-text", "drawn:templates"]
    pairs = [(source, "synthetic") for source in ("retrieved", *real)]
    pairs += [("retrieved", source) for source in drawn]
    mixes = []
    for task in w.mixes.tasks:
        for pair in pairs:
            both = tuple((source, n) for source in pair)
            mixes += [Mix(task, parts, w.mixes.steps) for parts in (both, both[:1], both[1:])]
    return mixes


def opponents(w: World) -> list[Mix]:
    """Guided generators and what they compete with, on the first task, alone and with real images.

    The real ones are the same for all, repeated until they are half of a set, as in DataDream.
    """
    n = w.mixes.size
    task = w.mixes.tasks[0]
    mixes = []
    for k in w.mixes.shots:
        guided = [f"guided:{how} {k}" for how in w.mixes.guides]
        mixes.append(Mix(task, ((f"real:{k}", n),), w.mixes.steps))
        for source in ("retrieved", "synthetic", *guided):
            parts = ((source, n), (f"real:{k}", n))
            mixes += [Mix(task, parts, w.mixes.steps), Mix(task, parts[:1], w.mixes.steps)]
    return mixes


def measured(w: World, path: Path, mix: Mix, run: finetune.Run) -> pd.DataFrame:
    """Finetune once on a mix: a row as of ``finetune.accuracies``, and how many ``images``."""
    sets = [part(w, path, mix.task, source, n, run.seed) for source, n in mix.parts]
    train = sets[0]
    for other in sets[1:]:
        train = train.plus(other)
    settings = w.finetune
    if mix.steps:
        settings = dataclasses.replace(settings, epochs=0, epochs_of=(), min_steps=mix.steps)
    found = finetune.accuracies(w, run, "test", train, settings)
    return found.assign(images=len(train))


def part(w: World, path: Path, task: str, source: str, n: int, seed: int) -> Split:
    """The images of one part of a mix, ``n`` or as many as there are; ``StudyError`` if unknown."""
    kind, _, how = source.partition(":")
    if kind == "real":
        few = real_images(w, task, int(how), seed)
        return few.take(np.arange(n) % len(few))
    if kind == "drawn":
        offered = analysis.arm_of(store.load("analysed", w).path, task, how)
        rng = randomness.rng(w, "mixes", task, "drawn", seed)
        return offered.take(nested_subset(offered.labels, n, rng))
    if kind == "guided":
        drawn = np.load(path / f"guided/{task}-{how}-{seed:07d}.npy", mmap_mode="r")
        return Split(drawn[:n], np.arange(n) % len(tables.benchmark(w, task).classes))
    if source in finetune.SOURCES:
        return finetune.training_images(w, finetune.Run(task, source, "", n, seed, 0.0))
    share, _, what = how.partition(" ")
    if kind != "retrieved" or what not in ("seen", "wrong"):
        raise unknown("part of a mix", source, (*finetune.SOURCES, "real:5", "retrieved:0.5 seen"))
    rng = randomness.rng(w, "mixes", task, what, seed)
    offered = tables.source_set(w, task, "retrieved")
    if what == "seen":
        offered = offered.take(np.flatnonzero(rng.random(len(offered)) < float(share)))
        return offered.take(nested_subset(offered.labels, min(n, len(offered)), rng))
    right = part(w, path, task, "retrieved", n, seed)
    classes = len(tables.benchmark(w, task).classes)
    other = (right.labels + rng.integers(1, classes, n)) % classes
    labels = np.where(rng.random(n) < float(share), other, right.labels)
    return dataclasses.replace(right, labels=labels)


def real_images(w: World, task: str, k: int, seed: int) -> Split:
    """``k`` images of every class of the train split, those for more holding those for fewer."""
    bench = tables.benchmark(w, task)
    rng = randomness.rng(w, "mixes", task, "real", seed)
    return bench.train.take(nested_subset(bench.train.labels, k * len(bench.classes), rng))


def draw_guided(w: World, path: Path, task: str, how: str, seed: int) -> np.ndarray:
    """``w.mixes.size`` images (n, side, side, 3) uint8, classes in turns, by a tuned generator.

    "plain": not tuned. "class", "data set": on the real images, an adapter for each or one for all
    [DataDream]. "context": one for all, whose texts say what surrounds the object, and every class
    drawn in all surroundings [Beyond Objects]. "retrieved": one, on as many retrieved images.
    """
    guide, _, k = how.rpartition(" ")
    if guide not in GUIDES:
        raise unknown("guide of a generator", guide, GUIDES)
    bench = tables.benchmark(w, task)
    real = real_images(w, task, int(k), seed)
    if guide == "retrieved":
        real = part(w, path, task, "retrieved", len(real), seed)
    ways, texts = wordings(bench, real, guide == "context")
    rng = randomness.rng(w, "mixes", task, how, seed)
    labels = np.arange(w.mixes.size) % len(bench.classes)
    captions = [ways[rng.integers(len(ways))].format(bench.classes[label]) for label in labels]
    seeds = [randomness.entropy(w.seed, "guided", task, seed, i) for i in range(len(labels))]
    groups = [(real.labels >= 0, labels >= 0)]
    if guide == "class":
        groups = [(real.labels == label, labels == label) for label in np.unique(labels)]
    steps = w.adapter.steps // len(groups) if guide != "plain" else 0
    drawn = np.zeros((len(labels), w.image_size, w.image_size, 3), np.uint8)
    for learned, asked in groups:
        rows = np.flatnonzero(asked)
        shown = np.flatnonzero(learned)
        asked_for = [captions[i] for i in rows], [seeds[i] for i in rows]
        shown_with = [texts[i] for i in shown]
        with tuned(w, path, real.take(shown), shown_with, seed, steps):
            drawn[rows] = worlds.backend(w).draw(w, *asked_for)
    return drawn


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
