"""Notebook 03, first half: embeddings of the pool by CLIP, their index, and semantic search."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.tables import Benchmark
from helpers.engine import progress, store
from helpers.engine.late import faiss
from helpers.models import clip
from helpers.worlds import World

SHARD = 2_000  # pairs per file
INDEX = ("HNSW32", "efSearch=512")  # faiss factory string, search effort; recall is in notebook 03


@store.builds("embeddings")
def make(path: Path, w: World) -> None:
    """Embed pool and validation images, and index the pool, in clip-retrieval's layout.

    Writes ``img_emb/, text_emb/, metadata/, image.index, text.index`` and ``val_{task}.npy``.
    """
    worlds.backend(w).prepare(w)
    pool = worlds.backend(w).open_pool(w)
    n = len(pool)
    parts = {f"{i:05d}": (a, min(a + SHARD, n)) for i, a in enumerate(range(0, n, SHARD))}
    pairs: dict[str, tuple] = {}
    for kind in ("img", "text"):
        pairs |= {f"{kind}_emb/{kind}_emb_{i}.npy": (w, kind, *ends) for i, ends in parts.items()}
    store.fill(path, pairs, embed_shard, "shards embedded")
    splits = {f"val_{task}.npy": (w, task) for task in w.tasks}
    store.fill(path, splits, embed_validation, "validation splits embedded")
    for i, ends in parts.items():
        columns = pool.captions(np.arange(*ends)).rename(columns={"TEXT": "caption", "URL": "url"})
        store.write(path / "metadata" / f"metadata_{i}.parquet", columns)
    jobs = {"image.index": (path / "img_emb",), "text.index": (path / "text_emb",)}
    store.fill(path, jobs, build_index, "indices built")


def embed_shard(w: World, kind: str, start: int, stop: int) -> np.ndarray:
    """Unit embeddings of the images ("img") or captions ("text") of some pairs, (n, d) float32."""
    pool = worlds.backend(w).open_pool(w)
    rows = np.arange(start, stop)
    if kind == "text":
        return clip.embed_texts(clip.load(w), list(pool.captions(rows)["TEXT"]))
    return clip.embed_images(clip.load(w), pool.fetch(rows))


def embed_validation(w: World, task: str) -> np.ndarray:
    """Unit embeddings of a task's validation images, (n, d) float32."""
    return clip.embed_images(clip.load(w), tables.benchmark(w, task).val.images)


def build_index(folder: Path) -> bytes:
    """The index of a folder of embeddings by autofaiss, as ``clip-retrieval index`` builds it.

    Left to itself, autofaiss would choose another one by the clock; one core repeats its bytes.
    """
    import autofaiss

    kind = {"metric_type": "ip", "index_key": INDEX[0], "index_param": INDEX[1]}
    limits = {"max_index_memory_usage": "1G", "current_memory_available": "2G", "nb_cores": 1}
    quiet = {"save_on_disk": False, "verbose": logging.ERROR}
    with (
        tempfile.TemporaryDirectory() as plain,  # its path has no "[" or "::", which mean more
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        link = Path(plain, "embeddings")
        link.symlink_to(folder.resolve())
        index, _ = autofaiss.build_index(str(link), **kind, **limits, **quiet)
    return faiss.serialize_index(index).tobytes()


def embeddings(artifact: store.Artifact, kind: str, rows: np.ndarray | None = None) -> np.ndarray:
    """Embeddings of a kind, "img" or "text", (n, d) float32, at pool positions ``rows`` or all."""
    return tables.on_disk(artifact.files(f"{kind}_emb/*.npy"), rows)[:]


def search(w: World, artifact: store.Artifact, bench: Benchmark) -> pd.DataFrame:
    """Semantic retrieval, ``row, label, class``: the nearest pairs of each class in each template.

    The top k by image and by caption ([P] section 3), through the indices of ``artifact``, or
    through one that the world names (``backend.search_index``).
    """
    found = worlds.backend(w).search_index(w, bench)
    if found is not None:  # ``url, label, class``; some of them were downloaded
        pool = worlds.backend(w).open_pool(w).captions()[["URL"]].reset_index(names="row")
        pool = pool[pool["URL"] != ""]  # what has no address cannot be told apart by it
        table = found.merge(pool, left_on="url", right_on="URL")[["row", "label", "class"]]
        counts = f"{len(table):,} of {len(found):,} pairs found are in the pool"
        progress.say(f"search: {counts}; download the rest with helpers.paper.download.laion")
    else:
        queries = clip.embed_texts(clip.load(w), [t for c in bench.classes for t in bench.texts(c)])
        k = dict(w.retrieval.k_of).get(bench.task, w.retrieval.k)
        label = np.repeat(np.arange(len(bench.classes)), k * len(bench.templates))
        rows = [nearest(artifact.path / f"{kind}.index", queries, k) for kind in ("image", "text")]
        table = pd.DataFrame({"row": np.ravel(rows), "label": np.tile(label, 2)}).query("row >= 0")
        table["class"] = np.array(bench.classes, object)[table["label"]]
    return table.drop_duplicates().sort_values(["row", "label"], ignore_index=True)


def nearest(index: Path, queries: np.ndarray, k: int) -> np.ndarray:
    """Positions of each query's ``k`` nearest pairs in an index file, or -1: (queries, k)."""
    return faiss.read_index(str(index)).search(np.ascontiguousarray(queries, np.float32), k)[1]


def recall(artifact: store.Artifact, queries: np.ndarray, k: int) -> float:
    """Share of the exact ``k`` nearest images that the image index returns, 0..1."""
    images = embeddings(artifact, "img")
    exact = faiss.knn(queries, images, k, metric=faiss.METRIC_INNER_PRODUCT)[1]
    found = nearest(artifact.path / "image.index", queries, k)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(exact, found, strict=True)]))
