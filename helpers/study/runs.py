"""Runs that decide take days: the rows of finished ones lie beside a world's figures, committed.

``figures/<world>/NN_runs.csv`` has a row per run; what cannot be read, as predicted classes, is in
``NN_runs.parquet``. Another machine goes on there, and so does another day.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.engine import places, store
from helpers.worlds import World

EDITION = 1  # to be raised by whoever changes what a run finds: rows of other editions do not count
LARGEST = 2**24  # bytes of predicted classes: more than any benchmark has images
ABOUT = ["recipe", "run"]  # which settings, and which file of the artifact


def collect(
    path: Path, w: World, number: str, recipe: str, jobs: Mapping, function: Callable, label: str
) -> pd.DataFrame:
    """The tables that ``function(*arguments)`` returns for each file of ``jobs``, with ``run``.

    Where a world keeps its runs, those of the same ``recipe`` that are known are not run again, and
    new ones are added to the rows of notebook ``number``.
    """
    missing(path, w, number, recipe, jobs)
    files = store.fill(path, jobs, function, label)
    tables = [store.read_table(file).assign(run=run) for run, file in zip(jobs, files, strict=True)]
    table = pd.concat(tables, ignore_index=True)
    if w.keeps_runs:
        _keep(w, number, table.assign(recipe=f"{EDITION}-{recipe}"))
    return table


def missing(path: Path, w: World, number: str, recipe: str, jobs: Iterable[str]) -> list[str]:
    """The files of ``jobs`` that have to be run; those of known rows are written from these."""
    asked = [run for run in jobs if not (path / run).exists()]
    if not w.keeps_runs or not asked:
        return asked
    known = kept(w, number)
    known = known[(known["recipe"] == f"{EDITION}-{recipe}") & known["run"].isin(asked)]
    for run, rows in known.groupby("run"):
        store.write(path / str(run), rows.drop(columns=ABOUT).dropna(axis=1, how="all"))
    return [run for run in asked if run not in set(known["run"])]


def kept(w: World, number: str) -> pd.DataFrame:
    """Finished runs, ``recipe, run`` and what they found: beside the figures, or as committed."""
    for root in (places.figures_root(), places.TOP / "figures"):
        file = root / w.name / f"{number}_runs.csv"
        if file.exists():
            rows = pd.read_csv(file)
            binary = store.read_table(file.with_suffix(".parquet"))
            return rows.merge(binary, how="left", on=ABOUT)
    return pd.DataFrame(columns=ABOUT)


def _keep(w: World, number: str, new: pd.DataFrame) -> None:
    file = places.figures_root() / w.name / f"{number}_runs.csv"
    with store.alone(file.parent):  # another run of the notebook may have kept rows meanwhile
        known = kept(w, number)
        same = pd.MultiIndex.from_frame(new[ABOUT]).isin(pd.MultiIndex.from_frame(known[ABOUT]))
        if same.all():
            return
        table = pd.concat([known, new[~same]] if len(known) else [new], ignore_index=True)
        table = table.sort_values(ABOUT, ignore_index=True)
        binary = [c for c in table if table[c].map(type).eq(bytes).any()]
        some = table[binary].notna().any(axis=1)
        store.write(file.with_suffix(".parquet"), table.loc[some, [*ABOUT, *binary]])
        columns = [*ABOUT, *table.columns.drop([*ABOUT, *binary])]
        store.write(file, table[columns].to_csv(index=False).encode())


def packed(classes: np.ndarray) -> bytes:
    """Predicted classes (n,) in few bytes, as a table keeps them."""
    return zlib.compress(np.asarray(classes, np.uint16).tobytes(), 9)


def unpacked(classes: bytes) -> np.ndarray:
    """The predicted classes (n,) that ``packed`` made small."""
    opened = zlib.decompressobj().decompress(classes, LARGEST)
    return np.frombuffer(opened, np.uint16).astype(np.int64)
