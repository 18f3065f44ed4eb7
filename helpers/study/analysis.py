"""Notebook 05: why the sources differ ([P] section 5 and appendix B)."""

from __future__ import annotations

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
from helpers.models import classifier, clip
from helpers.study import finetune, synthesis
from helpers.worlds import World


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
    """All ablations: ``results.parquet`` (equal sizes), ``mixing.parquet``, ``counts.json``.

    The images of each arm are in ``{arm}.npy`` and ``{arm}.parquet``.
    """
    return store.make("analysed", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    size = make_arms(path, w)
    edit_arms(path, w, size)
    chosen = store.load("finetuned", w).table("lrs.parquet").query("chosen")
    rates = chosen[chosen["task"] == w.tasks[0]].set_index("source")["lr"].to_dict()

    # Arms of equal size, each with the learning rate of its source; edits count as retrieved.
    edited = [f"sdedit-{strength:g}" for strength in w.analysis.strengths]
    captioned = [f"captions-{g}" for g in (w.synthesis.generator, *others(w))]
    arms = {
        **dict.fromkeys(["retrieved", "decontaminated", *edited], "retrieved"),
        **dict.fromkeys([*captioned, "alt-text", "templates"], "synthetic"),
    }
    jobs = {}
    for arm, source in arms.items():
        for seed in range(w.finetune.seeds):
            about = {"arm": arm, "n": size, "seed": seed}
            jobs[f"runs/{arm}-{seed}.json"] = (w, path, arm, 0, rates[source], about)
    store.write(path / "results.parquet", finetune.collect(path, jobs, run_arm, "ablation runs"))

    # Drawn images added to the largest retrieved set ([P] figure 7).
    drawn = len(tables.source_set(w, w.tasks[0], "synthetic"))
    full = len(_arm(path, "full"))
    jobs = {}
    for n in w.analysis.mix_synthetic:
        for seed in range(w.finetune.seeds):
            added = min(n, drawn)
            about = {"synthetic_n": added, "retrieved_n": full, "seed": seed}
            job = (w, path, "full", added, rates["retrieved"], about)
            jobs[f"mixed/{n:06d}-{seed}.json"] = job
    store.write(path / "mixing.parquet", finetune.collect(path, jobs, run_arm, "mixed runs"))


def others(w: World) -> list[str]:
    """The generators that are compared with the one of notebook 02."""
    return [g for g in w.analysis.generators if g != w.synthesis.generator]


def make_arms(path: Path, w: World) -> int:
    """Write all arms but the edited ones at the size that all of them can fill, and return it.

    ``decontaminated`` lacks near-copies of benchmark *train* images ([P] appendix B.2). ``full``,
    for mixing, is as large as the retrieved set was in notebook 04.
    """
    bench = benchmark(w)
    sets = source_sets(w)
    full = sets["retrieved"]
    largest = min(len(full), w.finetune.sizes[-1])
    rows = nested_subset(full.labels, largest, randomness.rng(w, "analysis", "full"))
    _write(path, "full", full.take(rows))
    train = copies.descriptor(bench.train.images)
    copied = copies.nearest(copies.descriptor(full.images), train) > copies.threshold(bench)
    offered = {
        "retrieved": full,
        "decontaminated": full.take(np.flatnonzero(~copied)),
        f"captions-{w.synthesis.generator}": sets["synthetic"],
        **draw_arms(path / "drawn", w, full),
    }
    size = min(w.analysis.size, *map(len, offered.values()))
    for arm, split in offered.items():
        rows = nested_subset(split.labels, size, randomness.rng(w, "analysis", "arm"))
        _write(path, arm, split.take(rows))
    counts = {"retrieved": len(full), "train_copies": int(copied.sum()), "size": size}
    store.write(path / "counts.json", counts)
    return size


def draw_arms(path: Path, w: World, retrieved: Split) -> dict[str, Split]:
    """Arms that are drawn and filtered: other generators, other prompts ([P] figures 6, 10)."""
    bench = benchmark(w)
    study = w.synthesis.generator
    columns = ["caption", "label", "class"]
    captions = store.load("captions", w).table(f"{bench.task}.parquet")[columns]
    prompts = {f"captions-{g}": (g, captions) for g in others(w)}
    prompts["alt-text"] = (study, retrieved.facts[columns])
    prompts["templates"] = (study, bench.filled(bench.templates))
    n = int(np.ceil(w.analysis.size / w.clip.top_share))
    drawn = {}
    for arm, (generator, table) in prompts.items():
        rows = repeated(table, n, randomness.rng(w, "analysis", arm))
        world = worlds.replace(w, synthesis={"generator": generator})
        tars = synthesis.draw_table(path, world, rows, arm)
        synthesis.filter_drawn(path, world, bench, tars, arm)
        drawn[arm] = tables.training_set(store.Artifact("analysed", path), arm)
    return drawn


def edit_arms(path: Path, w: World, size: int) -> None:
    """Redraw the ``size`` images of the arm ``retrieved`` at each strength of SDEdit."""
    jobs = {}
    for s in w.analysis.strengths:
        for start in range(0, size, w.synthesis.shard):
            stop = min(start + w.synthesis.shard, size)
            jobs[f"edits/{s:g}-{start:05d}.npy"] = (w, path, start, stop, s)
    store.fill(path, jobs, edit_shard, "shards of retrieved images edited")
    retrieved = _arm(path, "retrieved")
    for s in w.analysis.strengths:
        images = tables.on_disk(sorted((path / "edits").glob(f"{s:g}-*.npy")))
        _write(path, f"sdedit-{s:g}", Split(images, retrieved.labels, retrieved.facts))


def edit_shard(w: World, path: Path, start: int, stop: int, strength: float) -> np.ndarray:
    """Images ``start`` to ``stop`` of the arm ``retrieved``, redrawn with a template as caption."""
    retrieved = _arm(path, "retrieved").take(range(start, stop))
    texts = [benchmark(w).templates[0].format(name) for name in retrieved.facts["class"]]
    seeds = [randomness.entropy(w.seed, "sdedit", i) for i in range(start, stop)]
    return worlds.backend(w).draw(w, texts, seeds, np.asarray(retrieved.images), strength)


def _write(path: Path, arm: str, split: Split) -> None:
    facts = pd.DataFrame({"label": split.labels, "class": split.facts["class"].to_numpy()})
    store.write(path / f"{arm}.npy", split.images)
    store.write(path / f"{arm}.parquet", facts)


@functools.lru_cache(maxsize=32)
def _arm(path: Path, arm: str) -> Split:
    """An arm as ``_write`` left it, its images on disk."""
    facts = store.read_table(path / f"{arm}.parquet")
    images = tables.on_disk([path / f"{arm}.npy"])
    return Split(images, facts["label"].to_numpy(np.int64), facts)


def run_arm(w: World, path: Path, arm: str, added: int, lr: float, about: dict) -> dict:
    """Finetune on an arm and ``added`` drawn images; ``about`` with accuracies on test, 0..1."""
    bench = benchmark(w)
    seed = about["seed"]
    train = _arm(path, arm)
    if added:
        drawn = tables.source_set(w, bench.task, "synthetic")
        rows = nested_subset(drawn.labels, added, randomness.rng(w, "mix", seed))
        train = train.plus(drawn.take(rows))
    state = store.unfinished("analysed", w, *train.labels[:1_000], len(train), seed, lr)
    of_run = randomness.entropy(w.seed, "analysis", seed)
    model, _ = classifier.finetune(clip.load(w), train, bench, lr, of_run, w.finetune, state)
    return {**about, **classifier.measure(model, bench, w.finetune)}
