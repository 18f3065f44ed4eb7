"""Language supervision: a CLIP trained from scratch on real pairs, on drawn ones, or on both.

As in *Scaling Laws of Synthetic Images* (arXiv 2312.04567), at one size and seed all sources have
the same captions, those of the real pairs, the same number of updates, and one start. ``both`` has
two images of every caption, a real one and a drawn one; an update sees either.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import nested_subset
from helpers.data.tables import Split
from helpers.engine import randomness, store
from helpers.errors import StudyError
from helpers.measure import folds
from helpers.models import families
from helpers.study import arms, synthesis
from helpers.study.arms import SPARE
from helpers.study.runs import collect
from helpers.worlds import World

SOURCES = ("retrieved", "synthetic", "both")


def paired_task(w: World) -> str:
    """The task whose pairs are learned from: notebook 07's, or the first if that has no images."""
    return w.robustness.task if w.robustness.task in w.tasks else w.tasks[0]


@store.builds("paired")
def make(path: Path, w: World) -> None:
    """Draw the captions of retrieved images and train on growing sets of pairs.

    ``results.parquet`` has ``arm`` (the source), ``n`` captions, ``seed``, ``eval_set`` and the
    columns of ``folds.measured``, all zero-shot.
    """
    chosen = real_pairs(w)
    synthesis.draw_table(path, w, chosen.facts[["caption", "label", "class"]], "pairs")
    worlds.backend(w).clip_folder(w)  # made before workers start
    worlds.backend(w).shifted(w, paired_task(w))
    sizes = [n for n in w.scaling.pairs if SPARE * n <= len(chosen)]
    jobs = {
        f"pairs/{source}-{n:06d}-{seed:03d}.parquet": (w, path, source, n, seed)
        for n, source, seed in itertools.product(sizes, SOURCES, range(w.scaling.pair_seeds))
    }
    recipe = arms.recipe(w, "paired", sizes[-1])
    found = collect(path, w, "06", recipe, jobs, run, "CLIPs trained on pairs")
    store.write(path / "results.parquet", folds.unpacked(found["table"]))


def real_pairs(w: World) -> Split:
    """Retrieved images, ``SPARE`` times the largest size that they fill; ``StudyError`` if none."""
    task = paired_task(w)
    real = tables.source_set(w, task, "retrieved")
    n = max((SPARE * n for n in w.scaling.pairs if SPARE * n <= len(real)), default=0)
    if not n:
        few = f"{len(real)} pairs of {task} were retrieved, not {SPARE} times {w.scaling.pairs[0]}"
        raise StudyError(f"{few}; lower scaling pairs, or widen retrieval.")
    return real.take(nested_subset(real.labels, n, randomness.rng(w, "pairs", "drawn")))


@functools.lru_cache(maxsize=2)
def images(w: World, path: Path) -> dict[str, Split]:
    """The real pairs, and the pairs drawn from their captions, in one order."""
    drawn = tables.read_tars(sorted(path.glob("pairs-*.tar")))
    return {"retrieved": real_pairs(w), "synthetic": drawn}


def run(w: World, path: Path, source: str, n: int, seed: int) -> pd.DataFrame:
    """Train one CLIP on ``n`` captions and measure it: rows as of ``make``, packed into one."""
    task = paired_task(w)
    bench = tables.benchmark(w, task)
    offered = images(w, path)
    rows = nested_subset(offered["retrieved"].labels, n, randomness.rng(w, "pairs", seed))
    sides = [offered[name].take(rows) for name in offered if source in (name, "both")]
    train = functools.reduce(Split.plus, sides)
    model = families.train(w, "language-supervised", train, train, bench, seed, len(sides))
    sets = arms.evaluation_sets(w, task)
    logits = {name: model.image_logits(split.images) for name, split in sets.items()}
    table = folds.of_sets(logits, {name: split.labels for name, split in sets.items()})
    return folds.packed(table.assign(arm=source, n=n, seed=seed))
