"""Notebook 02: images of captions from the generator ([P] section 3), filtered by CLIP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import shards, tables
from helpers.data.subsets import repeated, top_share
from helpers.data.tables import Benchmark
from helpers.engine import randomness, store
from helpers.models import clip
from helpers.worlds import World

SAMPLES = 8  # images per job when a few are drawn to look at


@store.builds("synthetic")
def make(path: Path, w: World) -> None:
    """Draw the captions of notebook 01: webdataset tars, ``{task}.npy`` and ``{task}.parquet``.

    One image per caption [P], but as many of every class: where it is short of captions, they are
    drawn again with other seeds.
    """
    captions = store.load("captions", w)
    worlds.backend(w).prepare(w)
    for task in w.tasks:
        bench = tables.benchmark(w, task)
        table = captions.table(f"{task}.parquet")[["caption", "label", "class", "kind"]]
        per_class = dict(w.captions.per_class_of).get(task, w.captions.per_class)
        n = per_class * table["label"].nunique()
        store.check_disk(path, 4 * n * w.image_size**2 * 3)
        rows = repeated(table, n, randomness.rng(w, "drawn", task))
        draw_filtered(path, w, bench, rows, task)


def draw_table(path: Path, w: World, table: pd.DataFrame, name: str) -> list[Path]:
    """Draw each row of ``table`` (``caption, label, class``) into shards ``{name}-{start}.tar``.

    Seeds are hashed from ``name`` and position: shards and workers do not change them.
    """
    seeds = [str(randomness.entropy(w.seed, "image", name, i)) for i in range(len(table))]
    rows = table.assign(seed=seeds).to_dict("records")
    size = w.synthesis.shard
    starts = range(0, len(rows), size)
    jobs = {f"{name}-{start:07d}.tar": (w, rows[start : start + size]) for start in starts}
    return store.fill(path, jobs, draw_shard, f"shards of {name} drawn")


def draw_shard(w: World, rows: list[dict]) -> bytes:
    """Images for ``rows`` (``caption, label, class, seed``) as the bytes of a webdataset tar."""
    captions = [row["caption"] for row in rows]
    images = worlds.backend(w).draw(w, captions, [int(row["seed"]) for row in rows])
    return shards.tar_bytes(images, rows)


def draw_filtered(path: Path, w: World, bench: Benchmark, rows: pd.DataFrame, name: str) -> None:
    """``draw_table``, kept in ``{name}.npy`` and, with ``id, score, keep``, ``{name}.parquet``.

    ``keep``: the best ``w.clip.top_share`` of each class by ``score``, as for retrieved images [P].
    """
    tars = draw_table(path, w, rows, name)
    jobs = {f"scores/{tar.stem}.parquet": (w, tar, bench.classes, bench.templates) for tar in tars}
    files = store.fill(path, jobs, score_shard, f"shards of {name} scored")
    table = pd.concat(map(store.read_table, files), ignore_index=True)
    score = table.pop("score")
    keep = top_share(score.to_numpy(), table["label"].to_numpy(np.int64), w.clip.top_share)
    table = table.assign(id=np.arange(len(table)), score=score, keep=keep)
    store.write(path / f"{name}.npy", shards.Lazy(*map(shards.Tar, tars)))
    store.write(path / f"{name}.parquet", table)


def score_shard(w: World, tar: Path, classes: Sequence, templates: Sequence) -> pd.DataFrame:
    """The rows of a shard with ``score``, the largest similarity to a text of the class."""
    drawn = tables.read_tars([tar])
    model = clip.load(w)
    vectors = clip.embed_images(model, drawn.images)
    scores = clip.label_scores(model, vectors, drawn.labels, classes, templates)
    return drawn.facts.assign(score=scores)


def sample(w: World, captions: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Images to look at, (n, side, side, 3) uint8, one per caption and seed; kept in the store."""
    request = json.dumps([list(captions), [int(seed) for seed in seeds]])
    digest = hashlib.sha256(request.encode()).hexdigest()[:12]
    parts = {f"{i:05d}.npy": slice(i, i + SAMPLES) for i in range(0, len(captions), SAMPLES)}
    jobs = {file: (w, list(captions[part]), list(seeds[part])) for file, part in parts.items()}
    draw, label = worlds.backend(w).draw, "groups of samples drawn"
    artifact = store.make("samples", w, lambda path: store.fill(path, jobs, draw, label), of=digest)
    return np.concatenate([np.load(file) for file in artifact.files("*.npy")])


def sweep(w: World, captions: Sequence[str], scales: Sequence[float]) -> dict[float, np.ndarray]:
    """Guidance scale -> images (n, side, side, 3) uint8 of the same captions and seeds."""
    seeds = [randomness.entropy(w.seed, "sweep", i) for i in range(len(captions))]
    guided = {scale: worlds.replace(w, synthesis={"guidance": scale}) for scale in scales}
    return {scale: sample(world, captions, seeds) for scale, world in guided.items()}
