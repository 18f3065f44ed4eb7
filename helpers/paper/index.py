"""Semantic search through an index that is there: a folder of clip-retrieval, or its back end [C].

[P] section 3: per class and template the ``k`` nearest by image united with the ``k`` nearest by
caption. A folder has ``image.index``, perhaps ``text.index``, and ``metadata/*.parquet``; the
world's CLIP must be the one it was built with. A back end embeds the texts by its own CLIP; its
address may end in ``#name`` of one of its indices.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urldefrag

import numpy as np
import pandas as pd

from helpers.data import columns
from helpers.data.tables import Benchmark, Pool
from helpers.engine import places, progress, store
from helpers.engine.late import faiss, open_clip
from helpers.errors import StudyError, reading
from helpers.models import clip
from helpers.paper import config, pools
from helpers.worlds import World

KINDS = ("image", "text")  # clip-retrieval's modalities
HTTP = ("http://", "https://")  # the address of a back end, not a folder
TRIES = 4  # of a query
WAIT = 1.0  # seconds before it is repeated, doubled each time
PER_SECOND = 10.0  # queries sent to a back end
AT_ONCE = 4
ANSWER = 64  # MiB that are read of an answer
AS_IT_IS = {"Accept-Encoding": "identity"}  # what is packed could be endless
LARGEST = 2**53  # position that a number of JSON can tell apart
SAFE = dict.fromkeys(("deduplicate", "use_safety_model", "use_violence_detector"), True)  # [C]
PLAIN = {"use_mclip": False, "aesthetic_score": "", "aesthetic_weight": ""}  # not what is pretty
_turn = threading.Lock()


def search_index(w: World, bench: Benchmark) -> pd.DataFrame | None:
    """The pairs that the index in paper.toml has nearest to the class names, one row per pair and
    class, for download/laion.py: ``SAMPLE_ID`` (or the position in the index), ``url, TEXT, class,
    label, similarity`` and what else it knows; None without an index.

    Kept class by class: a killed search goes on where it was. Raises ``StudyError`` when there is
    no such index, it does not fit to the world's CLIP, or the back end does not answer.
    """
    index = config.settings().index
    if not index:
        return None
    k = dict(w.retrieval.k_of).get(bench.task, w.retrieval.k)
    remote = index.startswith(HTTP)
    ask = ask_back_end if remote else functools.partial(ask_folder, w)
    searched = functools.partial(_answers, index) if remote else _folder(index)[0].__contains__
    kinds = tuple(filter(searched, KINDS))
    if "text" not in kinds:
        progress.say(f"index {index}: has no text.index, so captions are not searched")
    about = repr((index, k, bench.classes, bench.templates, None if remote else w.clip))
    folder = f"{bench.task}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
    jobs = {
        f"{label:05d}.parquet": (index, bench.texts(name), kinds, k)
        for label, name in enumerate(bench.classes)
    }
    what = f"classes of {bench.task} searched"
    path = places.root() / w.name / "index" / folder
    tables = [
        store.read_table(file).assign(**{"label": label, "class": bench.classes[label]})
        for label, file in enumerate(store.fill(path, jobs, ask, what, parallel=False))
    ]
    found = pd.concat(tables, ignore_index=True)
    if "TEXT" not in columns.named(list(found)):
        found = found.assign(TEXT="")
    return columns.of_pandas(found, f"index {index}").to_pandas().rename(columns={"URL": "url"})


def located(w: World, index: str) -> str:
    """The name of an index. Raises ``StudyError`` when it cannot be searched: a back end is asked
    once, of a folder vectors are compared with the world's CLIP, and the first captions are read.
    """
    if index.startswith(HTTP):
        _query(index, "a photo", "image", 1, once=True)
        return index
    indices, pool = _folder(index)
    own = config.clip_folder(w)
    with reading(own, KeyError, TypeError):
        published = open_clip.get_model_config(w.clip.model)
        length = (clip.configuration(own)[0] if own.is_dir() else published)["embed_dim"]
    _check_lengths(index, indices, length)
    for table in pool.shards:
        first = pools._read(table, pools.PEEK)
        if "TEXT" in columns.named(first.columns):
            columns.evened(first, table)
    return index


def _check_lengths(index: str, indices: dict, length: int) -> None:
    for kind, mapped in indices.items():
        if mapped.d != length:
            problem = f"{index}/{kind}.index has vectors of {mapped.d} numbers, clip makes {length}"
            raise StudyError(f"{problem}. Set clip to the model that the index was built with.")


def _united(found: pd.DataFrame, index: str) -> pd.DataFrame:
    """Every pair once, by ``id``, with its largest similarity; a line counts rows without them."""
    numbers = found.reindex(columns=["id", "similarity"]).apply(pd.to_numeric, errors="coerce")
    numbers = numbers.astype(float)
    position = numbers["id"]
    whole = np.isfinite(numbers).all(axis=1) & (position % 1 == 0) & position.between(0, LARGEST)
    if not whole.all():
        progress.say(f"index {index}: {(~whole).sum()} rows without id or similarity are left out")
    found = found.assign(**numbers)[whole].astype({"id": np.int64})
    order = {"by": ["id", "similarity"], "ascending": [True, False], "kind": "stable"}
    return found.sort_values(**order).drop_duplicates("id", ignore_index=True)


@functools.lru_cache(maxsize=1)
def _folder(index: str) -> tuple[dict, Pool]:
    """The indices of a folder by kind, and its metadata as a pool without pictures."""
    path = Path(index)
    tables = sorted((path / "metadata").glob("[!.]*.parquet"))
    if not (path / "image.index").is_file() or not tables:
        problem = f"no index of clip-retrieval in {path}: it should hold image.index and metadata/"
        valid = "Valid: such a folder, http://HOST:PORT/knn-service, or none: notebook 03 builds it"
        raise StudyError(f"{problem}*.parquet, perhaps text.index. {valid}.")
    sizes = tuple(columns.parquet(table).metadata.num_rows for table in tables)
    pool = Pool(tuple(tables), None, sizes)
    indices = {}
    for file in filter(Path.is_file, (path / f"{kind}.index" for kind in KINDS)):
        try:
            mapped = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as e:
            problem = f"cannot read the index in {path}: {str(e).splitlines()[0]}"
            raise StudyError(f"{problem}. Build it again with clip-retrieval index.") from e
        if mapped.ntotal != len(pool):
            problem = f"{file} holds {mapped.ntotal} vectors, but its metadata {len(pool)} rows"
            raise StudyError(f"{problem}. Build both from one table.")
        if mapped.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise StudyError(f"{file} has distances, no similarities. Build it with metric ip.")
        indices[file.stem] = mapped
    return indices, pool


def ask_folder(w: World, index: str, texts: list[str], kinds: tuple, k: int) -> pd.DataFrame:
    """What a folder has nearest to a class's texts: metadata, ``id`` (position), ``similarity``."""
    indices, pool = _folder(index)
    queries = clip.embed_texts(clip.load(w), texts)
    _check_lengths(index, indices, queries.shape[1])
    answers = []
    for kind in kinds:
        similarity, rows = indices[kind].search(queries, k)
        answers.append(pd.DataFrame({"id": rows.ravel(), "similarity": similarity.ravel()}))
    found = _united(pd.concat(answers, ignore_index=True).query("id >= 0"), index)
    facts = pool.captions(found["id"]).drop(columns=["id", "similarity"], errors="ignore")
    return pd.concat([facts, found], axis=1)


def ask_back_end(index: str, texts: list[str], kinds: tuple, k: int) -> pd.DataFrame:
    """The same of a back end; ``AT_ONCE`` queries are on their way, at most ``PER_SECOND``.

    Of what it says of a pair, numbers and texts are kept; nothing else is believed.
    """
    jobs = itertools.product(texts, kinds)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = threads.map(lambda job: _query(index, *job, k), jobs)
        rows = list(itertools.chain.from_iterable(answers))
    found = pd.DataFrame([row if isinstance(row, dict) else {} for row in rows])
    found = _united(found, index).rename(columns=_text)
    words = [name for name in found if name not in ("id", "similarity")]
    return found.assign(**{name: found[name].map(_text) for name in words})


def _text(cell: object) -> str | None:
    """What a stranger wrote, as UTF-8 has it; None for what is no text and no number."""
    if not isinstance(cell, str | int | float) or pd.isna(cell):
        return None
    return str(cell).encode("utf-8", "replace").decode()


def _query(index: str, text: str, kind: str, k: int, once: bool = False) -> list:
    """One query, as clip-retrieval's client sends it; repeated where it fails, but for ``once``."""
    import requests
    from urllib3.exceptions import HTTPError

    url, name = urldefrag(index)
    counts = {"num_images": k, "num_result_ids": k}
    asked = {"text": text, "modality": kind, "indice_name": name or None, **counts, **SAFE, **PLAIN}
    options = {"headers": AS_IT_IS, "timeout": 60 if once else 600, "stream": True}
    for i in range(1 if once else TRIES):
        time.sleep(WAIT * (2**i // 2))
        with _turn:
            time.sleep(1 / PER_SECOND)
        try:
            with requests.post(url, json=asked, **options) as sent:
                body = sent.raw.read(ANSWER * 2**20, decode_content=False)
            answer = json.loads(body)
        except (OSError, ValueError, RecursionError, HTTPError) as e:
            answer = f"{type(e).__name__}: {e}"
        if isinstance(answer, list):
            return answer
    raise StudyError(
        f"the back end {index} gave no answer to {text!r} by {kind} ({str(answer)[-160:]}). Start "
        "one (clip-retrieval back), correct index in paper.toml, or wait: what was found is kept."
    )


def _answers(index: str, kind: str) -> bool:
    """Whether a back end searches by ``kind``; without text.index it fails at such queries."""
    try:
        _query(index, "a photo", kind, 1)
    except StudyError:
        if kind == "image":  # nobody is there
            raise
        return False
    return True
