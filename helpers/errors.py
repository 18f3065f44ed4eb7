"""Errors that a user can put right, in one clear message each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import NamedTuple


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
