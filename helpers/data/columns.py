"""Tables of image-text pairs as people have them, with LAION's columns: one place that checks.

Spellings in use are those of LAION, Re-LAION, img2dataset, clip-retrieval, and in capitals.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.errors import StudyError, reading

SPELLINGS = {  # LAION's names -> others, in small letters, the best first
    "TEXT": ("caption", "text"),
    "URL": ("url",),
    "SAMPLE_ID": ("sample_id", "id"),
    "NSFW": ("nsfw", "punsafe"),
    "similarity": ("similarity",),
    "key": ("key",),
    "status": ("status",),
}
PLAIN = (pl.Null, pl.Binary, pl.Categorical, pl.Enum)  # what becomes text in any column
UNSAFE = 0.5  # from this probability on (``punsafe``) a pair counts as NSFW
UNTOLD = ("", "NAN", "NONE", "NULL")  # in a column of tags
ROWS = 200_000_000  # of one file
KINDS = {  # how files begin that are not what their names say
    b"version https://git-lfs": "a pointer of git-lfs; get the file itself: git lfs pull",
    b"<": "an HTML or XML page, not the data; log in where it was downloaded",
    b"\x1f\x8b": "compressed by gzip; unpack it: gunzip",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"BZh": "compressed by bzip2; unpack it: bunzip2",
    b"\xfd7zXZ": "compressed by xz; unpack it: unxz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it: unzstd",
}


def check(file: Path, wanted: str) -> None:
    """Raise ``StudyError`` on no regular file, one that is not ``wanted``, a name not in UTF-8."""
    if re.search("[\ud800-\udfff]", str(file)):
        raise StudyError(f"{str(file)!r} is no name in UTF-8. Rename the file, or its folder.")
    with reading(file):
        if not stat.S_ISREG(file.stat().st_mode):
            raise StudyError(f"{file} is not {wanted} but a folder, pipe or device. Take it out.")
        with file.open("rb") as opened:
            start = opened.read(64)
    found = next((what for magic, what in KINDS.items() if start.lstrip().startswith(magic)), "")
    if found or not start:
        what = found or "an empty file (0 bytes); get it again"
        raise StudyError(f"{file} is not {wanted} but {what}. Or take it out of its folder.")


def parquet(file: Path) -> pq.ParquetFile:
    """A parquet file, opened; ``StudyError`` says what it is where it is none, or too long."""
    check(file, "a parquet file")
    with reading(file):
        found = pq.ParquetFile(file)
    if found.metadata.num_rows > ROWS:
        raise StudyError(f"{file} has more than {ROWS:,} rows. Split it into smaller files.")
    return found


def named(columns: Sequence[str]) -> dict[str, str]:
    """LAION's names of a table's columns -> the names that the table has."""
    found = {}
    for name, others in SPELLINGS.items():
        exact = [column for column in columns if column == name]
        alike = [column for other in others for column in columns if column.lower() == other]
        if exact or alike:
            found[name] = (exact + alike)[0]
    return found


def captions(columns: Sequence[str], where: object) -> str:
    """The name of the column of captions; ``StudyError`` where there is none."""
    text = named(columns).get("TEXT")
    if text is None:
        valid = ", ".join(("TEXT", *SPELLINGS["TEXT"]))
        problem = f"{where} has no text column; it has {', '.join(columns) or 'none'}"
        raise StudyError(f"{problem}. Valid: {valid}. Rename one.")
    return text


def texts(column: pl.Series, where: object) -> pl.Series:
    """A column as text: categories, numbers and bytes in UTF-8 are converted, null stays null.

    Raises ``StudyError`` on lists, and on bytes that are no UTF-8.
    """
    if column.dtype != pl.Null and (column.dtype.is_nested() or column.dtype == pl.Object):
        problem = f"column {column.name} of {where} holds {column.dtype}"
        raise StudyError(f"{problem}. Write one text a row.")
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError as e:
        raise StudyError(f"{column.name} of {where} is not UTF-8. Decode it, write texts.") from e


def evened(table: pl.DataFrame, where: object) -> pl.DataFrame:
    """The same rows with LAION's names, its tags in ``NSFW``, texts as texts, "" for null.

    Raises ``StudyError`` without a column of captions, or when two of one name differ.
    """
    captions(table.columns, where)
    for name, column in named(table.columns).items():
        for other in [c for c in table.columns if c != column and c.lower() == column.lower()]:
            if not table[other].equals(table[column].alias(other)):
                raise StudyError(f"{where}: {column} and {other}, both {name}, differ. Drop one.")
            table = table.drop(other)
        alike = [c for c in table.columns if c.lower() in SPELLINGS[name] and c != column]
        first = [column, *(c for c in alike if table[c].dtype == table[column].dtype)]
        table = table.with_columns(pl.coalesce(first)).rename({column: name})
    added = [pl.lit(None).alias(name) for name in ("URL", "NSFW") if name not in table.columns]
    table = table.with_columns(added)
    changed = []
    for name, dtype in table.schema.items():
        if name == "NSFW":
            changed.append(_tags(table[name], where))
        elif name in ("TEXT", "URL", "key", "status"):
            changed.append(texts(table[name], where).fill_null(""))
        elif name == "similarity" and not dtype.is_numeric():
            changed.append(texts(table[name], where).cast(pl.Float64, strict=False))
        elif not dtype.is_numeric() and (name in SPELLINGS or dtype in PLAIN):
            changed.append(texts(table[name], where))
    return table.with_columns(changed)


def of_pandas(table: pd.DataFrame, where: object) -> pl.DataFrame:
    """The same of a pandas table; ``StudyError`` also on a column of several types."""
    try:
        return evened(pl.from_pandas(table), where)
    except (pa.ArrowException, TypeError, ValueError, pl.exceptions.PolarsError) as e:
        raise StudyError(f"{where} cannot be read: {e}. Give each column one type.") from e


def _tags(column: pl.Series, where: object) -> pl.Series:
    """LAION's tags, of tags, probabilities, or truth values, which may be written as text."""
    tags = texts(column, where).fill_null("").str.strip_chars().str.to_uppercase()
    numbers = tags.replace({"TRUE": "1", "FALSE": "0"}).cast(pl.Float64, strict=False)
    unsafe = {True: "NSFW", False: "UNLIKELY"}
    found = (numbers.fill_nan(None) >= UNSAFE).replace_strict(unsafe, return_dtype=pl.String)
    return found.fill_null(tags.replace(dict.fromkeys(UNTOLD, "UNTAGGED")))
