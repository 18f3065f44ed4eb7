"""Every caption of a pool that a text rule matches, at LAION's scale: one pass over parquet shards for all classes.

Captions are taken a window at a time: first where any key stands (Hyperscan over the bytes of the window; without it polars'
Aho-Corasick automaton, first of the pieces that cover the keys), then boundaries and further words on what that finds. Polars
builds its automaton anew for every call, hence large windows rather than the streaming engine, which calls it on small parts.
"""

from __future__ import annotations

import array
import contextlib
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from helpers.data.rules import Plan, Terms, plan, search
from helpers.engine import gpu, store, workers
from helpers.errors import StudyError

TEXT_COLUMNS = ("TEXT", "caption", "text")  # LAION, Re-LAION and img2dataset
COLUMNS = ("at", "label", "class", "spelling", "offset")
HYPERSCAN = importlib.util.find_spec("hyperscan") is not None
WINDOW = 500_000  # captions held in memory at a time, per thread, unless a row group is larger
LAID = 100_000  # captions laid end to end for Hyperscan at a time; it counts bytes in 32 bits, and less is held twice


def matches(texts, made: Plan):
    """The classes that a plan finds in a polars series of captions: a polars frame ``at, label, class, spelling, offset``.

    ``at`` is the position in the series. A class counts once per caption, where it starts first: ``spelling`` is the stretch
    of the caption that matched, from its character ``offset`` on (of tokens in any order, the rarest).
    """
    import polars as pl

    found = _seen_by_hyperscan(texts, made.keys) if HYPERSCAN else _seen(texts, made)
    found = found.join(_lookup(made), left_on=pl.col("spelling").str.to_lowercase(), right_on="key")
    chosen = pl.concat(
        [
            _free(found.filter(~pl.col("searched")), made.rule),
            _searched(found.filter("searched"), made),
        ]
    )
    length = pl.col("spelling").str.len_chars().cast(pl.Int64)
    return chosen.sort("at", "label", "offset", -length).unique(
        ["at", "label"], keep="first", maintain_order=True
    )


def _seen(texts, made: Plan):
    """Where keys stand, by polars: columns at, text, spelling, byte (offset in the caption)."""
    import polars as pl

    text, keys, how = pl.col("text"), list(made.keys), {"ascii_case_insensitive": True}
    found = pl.DataFrame({"at": pl.int_range(len(texts), eager=True), "text": texts})
    if made.pieces:
        found = found.filter(text.str.contains_any(list(made.pieces), **how))
    found = found.filter(text.str.contains_any(keys, **how))
    return found.with_columns(
        spelling=text.str.extract_many(keys, overlapping=True, **how),
        byte=text.str.find_many(keys, overlapping=True, **how),
    ).explode("spelling", "byte")


def _seen_by_hyperscan(texts, keys: tuple[str, ...]):
    """The same by Hyperscan, over the bytes of many captions at once: four times as fast, and more with many keys."""
    import polars as pl

    lengths, parts = np.array([len(k.encode()) for k in keys]), []
    for first in range(0, max(len(texts), 1), LAID):
        part = texts.slice(first, LAID)
        _, offsets, data = part.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()
        offsets, (key, end) = np.frombuffer(offsets, np.int64), _ends(keys, data)
        at, start = np.searchsorted(offsets, end) - 1, end - lengths[key]
        inside = start >= offsets[at]  # not half in the caption before
        at, byte, length = at[inside], (start - offsets[at])[inside], lengths[key][inside]
        found = pl.DataFrame(
            {"at": at + first, "text": part.gather(at), "byte": byte, "length": length}
        )
        parts.append(found)
    stretch = pl.col("text").cast(pl.Binary).bin.slice(pl.col("byte"), pl.col("length"))
    return pl.concat(parts).with_columns(spelling=stretch.cast(pl.String))


def _ends(keys: tuple[str, ...], data) -> np.ndarray:
    """Which keys, and where in the bytes they end: (2, n)."""
    import hyperscan

    base, found = _compiled(keys), array.array("q")
    if data:
        base.scan(
            data, lambda key, _, end, *__: found.extend((key, end)), scratch=hyperscan.Scratch(base)
        )
    return np.array(found, np.int64).reshape(-1, 2).T


@functools.lru_cache(maxsize=4)
def _compiled(keys: tuple[str, ...]):
    import hyperscan

    base = hyperscan.Database()
    base.compile(
        expressions=[k.encode() for k in keys],
        ids=range(len(keys)),
        flags=[hyperscan.HS_FLAG_CASELESS] * len(keys),
        literal=True,
    )
    return base


def _lookup(made: Plan):
    """Which forms a key belongs to: columns key (lower case), form, searched, label, class."""
    import polars as pl

    rows = [
        (k, i, f.pattern is not None, f.label, made.classes[f.label])
        for i, f in enumerate(made.forms)
        for k in f.keys
    ]
    table = pl.DataFrame(rows, ["key", "form", "searched", "label", "class"], orient="row")
    return table.with_columns(pl.col("key").str.to_lowercase()).unique()


def _free(found, rule: str):
    """The keys that are matches as they stand: no mark behind, and but for ``substring`` no letter or digit beside them."""
    import polars as pl

    before = pl.col("text").cast(pl.Binary).bin.slice(0, pl.col("byte")).cast(pl.String)
    found = found.with_columns(before=before, offset=before.str.len_chars().cast(pl.Int64))
    after = pl.col("text").str.slice(pl.col("offset") + pl.col("spelling").str.len_chars(), 1)
    beside = r"[\p{L}\p{N}\p{M}]"
    free = (
        ~after.str.contains(r"\p{M}")
        if rule == "substring"
        else ~(after.str.contains(beside) | pl.col("before").str.tail(1).str.contains(beside))
    )
    return found.filter(free).select(COLUMNS)


def _searched(found, made: Plan):
    """The forms with a pattern, searched for in the captions where one of their keys was seen."""
    import polars as pl

    rows = []
    for at, text, i, label, name in (
        found.select("at", "text", "form", "label", "class").unique().iter_rows()
    ):
        span = search(made.forms[i].pattern, text)
        if span and all(search(need, text) for need in made.forms[i].needs):
            rows.append((at, label, name, text[slice(*span)], span[0]))
    return pl.DataFrame(
        rows,
        dict(zip(COLUMNS, (pl.Int64, pl.Int64, pl.String, pl.String, pl.Int64), strict=True)),
        orient="row",
    )


@contextlib.contextmanager
def _reading(shard: Path) -> Iterator[None]:
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, OSError, ValueError) as e:
        raise StudyError(
            f"cannot read {shard}: {e}. It is missing, truncated or not parquet; delete it and make or download it "
            "again."
        ) from e


def _layout(shard: Path) -> tuple[str, list[str], list[int]]:
    """Of a shard: the text column, all columns, and the rows of its windows (whole row groups, ``WINDOW`` rows if they allow it)."""
    import pyarrow.parquet as pq

    with _reading(shard):
        file = pq.ParquetFile(shard)
    names = file.schema_arrow.names
    text = next((c for c in TEXT_COLUMNS if c in names), None)
    if text is None:
        raise StudyError(
            f"{shard} has no text column; it has {', '.join(names)}. Valid: {', '.join(TEXT_COLUMNS)}. Rename one."
        )
    clash = {"row", *COLUMNS[1:]} & set(names)
    if clash:
        raise StudyError(
            f"{shard} has columns that the scan adds: {', '.join(sorted(clash))}. Rename them."
        )
    windows = []
    for i in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(i).num_rows
        if windows and windows[-1] + rows <= WINDOW:
            windows[-1] += rows
        else:
            windows.append(rows)
    return text, names, windows


def scan_shard(
    shard: Path, made: Plan, start: int = 0, columns: bool = True, layout: tuple | None = None
):
    """The matches in one parquet shard, as a polars frame in order of row and label.

    Columns ``row`` (position in the pool, where the shard's first row is ``start``), ``label``, ``class``, ``spelling``,
    ``offset`` and, with ``columns``, all of the shard's own. ``layout``: where it is known already. Raises ``StudyError`` when
    the shard is damaged or has no text column.
    """
    import polars as pl

    (text, names, windows), first, parts = layout or _layout(shard), 0, []
    others = [n for n in names if n != text]
    for rows in windows or [0]:
        with _reading(shard):
            window = pl.scan_parquet(shard, glob=False, parallel="columns").slice(first, rows)
            texts = window.select(text).collect()[text]
        found = matches(texts, made)
        if columns:
            own, texts = [texts.gather(found["at"])], None
            with _reading(shard):
                own += [
                    window.select(n).collect()[n].gather(found["at"]) for n in others
                ]  # one in memory at a time
            found = found.with_columns(*own).select(*COLUMNS, *names)
        parts.append(found.rename({"at": "row"}).with_columns(pl.col("row") + start + first))
        first += rows
    return pl.concat(parts, rechunk=True)


def _jobs(shards: Sequence[Path], made: Plan, columns: bool) -> list[tuple]:
    """What ``scan_shard`` is given for each shard."""
    layouts = [_layout(s) for s in shards]
    starts = np.cumsum([0, *(sum(windows) for *_, windows in layouts)]).tolist()
    return [
        (shard, made, start, columns, layout)
        for shard, start, layout in zip(shards, starts, layouts, strict=False)
    ]


def find(
    shards: Sequence[Path],
    classes: Sequence[str],
    rule: str,
    terms: Mapping[str, Terms] | None = None,
):
    """All matches of a pool, kept in memory: a pandas table ``row, label, class, spelling, offset``, ``row`` as in the pool.

    ``rule`` and ``terms`` as in ``rules.plan``, errors as there and in ``scan_shard``.
    """
    import pandas as pd

    jobs = _jobs(shards, plan(classes, rule, terms), columns=False)
    on_ray = bool(gpu.ray_address())  # on one machine polars has threads of its own
    found = dict(workers.starmap(scan_shard, jobs, parallel=on_ray, uses_gpu=False))
    return pd.concat([found[i].to_pandas() for i in range(len(jobs))], ignore_index=True)


def write(
    shards: Sequence[Path],
    folder: Path,
    classes: Sequence[str],
    rule: str,
    terms: Mapping[str, Terms] | None = None,
    threads: int | None = None,
) -> list[Path]:
    """Scan the shards into ``folder``, one parquet file of matches with all columns for each, those that are there left alone.

    ``threads`` shards (default: one per core) are in work at a time; memory is bounded by them, and what is written does not
    depend on how many. A folder holds one scan, described in ``scan.json``; for another one ``StudyError`` is raised.
    """
    made = plan(classes, rule, terms)
    jobs = {
        folder / f"matches-{i:05d}.parquet": job
        for i, job in enumerate(_jobs(shards, made, columns=True))
    }
    _same_scan(
        folder / "scan.json",
        {
            "rule": rule,
            "classes": list(classes),
            "plan": hashlib.sha256(repr(made).encode()).hexdigest(),
            "shards": [[shard.name, sum(windows)] for shard, *_, (*_, windows) in jobs.values()],
        },
    )
    if gpu.ray_address():
        return store.fill(
            folder,
            {path.name: job for path, job in jobs.items()},
            scan_shard,
            "shards scanned",
            uses_gpu=False,
        )
    with ThreadPoolExecutor(threads or gpu.cores()) as pool:
        futures = [
            pool.submit(_write_shard, path, *job) for path, job in jobs.items() if not path.exists()
        ]
        try:
            for future in store.progress(
                as_completed(futures), "shards scanned", total=len(futures)
            ):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return list(jobs)


def _write_shard(path: Path, *job) -> None:
    store.write(path, scan_shard(*job))


def _same_scan(path: Path, about: dict) -> None:
    if not path.exists():
        store.write(path, about)
    elif json.loads(path.read_text()) != about:
        raise StudyError(
            f"{path.parent} holds another scan (other shards, classes or rule: see {path.name}). Delete it or name "
            "another folder."
        )
