"""Notebook 05: why the sources differ ([P] section 5 and appendix B)."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import copies, tables
from helpers.data.subsets import nested_subset, repeated
from helpers.data.tables import Benchmark, Split
from helpers.engine import randomness, store
from helpers.errors import NotKnown
from helpers.study import finetune, synthesis
from helpers.study.runs import collect
from helpers.worlds import World

OFFERED = 2  # times the size of an arm that it offers, so that every seed has other images


def benchmark(w: World) -> Benchmark:
    """The benchmark of the task that is analysed: the first one, whose details can be counted."""
    return tables.benchmark(w, w.tasks[0])


def source_sets(w: World) -> dict[str, Split]:
    """The two sources as notebook 04 trained on them, and the test split as ``ground_truth``."""
    sources = {source: tables.source_set(w, w.tasks[0], source) for source in finetune.SOURCES}
    return {"ground_truth": benchmark(w).test, **sources}


def fidelity(w: World) -> pd.DataFrame:
    """How often details are right: ``task, source, class, attribute, images, correct`` (counts).

    A detail is right when the judge sees what the blueprint of the *label* says, so that misses in
    ``ground_truth`` are the judge's. Raises ``NotKnown`` where nobody knows the details of a class.
    """
    if not len(benchmark(w).details.columns):
        raise NotKnown(
            f"world {w.name!r} has no judge of details. They are known in the rendered worlds "
            "only: python -m helpers.run pocket 05"
        )
    jobs = {f"{source}.parquet": (w, source) for source in source_sets(w)}
    fill = functools.partial(store.fill, jobs=jobs, fn=details_right, label="sources judged")
    return store.make("fidelity", w, fill).table()


def details_right(w: World, source: str) -> pd.DataFrame:
    """``fidelity`` of one source, from the first ``w.analysis.judged`` images of each class."""
    bench = benchmark(w)
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


def make(w: World) -> store.Artifact:
    """All ablations: ``results.parquet`` and ``mixing.parquet``, as notebook 04's, and ``counts``.

    ``source`` is the arm, and ``n`` its size. What an arm offers is in ``{task}/{arm}.npy`` and
    ``{task}/{arm}.parquet``: twice its size where there is so much, so that seeds differ.
    """
    return store.make("analysed", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    rates = store.load("finetuned", w).table("rates.parquet")
    counts = []
    runs = []
    for task in w.analysis.tasks:
        size, copied = make_arms(path, w, task)
        edit_arms(path, w, task)
        counts.append({"task": task, "size": size, "train_copies": copied})
        runs += [rated(rates, task, arm, source, size) for arm, source in arms(w).items()]
    store.write(path / "counts.parquet", pd.DataFrame(counts))
    chosen = pd.concat(runs, ignore_index=True)
    store.write(path / "results.parquet", measured(path, w, chosen, "ablation runs"))

    # Drawn images added to retrieved ones ([P] figure 7): as many epochs, and as many steps.
    offered = rates.groupby(["task", "source"])["n"].max()
    mixed = []
    for task in w.analysis.tasks:
        for real, drawn in w.analysis.mixes:
            if real <= offered[task, "retrieved"] and drawn <= offered[task, "synthetic"]:
                mixes = [f"mixed-{real}+{drawn}-equal-{what}" for what in ("epochs", "steps")]
                mixed += [rated(rates, task, mix, "retrieved", real + drawn) for mix in mixes]
    if mixed:
        chosen = pd.concat(mixed, ignore_index=True)
        store.write(path / "mixing.parquet", measured(path, w, chosen, "mixed runs"))


def arms(w: World) -> dict[str, str]:
    """Arms of equal size, and the source whose learning rate each has; edits count as retrieved."""
    edited = [f"sdedit-{strength:g}" for strength in w.analysis.strengths]
    captioned = [f"captions-{g}" for g in (w.synthesis.generator, *others(w))]
    real = dict.fromkeys(["retrieved", "decontaminated", *edited], "retrieved")
    return real | dict.fromkeys([*captioned, "alt-text", "templates"], "synthetic")


def rated(rates: pd.DataFrame, task: str, arm: str, source: str, n: int) -> pd.DataFrame:
    """An arm's rows for ``finetune.by_metric``: rates of a source at the size that is nearest."""
    same = rates[(rates["task"] == task) & (rates["source"] == source)]
    far = (np.log(same["n"]) - np.log(n)).abs()
    nearest = same[far == far.min()].drop_duplicates("metric")
    return nearest[["metric", "lr"]].assign(task=task, source=arm, keep=source, n=n)


def measured(path: Path, w: World, chosen: pd.DataFrame, label: str) -> pd.DataFrame:
    """The results of all seeds on arms: ``chosen`` has rows of ``rated``."""
    jobs = {}
    for first in sorted(finetune.first_runs(chosen), key=lambda run: run.n, reverse=True):
        for seed in range(w.finetune.seeds):
            file = f"runs/{first.task}-{first.source}-{first.n:06d}-{seed:07d}-{first.lr:g}.parquet"
            jobs[file] = (w, path, dataclasses.replace(first, seed=seed))
    runs = collect(path, w, "05", finetune.recipe(w, "analysed"), jobs, run_arm, label)
    return finetune.by_metric(w, runs, chosen)


def others(w: World) -> list[str]:
    """The generators that are compared with the one of notebook 02."""
    return [g for g in w.analysis.generators if g != w.synthesis.generator]


def make_arms(path: Path, w: World, task: str) -> tuple[int, int]:
    """Write all arms of a task but the edited ones; returns the size that all of them can fill.

    ``decontaminated`` lacks near-copies of benchmark *train* images ([P] appendix B.2), whose
    number is returned, too.
    """
    bench = tables.benchmark(w, task)
    real = tables.source_set(w, task, "retrieved")
    drawn = tables.source_set(w, task, "synthetic")
    train = copies.descriptor(bench.train.images)
    copied = copies.nearest(copies.descriptor(real.images), train) > copies.threshold(bench)
    offered = {
        "retrieved": real,
        "decontaminated": real.take(np.flatnonzero(~copied)),
        f"captions-{w.synthesis.generator}": drawn,
        **draw_arms(path / "drawn", w, bench, real),
    }
    size = min(w.analysis.size, *map(len, offered.values()))
    for arm, split in offered.items():
        most = min(OFFERED * size, len(split))
        rows = nested_subset(split.labels, most, randomness.rng(w, "analysis", "arm", task))
        _write(path / task, arm, split.take(rows))
    return size, int(copied.sum())


def draw_arms(path: Path, w: World, bench: Benchmark, retrieved: Split) -> dict[str, Split]:
    """Arms that are drawn and filtered: other generators, other prompts ([P] figures 6, 10)."""
    study = w.synthesis.generator
    columns = ["caption", "label", "class"]
    captions = store.load("captions", w).table(f"{bench.task}.parquet")[columns]
    prompts = {f"captions-{g}": (g, captions) for g in others(w)}
    prompts["alt-text"] = (study, retrieved.facts[columns])
    prompts["templates"] = (study, bench.filled(bench.templates))
    n = int(np.ceil(OFFERED * w.analysis.size / w.clip.top_share))
    drawn = {}
    for arm, (generator, table) in prompts.items():
        name = f"{bench.task}-{arm}"
        rows = repeated(table, n, randomness.rng(w, "analysis", arm))
        world = worlds.replace(w, synthesis={"generator": generator})
        tars = synthesis.draw_table(path, world, rows, name)
        synthesis.filter_drawn(path, world, bench, tars, name)
        drawn[arm] = tables.training_set(store.Artifact("analysed", path), name)
    return drawn


def edit_arms(path: Path, w: World, task: str) -> None:
    """Redraw all images of the arm ``retrieved`` at each strength of SDEdit."""
    retrieved = arm_of(path, task, "retrieved")
    jobs = {}
    for s in w.analysis.strengths:
        for start in range(0, len(retrieved), w.synthesis.shard):
            stop = min(start + w.synthesis.shard, len(retrieved))
            jobs[f"edits/{task}-{s:g}-{start:05d}.npy"] = (w, path, task, start, stop, s)
    store.fill(path, jobs, edit_shard, f"shards of retrieved {task} edited")
    for s in w.analysis.strengths:
        images = tables.on_disk(sorted((path / "edits").glob(f"{task}-{s:g}-*.npy")))
        edited = Split(images, retrieved.labels, retrieved.facts)
        _write(path / task, f"sdedit-{s:g}", edited)


def edit_shard(
    w: World, path: Path, task: str, start: int, stop: int, strength: float
) -> np.ndarray:
    """Images ``start`` to ``stop`` of the arm ``retrieved``, redrawn with a template as caption."""
    retrieved = arm_of(path, task, "retrieved").take(range(start, stop))
    template = tables.benchmark(w, task).templates[0]
    texts = [template.format(name) for name in retrieved.facts["class"]]
    seeds = [randomness.entropy(w.seed, "sdedit", task, i) for i in range(start, stop)]
    return worlds.backend(w).draw(w, texts, seeds, np.asarray(retrieved.images), strength)


def _write(path: Path, arm: str, split: Split) -> None:
    facts = pd.DataFrame({"label": split.labels, "class": split.facts["class"].to_numpy()})
    store.write(path / f"{arm}.npy", split.images)
    store.write(path / f"{arm}.parquet", facts)


@functools.lru_cache(maxsize=32)
def arm_of(path: Path, task: str, arm: str) -> Split:
    """What an arm offers, its images on disk."""
    facts = store.read_table(path / task / f"{arm}.parquet")
    images = tables.on_disk([path / task / f"{arm}.npy"])
    return Split(images, facts["label"].to_numpy(np.int64), facts)


def run_arm(w: World, path: Path, run: finetune.Run) -> pd.DataFrame:
    """Finetune on a fresh subset of an arm, or on a mix: a row as of ``finetune.accuracies``."""
    settings = w.finetune
    if run.source.startswith("mixed"):
        real, drawn = map(int, run.source.split("-")[1].split("+"))
        pair = []
        for source, n in {"retrieved": real, "synthetic": drawn}.items():
            part = dataclasses.replace(run, source=source, keep="", n=n)
            pair.append(finetune.training_images(w, part))  # those of notebook 04
        train = pair[0].plus(pair[1])
        if run.source.endswith("steps"):
            epochs = max(1, round(settings.epochs * real / run.n))
            settings = dataclasses.replace(settings, epochs=epochs)
    else:
        offered = arm_of(path, run.task, run.source)
        rng = randomness.rng(w, "analysis", "subset", run.task, run.seed)
        train = offered.take(nested_subset(offered.labels, run.n, rng))
    return finetune.trained(w, run, train, "test", settings)
