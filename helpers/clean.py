"""What earlier versions of the study and killed runs left in a world's folders, and its removal."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from helpers import worlds
from helpers.engine import artifacts, places, store
from helpers.worlds import World

NAMED = re.compile(r"[a-z]+-(.+-)?[0-9a-f]{12}(-[0-9a-f]{16}\.pt)?")  # by store.py


def clean(w: World, remove: bool) -> None:
    """Print what is left over in a world, with sizes; with ``remove`` it is gone afterwards.

    What another process is building is waited for.
    """
    found = {path: store.size(path) for path in _left(w)}
    for path, size in found.items():
        print(f"{size / 1e6:9.1f} MB  {path}")
        if remove and path.is_dir() and not path.is_symlink():
            with store.alone(path):
                shutil.rmtree(path)
        elif remove:
            path.unlink(missing_ok=True)
    way = "removed" if remove else f"to remove it: python -m helpers.run {w.name} --clean --yes"
    print(
        f"{len(found)} left over, {sum(found.values()) / 1e9:.2f} GB{f'; {way}' if found else ''}"
    )


def _left(w: World) -> list[Path]:
    """What no key of today's code and settings names, and files that a killed run was writing.

    Keys are those of seed 0, of the world's own, and of all that have a folder of copies.
    """
    top, figures = (root / w.name for root in (places.root(), places.figures_root()))
    seeds = {0, w.seed, *(int(path.name.removeprefix("seed-")) for path in top.glob("seed-*"))}
    every = [worlds.get(w.name, seed=seed) for seed in seeds]
    today = tuple(f"{name}-{artifacts.key(name, e)}" for name in artifacts.ARTIFACTS for e in every)
    named = [p for p in top.glob("*/*") if NAMED.fullmatch(p.name)]
    torn = [*top.glob("*.tmp"), *top.glob("seed-*/*.tmp"), *figures.rglob("*.tmp")]
    return sorted([*(p for p in named if not p.name.startswith(today)), *torn])
