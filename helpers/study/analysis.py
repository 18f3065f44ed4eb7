"""Notebook 05: why the sources differ ([P] section 5 and appendix B)."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import copies, tables
from helpers.data.subsets import nested_subset, repeated
from helpers.data.tables import Split
from helpers.engine import randomness, store
from helpers.errors import NotKnown
from helpers.study import finetune, synthesis
from helpers.study.runs import collect
from helpers.worlds import World


def source_sets(w: World) -> dict[str, Split]:
    """The two sources as notebook 04 trained on them, and the test split as ``ground_truth``."""
    sources = {source: tables.source_set(w, w.tasks[0], source) for source in finetune.SOURCES}
    return {"ground_truth": tables.benchmark(w, w.tasks[0]).test, **sources}


def fidelity(w: World) -> pd.DataFrame:
    """How often details are right: ``task, source, class, attribute, images, correct`` (counts).

    A detail is right when the judge sees what the blueprint of the *label* says, so that misses in
    ``ground_truth`` are the judge's. Raises ``NotKnown`` where nobody knows the details of a class.
    """
    if not len(tables.benchmark(w, w.tasks[0]).details.columns):
        only = "They are known in the rendered worlds only: python -m helpers.run pocket 05"
        raise NotKnown(f"world {w.name!r} has no judge of details. {only}")
    jobs = {f"{source}.parquet": (w, source) for source in source_sets(w)}
    fill = functools.partial(store.fill, jobs=jobs, fn=details_right, what="sources judged")
    return store.make("fidelity", w, fill).table()


def details_right(w: World, source: str) -> pd.DataFrame:
    """``fidelity`` of one source, from the first ``w.analysis.judged`` images of each class."""
    bench = tables.benchmark(w, w.tasks[0])
    split = source_sets(w)[source]
    first = pd.Series(split.labels).groupby(split.labels).head(w.analysis.judged)
    split = split.take(first.index)
    judgement = worlds.backend(w).judge(w, np.asarray(split.images))
    rows = []
    for label in np.unique(split.labels):
        name = bench.classes[label]
        of_class = judgement[split.labels == label]
        for attribute, true in bench.details.loc[name].items():
            correct = int((of_class[attribute].to_numpy() == true).sum())
            rows.append((bench.task, source, name, attribute, len(of_class), correct))
    return pd.DataFrame(rows, columns=["task", "source", "class", "attribute", "images", "correct"])


@store.builds("analysed")
def make(path: Path, w: World) -> None:
    """All ablations: ``results.parquet`` and ``mixing.parquet``, in the form of notebook 04's.

    ``source`` is the arm, and ``n`` its size. Retrieved images, and the study's own drawn ones, are
    notebook 04's runs. ``counts.parquet``: per task the common ``size``, and ``train_copies``.
    """
    finetuned = store.load("finetuned", w)
    rates = finetuned.table("rates.parquet")
    counts = []
    chosen = []
    for task in w.analysis.tasks:
        size, copied = make_arms(path, w, rates, task)
        make_edits(path, w, task, size)
        counts.append({"task": task, "size": size, "train_copies": copied})
        for arm, source in arms(w).items():
            chosen.append(finetune.rated(rates, task, source, size).assign(source=arm))
        # drawn images added to retrieved ones, where a task has so many: equal epochs, or steps [P]
        mixes = [mix for mix in w.analysis.mixes if mix[0] <= finetune.sizes_of(w, task)[-1]]
        for real, drawn in mixes:
            images = {"retrieved": real, "synthetic": drawn}
            rows = finetune.rated_mix(w, task, images, real + drawn)
            names = [f"mixed-{real}+{drawn}-equal-{what}" for what in ("epochs", "steps")]
            chosen += [rows.assign(source=name) for name in names]
    store.write(path / "counts.parquet", pd.DataFrame(counts))
    results = measured(path, w, pd.concat(chosen, ignore_index=True))
    mixed = results["source"].str.startswith("mixed-")
    store.write(path / "mixing.parquet", results[mixed])
    own = finetuned.table("results.parquet").merge(pd.DataFrame(counts), on="task")
    own = own[(own["n"] == own["size"])].replace({"synthetic": f"captions-{w.synthesis.generator}"})
    results = pd.concat([own[list(results)], results[~mixed]], ignore_index=True)
    store.write(path / "results.parquet", results)


def arms(w: World) -> dict[str, str]:
    """Arms of equal size, and the source whose learning rate each has; edits count as retrieved."""
    edited = [f"sdedit-{strength:g}" for strength in w.analysis.strengths]
    real = dict.fromkeys(["decontaminated", *edited], "retrieved")
    captioned = [f"captions-{g}" for g in others(w)]
    return real | dict.fromkeys([*captioned, "alt-text", "templates"], "synthetic")


def measured(path: Path, w: World, chosen: pd.DataFrame) -> pd.DataFrame:
    """The results of all seeds on arms, of which rows say ``finetune.CELL``, metric and lr."""
    jobs = {}
    for first in sorted(finetune.first_runs(chosen), key=lambda run: run.n, reverse=True):
        for seed in range(w.finetune.seeds):
            file = f"runs/{first.task}-{first.source}-{first.n:06d}-{seed:07d}-{first.lr:g}.parquet"
            jobs[file] = (w, path, dataclasses.replace(first, seed=seed))
    runs = collect(path, w, "05", finetune.recipe(w, "analysed"), jobs, run_arm, "ablation runs")
    return finetune.by_metric(w, runs, chosen)


def others(w: World) -> list[str]:
    """The generators that are compared with the one of notebook 02."""
    return [g for g in w.analysis.generators if g != w.synthesis.generator]


def make_arms(path: Path, w: World, rates: pd.DataFrame, task: str) -> tuple[int, int]:
    """Write what arms offer; returns a size of notebook 04 that all can fill, and train copies.

    ``decontaminated`` lacks near-copies of benchmark *train* images ([P] appendix B.2). The others
    are drawn and filtered: other generators, other prompts ([P] figures 6, 10). They offer twice
    their size, so that every seed has other images.
    """
    bench = tables.benchmark(w, task)
    real = tables.source_set(w, task, "retrieved")
    train = copies.descriptor(bench.train.images)
    copied = copies.nearest(copies.descriptor(real.images), train) > copies.threshold(bench)
    clean = real.take(np.flatnonzero(~copied))
    store.write(path / f"offered/{task}-decontaminated.npy", clean.images)
    store.write(path / f"offered/{task}-decontaminated.parquet", clean.facts.assign(keep=True))
    columns = ["caption", "label", "class"]
    captions = store.load("captions", w).table(f"{task}.parquet")[columns]
    prompts = {f"captions-{g}": (g, captions) for g in others(w)}
    prompts["alt-text"] = (w.synthesis.generator, real.facts[columns])
    prompts["templates"] = (w.synthesis.generator, bench.filled(bench.templates))
    n = int(np.ceil(2 * w.analysis.size / w.clip.top_share))
    for arm, (generator, table) in prompts.items():
        rows = repeated(table, n, randomness.rng(w, "analysis", arm))
        world = worlds.replace(w, synthesis={"generator": generator})
        synthesis.draw_filtered(path / "offered", world, bench, rows, f"{task}-{arm}")
    sizes = rates[rates["task"] == task].groupby("source")["n"].agg(set)
    offered = [len(arm_of(path, task, arm)) for arm in ("decontaminated", *prompts)]
    most = max(min(w.analysis.size, *offered), w.finetune.sizes[0])
    return max(n for n in set.intersection(*sizes) if n <= most), int(copied.sum())


def make_edits(path: Path, w: World, task: str, size: int) -> None:
    """SDEdit at every strength ([P] section 5) of all that runs on ``size`` images take, once."""
    offered = tables.source_set(w, task, "retrieved")
    runs = [finetune.Run(task, "retrieved", "", size, s, 0.0) for s in range(w.finetune.seeds)]
    rows = np.unique([finetune.subset(w, run, offered) for run in runs])
    store.write(path / f"{task}/edited.npy", rows)
    jobs = {}
    starts = range(0, len(rows), w.synthesis.shard)
    for strength, start in itertools.product(w.analysis.strengths, starts):
        some = rows[start : start + w.synthesis.shard]
        jobs[f"{task}/sdedit-{strength:g}-{start:07d}.npy"] = (w, task, some, strength)
    store.fill(path, jobs, edit, f"shards of retrieved {task} edited")


def edit(w: World, task: str, rows: np.ndarray, strength: float) -> np.ndarray:
    """Some retrieved images (n, side, side, 3) uint8, redrawn with a template as caption."""
    split = tables.source_set(w, task, "retrieved").take(rows)
    template = tables.benchmark(w, task).templates[0]
    texts = [template.format(name) for name in split.facts["class"]]
    seeds = [randomness.entropy(w.seed, "sdedit", task, int(row)) for row in split.facts["row"]]
    return worlds.backend(w).draw(w, texts, seeds, np.asarray(split.images), strength)


def edited(w: World, path: Path, run: finetune.Run) -> Split:
    """The images of a run on retrieved ones, as its source "sdedit-0.5" redrew them."""
    offered = tables.source_set(w, run.task, "retrieved")
    rows = finetune.subset(w, dataclasses.replace(run, source="retrieved"), offered)
    kept = np.load(path / f"{run.task}/edited.npy")
    shards = tables.on_disk(sorted(path.glob(f"{run.task}/{run.source}-*.npy")))
    return dataclasses.replace(offered.take(rows), images=shards[np.searchsorted(kept, rows)])


@functools.lru_cache(maxsize=4)
def arm_of(path: Path, task: str, arm: str) -> Split:
    """What an arm of equal size offers; ``path`` is the folder of ``analysed``."""
    return tables.training_set(store.Artifact("analysed", path / "offered"), f"{task}-{arm}")


def run_arm(w: World, path: Path, run: finetune.Run) -> pd.DataFrame:
    """Finetune on a fresh subset of an arm, or on a mix: a row as of ``finetune.accuracies``."""
    kind, _, what = run.source.partition("-")
    settings = w.finetune
    if kind == "mixed":
        real, drawn = map(int, what.split("-")[0].split("+"))
        first = dataclasses.replace(run, source="retrieved", keep="", n=real)
        second = dataclasses.replace(run, source="synthetic", keep="", n=drawn)
        train = finetune.training_images(w, first).plus(finetune.training_images(w, second))
        if what.endswith("steps"):
            epochs = max(1, round(settings.epochs * real / run.n))
            settings = dataclasses.replace(settings, epochs=epochs)
    elif kind == "sdedit":
        train = edited(w, path, run)
    else:
        offered = arm_of(path, run.task, run.source)
        rng = randomness.rng(w, "analysis", "subset", run.task, run.seed)
        train = offered.take(nested_subset(offered.labels, run.n, rng))
    return finetune.accuracies(w, run, "test", train, settings)
