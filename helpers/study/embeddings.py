"""Notebook 03, first half: embeddings of the pool by CLIP, their index, and semantic search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.tables import Benchmark, Pool
from helpers.engine import store, workers
from helpers.models import clip
from helpers.worlds import World

SHARD = 2_000


def embed_shard(w: World, kind: str, task: str, start: int, stop: int) -> np.ndarray:
    """Unit CLIP embeddings of pool images, pool captions, or a benchmark split's images, float32 (n, d)."""
    made = clip.load(w)
    if kind == "text":
        return clip.embed_texts(
            made, list(worlds.backend(w).open_pool(w).captions(np.arange(start, stop))["TEXT"])
        )
    if kind == "img":
        return clip.embed_images(made, worlds.backend(w).open_pool(w).fetch(np.arange(start, stop)))
    return clip.embed_images(made, getattr(worlds.backend(w).benchmark(w, task), kind).images)


def embed(w: World) -> store.Artifact:
    """Embed the pool, and index it with clip-retrieval: ``img_emb/``, ``text_emb/``, ``metadata/``, ``image.index``, ``text.index``."""
    return store.make("embeddings", w, lambda path: _embed(path, w))


def _embed(path: Path, w: World) -> None:
    n = len(worlds.backend(w).open_pool(w))
    parts = {
        f"{i:05d}": (start, min(start + SHARD, n)) for i, start in enumerate(range(0, n, SHARD))
    }
    jobs = {
        f"{kind}_emb/{kind}_emb_{i}.npy": (w, kind, "", *ends)
        for kind in ("img", "text")
        for i, ends in parts.items()
    }
    jobs |= {f"val_{task}.npy": (w, "val", task, 0, 0) for task in w.tasks}
    store.fill(path, jobs, embed_shard, "shards embedded")
    store.fill(
        path,
        {f"metadata/metadata_{i}.parquet": (w, *ends) for i, ends in parts.items()},
        _metadata,
        "metadata written",
        False,
    )
    index(path, *w.retrieval.index)


def _metadata(w: World, start: int, stop: int) -> pd.DataFrame:
    rows = worlds.backend(w).open_pool(w).captions(np.arange(start, stop))
    return rows.rename(columns={"TEXT": "caption", "URL": "url"})


def index(path: Path, key: str, param: str) -> None:
    """Build both indices in clip-retrieval's layout with autofaiss, as ``clip-retrieval index`` does.

    ``key`` is a faiss factory string, ``param`` its search setting. Both are given, as autofaiss would choose by the clock,
    another index on every run; each is built on one core, so that its bytes repeat.
    """
    missing = [
        (path, kind, name, key, param)
        for kind, name in (("img", "image"), ("text", "text"))
        if not (path / f"{name}.index").exists()
    ]
    for _ in store.progress(workers.starmap(_index, missing), "indices built", len(missing)):
        pass


def _index(path: Path, kind: str, name: str, key: str, param: str) -> None:
    import contextlib
    import io
    import logging

    from autofaiss import build_index

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        build_index(
            embeddings=str(path / f"{kind}_emb"),
            index_path=str(path / f"{name}.index.tmp"),
            metric_type="ip",
            index_key=key,
            index_param=param,
            index_infos_path=str(path / f"{name}_infos.tmp"),
            max_index_memory_usage="1G",
            current_memory_available="2G",
            nb_cores=1,
            verbose=logging.ERROR,
        )
    (path / f"{name}.index.tmp").rename(path / f"{name}.index")


def embeddings(artifact: store.Artifact, kind: str, rows=None) -> np.ndarray:
    """Pool embeddings of a kind, "img" or "text", float32: of the pool positions ``rows``, without them of all, in order."""
    return tables.on_disk(artifact.files(f"{kind}_emb/*.npy"), rows)[:]


def nearest(path: Path, queries: np.ndarray, k: int) -> np.ndarray:
    """Pool positions of the ``k`` nearest pairs of each query, through an index written by ``index``: (queries, k)."""
    import faiss

    return faiss.read_index(str(path)).search(np.ascontiguousarray(queries, np.float32), k)[1]


def search(w: World, artifact: store.Artifact, bench: Benchmark) -> pd.DataFrame:
    """Semantic retrieval: per class and template the top-k by image united with the top-k by caption ([P] section 3).

    Through the indices of ``artifact``, or through one that the world names (``backend.search_index``).
    """
    known = worlds.backend(w).search_index(w, bench)
    if known is not None:
        return in_pool(worlds.backend(w).open_pool(w), known)
    texts = [t for name in bench.classes for t in bench.texts(name)]
    queries = clip.embed_texts(clip.load(w), texts)
    label, k = (
        np.repeat(np.arange(len(bench.classes)), len(bench.templates)),
        dict(w.retrieval.k_of).get(bench.task, w.retrieval.k),
    )
    found = [
        pd.DataFrame(
            {
                "row": nearest(artifact.path / f"{name}.index", queries, k).ravel(),
                "label": np.repeat(label, k),
            }
        )
        for name in ("image", "text")
    ]
    table = (
        pd.concat(found)
        .query("row >= 0")
        .drop_duplicates()
        .sort_values(["row", "label"], ignore_index=True)
    )
    return table.assign(**{"class": np.array(bench.classes, object)[table["label"]]})


def in_pool(pool: Pool, found: pd.DataFrame) -> pd.DataFrame:
    """Those of ``found`` (``url, label, class``) that are in the pool, which holds what was downloaded: ``row, label, class``."""
    urls = pd.concat(
        [store.read_table(shard)[["URL"]] for shard in pool.shards], ignore_index=True
    )["URL"]
    table = found.merge(pd.DataFrame({"url": urls, "row": np.arange(len(urls))}), on="url")[
        ["row", "label", "class"]
    ]
    print(
        f"search: {len(table):,} of {len(found):,} pairs found are in the pool; download the others with helpers.paper.download.laion"
    )
    return table.drop_duplicates().sort_values(["row", "label"], ignore_index=True)


def recall(artifact: store.Artifact, queries: np.ndarray, k: int) -> float:
    """Share of the exact ``k`` nearest images that the image index returns, 0..1."""
    import faiss

    found, start = [], 0
    for part in map(np.load, artifact.files("img_emb/*.npy")):
        near, where = faiss.knn(queries, part, k, metric=faiss.METRIC_INNER_PRODUCT)
        found.append((near, where + start))
        start += len(part)
    near, where = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    exact = np.take_along_axis(where, np.argsort(-near, axis=1)[:, :k], axis=1)
    near = nearest(artifact.path / "image.index", queries, k)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(exact, near, strict=True)]))
