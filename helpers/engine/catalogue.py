"""The notebooks of the study: their numbers, what they ask, read and write, and what they cost in a world."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.engine import artifacts
from helpers.engine.places import NOTEBOOKS, TOP, figures_root
from helpers.errors import StudyError, unknown


def notebooks() -> dict[str, Path]:
    """Number -> path of every notebook, in order."""
    return {p.name[:2]: p for p in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}


def chosen(names: Sequence[str]) -> list[Path]:
    """The notebooks of these numbers or names, all without any. Raises ``StudyError`` on an unknown one."""
    known = notebooks()
    for name in names:
        if name not in known and name.removesuffix(".ipynb") not in {
            p.stem for p in known.values()
        }:
            raise unknown("notebook", name, [*known, *(p.stem for p in known.values())])
    return [
        p
        for number, p in known.items()
        if not names or number in names or p.stem in {n.removesuffix(".ipynb") for n in names}
    ]


def title(path: Path) -> str:
    """The question a notebook asks: its first heading."""
    cells = json.loads(path.read_text())["cells"]
    text = "".join(cells[0]["source"]).splitlines()[0]
    return re.sub(r"^#\s*\d+\s*-\s*", "", text)


def row(path: Path, name: str) -> str:
    """What a notebook's table of contents says in a row, such as Reads."""
    lines = [
        line
        for cell in json.loads(path.read_text())["cells"][:2]
        for line in "".join(cell["source"]).splitlines()
    ]
    return next((line.split("|")[2] for line in lines if f"**{name}**" in line), "")


def times(path: Path) -> dict[str, float]:
    """Notebook -> seconds, as a file ``00_timing.csv`` has them; of none without the file."""
    import pandas as pd

    try:
        return (
            pd.read_csv(path).astype({"seconds": float}).set_index("notebook")["seconds"].to_dict()
            if path.exists()
            else {}
        )
    except (OSError, ValueError, KeyError) as e:
        raise StudyError(
            f"cannot read {path}: {e}. It wants the columns notebook, seconds; delete it, and runs will write it anew."
        ) from e


def listing(world: str, names: Sequence[str] = ()) -> str:
    """Number, question and last measured time of notebooks in a world; "est." where nobody measured, with what is known instead."""
    here, elsewhere = (
        times(figures_root() / world / "00_timing.csv"),
        times(TOP / "figures" / artifacts.MEASURED / "00_timing.csv"),
    )
    rows = []
    for path in chosen(names):
        cost = (
            f"{here[path.stem]:.0f} s"
            if path.stem in here
            else f"est. {_estimate(path, world, elsewhere)}"
        )
        rows.append((path.stem, cost, title(path)))
    width = max(len(cost) for _, cost, _ in rows)
    return "\n".join(f"{name:24s} {cost:>{width}s}  {question}" for name, cost, question in rows)


def _estimate(path: Path, world: str, elsewhere: Mapping[str, float]) -> str:
    """What a notebook costs in a world: as it says itself, or else as measured in pocket, or else as its artifacts declare."""
    declared = dict(re.findall(r"(\w+): ([^;]+)", row(path, "Time"))).get(world, "").strip()
    if declared and not declared.startswith("see"):
        return next(
            (part for part in declared.split(", ") if re.search("second|minute|hour|day", part)),
            declared,
        )
    if path.stem in elsewhere:
        return f"{elsewhere[path.stem]:.0f} s in {artifacts.MEASURED}"
    return (
        " + ".join(s.cost for s in artifacts.ARTIFACTS.values() if s.notebook == path.name[:2])
        + f" in {artifacts.MEASURED}"
    )
