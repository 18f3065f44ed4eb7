"""The pool that ``paper.toml`` names as ``laion``: looked through once, then a table per shard.

It is a folder of img2dataset's shards, 00000.parquet (or .csv, .tsv, .jsonl) beside 00000.tar, as
download/laion.py leaves them; of webdataset tars with a .txt beside each picture; or a table of
captions and paths of pictures, or a folder with such a table, ``metadata.csv``, as Hugging Face's
image folders have one. Pictures of a table are packed into tars, ``kept`` pixels square.
Every row is kept, or counted as lost, with its reason, in ``lost.parquet``.
"""

from __future__ import annotations

import collections
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from helpers.data import columns, pictures
from helpers.data.shards import Tar, tar_bytes
from helpers.data.tables import Pool
from helpers.engine import progress, store
from helpers.errors import StudyError, reading
from helpers.paper import config
from helpers.worlds import World

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
PATHS = ("file_name", "filename", "file", "path", "file_path", "filepath", "image")
SHARD = 1_000  # pictures of a table that are packed into one tar
FEW = 8  # shards that are not worth starting processes for
PEEK = 1_000  # rows of a table that are looked at to know its columns
TEXT_BYTES = 1_000_000  # of one caption
TABLE_BYTES = 2**32  # of one .csv, .tsv or .jsonl
ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
COLUMNS = ("SAMPLE_ID", "URL", "TEXT", "NSFW", "similarity", "key", "tar", "image", "lost")
NO_PICTURE = "no picture under its key, or several"
NO_CAPTION = "no caption that can be read"
UNREADABLE = "a picture that cannot be read"


class Part(NamedTuple):
    """A piece of a pool as it was found: some rows of a table, and the tar of their pictures.

    Pictures without a tar are files; a tar without a table has its captions inside.
    """

    rows: int
    table: Path | pl.DataFrame | None
    tar: Path | None


def open_pool(w: World) -> Pool:
    """The configured pool, with images ``kept`` pixels square; looked through at first. Raises
    ``StudyError`` where there is none, and where nobody knows which picture is whose.
    """
    s = config.settings()
    artifact = store.get("pool", w, lambda path: _build(path, s.laion, s.kept))
    shards = artifact.files("?????.parquet")
    sizes = tuple(columns.parquet(shard).metadata.num_rows for shard in shards)
    return Pool(tuple(shards), functools.partial(_fetch, s.laion, s.kept), sizes)


def _fetch(place: Path, side: int, shard: Path, rows: np.ndarray) -> np.ndarray:
    """The images at positions ``rows`` of a shard of the pool, (n, side, side, 3) uint8."""
    listed = pl.read_parquet(shard, columns=["tar", "image"], glob=False)
    packed = shard.parent / "pictures" / f"{shard.stem}.tar"
    tar = (place.parent if place.is_file() else place) / listed["tar"][0]
    return Tar(tar if listed["tar"][0] else packed, side)[listed["image"].to_numpy()[rows]]


def size(place: Path) -> int:
    """How many pairs are listed in a pool. ``StudyError`` as from ``find``, where rows and pictures
    of one of the first ``FEW`` tars cannot be matched, and where no pair at all can be kept.
    """
    parts = find(place)
    for part in [part for part in parts if part.tar][:FEW]:
        _matched(part, 1)
    lost: collections.Counter = collections.Counter()
    for reason in (reason for part in parts for reason, _ in _looked(part, 1)[2]):
        if reason is None:
            return sum(part.rows for part in parts)
        lost[reason] += 1
    raise StudyError(f"{_told(place, 0, lost)}. Name another as laion.")


def _told(place: Path, kept: int, lost: Mapping[str, int]) -> str:
    reasons = "; ".join(f"{n:,} {why}" for why, n in collections.Counter(lost).most_common())
    total = kept + sum(lost.values())
    return f"pool: {kept:,} pairs of {total:,} in {place}; lost: {reasons or 'nothing'}"


def find(place: Path) -> list[Part]:
    """What a pool consists of; nothing is decoded. ``StudyError`` where that is no pool.

    A line says how many archives, and pictures that no table names, are left out.
    """
    files = [place] if place.is_file() else list(pictures.files_below(place))
    if files == [place] and place.suffix.lower() == ".tar":  # with the table beside it
        files = [file for file in place.parent.iterdir() if file.stem == place.stem]
    plans = [file for file in files if file.parts[-2:] == ("report", "plan.json")]
    own = {plan.parents[1] / name for plan in plans for name in ("report", "_tmp")}  # of downloads
    real = functools.cache(os.path.realpath)  # a folder that a link names again counts once
    files = list({(real(f.parent), f.name): f for f in files if f.parent not in own}.values())
    of_kind = functools.partial(_of_kind, files)
    tables = [f for f in of_kind(*TABLES) if f == place or f.stem.lower() == "metadata"]
    for folder, number in collections.Counter(table.parent for table in tables).items():
        if number > 1:
            raise StudyError(f"{folder} has {number} tables called metadata; keep one of them.")
    parts = [part for table in tables for part in _slices(table)]
    beside = {f.with_suffix(""): f for f in of_kind(*TABLES) if f not in tables}
    for tar in of_kind(".tar"):
        columns.check(tar, "a tar")
        table = beside.pop(tar.with_suffix(""), None)
        parts.append(Part(_length(table) if table else len(_captions(Tar(tar))), table, tar))
    alone = [table for table in beside.values() if table.suffix.lower() == ".parquet"]
    if alone and not tables:
        advice = "Download it, or if this table has captions and paths, name it as laion"
        raise StudyError(f"{alone[0]}: no {alone[0].stem}.tar lies beside it. {advice}.")
    archives = of_kind(*ARCHIVES)
    if not parts:
        there = f"no parquet shards in {place}, no tars, and no metadata.csv or metadata.jsonl"
        there = f"{tables[0]} has no rows" if tables else there
        there += ", but archives: unpack them" * bool(archives)
        advice = "Fill it (helpers.paper.download.laion), or name another as laion"
        raise StudyError(f"{there}. {advice} in {config.FILE}.")
    named = {file for part in parts if part.tar is None for file in part.table["file"]}
    loose = {str(file) for file in of_kind(*pictures.ENDINGS)} - named
    left_out = [f"{len(loose)} pictures that no table names"] * bool(loose)
    left_out += [f"{len(archives)} archives, which have to be unpacked"] * bool(archives)
    if left_out:
        progress.say(f"pool: left out of {place}: {' and '.join(left_out)}")
    return parts


def _of_kind(files: list[Path], *endings: str) -> list[Path]:
    """Those with one of the endings, in any case; of one stem the .parquet last."""
    found = [file for file in files if file.suffix.lower() in endings]
    return sorted(found, key=lambda file: (file.suffix.lower() == ".parquet", file))


def _length(table: Path) -> int:
    """How many rows a table has; of .parquet the columns and the first rows are looked at."""
    first = columns.evened(_read(table, PEEK), table)
    packed = table.suffix.lower() == ".parquet"
    return columns.parquet(table).metadata.num_rows if packed else len(first)


def _slices(file: Path) -> list[Part]:
    """A table of captions and paths, ``SHARD`` rows at a time; ``file`` is where a picture lies."""
    table = columns.evened(_read(file), file)
    column = next((c for name in PATHS for c in table.columns if c.lower() == name), None)
    if column is None:
        have, valid = (", ".join(names) for names in (table.columns, PATHS))
        raise StudyError(f"{file} has no column of pictures' paths, only {have}. Valid: {valid}.")
    paths = columns.texts(table[column], file).fill_null("").alias("URL")
    places = [file.parent / path for path in paths]
    inside = [".." not in p.parts and p.is_relative_to(file.parent) for p in places]
    files = [str(p) if ok else None for p, ok in zip(places, inside, strict=True)]
    table = table.with_columns(paths, pl.Series("file", files, pl.String))
    return [Part(len(rows), rows, None) for rows in table.iter_slices(SHARD)]


def _read(file: Path, first: int | None = None) -> pl.DataFrame:
    """A table in a file, of .parquet perhaps only the ``first`` rows; all columns of .csv, .tsv and
    .jsonl are texts. Else ``StudyError``.
    """
    ending = file.suffix.lower()
    if ending == ".parquet":
        columns.parquet(file)
        with reading(file, pl.exceptions.PolarsError):
            return pl.read_parquet(file, n_rows=first, glob=False)
    columns.check(file, "a table")
    try:
        if file.stat().st_size > TABLE_BYTES:
            raise ValueError(f"it has over {TABLE_BYTES:,} bytes; write it as .parquet")
        text = file.read_text("utf-8-sig")
        if ending == ".jsonl":
            lines = [line for line in text.split("\n") if line.strip()]
            rows = [json.loads(line, parse_constant=lambda _: None) for line in lines]  # no "nan"
            kept = (list, dict, type(None))  # the first two are told later: they are no text
            flat = [{k: v if isinstance(v, kept) else str(v) for k, v in r.items()} for r in rows]
            return pl.DataFrame(flat, infer_schema_length=None)
        separator = max(",;\t|", key=text.partition("\n")[0].count)
        table = pl.read_csv(text.encode(), separator=separator, infer_schema=False)
        if twice := [name for name in table.columns if "_duplicated_" in name]:
            raise ValueError(f"it has two columns {twice[0].partition('_duplicated_')[0]}")
        return table.rename(str.strip)
    except (ValueError, TypeError, AttributeError, RecursionError, pl.exceptions.PolarsError) as e:
        reason = " ".join(str(e).split())[:200]
        wanted = "UTF-8, with a header and as many columns in each row, or one JSON object a line"
        raise StudyError(f"cannot read {file}: {reason}. It wants {wanted}.") from e


def _build(path: Path, place: Path, side: int) -> None:
    """Look through all parts of a pool; keep the rows that have a caption and a picture."""
    folder = place.parent if place.is_file() else place
    jobs = {}
    for i, part in enumerate(find(place)):
        where = str(part.tar.relative_to(folder)) if part.tar else ""
        jobs[f"looked/{i:05d}.parquet"] = (part, where, path / "pictures" / f"{i:05d}.tar", side)
    what = "shards of the pool looked through"
    files = store.fill(path, jobs, look_through, what, len(jobs) > FEW, uses_gpu=False)
    kept, lost = 0, []
    kinds = {pl.read_parquet(file, n_rows=0, glob=False).schema.get("SAMPLE_ID") for file in files}
    for file in files:
        table = pl.read_parquet(file, glob=False)
        rows = table.filter(pl.col("lost").is_null()).drop("lost")
        lost.append(table.filter(pl.col("lost").is_not_null()).select("URL", "TEXT", "lost"))
        if "SAMPLE_ID" not in rows.columns:
            number = pl.int_range(pl.len()) + kept
            numbered = number if kinds == {None} else pl.format("row {}", number)
            rows = rows.with_columns(SAMPLE_ID=numbered)
        elif len(kinds) > 1:  # numbers here, words or nothing there
            rows = rows.with_columns(pl.col("SAMPLE_ID").cast(pl.String))
        if len(rows):
            store.write(path / file.name, rows)
        kept += len(rows)
    losses = pl.concat(lost)
    said = _told(place, kept, dict(losses["lost"].value_counts().rows()))
    if not kept:
        raise StudyError(f"{said}. Name another as laion.")
    if len(losses):
        progress.say(f"{said}. See {store.write(path / 'lost.parquet', losses)}")


def look_through(part: Part, where: str, packed: Path, side: int) -> pl.DataFrame:
    """The rows of a part, where their pictures are, and why a row is lost; null when it is not.

    Every picture is read once. Those that are files go into a tar, ``packed``, which is new.
    """
    table, at, looked = _looked(part, side)
    lost, kept = [], []
    for reason, picture in looked:
        lost.append(reason)
        if part.tar is None and reason is None:
            kept.append(picture)
    table = table.with_columns(lost=pl.Series(lost, dtype=pl.String))
    if part.tar is None:
        texts = table.filter(pl.col("lost").is_null())["TEXT"]
        store.write(packed, tar_bytes(np.array(kept, np.uint8), [{"caption": t} for t in texts]))
        at = table["lost"].is_null().cum_sum().cast(pl.Int64) - 1
    table = table.with_columns(tar=pl.lit(where), image=pl.Series(at))
    return table.select(name for name in COLUMNS if name in table.columns)


def _looked(part: Part, side: int) -> tuple[pl.DataFrame, np.ndarray | None, Iterator[tuple]]:
    """The rows of a part, where their pictures are in its tar, and, as they are asked for, why each
    is lost (None: it is not), with its picture.
    """
    if part.tar is None:
        table, at = part.table, None
        files = table.select("file", "URL").iter_rows()
        reads = [f and functools.partial(pictures.rgb, Path(f), url, side) for f, url in files]
        why = ["a path that leads out of the folder"] * len(table)
    else:
        table, images, at = _matched(part, side)
        reads = [functools.partial(images.__getitem__, [i]) if i >= 0 else None for i in at]
        why = table["status"] if "status" in table.columns else [""] * len(table)
    said = table["lost"] if part.table is None else [None] * len(table)
    long = table["TEXT"].str.len_bytes() > TEXT_BYTES
    return table, at, map(_picture, reads, why, said, long)


def _picture(read: Callable | None, why: str, said: str | None, long: bool) -> tuple:
    """Why a row is lost, or None, and what ``read`` gives; ``why`` where it has nothing to read."""
    if not read:
        return NO_PICTURE if why in ("", "success") else why, None
    try:
        return said or (NO_CAPTION if long else None), read()
    except StudyError as e:
        missing = isinstance(e.__cause__, FileNotFoundError)
        return "no such file" if missing else UNREADABLE, None


def _matched(part: Part, side: int) -> tuple[pl.DataFrame, Tar, np.ndarray]:
    """The rows of a part with a tar, its pictures, and where each row's is, or -1."""
    images = Tar(part.tar, side)
    table = columns.evened(_read(part.table), part.table) if part.table else _captions(images)
    keys = table["key"].to_list() if "key" in table.columns else None
    return table, images, images.matched(keys, len(table), part.table or part.tar)


def _captions(tar: Tar) -> pl.DataFrame:
    """What a tar says of its pictures; ``lost`` says why, where there is no caption."""
    texts = [m for m in tar.members if m.ending == ".txt" and m.size <= TEXT_BYTES]
    said = {}
    for member, data in zip(texts, tar.read(texts), strict=True):
        try:
            said[member.key] = data.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            said[member.key] = None
    keys = list(dict.fromkeys([*(member.key for member in tar.images), *said]))
    lost = [NO_CAPTION if said.get(key) is None else None for key in keys]
    found = {"key": keys, "URL": keys, "TEXT": [said.get(key) for key in keys], "lost": lost}
    return columns.evened(pl.DataFrame(found, dict.fromkeys(found, pl.String)), tar.path)
