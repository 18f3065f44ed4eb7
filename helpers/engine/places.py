"""Where things are kept: the package, its notebooks, the store of runs, the figures."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
TOP = PACKAGE.parent
NOTEBOOKS = TOP / "notebooks"


def root() -> Path:
    """Where runs are kept: ``$STUDY_RUNS``, or ``.runs`` beside the package; an absolute path."""
    return Path(os.environ.get("STUDY_RUNS") or TOP / ".runs").absolute()


def figures_root() -> Path:
    """Where figures are kept: ``$STUDY_FIGURES``, or ``figures`` beside the package; absolute."""
    return Path(os.environ.get("STUDY_FIGURES") or TOP / "figures").absolute()
