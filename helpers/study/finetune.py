"""Notebook 04: finetune CLIP on each source at growing sizes ([P] section 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import nested_subset
from helpers.data.tables import Split
from helpers.engine import artifacts, places, randomness, store
from helpers.errors import StudyError
from helpers.models import classifier, clip
from helpers.settings import FinetuneSettings, MixSettings
from helpers.study.runs import collect, packed
from helpers.worlds import World

SOURCES = ("retrieved", "synthetic")
METRICS = ("zero_shot", "linear_probe")
FILTER = "top"  # the filter of both sources in the main contrast, that of [P]
FIRST_SELECTION = 1_000_000  # seeds from here on choose rates and variants, and are not reported
AT_ONCE = 5  # seeds after which the rows of finished runs are kept
WORSE = 0.01  # accuracy by which a rate has to be below no training, to be called harmful
EXTENSIONS = 3  # how often at most a grid of rates is extended whose best lies at an edge
CELL = ["task", "source", "keep", "n"]
RATES = places.PACKAGE / "study" / "rates.csv"  # python -m helpers.run desk 04
WHICH: dict[str, Any] = {  # settings that say which runs there are, each at one value for all
    "finetune": {"sizes": (1,), "largest_of": (), "synthetic_beyond": 0, "seeds": 1, "lrs": (1.0,)},
    "analysis": {"tasks": ("",), "mixes": (), "judged": 1},
    "robustness": {"seeds": 1, "mixed": (), "prompts": (), "prompted": (1,)},
    "mixes": {"tasks": ("",), "counts": (1,), "shots": (1,), "seeds": 1, "selection_seeds": 0}
    | {"access": (), "noise": (), "guides": ("plain",)},
}


@dataclass(frozen=True)
class Run:
    """One finetuning run: ``n`` images of a source, drawn by ``seed``, at a learning rate."""

    task: str
    source: str
    keep: str  # column of the source's table that says which images passed the filters
    n: int
    seed: int
    lr: float


@store.builds("finetuned")
def make(path: Path, w: World) -> None:
    """Choose retrieval variants and learning rates on validation, then finetune at all sizes.

    ``results.parquet`` has a row per run and metric: ``task, source, n, seed, metric, accuracy``
    (0..1, on test), ``lr``, and for ``METRICS`` the predicted classes ``answers``, packed. Raises
    ``StudyError`` when a source has too few images.
    """
    if w.finetune.selection_seeds:
        keeps = choose_variants(path, w)
        cells = [cell for task, keep in keeps.items() for cell in sweep(w, task, keep)]
        chosen = choose_rates(path, w, cells)
        if w.keeps_runs:
            store.write(RATES, chosen.to_csv(index=False, float_format="%.6g").encode())
    else:
        chosen = committed(path, w)
    store.write(path / "rates.parquet", chosen)
    clips = {}
    for task in w.tasks:
        clips[f"clip/{task}.parquet"] = (w, Run(task, "clip", "none", 0, 0, 0.0), "test")
    parts = [collect(path, w, "04", recipe(w), clips, accuracies, "unadapted CLIP")]
    for start in range(0, w.finetune.seeds, AT_ONCE):
        seeds = range(start, min(start + AT_ONCE, w.finetune.seeds))
        runs = [replace(run, seed=seed) for run in first_runs(chosen) for seed in seeds]
        parts.append(measured(path, w, runs, "test", f"runs with seeds {seeds[0]} to {seeds[-1]}"))
    store.write(path / "results.parquet", by_metric(w, pd.concat(parts), chosen))


def recipe(w: World, name: str = "finetuned") -> str:
    """The hash of all settings that say how runs of an artifact are made, whichever there are."""
    return artifacts.recipe(name, worlds.replace(w, **WHICH))


def first_runs(chosen: pd.DataFrame) -> list[Run]:
    """One run of every cell and rate in a table of ``CELL`` and ``lr``, with seed 0."""
    rows = chosen[[*CELL, "lr"]].drop_duplicates().to_dict("records")
    return [Run(seed=0, **row) for row in rows]


def by_metric(w: World, runs: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """A row per run and metric, of each metric the runs at its rate; probes on few labels have the
    linear probe's."""
    parts = []
    for metric in (*METRICS, *(f"probe_{k}" for k in w.finetune.few_labels)):
        decided = chosen[chosen["metric"] == (metric if metric in METRICS else METRICS[1])]
        of_metric = runs.merge(decided[[*CELL, "lr"]], on=[*CELL, "lr"])
        of_metric = pd.concat([runs[runs["source"] == "clip"], of_metric], ignore_index=True)
        answers = of_metric.get(f"{metric}_answers")
        columns = of_metric[[*CELL, "seed", "lr"]]
        parts.append(columns.assign(metric=metric, accuracy=of_metric[metric], answers=answers))
    order = ["task", "source", "metric", "n", "seed"]
    return pd.concat(parts).sort_values(order, ignore_index=True)


def committed(path: Path, w: World) -> pd.DataFrame:
    """``choose_rates`` as ``RATES`` has them, of each size those of the nearest one that is there.

    The world that keeps its runs writes that table. Variants are its own: ``variants.parquet``.
    """
    table = pd.read_csv(RATES)
    keeps = table[table["source"] == "retrieved"].groupby("task")["keep"].first()
    variants = []
    rows = []
    for task in w.tasks:
        if task not in keeps:
            known = f"{RATES} has no learning rates for {task!r}, only for {', '.join(keeps.index)}"
            raise StudyError(f"{known}; with finetune selection_seeds 1 they are chosen here.")
        offered = len(tables.source_set(w, task, "retrieved", keeps[task]))
        variants.append({"task": task, "keep": keeps[task], "available": offered, "chosen": True})
        for _, source, keep, n in sweep(w, task, keeps[task]):
            rows.append(rated(table, task, source, n).assign(keep=keep))
    store.write(path / "variants.parquet", pd.DataFrame(variants))
    return pd.concat(rows, ignore_index=True)


def rated(rates: pd.DataFrame, task: str, source: str, n: int) -> pd.DataFrame:
    """A source's rates at the size that is nearest to ``n``: a row per metric, with ``n``."""
    same = rates[(rates["task"] == task) & (rates["source"] == source)]
    far = (np.log(same["n"]) - np.log(n)).abs()
    return same[far == far.min()].drop_duplicates("metric").assign(n=n)


def rated_mix(w: World, task: str, images: dict, n: int) -> pd.DataFrame:
    """The same of a mix: the mean of its sources' rates, in logs, weighted by ``images``."""
    own = w.finetune.selection_seeds  # else the committed table, which has all sizes of the desk
    rates = store.load("finetuned", w).table("rates.parquet") if own else pd.read_csv(RATES)
    found = [rated(rates, task, source, n).sort_values("metric") for source in images]
    logs = np.average([np.log(t["lr"]) for t in found], axis=0, weights=list(images.values()))
    return found[0].assign(lr=[float(f"{lr:.3g}") for lr in np.exp(logs)])


def choose_variants(path: Path, w: World) -> dict[str, str]:
    """Task -> the column ``keep`` of the retrieval variant that is best on validation.

    All variants have passed the filter of both sources; those that cannot fill the largest size
    that one can are left out. They are finetuned on at the middle size, and the mean of both
    metrics decides. Writes the runs with ``available, val, chosen``.
    """
    runs = []
    available = {}
    middle = sorted(w.finetune.lrs)[len(w.finetune.lrs) // 2]
    for task in w.tasks:
        table = store.load("retrieved", w).table(f"{task}.parquet")
        kept = table.filter(regex=f"^keep:.*{FILTER}$").sum().to_dict()
        sizes = [n for n in sizes_of(w, task) if n <= max(kept.values())]
        if not sizes:
            few = f"no variant of retrieval found {w.finetune.sizes[0]} images of {task}: {kept}"
            raise StudyError(f"{few}. Lower finetune sizes, or widen retrieval in notebook 03.")
        n = sizes[len(sizes) // 2]
        for keep in [keep for keep, offered in kept.items() if offered >= sizes[-1]]:
            available[task, keep] = kept[keep]
            runs += [Run(task, "retrieved", keep, n, s, middle) for s in selection(w.finetune)]
    found = measured(path, w, runs, "val", "runs on retrieval variants")
    found["val"] = found[list(METRICS)].mean(axis=1)
    table = found.groupby(CELL, as_index=False)["val"].mean()
    variants = zip(table["task"], table["keep"], strict=True)
    table["available"] = [available[variant] for variant in variants]
    table["chosen"] = table.index.isin(table.groupby("task")["val"].idxmax())
    store.write(path / "variants.parquet", table)
    return table[table["chosen"]].set_index("task")["keep"].to_dict()


def choose_rates(path: Path, w: World, cells: Sequence[tuple]) -> pd.DataFrame:
    """For each cell and metric the rate that is best on validation, over the selection's seeds.

    A grid whose best rate lies at its edge is extended there, and one of which all rates leave the
    unadapted CLIP ``WORSE`` at its lower edge. All means, ``val``, go to ``lrs.parquet``.
    """
    tried = {cell: set(w.finetune.lrs) for cell in cells}
    clips = [Run(task, "clip", "none", 0, 0, 0.0) for task in {task for task, *_ in cells}]
    idle = measured(path, w, clips, "val", "unadapted CLIP").set_index("task")
    for _ in range(EXTENSIONS + 1):
        grid = [(*cell, lr) for cell, rates in tried.items() for lr in sorted(rates)]
        first = first_runs(pd.DataFrame(grid, columns=[*CELL, "lr"]))
        runs = [replace(run, seed=seed) for run in first for seed in selection(w.finetune)]
        found = measured(path, w, runs, "val", "runs on learning rates")
        keys = [*CELL, "lr"]
        long = found.melt([*keys, "seed"], list(METRICS), "metric", "val")
        table = long.groupby([*keys, "metric"], as_index=False)["val"].mean()
        best = table.loc[table.groupby([*CELL, "metric"])["val"].idxmax()]
        before = sum(map(len, tried.values()))
        lowest = table.groupby(CELL)["lr"].min()
        for *cell, metric, lr, val in best[[*CELL, "metric", "lr", "val"]].itertuples(index=False):
            harmed = val < idle[metric][cell[0]] - WORSE
            rates = tried[tuple(cell)]
            rates |= beyond(rates, lowest[tuple(cell)] if harmed else lr)
        if sum(map(len, tried.values())) == before:
            break
    table["chosen"] = table.index.isin(best.index)
    store.write(path / "lrs.parquet", table)
    return best[[*CELL, "metric", "lr", "val"]].reset_index(drop=True)


def beyond(rates: Iterable[float], best: float) -> set[float]:
    """The next rate, in steps as between the last two, where ``best`` lies at an edge; or none."""
    ordered = sorted(rates)
    ends = {ordered[0]: ordered[1:2], ordered[-1]: ordered[-2:-1]}  # an edge -> what is beside it
    return {float(f"{best * best / inner:.0e}") for inner in ends.get(best, ())}


def selection(s: FinetuneSettings | MixSettings) -> range:
    """The seeds that rates and variants are chosen with."""
    return range(FIRST_SELECTION, FIRST_SELECTION + s.selection_seeds)


def sizes_of(w: World, task: str) -> list[int]:
    """The sizes that a task's retrieved images are trained at, as far as there are so many."""
    largest = dict(w.finetune.largest_of).get(task, w.finetune.sizes[-1])
    return [n for n in w.finetune.sizes if n <= largest]


def sweep(w: World, task: str, keep: str) -> list[tuple[str, str, str, int]]:
    """A task's cells, ``CELL``: both sources at all sizes that they can fill.

    Drawn images go on doubling. Raises ``StudyError`` where there are too few of a source.
    """
    keeps = {"retrieved": keep, "synthetic": "keep"}
    offered = {source: len(tables.source_set(w, task, source, keeps[source])) for source in SOURCES}
    sizes = [n for n in sizes_of(w, task) if n <= offered["retrieved"]]
    if not sizes or offered["synthetic"] < sizes[0]:
        left = f"{offered} images of {task} are left; the smallest size is {w.finetune.sizes[0]}"
        raise StudyError(f"{left}. Lower finetune sizes, or raise captions per_class.")
    further = [sizes[-1] * 2**i for i in range(1, w.finetune.synthetic_beyond + 1)]
    drawn = [n for n in (*sizes, *further) if n <= offered["synthetic"]]
    cells = [(task, "retrieved", keep, n) for n in sizes]
    return cells + [(task, "synthetic", "keep", n) for n in drawn]


def measured(path: Path, w: World, runs: Iterable[Run], held_out: str, label: str) -> pd.DataFrame:
    """What ``accuracies`` says of runs on a split, the longest first."""
    jobs = {}
    for r in sorted(runs, key=lambda run: run.n, reverse=True):
        keep = r.keep.removeprefix("keep:")
        name = f"{held_out}/{r.task}-{r.source}-{keep}-{r.n:06d}-{r.seed:07d}-{r.lr:g}.parquet"
        jobs[name] = (w, r, held_out)
    return collect(path, w, "04", recipe(w), jobs, accuracies, label)


def accuracies(
    w: World, run: Run, held_out: str, train: Split | None = None, s: FinetuneSettings | None = None
) -> pd.DataFrame:
    """Finetune once, on ``train`` or else ``training_images``: the run and its accuracies (0..1).

    One row; ``steps`` says how many updates, and is 0 of the unadapted CLIP, a run on no images. On
    test images the predicted classes of ``METRICS`` are kept, too, as ``{metric}_answers``.
    """
    bench = tables.benchmark(w, run.task)
    s = s or w.finetune
    steps = 0
    if run.source == "clip":
        found = classifier.baseline(clip.load(w), bench, s, held_out)
    else:
        train = training_images(w, run) if train is None else train
        seed = randomness.entropy(w.seed, "run", run.task, run.seed)
        state = store.unfinished("finetuned", w, *astuple(run), s.epochs)
        model, steps = classifier.finetune(clip.load(w), train, bench, run.lr, seed, s, state)
        found = classifier.measure(model, bench, s, held_out, run.seed)
    labels = getattr(bench, held_out).labels
    row = {**asdict(run), "steps": steps, **{m: (y == labels).mean() for m, y in found.items()}}
    if held_out == "test":
        row |= {f"{metric}_answers": packed(found[metric]) for metric in METRICS}
    return pd.DataFrame([row])


def training_images(w: World, run: Run) -> Split:
    """A run's ``n`` images, classes balanced; they lie inside those for 2 n of the same seed."""
    offered = tables.source_set(w, run.task, run.source, run.keep)
    return offered.take(subset(w, run, offered))


def subset(w: World, run: Run, offered: Split) -> np.ndarray:
    """Positions (n,) of a run's images among those that its source offers."""
    rng = randomness.rng(w, "subset", run.task, run.source, run.seed)
    return nested_subset(offered.labels, run.n, rng)
