"""Language supervision: a CLIP trained from scratch on real pairs, on drawn ones, on both, and asked zero-shot.

As in *Scaling Laws of Synthetic Images* (arXiv 2312.04567) the captions are those of the real pairs, whoever made the image: at one
size and seed all sources have the same captions, the same number of pairs and of updates, and the same start.
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
from helpers.models import evaluation, families
from helpers.study import synthesis
from helpers.worlds import World

SOURCES = families.SOURCES


def task(w: World) -> str:
    """The task whose pairs are learned from: the one of notebook 07, or the world's first where that one is not retrieved for."""
    return w.robustness.task if w.robustness.task in w.tasks else w.tasks[0]


def make(w: World) -> store.Artifact:
    """Draw the captions of retrieved images again and train on growing sets of pairs: ``results.parquet``.

    Columns ``source, n, seed, loss`` (nats, by the model's own logit scale) and ``top1`` (0..1), zero-shot on test images, and
    ``shifted``, the mean of ``top1`` over the sets that are shifted away from every training set; NaN where a world has none.
    """
    store.load("finetuned", w)
    return store.make("paired", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    real = tables.source_set(w, task(w), "retrieved")
    sizes = [n for n in w.scaling.pairs if n <= len(real)]
    if not sizes:
        raise StudyError(
            f"{w.scaling.pairs[0]} pairs of {task(w)} were asked for, but {len(real)} were retrieved; lower "
            "scaling pairs, or widen retrieval."
        )
    chosen = real.take(nested_subset(real.labels, sizes[-1], randomness.rng(w, "pairs", "drawn")))
    store.write(path / "rows.parquet", chosen.facts[["row", "caption", "label", "class"]])
    synthesis.draw_table(path, w, chosen.facts[["caption", "label", "class"]], "pairs")
    (
        worlds.backend(w).clip_folder(w),
        worlds.backend(w).shifted(w, task(w)),
    )  # before the workers want them
    jobs = {
        f"runs/{source}-{n:06d}-{seed}.parquet": (w, path, source, n, seed)
        for n in sizes
        for source in SOURCES
        for seed in range(w.robustness.seeds)
    }
    files = store.fill(path, jobs, run, "CLIPs trained on pairs")
    store.write(
        path / "results.parquet", pd.concat([store.read_table(f) for f in files], ignore_index=True)
    )


@functools.lru_cache(maxsize=2)
def both(w: World, path: Path) -> tuple[Split, Split]:
    """The real pairs that were chosen, and the pairs drawn from their captions, in the same order."""
    facts = store.read_table(path / "rows.parquet")
    real = tables.source_set(w, task(w), "retrieved")
    where = pd.Series(range(len(real)), pd.MultiIndex.from_frame(real.facts[["row", "label"]]))
    real = real.take(where[pd.MultiIndex.from_frame(facts[["row", "label"]])].to_numpy())
    return real, tables.read_tars(sorted(path.glob("pairs-*.tar")))


def run(w: World, path: Path, source: str, n: int, seed: int) -> pd.DataFrame:
    """Train one CLIP on ``n`` pairs of a source; ``mixed`` has the real image for every other caption. One row."""
    bench, (real, drawn) = tables.benchmark(w, task(w)), both(w, path)
    rows = nested_subset(real.labels, n, randomness.rng(w, "pairs", seed))
    halves = {"retrieved": (real, real), "synthetic": (drawn, drawn), "mixed": (real, drawn)}[
        source
    ]
    train = halves[0].take(rows[::2]).plus(halves[1].take(rows[1::2]))
    model = families.train(w, "language-supervised", train, train, bench, seed)
    logits = evaluation.logits(model, bench.test.images)
    elsewhere = [
        metrics.accuracy(evaluation.logits(model, s.images), s.labels)
        for s in worlds.backend(w).shifted(w, task(w)).values()
    ]
    return pd.DataFrame(
        [
            {
                "source": source,
                "n": n,
                "seed": seed,
                "loss": metrics.nll(logits, bench.test.labels),
                "top1": metrics.accuracy(logits, bench.test.labels),
                "shifted": np.mean(elsewhere) if elsewhere else np.nan,
            }
        ]
    )
