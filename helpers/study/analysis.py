"""Notebook 05: why the sources differ - details counted, SDEdit, mixing, decontamination, generators, prompts ([P] section 5, B)."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import copies, tables
from helpers.data.shards import Lazy
from helpers.data.subsets import nested_subset, repeated
from helpers.data.tables import Benchmark, Split
from helpers.engine import randomness, store
from helpers.errors import NotKnown
from helpers.models import classifier, clip
from helpers.study import synthesis
from helpers.worlds import World

METRICS = ("zero_shot", "linear_probe")


def task(w: World) -> str:
    """The task that is analysed: the first of the world, the one with countable details."""
    return w.tasks[0]


def rates(w: World) -> dict[str, float]:
    """Source -> the learning rate that notebook 04 chose on validation for this task."""
    chosen = store.load("finetuned", w).table("lrs.parquet").query("chosen")
    return chosen[chosen["task"] == task(w)].set_index("source")["lr"].to_dict()


def source_sets(w: World) -> dict[str, Split]:
    """The two sources as notebook 04 trained on them, and the test split as ground truth."""
    return {
        "ground_truth": _bench(w).test,
        **{source: tables.source_set(w, task(w), source) for source in ("retrieved", "synthetic")},
    }


def few_of_each(split: Split, n: int) -> Split:
    """At most ``n`` images of each class, the first ones."""
    return split.take(
        np.flatnonzero(pd.Series(split.labels).groupby(split.labels).cumcount().to_numpy() < n)
    )


def fidelity(w: World) -> pd.DataFrame:
    """How often each detail is right, as the judge sees it: ``task, source, class, attribute, images, correct`` (counts).

    An attribute is right when it is what the blueprint of the *label* says. In ``ground_truth`` the misses are the judge's own.
    Raises ``NotKnown`` where nobody knows the details of a class.
    """
    if not len(_bench(w).details.columns):
        raise NotKnown(
            f"world {w.name!r} has no judge of details. They are known in the rendered worlds only: "
            "python -m helpers.run pocket 05"
        )
    jobs = {f"{source}.parquet": (w, source) for source in source_sets(w)}
    made = store.make(
        "fidelity", w, lambda path: store.fill(path, jobs, details_right, "sources judged")
    )
    return pd.concat([store.read_table(made.path / file) for file in jobs], ignore_index=True)


def details_right(w: World, source: str) -> pd.DataFrame:
    """The rows of ``fidelity`` for one source, from at most ``w.analysis.judged`` images of each class."""
    bench, split = _bench(w), few_of_each(source_sets(w)[source], w.analysis.judged)
    seen = worlds.backend(w).judge(w, np.asarray(split.images))
    rows = []
    for label in np.unique(split.labels):
        here, name = split.labels == label, bench.classes[label]
        for attribute, wanted in bench.details.loc[name].items():
            right = int((seen.loc[here, attribute].to_numpy() == wanted).sum())
            rows.append((bench.task, source, name, attribute, int(here.sum()), right))
    return pd.DataFrame(rows, columns=["task", "source", "class", "attribute", "images", "correct"])


def edit_shard(w: World, folder: Path, start: int, stop: int, strength: float) -> np.ndarray:
    """SDEdit of the images ``start`` to ``stop`` of ``retrieved.npy`` at a strength, captioned by a template ([P] section 5)."""
    table = store.read_table(folder / "retrieved.parquet").iloc[start:stop]
    texts = [
        name if w.analysis.edit_prompt == "name" else _bench(w).templates[0].format(name)
        for name in table["class"]
    ]
    seeds = [randomness.entropy(w.seed, "sdedit", i) for i in range(start, stop)]
    return worlds.backend(w).draw(
        w,
        texts,
        seeds,
        np.array(np.load(folder / "retrieved.npy", mmap_mode="r")[start:stop]),
        strength,
    )


def _bench(w: World) -> Benchmark:
    return tables.benchmark(w, task(w))


def make(w: World) -> store.Artifact:
    """All ablations: arms of equal size drawn and kept, then finetuned; ``results.parquet``, ``mixing.parquet``, ``counts.json``."""
    return store.make("analysed", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    size, lrs = make_arms(path, w), rates(w)
    jobs = {
        f"runs/{arm}-{seed}.json": (
            w,
            path,
            arm,
            size,
            seed,
            lrs["retrieved" if _real(arm) else "synthetic"],
        )
        for arm in _arms(w)
        for seed in range(w.finetune.seeds)
    }
    _collect(path, jobs, run_arm, "results.parquet", "ablation runs")
    retrieved_n = len(store.read_table(path / "full.parquet"))
    jobs = {
        f"mixed/{n:06d}-{seed}.json": (w, path, n, retrieved_n, seed, lrs["retrieved"])
        for n in w.analysis.mix_synthetic
        for seed in range(w.finetune.seeds)
    }
    _collect(path, jobs, run_mixed, "mixing.parquet", "runs on mixed sets")


def _real(arm: str) -> bool:
    return arm in ("retrieved", "decontaminated") or arm.startswith("sdedit")


def _arms(w: World) -> list[str]:
    return [
        "retrieved",
        "decontaminated",
        *(f"sdedit-{s:g}" for s in w.analysis.strengths),
        f"captions-{w.synthesis.generator}",
        *(f"captions-{g}" for g in others(w)),
        "alt-text",
        "templates",
    ]


def others(w: World) -> list[str]:
    """The generators that are compared with the one of notebook 02."""
    return [g for g in w.analysis.generators if g != w.synthesis.generator]


def _collect(path: Path, jobs: dict, fn, name: str, label: str) -> None:
    files = store.fill(path, jobs, fn, label)
    store.write(path / name, pd.DataFrame([json.loads(f.read_text()) for f in files]))


def make_arms(path: Path, w: World) -> int:
    """Write every arm as ``{arm}.npy`` and ``{arm}.parquet``, all of one size, which is returned."""
    sets, bench, rng = source_sets(w), _bench(w), functools.partial(randomness.rng, w, "analysis")
    full = sets["retrieved"]
    largest = full.take(
        nested_subset(full.labels, min(len(full), w.finetune.sizes[-1]), rng("full"))
    )
    _write(path, "full", largest)
    drawn = draw_arms(path, w, full, bench)
    clean = full.take(np.flatnonzero(~_copies_of_train(w, full, bench)))
    available = {
        "retrieved": full,
        "decontaminated": clean,
        f"captions-{w.synthesis.generator}": sets["synthetic"],
        **drawn,
    }
    size = min(w.analysis.size, *(len(s) for s in available.values()))
    for arm, split in available.items():
        _write(path, arm, split.take(nested_subset(split.labels, size, rng("arm"))))
    store.write(
        path / "counts.json",
        {"retrieved": len(full), "train_copies": len(full) - len(clean), "size": size},
    )
    jobs = {
        f"edits/{s:g}-{i:05d}.npy": (w, path, i, min(i + w.synthesis.shard, size), s)
        for s in w.analysis.strengths
        for i in range(0, size, w.synthesis.shard)
    }
    store.fill(path, jobs, edit_shard, "shards of retrieved images edited")
    table = store.read_table(path / "retrieved.parquet")
    for s in w.analysis.strengths:
        images = [np.load(f, mmap_mode="r") for f in sorted((path / "edits").glob(f"{s:g}-*.npy"))]
        _write(
            path, f"sdedit-{s:g}", Split(Lazy(*images), table["label"].to_numpy(np.int64), table)
        )
    return size


def _write(path: Path, arm: str, split: Split) -> None:
    facts = pd.DataFrame({"label": split.labels, "class": split.facts["class"].to_numpy()})
    store.write(path / f"{arm}.npy", split.images)
    store.write(path / f"{arm}.parquet", facts)


def _copies_of_train(w: World, split: Split, bench: Benchmark) -> np.ndarray:
    """Which images are near-copies of benchmark *train* images, by similarity as in notebook 03 ([P] appendix B.2)."""
    near = copies.nearest(copies.descriptor(split.images), copies.descriptor(bench.train.images))
    return near > copies.threshold(bench)


def draw_arms(path: Path, w: World, retrieved: Split, bench: Benchmark) -> dict[str, Split]:
    """Draw what the ablations need and filter it like every drawn image: other generators, other prompts ([P] figures 6, 10)."""
    wanted = int(np.ceil(w.analysis.size / w.clip.top_share))
    captions = store.read_table(store.load("captions", w).path / f"{task(w)}.parquet")[
        ["caption", "label", "class"]
    ]
    alt = retrieved.facts[["caption", "label", "class"]]
    names = pd.DataFrame({"class": bench.classes, "label": range(len(bench.classes))})
    filled = pd.concat(
        [names.assign(caption=[t.format(c) for c in names["class"]]) for t in bench.templates]
    )
    prompts = {
        **{f"captions-{g}": captions for g in others(w)},
        "alt-text": alt,
        "templates": filled,
    }
    made = {}
    for arm, table in prompts.items():
        budget = (
            arm.removeprefix("captions-") if arm.startswith("captions-") else w.synthesis.generator
        )
        rows = repeated(table, wanted, randomness.rng(w, "analysis", arm))
        changed = worlds.replace(w, synthesis={"generator": budget})
        synthesis.filtered(
            path / "drawn",
            changed,
            bench,
            synthesis.draw_table(path / "drawn", changed, rows, arm),
            arm,
        )
        made[arm] = tables.training_set(store.Artifact("analysed", path / "drawn"), arm)
    return made


@functools.lru_cache(maxsize=32)
def _arm(path: Path, arm: str) -> Split:
    table = store.read_table(path / f"{arm}.parquet")
    return Split(
        Lazy(np.load(path / f"{arm}.npy", mmap_mode="r")), table["label"].to_numpy(np.int64), table
    )


def run_arm(w: World, path: Path, arm: str, n: int, seed: int, lr: float) -> dict:
    """Finetune on one arm and measure on test; accuracies in 0..1."""
    return {"arm": arm, "n": n, "seed": seed, **_finetuned(w, _arm(path, arm), seed, lr)}


def run_mixed(
    w: World, path: Path, synthetic_n: int, retrieved_n: int, seed: int, lr: float
) -> dict:
    """Finetune on the largest retrieved set with ``synthetic_n`` drawn images added ([P] figure 7)."""
    drawn = tables.source_set(w, task(w), "synthetic")
    synthetic_n = min(synthetic_n, len(drawn))
    added = drawn.take(nested_subset(drawn.labels, synthetic_n, randomness.rng(w, "mix", seed)))
    train = _arm(path, "full").plus(added) if synthetic_n else _arm(path, "full")
    return {
        "synthetic_n": synthetic_n,
        "retrieved_n": retrieved_n,
        "seed": seed,
        **_finetuned(w, train, seed, lr),
    }


def _finetuned(w: World, train: Split, seed: int, lr: float) -> dict:
    resume = store.unfinished("analysed", w, *train.labels[:1_000], len(train), seed, lr)
    model, _ = classifier.finetune(
        clip.load(w),
        train,
        _bench(w),
        lr,
        randomness.entropy(w.seed, "analysis", seed),
        w.finetune,
        resume,
    )
    return classifier.measure(model, _bench(w), w.finetune)


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """One row per run and metric: the other columns, ``metric``, ``accuracy``."""
    keys = [c for c in table if c not in METRICS]
    return table.melt(keys, list(METRICS), "metric", "accuracy").sort_values(
        [*keys, "metric"], ignore_index=True
    )


def examples(split: Split, bench: Benchmark, names: Sequence[str], n: int) -> dict[str, np.ndarray]:
    """Class name -> its first ``n`` images, for classes that have any."""
    found = {
        name: split.images[np.flatnonzero(split.labels == bench.classes.index(name))[:n]]
        for name in names
    }
    return {name: images for name, images in found.items() if len(images)}
