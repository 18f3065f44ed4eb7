"""The notebooks of the study: their numbers, what they ask and read, what they cost."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from helpers.engine import artifacts, places, store
from helpers.errors import reading, unknown

TIMES = "00_timing.csv"  # notebook, seconds: beside a world's figures


def notebooks() -> dict[str, Path]:
    """Number -> path of every notebook, in order."""
    return {p.name[:2]: p for p in sorted(places.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}


def chosen(names: Sequence[str]) -> list[Path]:
    """The notebooks of these numbers or names, all without any; ``StudyError`` on others."""
    by_name = {path.stem: path for path in notebooks().values()}
    known = notebooks() | by_name
    for name in names:
        if name.removesuffix(".ipynb") not in known:
            raise unknown("notebook", name, known)
    wanted = {known[name.removesuffix(".ipynb")] for name in names}
    return [path for path in by_name.values() if not names or path in wanted]


def _opening(path: Path) -> list[str]:
    """The lines of a notebook's first two cells: its title, and the table of what it reads."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"][:2]
    return [line for cell in cells for line in "".join(cell["source"]).splitlines()]


def title(path: Path) -> str:
    """Number and question of a notebook: the heading that it begins with."""
    return _opening(path)[0].removeprefix("# ")


def row(path: Path, name: str) -> str:
    """What the table at a notebook's beginning says in a row, such as Reads."""
    return next((line.split("|")[2] for line in _opening(path) if f"**{name}**" in line), "")


def times(world: str, root: Path | None = None) -> dict[str, float]:
    """Notebook -> seconds of the last run in a world that built something, from ``TIMES``."""
    path = (root or places.figures_root()) / world / TIMES
    if not path.exists():
        return {}
    with reading(path, KeyError, way="it wants the columns notebook, seconds; delete it"):
        return pd.read_csv(path).set_index("notebook")["seconds"].astype(float).to_dict()


def record(world: str, name: str, seconds: float) -> None:
    """Add the seconds that a notebook took to those that are known, in place of its own."""
    folder = places.figures_root() / world
    with store.alone(folder):
        merged = times(world) | {name: round(seconds, 1)}
        table = pd.DataFrame(sorted(merged.items()), columns=["notebook", "seconds"])
        store.write(folder / TIMES, table.to_csv(index=False).encode())


def listing(world: str, names: Sequence[str] = ()) -> str:
    """Number, cost and question of notebooks in a world, a line each."""
    rows = [(path.stem, _cost(path, world), title(path)) for path in chosen(names)]
    width = max(len(cost) for _, cost, _ in rows)
    return "\n".join(f"{n:24s} {cost:>{width}s}  {question[5:]}" for n, cost, question in rows)


def _cost(path: Path, world: str) -> str:
    """The last measured time of a notebook in a world; or "est.", and as it says or in pocket."""
    stated = re.search(world + r": [^;]*?([^;,|]*(?:minute|hour|day)[^,;|]*)", row(path, "Time"))
    here, committed = times(world), times(artifacts.MEASURED, places.COMMITTED)
    if path.stem in here:
        return f"{here[path.stem]:.0f} s"
    if stated:
        return f"est. {stated[1].strip()}"
    known = path.stem in committed
    return f"est. {committed[path.stem]:.0f} s in pocket" if known else "est. not measured"
