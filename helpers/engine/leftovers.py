"""What earlier versions of the study and killed runs left in a world's folders, and its removal."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from helpers import worlds
from helpers.engine import artifacts, places, store
from helpers.worlds import World

NAMED = re.compile(r"[a-z]+(-.+)?-[0-9a-f]{12}(-[0-9a-f]{16}\.pt)?")  # by store.folder, unfinished


def cleaned(w: World, remove: bool) -> str:
    """What is left over in a world, a line each with its size; with ``remove`` it is gone then.

    What another process is building stays.
    """
    top = places.root() / w.name
    seeds = {0, w.seed, *(int(p.name[5:]) for p in top.glob("seed-*") if p.name[5:].isdigit())}
    found = {path: store.size(path) for path in _left(w, [*seeds])}
    lines = [f"{size / 1e6:9.1f} MB  {path}" for path, size in found.items()]
    total = f"{len(found)} left over in world {w.name}, {sum(found.values()) / 1e9:.2f} GB"
    known = f"no key of today's code and settings names them (seeds {sorted(seeds)})"
    if remove:
        for path in found:
            _remove(path)
        return "\n".join([*lines, f"removed: {total}"])
    way = f"To remove them: python -m helpers.run {w.name} --clean --yes" if found else ""
    return "\n".join([*lines, f"{total}: {known}. {way}".rstrip()])


def _left(w: World, seeds: list[int]) -> list[Path]:
    """Artifacts and states of jobs that no key names, and files that a killed run was writing."""
    top = places.root() / w.name
    figures = places.figures_root()
    every = [worlds.get(w.name, seed=seed) for seed in seeds]
    today = tuple(f"{name}-{artifacts.key(name, e)}" for name in artifacts.ARTIFACTS for e in every)
    kept = [*top.glob("store/*"), *top.glob("unfinished/*")]
    old = [p for p in kept if NAMED.fullmatch(p.name) and not p.name.startswith(today)]
    pages = [*top.glob("*.tmp"), *top.glob("seed-*/*.tmp")]
    return sorted([*old, *pages, *figures.glob("*.tmp"), *(figures / w.name).rglob("*.tmp")])


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        with store.alone(path, wait=False):
            shutil.rmtree(path)
    except BlockingIOError:
        print(f"left, as another process is building it: {path}")
