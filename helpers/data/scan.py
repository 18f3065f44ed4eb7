"""Every caption of a pool that a text rule matches: one pass over parquet shards for all classes.

Hyperscan finds keys in a row group's captions, polars and ``rules.search`` check what is beside.
"""

import array
import functools
import itertools
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from helpers.data import columns as spellings
from helpers.data import rules
from helpers.engine import gpu, progress, store, workers
from helpers.errors import StudyError, reading

TEXT_COLUMNS = ("TEXT", *spellings.SPELLINGS["TEXT"])
COLUMNS = ("at", "label", "class", "spelling", "offset")
LAID = 100_000  # captions laid end to end for Hyperscan, which counts bytes in 32 bits


def find(shards: Sequence[Path], plan: rules.Plan) -> pd.DataFrame:
    """All matches in a pool: columns ``row`` (of the pool), ``label, class, spelling, offset``."""
    jobs = _jobs(shards, plan, columns=False)
    on_ray = bool(gpu.ray_address())  # on one machine polars has threads of its own
    found: dict[int, Any] = dict(workers.starmap(scan_shard, jobs, on_ray, uses_gpu=False))
    return pd.concat([found[i].to_pandas() for i in range(len(jobs))], ignore_index=True)


def write(shards: Sequence[Path], plan: rules.Plan, folder: Path, threads: int = 0) -> list[Path]:
    """Scan into ``folder``: a parquet file of matches per shard, with all columns; no file twice.

    ``threads`` shards (0: one per core) are in work at a time. ``StudyError`` on another scan.
    """
    jobs = _jobs(shards, plan, columns=True)
    about = folder / "scan.json"
    rows = [[shard.name, sum(_layout(shard)[2])] for shard in shards]
    description = {"plan": repr(plan), "rows of shards": rows}
    if about.exists() and json.loads(about.read_text()) != description:
        raise StudyError(
            f"{folder} holds another scan, see {about.name}. Delete it or name another."
        )
    store.write(about, description)
    files = {f"matches-{i:05d}.parquet": job for i, job in enumerate(jobs)}
    missing = [file for file in files if not (folder / file).exists()]
    with ThreadPoolExecutor(threads or gpu.cores()) as pool:
        written = pool.map(lambda f: store.write(folder / f, scan_shard(*files[f])), missing)
        list(progress.over(written, "shards scanned", total=len(missing)))
    return [folder / file for file in files]


def _jobs(shards: Sequence[Path], plan: rules.Plan, columns: bool) -> list[tuple]:
    starts = itertools.accumulate((sum(_layout(shard)[2]) for shard in shards), initial=0)
    return [(shard, plan, start, columns) for shard, start in zip(shards, starts, strict=False)]


def scan_shard(shard: Path, plan: rules.Plan, start: int = 0, columns: bool = True) -> pl.DataFrame:
    """The matches in a shard whose first row is ``start``, in order of row and label, as ``find``.

    With ``columns``, all of the shard's own follow. Raises ``StudyError`` when it is damaged.
    """
    text, names, groups = _layout(shard)
    parts = []
    first = 0
    for rows in groups or [0]:
        window = pl.scan_parquet(shard, glob=False, parallel="columns").slice(first, rows)
        texts = spellings.texts(_column(window, text, shard), shard)
        found = matches(texts, plan)
        texts = texts.gather(found["at"])  # one column is in memory at a time
        for name in names if columns else ():
            kept = texts if name == text else _column(window, name, shard).gather(found["at"])
            found = found.with_columns(kept)
        parts.append(found.select(pl.col("at").alias("row") + start + first, pl.exclude("at")))
        first += rows
    return pl.concat(parts, rechunk=True)


def _column(window: pl.LazyFrame, name: str, shard: Path) -> pl.Series:
    with reading(shard, pl.exceptions.PolarsError):
        return window.select(name).collect()[name]


def _layout(shard: Path) -> tuple[str, list[str], list[int]]:
    """A shard's text column, all its columns, and the rows of its row groups."""
    file = spellings.parquet(shard)
    names = file.schema_arrow.names
    text = spellings.captions(names, shard)
    if clash := ", ".join(sorted({"row", *COLUMNS[1:]} & set(names))):
        raise StudyError(f"{shard} has columns that the scan adds: {clash}. Rename them.")
    groups = range(file.metadata.num_row_groups)
    return text, names, [file.metadata.row_group(i).num_rows for i in groups]


def matches(texts: pl.Series, plan: rules.Plan) -> pl.DataFrame:
    """The classes that a plan finds in captions: columns ``at, label, class, spelling, offset``.

    ``at`` is the position in the series. A class counts once per caption, where it starts first:
    ``spelling`` is what matched there (of tokens in any order, the rarest), from ``offset`` on.
    """
    position = {key: i for i, key in enumerate(plan.keys)}
    rows: list[tuple] = []
    for i, form in enumerate(plan.forms):
        about = (i, form.pattern is not None, form.label, plan.classes[form.label])
        rows += [(position[key], *about) for key in form.keys]
    forms = pl.DataFrame(rows, ["key", "form", "searched", "label", "class"], orient="row")
    found = _occurrences(texts, plan.keys).join(forms, on="key")

    # keys that match as they stand: with nothing wordy beside them (``substring``: no mark behind)
    before = pl.col("text").cast(pl.Binary).bin.slice(0, pl.col("byte")).cast(pl.String)
    free = found.filter(~pl.col("searched"))
    free = free.with_columns(before=before, offset=before.str.len_chars().cast(pl.Int64))
    after = pl.col("text").str.slice(pl.col("offset") + pl.col("spelling").str.len_chars(), 1)
    around = (after + pl.col("before").str.tail(1)).str.contains(r"[\p{L}\p{N}\p{M}]")
    touched = after.str.contains(r"\p{M}") if plan.rule == "substring" else around
    free = free.filter(~touched).select(COLUMNS)

    # forms that have a pattern are searched for where one of their keys stands
    rows = []
    once = found.filter("searched").select("at", "text", "form", "label", "class").unique()
    for at, text, i, label, name in once.iter_rows():
        pattern, *needs = filter(None, (plan.forms[i].pattern, *plan.forms[i].needs))
        span = rules.search(pattern, text)
        if span and all(rules.search(need, text) for need in needs):
            rows.append((at, label, name, text[slice(*span)], span[0]))
    searched = pl.DataFrame(rows, free.schema, orient="row")

    longest_first = -pl.col("spelling").str.len_chars().cast(pl.Int64)
    ordered = pl.concat([free, searched]).sort("at", "label", "offset", longest_first)
    return ordered.unique(["at", "label"], keep="first", maintain_order=True)


def _occurrences(texts: pl.Series, keys: tuple[str, ...]) -> pl.DataFrame:
    """Where keys (by position) stand in captions: columns at, text, key, byte, length, spelling."""
    lengths = np.array([len(key.encode()) for key in keys])
    database = _database(keys)
    scratch = database.scratch.clone()  # one for each thread
    hits = array.array("q")
    parts = []
    for first in range(0, max(len(texts), 1), LAID):
        part = texts.slice(first, LAID)
        _, offsets, data = part.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()
        starts = np.frombuffer(offsets, np.int64)
        del hits[:]
        if data:
            database.scan(data, lambda key, _, end, *__: hits.extend((key, end)), scratch=scratch)
        key, end = np.array(hits, np.int64).reshape(-1, 2).T
        at = np.searchsorted(starts, end) - 1
        byte = end - lengths[key] - starts[at]
        found = pl.DataFrame({"at": at, "key": key, "byte": byte, "length": lengths[key]})
        found = found.filter(pl.col("byte") >= 0)  # not half in the caption before
        parts.append(found.with_columns(pl.col("at") + first, text=part.gather(found["at"])))
    found = pl.concat(parts).drop_nulls("text")  # below a null there can be bytes of anything
    stretch = pl.col("text").cast(pl.Binary).bin.slice(pl.col("byte"), pl.col("length"))
    return found.with_columns(spelling=stretch.cast(pl.String))


@functools.lru_cache(maxsize=4)
def _database(keys: tuple[str, ...]) -> Any:
    """The keys compiled for Hyperscan; ``StudyError`` where it is not installed."""
    try:
        import hyperscan
    except ImportError as e:
        there = "wheels are for Linux and macOS on x86-64 and arm64, elsewhere use a container"
        raise StudyError(f"the scan needs hyperscan ({e}): pip install hyperscan; {there}.") from e
    database = hyperscan.Database()
    flags = [hyperscan.HS_FLAG_CASELESS] * len(keys)
    expressions = [key.encode() for key in keys]
    database.compile(expressions=expressions, ids=range(len(keys)), flags=flags, literal=True)
    return database
