"""Notebook 04: finetune CLIP on each source at growing sizes ([P] section 4)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

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


@dataclass(frozen=True)
class Run:
    """One finetuning run: ``n`` images of a source, drawn by ``seed``, at a learning rate."""

    task: str
    source: str
    keep: str  # column of the source's table that says which images passed the filters
    n: int
    seed: int
    lr: float


def make(w: World) -> store.Artifact:
    """Choose retrieval variants and learning rates on validation, then finetune at all sizes.

    ``results.parquet`` has a row per run and metric: ``task, source, n, seed, metric, accuracy``
    (0..1, on test), ``lr, val``. Raises ``StudyError`` when a source has too few images.
    """
    return store.make("finetuned", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    variants = choose_variants(path, w)
    chosen = choose_rates(path, w, variants)
    jobs = {f"clip/{task}.json": (w, task) for task in w.tasks}
    unadapted = collect(path, jobs, clip_accuracies, "unadapted CLIP")
    runs = pd.concat([unadapted, run_sizes(path, w, chosen)], ignore_index=True)
    columns = ["task", "source", "n", "seed", "lr", "val", "step", "steps", *METRICS]
    order = ["task", "source", "metric", "n", "seed"]
    results = tidy(runs[columns]).sort_values(order, ignore_index=True)
    store.write(path / "results.parquet", results)


def choose_variants(path: Path, w: World) -> dict[str, str]:
    """Task -> the column ``keep`` of the retrieval variant that is best on validation.

    Each variant is finetuned on once, at the middle size or one that all can fill; those that offer
    less than the smallest are left out. Writes the runs with ``available, val, chosen``.
    """
    smallest = w.finetune.sizes[0]
    middle = sorted(w.finetune.lrs)[len(w.finetune.lrs) // 2]
    jobs = {}
    available: list[int] = []
    for task in w.tasks:
        table = store.load("retrieved", w).table(f"{task}.parquet")
        kept = table.filter(like="keep:").sum().to_dict()
        usable = {keep: n for keep, n in kept.items() if n >= smallest}
        if not usable:
            raise StudyError(
                f"every variant of retrieval found fewer than {smallest} images of {task}: {kept}. "
                "Lower finetune sizes, or widen retrieval (k, filters) and run notebook 03 again."
            )
        available += usable.values()
        size = min(w.finetune.sizes[len(w.finetune.sizes) // 2], *usable.values())
        for keep in usable:
            run = Run(task, "retrieved", keep, size, 0, middle)
            jobs[f"variants/{task}-{keep.removeprefix('keep:')}.json"] = (w, run, False)
    runs = collect(path, jobs, accuracies, "runs on retrieval variants").assign(available=available)
    runs["chosen"] = runs.index.isin(runs.groupby("task")["val"].idxmax())
    store.write(path / "variants.parquet", runs)
    return runs[runs["chosen"]].set_index("task")["keep"].to_dict()


def choose_rates(path: Path, w: World, variants: Mapping[str, str]) -> list[Run]:
    """The run at the learning rate that is best on validation, for each task and source.

    All are at the middle size or one that both can fill. Writes the runs with ``val, chosen``.
    """
    jobs = {}
    for task in w.tasks:
        keeps = {"retrieved": variants[task], "synthetic": "keep"}
        available = {s: len(tables.source_set(w, task, s, keep)) for s, keep in keeps.items()}
        if available["synthetic"] < w.finetune.sizes[0]:
            raise StudyError(
                f"notebook 02 left {available['synthetic']} images of {task}; the smallest size is "
                f"{w.finetune.sizes[0]}. Lower finetune sizes, or raise captions per_class and run "
                "notebooks 01 and 02 again."
            )
        size = min(w.finetune.sizes[len(w.finetune.sizes) // 2], *available.values())
        for source, keep in keeps.items():
            for lr in w.finetune.lrs:
                run = Run(task, source, keep, size, 0, lr)
                jobs[f"lrs/{task}-{source}-{lr:g}.json"] = (w, run, False)
    runs = collect(path, jobs, accuracies, "runs on learning rates")
    runs["chosen"] = runs.index.isin(runs.groupby(["task", "source"])["val"].idxmax())
    store.write(path / "lrs.parquet", runs)
    best = runs.loc[runs["chosen"], list(Run.__dataclass_fields__)]
    return [Run(*row) for row in best.itertuples(index=False)]


def run_sizes(path: Path, w: World, chosen: Sequence[Run]) -> pd.DataFrame:
    """The chosen runs at all sizes that their sources can fill, and with all seeds.

    Drawn images go on doubling beyond the largest size that retrieved images can fill.
    """
    runs = []
    available = {
        (r.task, r.source): len(tables.source_set(w, r.task, r.source, r.keep)) for r in chosen
    }
    for best in chosen:
        sizes = [n for n in w.finetune.sizes if n <= available[best.task, "retrieved"]]
        if best.source == "synthetic":
            sizes += [sizes[-1] * 2**i for i in range(1, w.finetune.synthetic_beyond + 1)]
        for n in sizes:
            if n <= available[best.task, best.source]:
                runs += [replace(best, n=n, seed=seed) for seed in range(w.finetune.seeds)]
    runs.sort(key=lambda run: run.n, reverse=True)  # the longest first
    jobs = {f"runs/{r.task}-{r.source}-{r.n:06d}-{r.seed}.json": (w, r, True) for r in runs}
    return collect(path, jobs, accuracies, "runs of the size sweep")


def accuracies(w: World, run: Run, test: bool) -> dict:
    """Finetune once: the run, its best accuracy ``val``, with ``test`` the ``METRICS``; 0..1."""
    bench = tables.benchmark(w, run.task)
    seed = randomness.entropy(w.seed, "run", run.task, run.seed)
    train = training_images(w, run)
    state = store.unfinished("finetuned", w, *astuple(run))
    model, best = classifier.finetune(clip.load(w), train, bench, run.lr, seed, w.finetune, state)
    scores = classifier.measure(model, bench, w.finetune) if test else {}
    return {**asdict(run), **best, **scores}


def training_images(w: World, run: Run) -> Split:
    """A run's ``n`` images, classes balanced; they lie inside those for 2 n of the same seed."""
    offered = tables.source_set(w, run.task, run.source, run.keep)
    rng = randomness.rng(w, "subset", run.task, run.source, run.seed)
    return offered.take(nested_subset(offered.labels, run.n, rng))


def clip_accuracies(w: World, task: str) -> dict:
    """The ``METRICS`` of the unadapted CLIP on test, 0..1, as a run on no images."""
    scores = classifier.baseline(clip.load(w), tables.benchmark(w, task), w.finetune)
    return {"task": task, "source": "clip", "n": 0, "seed": 0, **scores}


def collect(path: Path, jobs: Mapping[str, tuple], function: Callable, label: str) -> pd.DataFrame:
    """Write ``function(*arguments)`` to each JSON file of ``jobs``; their contents, a row each."""
    files = store.fill(path, jobs, function, label)
    return pd.DataFrame([json.loads(file.read_text()) for file in files])


def tidy(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per run and metric, ``metric, accuracy``, sorted by the other columns."""
    keys = [c for c in map(str, runs) if c not in METRICS]
    long = runs.melt(keys, list(METRICS), "metric", "accuracy")
    return long.sort_values([*keys, "metric"], ignore_index=True)
