"""The pool that ``paper.toml`` names as ``laion``: looked through once, then a table per shard.

It is a folder of img2dataset's shards, 00000.parquet beside 00000.tar, as download/laion.py leaves
them; of webdataset tars with a .txt or .json caption per picture; or a table of captions and paths
of pictures (.csv, .tsv, .jsonl, .parquet), or a folder with such a table, ``metadata.csv``, as
Hugging Face's image folders have one. Pictures of a table are packed into tars, ``kept`` pixels
square. Every row is kept or counted as lost, with its reason, in ``lost.parquet``.
"""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from helpers.data import columns, pictures
from helpers.data.shards import Member, Tar, tar_bytes
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
    """The pool that is configured, looked through when it is first opened.

    Its images are ``kept`` pixels square. ``StudyError`` where there is none, or a shard whose
    captions and pictures cannot be told apart.
    """
    s = config.settings()
    artifact = store.get("pool", w, lambda path: _build(path, s.laion, s.kept))
    shards = artifact.files("?????.parquet")
    sizes = tuple(columns.parquet(shard).metadata.num_rows for shard in shards)
    return Pool(tuple(shards), functools.partial(_fetch, s.laion, s.kept), sizes)


def _fetch(place: Path, side: int, shard: Path, rows: np.ndarray) -> np.ndarray:
    """The images at positions ``rows`` of a shard of the pool, (n, side, side, 3) uint8."""
    listed = pl.read_parquet(shard, columns=["tar", "image"], glob=False)
    tar = listed["tar"][0]
    packed = shard.parent / tar
    return Tar(packed if packed.exists() else place / tar, side)[listed["image"].to_numpy()[rows]]


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
    if tables:
        return list(itertools.chain.from_iterable(map(_slices, tables)))
    tars = {file.with_suffix(""): file for file in files if file.suffix.lower() == ".tar"}
    parts = []
    for table in (file for file in files if file.suffix.lower() == ".parquet"):
        tar = tars.pop(table.with_suffix(""), None)
        if tar is None:
            advice = "download them with helpers.paper.download.laion"
            raise StudyError(
                f"{table} has no pictures: no {table.stem}.tar lies beside it; {advice}."
            )
        parts.append(Part(columns.parquet(table).metadata.num_rows, table, tar))
    parts += [Part(len(Tar(tar)), None, tar) for tar in tars.values()]
    if not parts:
        there = f"no parquet shards in {place}, no tars, and no metadata.csv or metadata.jsonl"
        if any(file.suffix.lower() in (".zip", ".gz", ".tgz") for file in files):
            there += ", but archives: unpack them"
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
    what = columns.kind(file) or ("" if ending in TABLES else "something else")
    if what:
        raise StudyError(f"{file} is not a table ({', '.join(TABLES)}) but {what}.")
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
        lost.append(table.filter(pl.col("lost").is_not_null()).select("URL", "TEXT", "key", "lost"))
        rows = table.filter(pl.col("lost").is_null()).drop("lost")
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
        image = images.matched(keys, len(table), part.table or tar)
        status = pl.col("status") if "status" in table.columns else pl.lit("success")
        why = pl.when(pl.col("image") < 0).then(
            status.cast(pl.String).replace("success", NO_PICTURE)
        )
        table = table.with_columns(pl.Series("image", image, pl.Int64))
        table = table.with_columns(lost=why.when(pl.col("TEXT").is_null()).then(pl.lit(NO_CAPTION)))
    where = tar.relative_to(place) if part.tar else Path(tar.parent.name, tar.name)
    table = table.with_columns(pl.lit(str(where)).alias("tar"), pl.col("TEXT").fill_null(""))
    for name, usual in (("URL", ""), ("NSFW", "UNTAGGED"), ("key", "")):
        if name not in table.columns:
            table = table.with_columns(pl.lit(usual).alias(name))
    return table.select(name for name in COLUMNS if name in table.columns)


def _captions(tar: Tar) -> pl.DataFrame:
    """What a tar says of its pictures: ``key, URL, TEXT``, null where there is no caption."""
    texts = {m.key: m for ending in (".json", ".txt") for m in tar.members if m.ending == ending}
    short = [m for m in texts.values() if m.size <= TEXT_BYTES]
    captions = {m.key: _caption(text, m) for m, text in zip(short, tar.read(short), strict=True)}
    keys = list(dict.fromkeys([*(m.key for m in tar.images), *texts]))
    said = pl.Series("TEXT", [captions.get(key) for key in keys], pl.String)
    return pl.DataFrame(
        [pl.Series("key", keys, pl.String), pl.Series("URL", keys, pl.String), said]
    )


def _caption(data: bytes, member: Member) -> str | None:
    """The caption in a .txt or .json member; None where it cannot be read."""
    try:
        text = data.decode("utf-8-sig")
        if member.ending == ".json":
            about = json.loads(text)
            text = str(about[columns.captions(list(about), member.key)])
        return text.strip()
    except (ValueError, TypeError, RecursionError, StudyError):
        return None


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
