"""Notebook 08: training sets that mix retrieved, drawn and a few real images of the task.

A source is named by a word and what was done to it, ``kind:how``. ``retrieved`` and ``synthetic``
are the images of notebook 04; ``retrieved:0.25 seen`` are those that a retriever finds who sees a
quarter of the pool, ``retrieved:0.25 wrong`` has a quarter of its labels exchanged; ``real:5`` are
5 images of every class from the train split, over and over; ``drawn:templates`` is an arm of
notebook 05; ``guided:context 5`` are drawn by a generator that was tuned on 5 real images of every
class (``guided.GUIDES``), after DataDream (ECCV 2024) and Beyond Objects.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.data.subsets import nested_subset
from helpers.data.tables import Split
from helpers.engine import randomness, store
from helpers.errors import StudyError, unknown
from helpers.study import analysis, finetune, guided, looks
from helpers.study.runs import collect, missing
from helpers.worlds import World

FACTORS = (1 / 3, 1, 3)  # of a mix's rate, that are tried on validation


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

    @property
    def arm(self) -> tuple[str, int]:
        """What its runs are called in tables: (source, n)."""
        return self.name, self.n


@store.builds("mixed")
def make(path: Path, w: World) -> None:
    """All runs of notebook 08: ``results.parquet``, in the form of notebook 04's.

    ``source`` is ``Mix.name`` and ``n`` ``Mix.n``. All metrics have the rate of zero-shot accuracy.
    ``looks.parquet``: what images of guided generators show, as ``looks.measured`` says.
    """
    store.load("analysed", w)  # whose arms are parts of mixes: asked for before hours are spent
    mixes = list(dict.fromkeys([*grid(w), *causes(w), *opponents(w)]))
    rates = choose_rates(path, w, mixes)
    recipe = finetune.recipe(w, "mixed")
    found = []
    seen = []
    for seed in range(w.mixes.seeds):  # rows are kept seed by seed
        runs = [(mix, run_of(mix, seed, rates[mix])) for mix in mixes]
        jobs = jobs_of(path, w, runs, "test")
        asked = looks.jobs(path, w, seed)
        absent = missing(path, w, "08", recipe, jobs)
        absent += missing(path, w, looks.ROWS, recipe, asked)
        if absent or seed == 0:  # the first seed's images are shown
            guided.fill(path, w, seed)
        found.append(collect(path, w, "08", recipe, jobs, measured, f"runs of seed {seed}"))
        what = f"guided sets of seed {seed} looked at"
        seen.append(collect(path, w, looks.ROWS, recipe, asked, looks.measured, what))
    store.write(path / "looks.parquet", pd.concat(seen, ignore_index=True).drop(columns="run"))
    chosen = []
    for mix in mixes:
        first = dataclasses.asdict(run_of(mix, 0, rates[mix]))
        chosen += [{**first, "metric": metric} for metric in finetune.METRICS]
    results = finetune.by_metric(w, pd.concat(found, ignore_index=True), pd.DataFrame(chosen))
    store.write(path / "results.parquet", results)


def run_of(mix: Mix, seed: int, lr: float) -> finetune.Run:
    """A run on a mix, as notebook 04's tables have it."""
    return finetune.Run(mix.task, mix.name, "mixed", mix.n, seed, lr)


def jobs_of(path: Path, w: World, runs: Sequence, held_out: str) -> dict[str, tuple]:
    """File -> arguments of ``measured``, for pairs of a mix and its run, the longest first."""
    jobs = {}
    for mix, run in sorted(runs, key=lambda pair: pair[0].n, reverse=True):
        file = f"{held_out}/{mix.task}/{mix.name}-{run.seed:07d}-{run.lr:g}.parquet"
        jobs[file] = (w, path, mix, run, held_out)
    return jobs


def choose_rates(path: Path, w: World, mixes: Sequence[Mix]) -> dict[Mix, float]:
    """The learning rate of every mix: ``rate_of``, or of ``FACTORS`` of it the best on validation.

    A grid whose best rate lies at its edge is extended there; all means go to ``rates.parquet``.
    Images of guided generators learn as as many of the study's own generator do. A single source
    whose updates grow keeps its rate, which was chosen so in notebook 04.
    """
    rates = {mix: rate_of(w, mix) for mix in mixes}
    like = {mix: unguided(mix) for mix in mixes if mix.steps or len(mix.parts) > 1}
    if not (finetune.selection(w.mixes) and like):
        return rates
    recipe = finetune.recipe(w, "mixed")
    tried = {}
    for mix in dict.fromkeys(like.values()):
        tried[mix] = {float(f"{factor * rate_of(w, mix):.3g}") for factor in FACTORS}
    for _ in range(finetune.EXTENSIONS + 1):
        grid = [(mix, lr) for mix, lrs in tried.items() for lr in sorted(lrs)]
        asked = itertools.product(grid, finetune.selection(w.mixes))
        runs = [(mix, run_of(mix, seed, lr)) for (mix, lr), seed in asked]
        jobs = jobs_of(path, w, runs, "val")
        found = collect(path, w, "08", recipe, jobs, measured, "runs on rates of mixes")
        table = found.groupby(["task", "source", "lr"], as_index=False)["zero_shot"].mean()
        table["chosen"] = table.index.isin(table.groupby(["task", "source"])["zero_shot"].idxmax())
        best = table[table["chosen"]].set_index(["task", "source"])["lr"]
        for mix, lrs in tried.items():
            lrs |= finetune.beyond(lrs, best[mix.task, mix.name])
        if sum(map(len, tried.values())) == len(grid):
            break
    store.write(path / "rates.parquet", table)
    return rates | {mix: float(best[other.task, other.name]) for mix, other in like.items()}


def unguided(mix: Mix) -> Mix:
    """The same mix with synthetic images in place of a guided generator's."""
    kinds = ((source.partition(":")[0], source, n) for source, n in mix.parts)
    parts = [("synthetic" if kind == "guided" else source, n) for kind, source, n in kinds]
    return dataclasses.replace(mix, parts=tuple(parts))


def rate_of(w: World, mix: Mix) -> float:
    """The learning rate that a mix's sources have at as many *different* images."""
    classes = len(tables.benchmark(w, mix.task).classes)
    images = dict.fromkeys(finetune.SOURCES, 0)
    n = 0
    for source, count in mix.parts:
        kind, _, how = source.partition(":")
        if kind == "real":
            count = min(count, int(how) * classes)
        elif how.endswith(" seen"):
            offered = len(tables.source_set(w, mix.task, "retrieved"))
            count = min(count, round(float(how.split()[0]) * offered))
        images["retrieved" if kind in ("retrieved", "real") else "synthetic"] += count
        n += count
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
    mixes = list(weights(w).values())
    if "retrieved" in w.mixes.guides:  # retrieve, then generate: the images it was tuned on as well
        tuned = guided.sources(w, w.mixes.shots[-1])["retrieved"]
        mixes.append(Mix(task, (("retrieved", n), (tuned, n)), w.mixes.steps))
    for k in w.mixes.shots:
        mixes.append(Mix(task, ((f"real:{k}", n),), w.mixes.steps))
        for source in ("retrieved", "synthetic", *guided.sources(w, k).values()):
            parts = ((source, n), (f"real:{k}", n))
            mixes += [Mix(task, parts, w.mixes.steps), Mix(task, parts[:1], w.mixes.steps)]
    return mixes


def weights(w: World) -> dict[tuple[str, str], Mix]:
    """How much the fewest real images may count beside retrieved images and the last guide's: each
    once, half, or four fifths, on average the weights of DataDream's loss."""
    n, k, task = w.mixes.size, w.mixes.shots[0], w.mixes.tasks[0]
    counts = {"each once": k * len(tables.benchmark(w, task).classes), "half": n}
    counts["four fifths"] = 4 * n
    mixes = {}
    for source in ("retrieved", [*guided.sources(w, k).values()][-1]):
        for name, count in counts.items():
            mixes[source, name] = Mix(task, ((source, n), (f"real:{k}", count)), w.mixes.steps)
    return mixes


def measured(w: World, path: Path, mix: Mix, run: finetune.Run, held_out: str) -> pd.DataFrame:
    """Finetune once on a mix: a row as of ``finetune.accuracies``, and how many ``images``."""
    sets = [part(w, path, mix.task, source, n, run.seed) for source, n in mix.parts]
    train = sets[0]
    for other in sets[1:]:
        train = train.plus(other)
    settings = w.finetune
    if mix.steps:
        settings = dataclasses.replace(settings, epochs=0, epochs_of=(), min_steps=mix.steps)
    found = finetune.accuracies(w, run, held_out, train, settings)
    return found.assign(images=len(train))


def part(w: World, path: Path, task: str, source: str, n: int, seed: int) -> Split:
    """The images of one part of a mix, ``n`` or as many as there are; ``StudyError`` if unknown."""
    kind, _, how = source.partition(":")
    if kind == "real":
        few = guided.real_images(w, task, int(how), seed)
        return few.take(np.arange(n) % len(few))
    if kind == "drawn":
        offered = analysis.arm_of(store.load("analysed", w).path, task, how)
        rng = randomness.rng(w, "mixes", task, "drawn", seed)
        return offered.take(nested_subset(offered.labels, n, rng))
    if kind == "guided":
        drawn = guided.images(w, path, task, how, seed)
        return drawn.take(range(n))
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
