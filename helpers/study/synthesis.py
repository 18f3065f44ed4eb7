"""Notebook 02: one image per caption from the generator ([P] section 3), CLIP-filtered like the retrieved ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import shards
from helpers.data.shards import Lazy, tar_bytes
from helpers.data.subsets import top_share
from helpers.data.tables import Benchmark
from helpers.engine import randomness, store
from helpers.errors import StudyError
from helpers.models import clip
from helpers.worlds import World


def make(w: World) -> store.Artifact:
    """Draw all captions of notebook 01: webdataset tars, and per task ``{task}.npy`` with ``{task}.parquet``.

    Raises ``MissingArtifact`` when there are no captions yet.
    """
    store.load("captions", w)  # say so before anything is drawn
    return store.make("synthetic", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    worlds.backend(w).draw(w, ["a photo"], [0])  # models are made before workers start
    captions = store.load("captions", w)
    for task in w.tasks:
        table = store.read_table(captions.path / f"{task}.parquet")
        if not len(table):
            raise StudyError(
                f"there is no caption for task {task}; run notebook 01 again: python -m helpers.run {w.name} 01"
            )
        store.check_disk(path, 4 * len(table) * w.image_size**2 * 3)
        tars = draw_table(path, w, table[["caption", "label", "class", "kind"]], task)
        filtered(path, w, worlds.backend(w).benchmark(w, task), tars, task)


def sweep(w: World, captions: list[str], scales: tuple[float, ...]) -> dict[float, np.ndarray]:
    """The same captions and seeds at several guidance scales: scale -> images (n, side, side, 3) uint8."""
    seeds = [randomness.entropy(w.seed, "sweep", i) for i in range(len(captions))]
    return {
        scale: sample(worlds.replace(w, synthesis={"guidance": scale}), captions, seeds)
        for scale in scales
    }


def to_image_folder(w: World, task: str, folder: Path, most: int | None = None) -> Path:
    """Write a task's drawn images, or its first ``most`` shards, as ``folder/class/number.png``, torchvision's ``ImageFolder``."""
    made = store.load("synthetic", w)
    return shards.to_image_folder(
        made.files(f"{task}-*.tar")[:most], worlds.backend(w).benchmark(w, task).classes, folder
    )


PASS = 8  # samples drawn in one job


def draw_shard(w: World, rows: list[dict]) -> bytes:
    """Draw some captions into the bytes of a webdataset tar; every row has ``caption, label, class, seed``."""
    images = worlds.backend(w).draw(w, [r["caption"] for r in rows], [int(r["seed"]) for r in rows])
    return tar_bytes(images, rows)


def sample(w: World, captions: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Draw a few captions to look at, (n, side, side, 3) uint8, one image per caption and seed; kept in the store."""
    asked = hashlib.sha256(
        json.dumps([list(captions), [int(s) for s in seeds]]).encode()
    ).hexdigest()[:12]
    made = store.make(
        "samples", w, lambda path: _sample(path, w, list(captions), list(seeds)), of=asked
    )
    return np.concatenate([np.load(f) for f in made.files("*.npy")])


def _sample(path: Path, w: World, captions: list[str], seeds: list[int]) -> None:
    jobs = {
        f"{i:05d}.npy": (w, captions[i : i + PASS], seeds[i : i + PASS])
        for i in range(0, len(captions), PASS)
    }
    store.fill(path, jobs, worlds.backend(w).draw, "groups of samples drawn")


def draw_table(path: Path, w: World, table: pd.DataFrame, name: str) -> list[Path]:
    """Draw every row of ``table`` (``caption, label, class``) into ``{name}-{start}.tar`` shards; returns the shards.

    Each image has a seed of its own, hashed from name and position: the same image comes whatever the shard, batch or
    number of workers. Shards that exist are kept.
    """
    rows = table.assign(
        seed=[str(randomness.entropy(w.seed, "image", name, i)) for i in range(len(table))]
    ).to_dict("records")
    jobs = {
        f"{name}-{s:07d}.tar": (w, rows[s : s + w.synthesis.shard])
        for s in range(0, len(rows), w.synthesis.shard)
    }
    return store.fill(path, jobs, draw_shard, f"shards of {name} drawn")


def score_shard(
    w: World, tar: Path, classes: tuple[str, ...], templates: tuple[str, ...]
) -> pd.DataFrame:
    """The rows of a drawn shard with their CLIP ``score``: similarity to the own label's text, the largest over templates."""
    (images, rows), made = shards.read_tar(tar), clip.load(w)
    table, vectors = pd.DataFrame(rows), clip.embed_images(made, images)
    return table.assign(
        score=clip.label_scores(made, vectors, table["label"], classes, templates)
    )


def filtered(path: Path, w: World, bench: Benchmark, tars: list[Path], name: str) -> pd.DataFrame:
    """Collect drawn shards into ``{name}.npy`` and ``{name}.parquet`` with CLIP ``score`` and ``keep``, one shard in memory.

    The filter is the one of the retrieved images: the best ``w.clip.top_share`` per class by similarity to the own label's
    text, the largest over templates ([P] section 3: applied to both sources).
    """
    jobs = {f"scores/{tar.stem}.parquet": (w, tar, bench.classes, bench.templates) for tar in tars}
    table = pd.concat(
        map(store.read_table, store.fill(path, jobs, score_shard, f"shards of {name} scored")),
        ignore_index=True,
    )
    keep = top_share(table["score"].to_numpy(), table["label"].to_numpy(np.int64), w.clip.top_share)
    table = table.assign(id=np.arange(len(table)), keep=keep)[
        [c for c in table if c != "score"] + ["id", "score", "keep"]
    ]
    store.write(path / f"{name}.npy", Lazy(*map(shards.Tar, tars)))
    store.write(path / f"{name}.parquet", table)
    return table
