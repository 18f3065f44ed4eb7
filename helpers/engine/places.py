"""Where things are kept: the package, its notebooks, the store of runs, the figures."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).absolute().parents[1]
TOP = PACKAGE.parent
NOTEBOOKS = TOP / "notebooks"
COMMITTED = TOP / "figures"


def root() -> Path:
    """Where runs are kept, absolute: ``$STUDY_RUNS``, seen from the folder of the package."""
    return TOP / (os.environ.get("STUDY_RUNS") or ".runs")


def figures_root() -> Path:
    """Where figures are kept, absolute: ``$STUDY_FIGURES``, seen from the folder of the package."""
    return TOP / (os.environ.get("STUDY_FIGURES") or "figures")


def part(world: str, seed: int = 0) -> str:
    """The folder of a world's figures and executed copies; another seed than 0 has its own."""
    return f"{world}/seed-{seed}" if seed else world


def shown(folder: Path) -> bool:
    """Whether the gallery has the figures of a folder: not those that the study's git ignores."""
    file = TOP / ".gitignore"
    ignored = file.read_text(encoding="utf-8").split() if file.exists() else []
    return folder.parent != COMMITTED or f"figures/{folder.name}/" not in ignored
