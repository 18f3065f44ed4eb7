"""Language supervision: a CLIP trained from scratch on real pairs, on drawn ones, or on both.

As in *Scaling Laws of Synthetic Images* (arXiv 2312.04567) the captions are those of the real
pairs, whoever made the image: at one size and seed all sources have the same captions, the same
numbers of pairs and of updates, and the same start.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import nested_subset
from helpers.data.tables import Split
from helpers.engine import randomness, store
from helpers.errors import StudyError
from helpers.measure import metrics
from helpers.models import families
from helpers.study import synthesis
from helpers.worlds import World

SOURCES = families.SOURCES


def paired_task(w: World) -> str:
    """The task whose pairs are learned from: notebook 07's, or the first if that has no images."""
    return w.robustness.task if w.robustness.task in w.tasks else w.tasks[0]


def make(w: World) -> store.Artifact:
    """Draw the captions of retrieved images and train on growing sets of pairs.

    ``results.parquet`` has the columns ``source, n, seed``; ``loss`` (nats, by the model's own
    logit scale) and ``top1`` (0..1), zero-shot on test images; and ``shifted``, the mean of
    ``top1`` over the sets that are shifted away from every training set, NaN where there are none.
    """
    store.load("finetuned", w)
    return store.make("paired", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    task = paired_task(w)
    real = tables.source_set(w, task, "retrieved")
    sizes = [n for n in w.scaling.pairs if n <= len(real)]
    if not sizes:
        raise StudyError(
            f"{w.scaling.pairs[0]} pairs of {task} were asked for, but {len(real)} were retrieved; "
            "lower scaling pairs, or widen retrieval."
        )
    chosen = real.take(nested_subset(real.labels, sizes[-1], randomness.rng(w, "pairs", "drawn")))
    store.write(path / "rows.parquet", chosen.facts[["row", "caption", "label", "class"]])
    synthesis.draw_table(path, w, chosen.facts[["caption", "label", "class"]], "pairs")
    # Made or rendered before workers start.
    worlds.backend(w).clip_folder(w)
    worlds.backend(w).shifted(w, task)
    jobs = {
        f"runs/{source}-{n:06d}-{seed}.parquet": (w, path, source, n, seed)
        for n in sizes
        for source in SOURCES
        for seed in range(w.robustness.seeds)
    }
    files = store.fill(path, jobs, run, "CLIPs trained on pairs")
    results = pd.concat([store.read_table(file) for file in files], ignore_index=True)
    store.write(path / "results.parquet", results)


@functools.lru_cache(maxsize=2)
def both(w: World, path: Path) -> tuple[Split, Split]:
    """The real pairs that were chosen, and the pairs drawn from their captions, in one order."""
    facts = store.read_table(path / "rows.parquet")
    real = tables.source_set(w, paired_task(w), "retrieved")
    position = pd.Series(range(len(real)), pd.MultiIndex.from_frame(real.facts[["row", "label"]]))
    chosen = position[pd.MultiIndex.from_frame(facts[["row", "label"]])].to_numpy()
    return real.take(chosen), tables.read_tars(sorted(path.glob("pairs-*.tar")))


def run(w: World, path: Path, source: str, n: int, seed: int) -> pd.DataFrame:
    """Train one CLIP on ``n`` pairs and ask it zero-shot: one row of ``results.parquet``.

    ``mixed`` has the real image for every other caption.
    """
    task = paired_task(w)
    benchmark = tables.benchmark(w, task)
    real, drawn = both(w, path)
    even = real if source in ("retrieved", "mixed") else drawn
    odd = real if source == "retrieved" else drawn
    rows = nested_subset(real.labels, n, randomness.rng(w, "pairs", seed))
    train = even.take(rows[::2]).plus(odd.take(rows[1::2]))
    model = families.train(w, "language-supervised", train, train, benchmark, seed)
    logits = model.image_logits(benchmark.test.images)
    shifted = [
        metrics.accuracy(model.image_logits(split.images), split.labels)
        for split in worlds.backend(w).shifted(w, task).values()
    ]
    row = {
        "source": source,
        "n": n,
        "seed": seed,
        "loss": metrics.nll(logits, benchmark.test.labels),
        "top1": metrics.accuracy(logits, benchmark.test.labels),
        "shifted": np.mean(shifted) if shifted else np.nan,
    }
    return pd.DataFrame([row])
