"""Notebook 04: choose retrieval variant and learning rate on validation, then finetune on each source at growing sizes."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.data.subsets import nested_subset
from helpers.data.tables import Split
from helpers.engine import randomness, store
from helpers.errors import StudyError
from helpers.models import classifier, clip
from helpers.worlds import World

SOURCES = ("retrieved", "synthetic")
METRICS = ("zero_shot", "linear_probe")


@functools.lru_cache(maxsize=12)
def source_set(w: World, task: str, source: str, keep: str) -> Split:
    """What a source offers for a task after filtering."""
    return tables.training_set(store.load(source, w), task, keep)


def subset(w: World, task: str, source: str, keep: str, n: int, seed: int) -> Split:
    """``n`` images of a source, classes balanced; the set for n lies inside the one for 2 n of the same seed."""
    offered = source_set(w, task, source, keep)
    return offered.take(
        nested_subset(offered.labels, n, randomness.rng(w, "subset", task, source, seed))
    )


def run(
    w: World, task: str, source: str, keep: str, n: int, seed: int, lr: float, test: bool
) -> dict:
    """One finetuning run; accuracies in 0..1: ``val`` always, with ``test`` also zero-shot and linear probe on test."""
    bench = tables.benchmark(w, task)
    train = subset(w, task, source, keep, n, seed)
    model, kept = classifier.finetune(
        clip.load(w),
        train,
        bench,
        lr,
        randomness.entropy(w.seed, "run", task, seed),
        w.finetune,
        store.unfinished("finetuned", w, task, source, keep, n, seed, lr),
    )
    scores = classifier.measure(model, bench, w.finetune) if test else {}
    return {
        "task": task,
        "source": source,
        "keep": keep,
        "n": n,
        "seed": seed,
        "lr": lr,
        **kept,
        **scores,
    }


def unadapted(w: World, task: str) -> dict:
    """Zero-shot and linear probe of the unadapted CLIP on test."""
    return {
        "task": task,
        "source": "clip",
        "n": 0,
        "seed": 0,
        **classifier.baseline(clip.load(w), tables.benchmark(w, task), w.finetune),
    }


def make(w: World) -> store.Artifact:
    """All runs of notebook 04: ``variants.parquet``, ``lrs.parquet`` and ``results.parquet``, one small file per run beside."""
    return store.make("finetuned", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    variants = select_variants(path, w)
    rates = select_rates(path, w, variants)
    keeps = {(t, "retrieved"): v for t, v in chosen(variants, "keep").items()} | {
        (t, "synthetic"): "keep" for t in w.tasks
    }
    jobs = {f"clip/{task}.json": (w, task) for task in w.tasks}
    base = _fill(path, jobs, unadapted, "unadapted CLIP")
    jobs = {}
    for (task, source), keep in keeps.items():
        for n in sizes(w, task, source, keep, keeps):
            for seed in range(w.finetune.seeds):
                jobs[f"runs/{task}-{source}-{n:06d}-{seed}.json"] = (
                    w,
                    task,
                    source,
                    keep,
                    n,
                    seed,
                    rates[task, source],
                    True,
                )
    longest_first = dict(sorted(jobs.items(), key=lambda job: -job[1][4]))
    table = pd.concat(
        [base, _fill(path, longest_first, run, "runs of the size sweep")], ignore_index=True
    )
    store.write(path / "results.parquet", tidy(table))


def _fill(path: Path, jobs: dict, fn, label: str) -> pd.DataFrame:
    import json

    return pd.DataFrame([json.loads(f.read_text()) for f in store.fill(path, jobs, fn, label)])


def tidy(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per run and metric: ``task, source, n, seed, metric, accuracy`` (0..1, test), and lr and validation accuracy."""
    names = [
        "task",
        "source",
        "n",
        "seed",
        *(c for c in ("lr", "val", "step", "steps") if c in runs),
    ]
    long = runs.melt(names, list(METRICS), "metric", "accuracy")
    return long.sort_values(["task", "source", "metric", "n", "seed"], ignore_index=True)


def common_size(w: World, available: list[int]) -> int:
    """Images per run at which variants and learning rates are compared: the middle size, or what all of them offer."""
    return min(w.finetune.sizes[len(w.finetune.sizes) // 2], *available)


def select_variants(path: Path, w: World) -> pd.DataFrame:
    """Finetune once on every retrieval variant of every task at a common size; written to ``variants.parquet``.

    Variants with less than the smallest size are left out. Columns ``task, keep, available, n, val`` (0..1), ``chosen``.
    """
    middle = sorted(w.finetune.lrs)[len(w.finetune.lrs) // 2]
    table = store.load("retrieved", w)
    jobs, offered = {}, {}
    for task in w.tasks:
        columns = [
            c for c in store.read_table(table.path / f"{task}.parquet") if c.startswith("keep:")
        ]
        rows = {c: len(source_set(w, task, "retrieved", c)) for c in columns}
        usable = {c: r for c, r in rows.items() if r >= w.finetune.sizes[0]}
        if not usable:
            raise StudyError(
                f"retrieval found fewer than {w.finetune.sizes[0]} images for {task} with every variant ({rows}). "
                "Lower finetune sizes, or widen retrieval (k, filters) and run notebook 03 again."
            )
        n = common_size(w, list(usable.values()))
        for keep in usable:
            offered[task, keep] = rows[keep]
            jobs[f"variants/{task}-{keep.removeprefix('keep:')}.json"] = (
                w,
                task,
                "retrieved",
                keep,
                n,
                0,
                middle,
                False,
            )
    made = _fill(path, jobs, run, "runs on retrieval variants")
    made["available"] = [offered[key] for key in zip(made["task"], made["keep"], strict=True)]
    made["chosen"] = made.index.isin(made.groupby("task")["val"].idxmax())
    store.write(path / "variants.parquet", made)
    return made


def chosen(variants: pd.DataFrame, column: str) -> dict:
    """Task -> the value of ``column`` in its chosen row."""
    return variants[variants["chosen"]].set_index("task")[column].to_dict()


def select_rates(path: Path, w: World, variants: pd.DataFrame) -> dict[tuple[str, str], float]:
    """(task, source) -> learning rate with the best validation accuracy at a middle size; written to ``lrs.parquet``."""
    keeps, jobs = chosen(variants, "keep"), {}
    for task in w.tasks:
        both = {"retrieved": keeps[task], "synthetic": "keep"}
        offered = {source: len(source_set(w, task, source, keep)) for source, keep in both.items()}
        if offered["synthetic"] < w.finetune.sizes[0]:
            raise StudyError(
                f"notebook 02 left {offered['synthetic']} images of {task}; the smallest size is {w.finetune.sizes[0]}. "
                "Lower finetune sizes, or raise captions per_class and run notebooks 01 and 02 again."
            )
        n = common_size(w, list(offered.values()))
        for source, keep in both.items():
            for lr in w.finetune.lrs:
                jobs[f"lrs/{task}-{source}-{lr:g}.json"] = (w, task, source, keep, n, 0, lr, False)
    made = _fill(path, jobs, run, "runs on learning rates")
    made["chosen"] = made.index.isin(made.groupby(["task", "source"])["val"].idxmax())
    store.write(path / "lrs.parquet", made)
    return made[made["chosen"]].set_index(["task", "source"])["lr"].to_dict()


def sizes(w: World, task: str, source: str, keep: str, keeps: dict) -> list[int]:
    """The sizes a source is trained at: those it can fill; synthetic goes on doubling beyond the retrieved maximum."""
    offered = len(source_set(w, task, source, keep))
    base = [
        n
        for n in w.finetune.sizes
        if n <= len(source_set(w, task, "retrieved", keeps[task, "retrieved"]))
    ]
    beyond = (
        [base[-1] * 2**i for i in range(1, w.finetune.synthetic_beyond + 1)]
        if source == "synthetic"
        else []
    )
    return [n for n in (*base, *beyond) if n <= offered]


def gap(results: pd.DataFrame, task: str, metric: str, n: int) -> np.ndarray:
    """Retrieved minus synthetic accuracy at equal size, seed by seed (0..1)."""
    rows = results[(results["task"] == task) & (results["metric"] == metric) & (results["n"] == n)]
    table = rows.pivot(index="seed", columns="source", values="accuracy")
    return (table["retrieved"] - table["synthetic"]).to_numpy()


def matching_size(results: pd.DataFrame, task: str, metric: str, accuracy: float) -> float:
    """How many synthetic images reach ``accuracy``, read off the mean curve (linear in log2 n); ``inf`` where none do."""
    rows = results[
        (results["task"] == task)
        & (results["metric"] == metric)
        & (results["source"] == "synthetic")
    ]
    curve = rows.groupby("n")["accuracy"].mean()
    for (n0, a0), (n1, a1) in zip(list(curve.items()), list(curve.items())[1:], strict=False):
        if a0 >= accuracy:
            return float(n0)
        if a1 >= accuracy:
            return float(n0 * (n1 / n0) ** ((accuracy - a0) / (a1 - a0)))
    return float(curve.index[-1]) if curve.iloc[-1] >= accuracy else float("inf")
