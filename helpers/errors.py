"""Errors that a user can put right, in one clear message each."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, NamedTuple

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


class Need(NamedTuple):
    """Something notebooks need and may not find: what, for which numbers, where, how to get it."""

    what: str
    notebooks: str
    found: bool
    where: str
    get: str = ""


COLUMNS = (8, 24, 25, 43)  # of a table of needs: status, what, notebooks, where
COMMAND = re.compile(r'python -c "[^"]*"|python -m \S+ \S+|hf download \S+|git \S+ \S+')


def table(needs: Iterable[Need]) -> list[str]:
    """A line of at most 100 columns for each need, what is missing last; then, at length, what did
    not fit, and how to get what is missing.
    """
    lines, details = [], []
    for need in sorted(needs, key=lambda need: not need.found):
        status = "found" if need.found else "MISSING"
        texts = (status, need.what, f"for {need.notebooks}", need.where)
        short = [_cut(text, width) for text, width in zip(texts, COLUMNS, strict=True)]
        lines.append("".join(short).rstrip())
        if not need.found or "\N{HORIZONTAL ELLIPSIS}" in lines[-1]:
            way = "" if need.found else f". {need.get}"
            details.append(folded(f"{need.what}: {need.where}{way}"))
    return lines + details


def _cut(text: str, width: int) -> str:
    """A text with spaces to a width; the middle of one that does not fit is left out."""
    room = width - 1  # a space to the next
    if len(text) > room:
        text = f"{text[: room // 2]}\N{HORIZONTAL ELLIPSIS}{text[room // 2 - room + 1 :]}"
    return f"{text:{width}s}"


def folded(text: str) -> str:
    """A text in lines of at most 100 columns; commands, paths and names are not taken apart."""
    whole = COMMAND.sub(lambda command: command[0].replace(" ", "\0"), text)
    options = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(whole, 100, subsequent_indent=" " * 8, **options).replace("\0", " ")


class StudyError(Exception):
    """Something a user can put right: what was given, what is valid, and what to do next."""


class NotKnown(StudyError):
    """Something that only some worlds can know, such as how many wheels a picture really shows."""


def ask(fn: Callable, *arguments: Any) -> Any:
    """``fn(*arguments)``, or None after one line that says why, where a world cannot know it."""
    try:
        return fn(*arguments)
    except NotKnown as e:
        print(f"left out: {e}")
        return None


def unknown(kind: str, given: object, valid: Iterable[object]) -> StudyError:
    """A ``StudyError`` for a name that is not one of ``valid``, which suggests the nearest one."""
    names = [str(v) for v in valid]
    close = difflib.get_close_matches(str(given), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return StudyError(f"unknown {kind} {given!r}.{hint} Valid: {', '.join(names)}.")


def equally_many(**given: Sized | None) -> None:
    """Raise ``StudyError`` unless arguments that go together are equally many (None: not given)."""
    counts = {name: len(values) for name, values in given.items() if values is not None}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{n} {name}" for name, n in counts.items())
        raise StudyError(f"{listed} were given; they go together one by one, so give equally many.")


def replaced(settings: Any, changes: Mapping[str, Any], path: str) -> Any:
    """A frozen dataclass with ``changes``: values, or mappings for the settings within it.

    Raises ``StudyError`` on a name that is no field, and on a value that its type, with pydantic's
    bounds, does not allow. ``path`` says whose settings they are.
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    values = {}
    for name, value in changes.items():
        if name not in hints:
            raise unknown(f"setting of {path}", name, sorted(hints))
        current = getattr(settings, name)
        given = f"setting {name} of {path} was given {value!r}"
        if not dataclasses.is_dataclass(current):
            values[name] = _fitting(hints[name], value, given, current)
        elif isinstance(value, Mapping):
            values[name] = replaced(current, value, f"{path}.{name}")
        else:
            raise StudyError(f"{given}; it wants a mapping of settings, as in {name}={{...}}.")
    return dataclasses.replace(settings, **values)


def _fitting(hint: Any, value: Any, given: str, usual: object) -> Any:
    """``value``, of the type ``hint`` as it is: nothing is converted. Else ``StudyError``."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError as e:
        problem = e.errors()[0]
        if problem["type"] == "literal_error":
            raise unknown(given.partition(" was given")[0], value, typing.get_args(hint)) from e
        limit = problem.get("ctx", {}).get("ge")
        if limit is not None:
            wanted = f"at least {limit}" if limit else "no negative number"
        else:
            wanted = "at least one" if problem["type"] == "too_short" else _in_words(hint)
        raise StudyError(f"{given}; it wants {wanted}, like {usual!r}.") from e
    return value


def _in_words(hint: Any) -> str:
    """A type in words, those of its description if it has one: "an int", "a tuple of str"."""
    if typing.get_origin(hint) is typing.Annotated:
        plain, *details = typing.get_args(hint)
        said = (getattr(detail, "description", None) for detail in details)
        return next(filter(None, said), "") or _in_words(plain)
    if typing.get_origin(hint) is tuple:
        part = _in_words(typing.get_args(hint)[0])
        return "a tuple of tuples" if "tuple" in part else f"a tuple of {part.split()[-1]}"
    return f"{'an' if hint is int else 'a'} {hint.__name__}"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk, or a file in the way, into a ``StudyError`` with advice."""
    try:
        yield
    except OSError as e:
        advice = "Set STUDY_RUNS (and STUDY_FIGURES) to a folder that can be written to."
        other = Path(str(e.filename or path)).absolute()  # opened on the way, and may refuse, too
        if e.errno in FULL:
            reason = f"disk full while writing {path}. Free some space or move on: {advice}"
        elif e.errno not in REFUSED:
            raise
        elif not (str(other).startswith(str(path.absolute())) or other in path.absolute().parents):
            reason = f"{other}: {e.strerror}. It is needed for {path}."
        elif e.filename is None and path.is_dir():  # an artifact is being built
            reason = f"{e.strerror}, maybe of /dev/shm, where locks are shared; {path} needs it."
        else:
            blocking = [p for p in (path.absolute(), *path.absolute().parents) if p.is_file()]
            blocked = e.errno in (errno.ENOTDIR, errno.EEXIST) and blocking
            why = f"{blocking[-1]} is a file, not a folder" if blocked else e.strerror
            reason = f"cannot write {path}: {why}. {advice}"
        raise StudyError(reason) from e


@contextlib.contextmanager
def reading(
    path: Path, *kinds: type[Exception], way: str = "delete it and make or download it again"
) -> Iterator[None]:
    """Turn what a damaged file raises, ``OSError``, ``ValueError`` or ``kinds``, into advice."""
    try:
        yield
    except (OSError, ValueError, *kinds) as e:
        damage = "missing, truncated or damaged (a broken image?)"
        raise StudyError(f"cannot read {path}: {e}. It is {damage}; {way}.") from e


def closed(error: OSError) -> None:
    """Raise ``StudyError`` about a folder that cannot be looked into, as ``os.walk`` found."""
    advice = "Allow it to be read, or take it out"
    raise StudyError(f"cannot look into {error.filename}: {error.strerror}. {advice}.") from error
