"""Errors that a user can put right, in one clear message each."""

from __future__ import annotations

import contextlib
import difflib
import errno
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


class Need(NamedTuple):
    """Something that notebooks need and may not find: what, for which of them (numbers), where, how to get it."""

    what: str
    notebooks: str
    found: bool
    where: str
    get: str = ""


class StudyError(Exception):
    """Something a user can put right; the message says what was given, what is valid, and what to do next."""


class NotKnown(StudyError):
    """Something that only some worlds can know, such as how many wheels a picture really shows."""


def ask(fn: Callable, *arguments):
    """``fn(*arguments)``, or None after one line that says why, where a world cannot know it."""
    try:
        return fn(*arguments)
    except NotKnown as e:
        print(f"left out: {e}")
        return None


def unknown(kind: str, given: str, valid: Iterable[str]) -> StudyError:
    """A ``StudyError`` for a name that is not one of ``valid``, with the nearest valid name as a suggestion."""
    valid = [str(v) for v in valid]
    close = difflib.get_close_matches(str(given), valid, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return StudyError(f"unknown {kind} {given!r}.{hint} Valid: {', '.join(valid)}.")


def equally_many(**given) -> None:
    """Raise ``StudyError`` when arguments that go together, one entry each, are not equally many; None stands for left out."""
    counts = {name: len(values) for name, values in given.items() if values is not None}
    if len(set(counts.values())) > 1:
        raise StudyError(
            f"{', '.join(f'{n} {name}' for name, n in counts.items())} were given; they go together one by one, so give "
            "equally many."
        )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk, or a file where a folder should be, into a ``StudyError`` that says what to do."""
    try:
        yield
    except OSError as e:
        advice = "Set STUDY_RUNS (and STUDY_FIGURES) to a folder that can be written to."
        if e.errno in FULL:
            raise StudyError(
                f"disk full while writing {path}. Free some space or move on: {advice}"
            ) from e
        if e.errno not in REFUSED:
            raise
        in_the_way = [p for p in (path.absolute(), *path.absolute().parents) if p.is_file()]
        blocked = e.errno in (errno.ENOTDIR, errno.EEXIST) and in_the_way
        reason = f"{in_the_way[-1]} is a file, not a folder" if blocked else e.strerror
        raise StudyError(f"cannot write {path}: {reason}. {advice}") from e
