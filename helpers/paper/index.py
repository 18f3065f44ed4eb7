"""Semantic search in an index that exists already: clip-retrieval's service, or its folder ([P] section 3: the LAION-5B index).

What it finds are addresses. Those whose images are in the pool count; how many are not is said, as they have to be downloaded first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import clip, store
from helpers.paper import config, data
from helpers.worlds import StudyError, World


def neighbours(w: World, texts: Sequence[str], k: int) -> list[np.ndarray] | None:
    """For each text the pool positions of its top-k by image united with its top-k by caption; None without an ``index``.

    Raises ``StudyError`` when the index does not answer, or is none.
    """
    name = config.settings().index
    if not name:
        return None
    found = _served(name, texts, k) if name.startswith(("http://", "https://")) else _local(Path(name), w, texts, k)
    pool = data.open_pool(w).captions()
    rows = pd.Series(np.arange(len(pool)), index=pool["url" if "url" in pool else "URL"])
    rows = rows[~rows.index.duplicated()]
    every = {url for urls in found for url in urls}
    absent = len(every - set(rows.index))
    print(f"index: {len(every):,} pairs found for {len(texts):,} texts, {absent:,} of them not in the pool "
          "(helpers.paper.laion.download gets them)")
    return [np.sort(rows[[url for url in dict.fromkeys(urls) if url in rows.index]].to_numpy()) for urls in found]


def _served(address: str, texts: Sequence[str], k: int) -> list[list[str]]:
    from clip_retrieval.clip_client import ClipClient, Modality

    found = []
    for text in texts:
        urls = []
        for kind in (Modality.IMAGE, Modality.TEXT):
            client = ClipClient(url=address, indice_name=None, modality=kind, num_images=k, use_safety_model=False,
                                use_violence_detector=False)
            try:
                urls += [row["url"] for row in client.query(text=text) if "url" in row]
            except (OSError, ValueError, TypeError, KeyError) as e:
                raise StudyError(f"the index at {address} did not answer ({type(e).__name__}: {e}). Start it with: clip-retrieval back   "
                                 f"or name another index in {config.FILE}.") from e
        found.append(urls)
    return found


def _local(folder: Path, w: World, texts: Sequence[str], k: int) -> list[list[str]]:
    import faiss

    files = sorted((folder / "metadata").glob("*.parquet"), key=lambda p: int(p.stem.rsplit("_", 1)[1]))
    if not (folder / "image.index").exists() or not files:
        raise StudyError(f"no index in {folder}: it should have image.index, text.index and metadata/metadata_0.parquet, ... as "
                         f"clip-retrieval leaves them. Leave index out of {config.FILE}, and one is built over the pool.")
    url = np.concatenate([store.read_table(f)["url"].to_numpy() for f in files])
    queries, found = clip.embed_texts(clip.load(w), list(texts)), [[] for _ in texts]
    for name in ("image", "text"):
        made = faiss.read_index(str(folder / f"{name}.index"), faiss.IO_FLAG_MMAP)
        if made.d != queries.shape[1]:
            raise StudyError(f"{folder / name}.index holds vectors of {made.d} numbers, the study's CLIP gives {queries.shape[1]}: it was "
                             "built with another CLIP. Serve it with that one (clip-retrieval back) and name the service.")
        for urls, near in zip(found, made.search(queries, k)[1], strict=True):
            urls += [url[i] for i in near if i >= 0]
    return found
