"""What the world that decides found, to be drawn beside one's own; no builder imports this."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from helpers import worlds
from helpers.engine import places
from helpers.worlds import World


def table_file(name: str) -> Path:
    """Where the committed table of a figure of the world that decides is."""
    return places.TOP / "figures" / worlds.DESK.name / f"{name}.csv"


def desk(w: World, name: str) -> pd.DataFrame:
    """That table, to stand beside one's own; no rows for worlds of other models or another pool."""
    other = worlds.DESK
    alike = (w.backend, w.pool.upstream) == (other.backend, other.pool.upstream)
    if alike and w.name != other.name and table_file(name).exists():
        return pd.read_csv(table_file(name))
    return pd.DataFrame(columns=["task", "source", "n", "seed", "metric", "accuracy"])


def disagreements(own: pd.DataFrame, other: pd.DataFrame, keys: Sequence[str]) -> tuple[int, int]:
    """How many cells of two tables of runs differ by over 4 standard deviations, and of how many.

    A cell is a group of ``keys``; its spread over seeds is that of ``other``. Processors round
    otherwise, so that tables of two machines are never equal digit for digit.
    """
    both = (t.groupby(list(keys))["accuracy"].agg(["mean", "std", "size"]) for t in (own, other))
    cells = next(both).join(next(both), lsuffix="_own", how="inner").query("size > 2")
    spread = cells["std"] * (1 / cells["size"] + 1 / cells["size_own"]) ** 0.5
    off = (cells["mean"] - cells["mean_own"]).abs() > 4 * spread
    return int(off.sum()), len(off)
