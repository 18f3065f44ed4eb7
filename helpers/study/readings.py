"""What notebooks read off finished results: small tables that they plot or say in words.

Nothing that is built depends on this module; only notebooks import it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.engine import places, store
from helpers.measure import inference
from helpers.worlds import World

AXLES = ("axles", "one axle", "two or more axles")  # over all classes, and apart


def over_seeds(results: pd.DataFrame, keys: Sequence[str], value: str = "value") -> pd.DataFrame:
    """Mean of ``value`` per key with its 95 % interval: columns ``keys``, ``mean, low, high``."""
    rows = [(*key, *inference.interval(part[value])) for key, part in results.groupby(keys)]
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high"])


def desk(w: World, name: str) -> pd.DataFrame:
    """The committed table of a figure in the world that decides, to stand beside one's own.

    No rows where there is none, and in worlds with other models or a pool of their own.
    """
    other = worlds.DESK
    alike = (w.backend, w.pool.upstream) == (other.backend, other.pool.upstream)
    file = places.TOP / "figures" / other.name / f"{name}.csv"
    if alike and w.name != other.name and file.exists():
        return pd.read_csv(file)
    return pd.DataFrame(columns=["task", "source", "n", "seed", "metric", "accuracy"])


def selection(finetuned: store.Artifact, name: str) -> pd.DataFrame:
    """Notebook 04's runs on validation, ``variants`` or ``lrs``: a world's own, or the desk's."""
    file = finetuned.path / f"{name}.parquet"
    own = store.read_table(file) if file.exists() else pd.DataFrame()
    figure = {"variants": "04_variants", "lrs": "04_learning_rates"}[name]
    committed = places.TOP / "figures" / worlds.DESK.name / f"{figure}.csv"
    return own if "val" in own else pd.read_csv(committed)


def disagreements(own: pd.DataFrame, other: pd.DataFrame, keys: Sequence[str]) -> tuple[int, int]:
    """How many cells of two tables of runs differ by over 4 standard deviations, and of how many.

    A cell is a group of ``keys``; its spread over seeds is that of ``other``. Processors round
    otherwise, so that tables of two machines are never equal digit for digit.
    """
    both = [
        table.groupby(list(keys))["accuracy"].agg(["mean", "std", "size"]) for table in (own, other)
    ]
    cells = both[0].join(both[1], lsuffix="_own", how="inner").query("size > 2")
    spread = cells["std"] * (1 / cells["size"] + 1 / cells["size_own"]) ** 0.5
    off = (cells["mean"] - cells["mean_own"]).abs() > 4 * spread
    return int(off.sum()), len(off)


def details(fidelity: pd.DataFrame, axles: pd.Series) -> pd.DataFrame:
    """Notebook 05: how often each detail is right, over all classes.

    Columns ``source, attribute, images, correct, share``, and ``low, high`` (95 %). ``axles`` maps
    classes to their number of axles, which are counted over all classes and apart (``AXLES``).
    """
    apart = fidelity[fidelity["attribute"] == "axles"]
    several = apart["class"].map(axles) > 1
    apart = apart.assign(attribute=np.where(several, AXLES[2], AXLES[1]))
    counts = pd.concat([fidelity, apart]).groupby(["source", "attribute"])[["images", "correct"]]
    total = counts.sum().reset_index()
    total["share"] = total["correct"] / total["images"]
    ends = [inference.share_interval(r.correct, r.images) for r in total.itertuples()]
    total[["low", "high"]] = ends
    return total
