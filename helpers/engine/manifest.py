"""The list of an artifact's files with sizes and hashes: written last, held against them later.

Every file must have its size; small files, and files changed since the list was written, also the
same sha256. A large file that decays on the disk, its time unchanged, is not noticed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from pathlib import Path

from helpers.errors import StudyError

NAME = "manifest.json"
LARGEST = 2**26  # bytes of a manifest that are read: a million files
SMALL = 2**20  # bytes: all smaller files of a pocket store are hashed in a tenth of a second


def listed(folder: Path) -> dict[str, list]:
    """What a manifest says: every file below ``folder``, relative to it, with [bytes, sha256]."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name not in (NAME, ".lock"))
    return {str(f.relative_to(folder)): [f.stat().st_size, _digest(f, *_state(f))] for f in files}


def verify(folder: Path) -> None:
    """Raise ``StudyError`` when the files in ``folder`` are not what its manifest says."""
    file = folder / NAME
    try:
        written = file.stat().st_mtime_ns
        with file.open("rb") as opened:
            rows = json.loads(opened.read(LARGEST))
        expected = [(folder / f, int(size), str(digest)) for f, (size, digest) in rows.items()]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as e:
        raise StudyError(f"{file} is not the list of files that it should be ({e}).") from e
    if not expected:
        raise StudyError(f"{file} lists no files.")
    changed = [_large_and_changed(*row, written) for row in expected]
    if any(changed):
        # large and unharmed, as after a copy that kept no times: not to be read again next time
        with contextlib.suppress(OSError):
            os.utime(file)


def _large_and_changed(file: Path, size: int, digest: str, written: int) -> bool:
    """Whether a file is large and younger than the manifest; ``StudyError`` when it is another."""
    found, changed = _state(file) if file.is_file() else (0, 0)
    if found != size:
        raise StudyError(f"{file} has {found} bytes instead of {size}.")
    if (size < SMALL or changed > written) and _digest(file, found, changed) != digest:
        raise StudyError(f"{file} holds other bytes than when it was made.")
    return size >= SMALL and changed > written


def _state(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns


@functools.lru_cache(maxsize=16_384)
def _digest(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
