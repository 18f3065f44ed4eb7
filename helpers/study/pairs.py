"""Language supervision: a CLIP trained from scratch on real pairs, on drawn ones, or on both.

As in *Scaling Laws of Synthetic Images* (arXiv 2312.04567), at one size and seed all sources have
the same captions, those of the real pairs, the same numbers of pairs and updates, and one start.
"""

from __future__ import annotations

import functools
import itertools
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

    ``results.parquet`` has ``source, n, seed``; zero-shot on test images ``loss`` (nats, by the
    model's own logit scale) and ``top1``; and ``shifted``, mean ``top1`` on shifted sets or NaN.
    """
    store.load("finetuned", w)
    return store.make("paired", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    chosen = real_pairs(w)
    synthesis.draw_table(path, w, chosen.facts[["caption", "label", "class"]], "pairs")
    # Made or rendered before workers start.
    worlds.backend(w).clip_folder(w)
    worlds.backend(w).shifted(w, paired_task(w))
    sizes = [n for n in w.scaling.pairs if n <= len(chosen)]
    jobs = {
        f"runs/{source}-{n:06d}-{seed}.parquet": (w, path, source, n, seed)
        for n, source, seed in itertools.product(sizes, SOURCES, range(w.robustness.seeds))
    }
    files = store.fill(path, jobs, run, "CLIPs trained on pairs")
    results = pd.concat(map(store.read_table, files), ignore_index=True)
    store.write(path / "results.parquet", results)


def real_pairs(w: World) -> Split:
    """Retrieved images, as many as the largest size that they fill; ``StudyError`` if none."""
    task = paired_task(w)
    real = tables.source_set(w, task, "retrieved")
    n = max((n for n in w.scaling.pairs if n <= len(real)), default=0)
    if not n:
        raise StudyError(
            f"{w.scaling.pairs[0]} pairs of {task} were asked for, but {len(real)} were retrieved; "
            "lower scaling pairs, or widen retrieval."
        )
    return real.take(nested_subset(real.labels, n, randomness.rng(w, "pairs", "drawn")))


@functools.lru_cache(maxsize=2)
def both(w: World, path: Path) -> tuple[Split, Split]:
    """The real pairs, and the pairs drawn from their captions, in one order."""
    return real_pairs(w), tables.read_tars(sorted(path.glob("pairs-*.tar")))


def run(w: World, path: Path, source: str, n: int, seed: int) -> pd.DataFrame:
    """Train one CLIP on ``n`` pairs, every other one real where ``mixed``: one row of results."""
    task = paired_task(w)
    bench = tables.benchmark(w, task)
    real, drawn = both(w, path)
    even = drawn if source == "synthetic" else real
    odd = real if source == "retrieved" else drawn
    rows = nested_subset(real.labels, n, randomness.rng(w, "pairs", seed))
    train = even.take(rows[::2]).plus(odd.take(rows[1::2]))
    model = families.train(w, "language-supervised", train, train, bench, seed)
    logits = model.image_logits(bench.test.images)
    far = worlds.backend(w).shifted(w, task).values()
    shifted = [metrics.accuracy(model.image_logits(s.images), s.labels) for s in far]
    row = {"source": source, "n": n, "seed": seed}
    row["loss"] = metrics.nll(logits, bench.test.labels)
    row["top1"] = metrics.accuracy(logits, bench.test.labels)
    row["shifted"] = np.mean(shifted) if shifted else np.nan
    return pd.DataFrame([row])
