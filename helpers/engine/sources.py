"""Which modules of this package a module depends on: what it imports, and what that imports.

Keys of artifacts are made of their sources (engine/artifacts.py), but for settings, which count by
their values, and errors, whose messages no result needs.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import re
from pathlib import Path

from helpers.engine.places import PACKAGE

UNCOUNTED = ("helpers.worlds", "helpers.settings", "helpers.errors")
SEAM = re.compile(r"\bbackend\(\w+\)\.(\w+)")  # how code asks for what a world supplies


def path_of(module: str) -> Path:
    """The file of a dotted module of this package, such as "helpers.study.captions"."""
    return PACKAGE.parent / Path(*module.split(".")).with_suffix(".py")


@functools.cache  # a source edited during a run does not change what the run looks for
def _text(module: str) -> str:
    """A module's source without what editors change by themselves: space at ends of lines."""
    lines = path_of(module).read_text(encoding="utf-8").splitlines()
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


@functools.cache
def digest(module: str) -> str:
    """The sha256 of a module's source; comments count."""
    return hashlib.sha256(_text(module).encode()).hexdigest()


@functools.cache
def imported(module: str) -> frozenset[str]:
    """The modules of this package that a module imports, wherever in its text it does so."""
    found = set()
    for node in ast.walk(ast.parse(_text(module))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(
        name for name in found if name.startswith("helpers.") and path_of(name).is_file()
    )


@functools.cache
def behind_seam(module: str, backend: str) -> frozenset[str]:
    """The modules of the package ``backend`` whose functions a module asks for."""
    table = importlib.import_module(f"helpers.{backend}").SEAM
    asked = SEAM.findall(_text(module))
    return frozenset(table[name].partition(":")[0] for name in asked if name in table)


@functools.cache
def closure(module: str, backend: str) -> tuple[str, ...]:
    """``module`` and all that it depends on in worlds of this backend; empty without the module."""
    found: set[str] = set()
    waiting = {module} if path_of(module).is_file() else set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= imported(name) | behind_seam(name, backend)
        waiting -= found.union(UNCOUNTED)
    return tuple(sorted(found))
