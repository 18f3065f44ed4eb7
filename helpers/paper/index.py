"""Semantic search through an index that is there already: a folder of clip-retrieval, or the address of its back end.

[P] section 3: per class and template the ``k`` nearest by image united with the ``k`` nearest by caption; [C] asks such a back
end, too. A folder has ``image.index``, perhaps ``text.index``, and ``metadata/*.parquet``; the world's CLIP must be the one it
was built with. A back end embeds the texts by its own CLIP; its address may end in ``#name`` of one of its indices. Answers are
kept class by class: a killed search goes on where it was.
"""

from __future__ import annotations

import functools
import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from urllib.parse import urldefrag

import pandas as pd

from helpers.data.tables import Benchmark, Pool
from helpers.engine import places, store
from helpers.errors import StudyError
from helpers.models import clip
from helpers.paper import config
from helpers.worlds import World

KINDS = {"image": "image", "text": "caption"}  # clip-retrieval's modalities
NAMES = {"caption": "TEXT", "URL": "url"}
TRIES, WAIT = 4, 1.0  # of a query; seconds before it is repeated, doubled each time
PER_SECOND, AT_ONCE = 10.0, 4  # queries sent to a back end
_turn, _next = threading.Lock(), [0.0]


def search(w: World, index: str, bench: Benchmark) -> pd.DataFrame:
    """The pairs that an existing index has nearest to a task's class names, one row per pair and class.

    Columns ``SAMPLE_ID`` (the position in the index where its metadata have none), ``url, TEXT, class, label, similarity`` and
    what else the index knows: what helpers/paper/download/laion.py downloads. Answers are kept below the world's runs. Raises
    ``StudyError`` when there is no such index, it does not fit to the world's CLIP, or the back end does not answer.
    """
    k, remote = (
        dict(w.retrieval.k_of).get(bench.task, w.retrieval.k),
        index.startswith(("http://", "https://")),
    )
    about = repr((index, k, bench.classes, bench.templates, None if remote else w.clip))
    folder = (
        places.root()
        / w.name
        / "index"
        / f"{bench.task}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
    )
    kinds = tuple(
        kind for kind in KINDS if (_answers(index, kind) if remote else kind in _folder(index)[0])
    )
    if "text" not in kinds:
        print(f"index {index}: has no text.index, so captions are not searched")
    ask = ask_back_end if remote else functools.partial(ask_folder, w)
    jobs = {
        f"{label:05d}.parquet": (index, bench.texts(name), kinds, k)
        for label, name in enumerate(bench.classes)
    }
    files = store.fill(folder, jobs, ask, f"classes of {bench.task} searched", parallel=False)
    found = pd.concat(
        [
            store.read_table(f).assign(**{"label": i, "class": name})
            for i, (f, name) in enumerate(zip(files, bench.classes, strict=True))
        ],
        ignore_index=True,
    )
    found = found.rename(columns={old: new for old, new in NAMES.items() if new not in found})
    return found.rename(columns={} if "SAMPLE_ID" in found else {"id": "SAMPLE_ID"})


def _united(answers: list[pd.DataFrame]) -> pd.DataFrame:
    """Every pair once, in order of ``id``, with the largest of its similarities."""
    found = pd.concat(answers, ignore_index=True).sort_values(
        ["id", "similarity"], ascending=[True, False], kind="stable"
    )
    return found.drop_duplicates("id", ignore_index=True)


@functools.lru_cache(maxsize=1)
def _folder(index: str) -> tuple[dict, Pool]:
    """The indices of a folder by kind, and its metadata as a pool without pictures."""
    import faiss
    import pyarrow.parquet as pq

    path = Path(index)
    shards = tuple(sorted((path / "metadata").glob("*.parquet")))
    if not shards or not (path / "image.index").exists():
        raise StudyError(
            f"no index of clip-retrieval in {path}: it should hold image.index and metadata/*.parquet, perhaps text.index. "
            "Valid: such a folder, or the address of a back end, http://HOST:PORT/knn-service."
        )
    try:
        found = {
            kind: faiss.read_index(
                str(path / f"{kind}.index"), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
            )
            for kind in KINDS
            if (path / f"{kind}.index").exists()
        }
    except RuntimeError as e:
        raise StudyError(
            f"cannot read the index in {path}: {str(e).splitlines()[0]}. Build it again with clip-retrieval index."
        ) from e
    pool = Pool(shards, None, tuple(pq.ParquetFile(s).metadata.num_rows for s in shards))
    for kind, made in found.items():
        if made.ntotal != len(pool):
            raise StudyError(
                f"{path / kind}.index holds {made.ntotal} vectors, but its metadata {len(pool)} rows. Build both from one "
                "table."
            )
    return found, pool


def ask_folder(
    w: World, index: str, texts: list[str], kinds: tuple[str, ...], k: int
) -> pd.DataFrame:
    """What a folder's indices have nearest to the texts of a class: its metadata with ``id`` (position) and ``similarity``."""
    (indices, pool), queries, answers = _folder(index), clip.embed_texts(clip.load(w), texts), []
    for kind in kinds:
        if indices[kind].d != queries.shape[1]:
            raise StudyError(
                f"{index}/{kind}.index has vectors of {indices[kind].d} numbers, the CLIP of world {w.name!r} makes "
                f"{queries.shape[1]}. Set clip to the model that it was built with, or start clip-retrieval back on it."
            )
        near, rows = indices[kind].search(queries, k)
        answers.append(
            pd.DataFrame({"id": rows.ravel(), "similarity": near.ravel()}).query("id >= 0")
        )
    found = _united(answers)
    return pd.concat(
        [pool.captions(found["id"]).drop(columns=["id", "similarity"], errors="ignore"), found],
        axis=1,
    )


def ask_back_end(index: str, texts: list[str], kinds: tuple[str, ...], k: int) -> pd.DataFrame:
    """What a back end has nearest to the texts of a class: its metadata with ``id`` (position) and ``similarity``.

    A few queries are on their way at a time, at most ``PER_SECOND``; one that fails is repeated.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda job: _query(index, *job, k), product(texts, kinds)))
    found = [pd.DataFrame(rows, columns=None if rows else ["id", "similarity"]) for rows in answers]
    return _united([f for f in found if len(f)] or found[:1])


def _client(index: str, kind: str, k: int):
    from clip_retrieval.clip_client import ClipClient, Modality

    url, name = urldefrag(index)
    return ClipClient(
        url,
        name or None,
        aesthetic_score="",
        aesthetic_weight="",  # "": the query is not bent to what is pretty
        modality=Modality(kind),
        num_images=k,
    )


def _query(index: str, text: str, kind: str, k: int, tries: int | None = None) -> list[dict]:
    """One query: clip-retrieval drops what repeats within the answer, and what it finds unsafe ([C]: its defaults)."""
    import requests

    problem = ""
    for i in range(tries or TRIES):
        time.sleep(WAIT * (2**i // 2))
        with _turn:
            _next[0] = max(_next[0], time.monotonic()) + 1 / PER_SECOND
            pause = _next[0] - 1 / PER_SECOND - time.monotonic()
        time.sleep(max(pause, 0))
        try:
            answer = _client(index, kind, k).query(text=text)
        except (requests.RequestException, ValueError) as e:
            problem = f"{type(e).__name__}: {e}"
            continue
        if isinstance(answer, list):
            return answer
        problem = str(answer)
    raise StudyError(
        f"the back end {index} gave no answer to {text!r} by {kind} ({problem[-160:]}). Start one (clip-retrieval back), "
        "correct index in paper.toml, or wait: what was found is kept."
    )


def _answers(index: str, kind: str) -> bool:
    """Whether a back end searches by ``kind``: without text.index it fails at every such query. Nobody there: ``StudyError``."""
    try:
        _query(index, "a photo", kind, 1)
    except StudyError:
        if kind == "image":
            raise
        return False
    return True


def search_index(w: World, bench: Benchmark) -> pd.DataFrame | None:
    """What the index named in paper.toml has nearest to the class names; None where none is named."""
    index = config.settings().index
    return search(w, index, bench) if index else None
