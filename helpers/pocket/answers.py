"""What the miniature answers where the published setting has something of its own."""

from __future__ import annotations

import pandas as pd

from helpers.data.tables import Benchmark
from helpers.engine import places, store
from helpers.errors import Need
from helpers.measure.metrics import PUBLISHED
from helpers.pocket.render.aircraft import WHEEL, axle_positions
from helpers.pocket.render.canvas import UNIT
from helpers.pocket.render.pictures import subject
from helpers.pocket.train import upstream
from helpers.worlds import World


def configured(w: World) -> World:
    """The world with the user's own settings; the miniature has none beside helpers/worlds.py."""
    return w


def outside(w: World) -> dict[str, dict]:
    """Artifact -> what it is made of outside the store: nothing, all of it is made here."""
    return {}


def check(w: World) -> tuple[list[Need], dict[str, str]]:
    """What this world needs and whether it is here; no costs, which are known from a run only."""
    later = "01 02 03 04 05 06 07"  # notebook 00 can train them again
    shipped = w.pool.upstream != "committed" or (upstream.WEIGHTS / "card.json").exists()
    free = store.free(places.root())
    restore = "git checkout -- helpers/pocket/weights"
    weights = Need("upstream weights", later, shipped, str(upstream.WEIGHTS), restore)
    disk = f"{free / 1e9:.0f} GB free for {places.root()}, 2 GB wanted"
    return [weights, Need("disk", f"00 {later}", free >= 2e9, disk, "Set STUDY_RUNS.")], {}


def search_index(w: World, bench: Benchmark) -> pd.DataFrame | None:
    """None: the index of this pool is built in notebook 03."""
    return None


def main_gear(w: World, name: str) -> tuple[float, float] | None:
    """Where the main wheels of an aircraft begin and end, nose to the left.

    As shares of the picture's side, from its middle.
    """
    positions = [x for leg in axle_positions(subject("aircraft", name)) for x in leg]
    return (min(positions) - WHEEL) / UNIT, (max(positions) + WHEEL) / UNIT


def published(w: World) -> pd.DataFrame:
    """No rows: this world's numbers are not to be mixed with those of photographs."""
    return pd.DataFrame(columns=PUBLISHED)


def checkpoint(w: World, name: str) -> str:
    """``name``: that of a finished model (``checkpoints.load``)."""
    return name
