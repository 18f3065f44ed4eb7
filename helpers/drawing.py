"""Drawing many captions into an artifact, shard by shard, and putting the CLIP filter over what was drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import clip, pools, store, worlds
from helpers.pools import Benchmark, Lazy
from helpers.worlds import World

PASS = 8  # samples drawn in one job


def draw_shard(w: World, rows: list[dict]) -> bytes:
    """Draw some captions into the bytes of a webdataset tar; every row has ``caption, label, class, seed``."""
    images = worlds.backend(w).draw(w, [r["caption"] for r in rows], [int(r["seed"]) for r in rows])
    return pools.tar_bytes(images, rows)


def sample(w: World, captions: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Draw a few captions to look at, (n, side, side, 3) uint8, one image per caption and seed; kept in the store."""
    asked = hashlib.sha256(json.dumps([list(captions), [int(s) for s in seeds]]).encode()).hexdigest()[:12]
    made = store.make("samples", w, lambda path: _sample(path, w, list(captions), list(seeds)), of=asked)
    return np.concatenate([np.load(f) for f in made.files("*.npy")])


def _sample(path: Path, w: World, captions: list[str], seeds: list[int]) -> None:
    jobs = {f"{i:05d}.npy": (w, captions[i : i + PASS], seeds[i : i + PASS]) for i in range(0, len(captions), PASS)}
    store.fill(path, jobs, worlds.backend(w).draw, "groups of samples drawn")


def draw_table(path: Path, w: World, table: pd.DataFrame, name: str) -> list[Path]:
    """Draw every row of ``table`` (``caption, label, class``) into ``{name}-{start}.tar`` shards; returns the shards.

    Each image has a seed of its own, hashed from name and position: the same image comes whatever the shard, batch or
    number of workers. Shards that exist are kept.
    """
    rows = table.assign(seed=[str(worlds.entropy(w.seed, "image", name, i)) for i in range(len(table))]).to_dict("records")
    jobs = {f"{name}-{s:07d}.tar": (w, rows[s : s + w.synthesis.shard]) for s in range(0, len(rows), w.synthesis.shard)}
    return store.fill(path, jobs, draw_shard, f"shards of {name} drawn")


def score_shard(w: World, tar: Path, classes: tuple[str, ...], templates: tuple[str, ...]) -> pd.DataFrame:
    """The rows of a drawn shard with their CLIP ``score``: similarity to the own label's text, the largest over templates."""
    (images, rows), made = pools.read_tar(tar), clip.load(w)
    table, vectors = pd.DataFrame(rows), clip.embed_images(made, images)
    return table.assign(score=clip.label_scores(made, vectors, table["label"], classes, templates, w.clip.aggregate))


def filtered(path: Path, w: World, bench: Benchmark, tars: list[Path], name: str) -> pd.DataFrame:
    """Collect drawn shards into ``{name}.npy`` and ``{name}.parquet`` with CLIP ``score`` and ``keep``, one shard in memory.

    The filter is the one of the retrieved images: the best ``w.clip.top_share`` per class by similarity to the own label's
    text, the largest over templates ([P] section 3: applied to both sources).
    """
    jobs = {f"scores/{tar.stem}.parquet": (w, tar, bench.classes, bench.templates) for tar in tars}
    table = pd.concat(map(store.read_table, store.fill(path, jobs, score_shard, f"shards of {name} scored")), ignore_index=True)
    keep = pools.top_share(table["score"].to_numpy(), table["label"].to_numpy(np.int64), w.clip.top_share)
    table = table.assign(id=np.arange(len(table)), keep=keep)[[c for c in table if c != "score"] + ["id", "score", "keep"]]
    store.write(path / f"{name}.npy", Lazy(*map(pools.Tar, tars)))
    store.write(path / f"{name}.parquet", table)
    return table
