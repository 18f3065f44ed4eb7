"""Drawing many captions into an artifact, shard by shard, and putting the CLIP filter over what was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from helpers import clip, pools, store, worlds
from helpers.pools import Benchmark, Lazy
from helpers.worlds import World


def draw_shard(w: World, rows: list[dict]) -> bytes:
    """Draw some captions into the bytes of a webdataset tar; every row has ``caption, label, class, seed``."""
    images = worlds.backend(w).draw(w, [r["caption"] for r in rows], [int(r["seed"]) for r in rows])
    return pools.tar_bytes(images, rows)


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
