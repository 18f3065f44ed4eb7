"""Replacing settings in frozen dataclasses, with names, types and signs checked: what is wrong is said before anything runs."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping

from helpers.errors import StudyError, unknown

NEVER_EMPTY = ("tasks", "sizes", "lrs", "rules", "filters")
MAY_BE_ZERO = ("beyond", "synthetic_beyond")  # positive by default, but need not be


def override(settings, changes: Mapping, path: str):
    """``settings`` with ``changes``, a mapping of field names to values or, for settings within settings, to further mappings.

    Raises ``StudyError`` on a name that is no field, and on a value of another type, sign or length; ``path`` names the settings there.
    """
    hints = typing.get_type_hints(type(settings))
    values = {}
    for key, value in changes.items():
        if key not in hints:
            raise unknown(f"setting of {path}", key, sorted(hints))
        current = getattr(settings, key)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(current):
            value = override(current, value, f"{path}.{key}")
        else:
            _check(key, value, hints[key], current, path)
        values[key] = value
    return dataclasses.replace(settings, **values)


def _check(key: str, value, hint, current, path: str) -> None:
    given = f"setting {key} of {path} was given {value!r}"
    if not _fits(value, hint):
        wanted = (
            f"a mapping of settings, as in {key}={{...}}"
            if dataclasses.is_dataclass(current)
            else f"{_words(hint)}, like {current!r}"
        )
        raise StudyError(f"{given}; it wants {wanted}.")
    if key in NEVER_EMPTY and not value:
        raise StudyError(f"{given}; it wants at least one, like {current!r}.")
    usual = list(_numbers(current))
    least = int(
        bool(usual) and min(usual) > 0 and key not in MAY_BE_ZERO and not _holds_float(hint)
    )  # what is counted starts at one
    if all(n >= 0 for n in usual) and any(n < least for n in _numbers(value)):
        raise StudyError(
            f"{given}; it wants {f'at least {least}' if least else 'no negative number'}, like {current!r}."
        )


def _fits(value, hint) -> bool:
    """Whether a value is of an annotated type; a whole number is a float too, but True is no number."""
    parts = typing.get_args(hint)
    if parts and parts[-1] is Ellipsis:
        return isinstance(value, tuple) and all(_fits(v, parts[0]) for v in value)
    if parts:
        return (
            isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
        )
    if hint is float:
        return (
            isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        )
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _holds_float(hint) -> bool:
    return hint is float or any(map(_holds_float, typing.get_args(hint)))


def _words(hint) -> str:
    """An annotated type in words: "an int", "a tuple of str", "a tuple (float, float)"."""
    parts = typing.get_args(hint)
    if not parts:
        return f"{'an' if hint is int else 'a'} {hint.__name__}"
    names = [
        p.__name__ if isinstance(p, type) and not typing.get_args(p) else "tuples"
        for p in parts
        if p is not Ellipsis
    ]
    return f"a tuple of {names[0]}" if Ellipsis in parts else f"a tuple ({', '.join(names)})"


def _numbers(value) -> Iterator[float]:
    """The numbers in a setting, those in its tuples included."""
    if isinstance(value, tuple):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
