"""The pool that ``paper.toml`` names as ``laion``: looked through once, then a table per shard.

It is a folder of img2dataset's shards, 00000.parquet beside 00000.tar, as download/laion.py leaves
them; of webdataset tars with a .txt beside each picture; or a table of captions and paths of
pictures (.csv, .tsv, .jsonl, .parquet), or a folder with such a table, ``metadata.csv``, as Hugging
Face's image folders have one. Pictures of a table are packed into tars, ``kept`` pixels square.
Every row is kept, or counted as lost, with its reason, in ``lost.parquet``.
"""

from __future__ import annotations

import functools
import json
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
TEXT_BYTES = 1_000_000  # of one caption
OWN = {"report", "_tmp"}  # folders of a download that are no part of a pool
COLUMNS = ("SAMPLE_ID", "URL", "TEXT", "NSFW", "similarity", "key", "tar", "image", "lost")
NO_PICTURE = "no picture under its key, or several"
NO_CAPTION = "no caption that can be read"


class Part(NamedTuple):
    """A piece of a pool as it was found: some rows of a table, and the tar of their pictures.

    Pictures without a tar are files; a tar without a table has its captions inside.
    """

    rows: int
    table: Path | pl.DataFrame | None
    tar: Path | None


def open_pool(w: World) -> Pool:
    """The pool that is configured, with images ``kept`` pixels square; looked through at first.

    ``StudyError`` where there is none, or where nobody knows which picture is whose.
    """
    s = config.settings()
    artifact = store.get("pool", w, lambda path: _build(path, s.laion, s.kept))
    shards = artifact.files("?????.parquet")
    sizes = tuple(columns.parquet(shard).metadata.num_rows for shard in shards)
    return Pool(tuple(shards), functools.partial(_fetch, s.laion, s.kept), sizes)


def _fetch(place: Path, side: int, shard: Path, rows: np.ndarray) -> np.ndarray:
    """The images at positions ``rows`` of a shard of the pool, (n, side, side, 3) uint8."""
    listed = pl.read_parquet(shard, columns=["tar", "image"], glob=False)
    packed = shard.parent / listed["tar"][0]
    tar = Tar(packed if packed.exists() else place / listed["tar"][0], side)
    return tar[listed["image"].to_numpy()[rows]]


def size(place: Path) -> int:
    """How many pairs are listed in a pool; ``StudyError`` as from ``find``."""
    return sum(part.rows for part in find(place))


def find(place: Path) -> list[Part]:
    """What a pool consists of; nothing is decoded. ``StudyError`` where that is no pool."""
    files = [place] if place.is_file() else list(pictures.files_below(place))
    files = [file for file in files if not OWN & set(file.relative_to(place).parts[:-1])]
    tables = [
        f for f in files if f.suffix.lower() in TABLES and (f == place or f.stem == "metadata")
    ]
    parts = [part for table in tables for part in _slices(table)]
    tars = {file.with_suffix(""): file for file in files if file.suffix.lower() == ".tar"}
    listed = [] if tables else [file for file in files if file.suffix.lower() == ".parquet"]
    for table in listed:
        tar = tars.pop(table.with_suffix(""), None)
        if tar is None:
            advice = "download them with helpers.paper.download.laion"
            problem = f"{table} has no pictures: no {table.stem}.tar lies beside it"
            raise StudyError(f"{problem}; {advice}.")
        parts.append(Part(columns.parquet(table).metadata.num_rows, table, tar))
    parts += [Part(len(Tar(tar)), None, tar) for tar in tars.values()]
    if not parts:
        packed = any(file.suffix.lower() in (".zip", ".gz", ".tgz") for file in files)
        there = f"no parquet shards in {place}, no tars, and no metadata.csv or metadata.jsonl"
        there += ", but archives: unpack them" * packed
        advice = "fill it with helpers.paper.download.laion.download, or name another folder"
        raise StudyError(f"{there}; {advice} as laion in {config.FILE}.")
    return parts


def _slices(file: Path) -> list[Part]:
    """A table of captions and paths, ``SHARD`` rows at a time; ``file`` is where a picture lies."""
    table = columns.evened(_read(file), file)
    column = next((c for name in PATHS for c in table.columns if c.lower() == name), None)
    if column is None:
        have = ", ".join(table.columns)
        valid = f"Valid: {', '.join(PATHS)}"
        raise StudyError(f"{file} has no column of pictures' paths; it has {have}. {valid}.")
    paths = columns.texts(table[column], file).fill_null("").alias("URL")
    places = [file.parent / path for path in paths]
    inside = [".." not in p.parts and p.is_relative_to(file.parent) for p in places]
    files = [str(p) if ok else None for p, ok in zip(places, inside, strict=True)]
    table = table.with_columns(paths, pl.Series("file", files, pl.String))
    return [Part(len(rows), rows, None) for rows in table.iter_slices(SHARD)]


def _read(file: Path) -> pl.DataFrame:
    """A table in a file; all columns of .csv, .tsv and .jsonl are texts. Else ``StudyError``."""
    ending = file.suffix.lower()
    if ending == ".parquet":
        columns.parquet(file)
        with reading(file, pl.exceptions.PolarsError):
            return pl.read_parquet(file, glob=False)
    columns.check(file, "a table")
    try:
        text = file.read_text("utf-8-sig")
        if ending == ".jsonl":
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
            flat = [{k: v if v is None else str(v) for k, v in row.items()} for row in rows]
            return pl.DataFrame(flat, infer_schema_length=None)
        separator = max(",;\t", key=text.partition("\n")[0].count)
        return pl.read_csv(text.encode(), separator=separator, infer_schema=False)
    except (ValueError, AttributeError, RecursionError, pl.exceptions.PolarsError) as e:
        reason = " ".join(str(e).split())[:200]
        wanted = "UTF-8, with a header and as many columns in each row, or one JSON object a line"
        raise StudyError(f"cannot read {file}: {reason}. It wants {wanted}.") from e


def _build(path: Path, place: Path, side: int) -> None:
    """Look through all parts of a pool; keep the rows that have a caption and a picture."""
    jobs = {}
    for i, part in enumerate(find(place)):
        tar = part.tar or path / "pictures" / f"{i:05d}.tar"
        jobs[f"looked/{i:05d}.parquet"] = (part, place, tar, side)
    what = "shards of the pool looked through"
    files = store.fill(path, jobs, look_through, what, len(jobs) > FEW, uses_gpu=False)
    kept = 0
    lost = []
    for file in files:
        table = pl.read_parquet(file, glob=False)
        rows = table.filter(pl.col("lost").is_null()).drop("lost")
        lost.append(table.filter(pl.col("lost").is_not_null()).select("URL", "TEXT", "lost"))
        if "SAMPLE_ID" not in rows.columns:
            rows = rows.with_columns(SAMPLE_ID=pl.int_range(pl.len()) + kept)
        if len(rows):
            store.write(path / file.name, rows)
        kept += len(rows)
    losses = pl.concat(lost)
    reasons = "; ".join(f"{n:,} {why}" for why, n in losses["lost"].value_counts(sort=True).rows())
    said = f"pool: {kept:,} pairs of {kept + len(losses):,} in {place}"
    if not kept:
        raise StudyError(f"{said}. Lost: {reasons or 'nothing'}. Name another as laion.")
    if len(losses):
        progress.say(f"{said}; lost: {reasons}. See {store.write(path / 'lost.parquet', losses)}")


def look_through(part: Part, place: Path, tar: Path, side: int) -> pl.DataFrame:
    """The rows of a part, where their pictures are, and why a row is lost; null when it is not.

    Pictures that are files go into ``tar``, which is new.
    """
    if isinstance(part.table, pl.DataFrame):
        table = _packed(part.table, tar, side)
    else:
        images = Tar(tar)
        table = columns.evened(_read(part.table), part.table) if part.table else _captions(images)
        keys = table["key"].to_list() if "key" in table.columns else None
        at = pl.Series("image", images.matched(keys, len(table), part.table or tar), pl.Int64)
        status = pl.col("status") if "status" in table.columns else pl.lit("success")
        why = pl.when(pl.col("image") < 0).then(
            status.cast(pl.String).replace("success", NO_PICTURE)
        )
        lost = why.otherwise(pl.col("lost") if "lost" in table.columns else None)
        table = table.with_columns(at).with_columns(lost=lost)
    where = tar.relative_to(place) if part.tar else Path(tar.parent.name, tar.name)
    table = table.with_columns(tar=pl.lit(str(where)))
    return table.select(name for name in COLUMNS if name in table.columns)


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


def _packed(table: pl.DataFrame, tar: Path, side: int) -> pl.DataFrame:
    """The rows of a table of paths; the pictures that can be read are written to ``tar``."""
    images = []
    lost = []
    for name, file in table.select("URL", "file").iter_rows():
        reason = None if file else "a path that leads out of the folder"
        try:
            if file:
                images.append(pictures.rgb(Path(file), name, side))
        except StudyError as e:
            missing = isinstance(e.__cause__, FileNotFoundError)
            reason = "no such file" if missing else "a picture that cannot be read"
        lost.append(reason)
    table = table.with_columns(pl.Series("lost", lost, pl.String))
    rows = [{"caption": text} for text in table.filter(pl.col("lost").is_null())["TEXT"]]
    store.write(tar, tar_bytes(np.array(images, np.uint8), rows))
    return table.with_columns(image=pl.col("lost").is_null().cum_sum().cast(pl.Int64) - 1)
