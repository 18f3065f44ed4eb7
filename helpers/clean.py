"""What earlier versions of the study and killed runs left in a world's folders, and its removal."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from helpers.engine import artifacts, places, store
from helpers.worlds import World

# an artifact or the state of a job, as store.py names it: what it is, the edition of its code
NAMED = re.compile(r"([a-z]+)-(?:.+-)?([0-9a-f]{4})[0-9a-f]{8}(?:-[0-9a-f]{16}\.pt)?")


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
    """What no key of today's code can name, and files that a killed run was writing."""
    top, figures = (root / w.name for root in (places.root(), places.figures_root()))
    today = {(name, artifacts.edition(name, w)) for name in artifacts.ARTIFACTS}
    named = {path: NAMED.fullmatch(path.name) for path in top.glob("*/*")}
    old = [path for path, match in named.items() if match and match.groups() not in today]
    return sorted([*old, *top.glob("*.tmp"), *top.glob("seed-*/*.tmp"), *figures.rglob("*.tmp")])
