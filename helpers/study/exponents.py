"""What notebook 06 reads off its finished runs: scaling exponents. No builder imports this."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.engine import randomness, store
from helpers.measure import fits, inference
from helpers.study import arms
from helpers.study.scaling import FEW_REAL
from helpers.worlds import World

RUN = ["source", "prompt", "guidance", "n", "seed", "loss", "top1", "eval_set"]
FIT = ["source", "prompt", "guidance", "eval_set", "k", "k_low", "k_high", "n_min", "n_max"]
COMPARED = ("retrieved", "recognizability", "hit", "loss", "top1", "k")  # in the intervention
CLASS_FLOOR = 1e-4  # nats: a class with a lower loss is learned; its logarithm would be noise


def over_classes(w: World, runs: pd.DataFrame) -> pd.DataFrame:
    """Loss and top-1 of every run over the images of all classes: columns ``RUN`` and ``arm``."""
    keys = [column for column in ("arm", "n", "seed", "added", "eval_set") if column in runs]
    sums = runs.assign(loss=runs["loss"] * runs["images"], top1=runs["top1"] * runs["images"])
    table = sums.groupby(keys, as_index=False, sort=False)[["loss", "top1", "images"]].sum()
    table[["loss", "top1"]] = table[["loss", "top1"]].div(table.pop("images"), axis=0)
    return described(w, table).sort_values(keys, ignore_index=True)


def described(w: World, table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with what is known of the arms in its column ``arm``: source, prompt, guidance."""
    known = {**arms.arms(w), FEW_REAL: arms.Arm(FEW_REAL, "train")}
    about = [known[name] for name in table["arm"]]
    columns = ("source", "prompt", "guidance")
    return table.assign(**{column: [getattr(arm, column) for arm in about] for column in columns})


def fit(w: World, results: pd.DataFrame, low: int, high: int) -> pd.DataFrame:
    """Power laws of every arm and evaluation set on ``low`` to ``high`` images.

    ``results`` is a table of ``over_classes``. Columns ``FIT``, ``arm``, ``b``, and ``floor``: the
    asymptote of the saturating form, which an ``evidence`` above 0 prefers; NaN with few sizes.
    """
    rows = []
    for (arm, eval_set), part in results.groupby(["arm", "eval_set"], sort=False):
        rng = randomness.rng(w, "scaling", "bootstrap", arm, eval_set)
        law = fits.power_law(part["n"], part["loss"], part["seed"], low, high, rng)
        row = {"arm": arm, "eval_set": eval_set, **law._asdict()}
        row |= {"floor": np.nan, "evidence": np.nan}
        if law.points > 3:
            _, floor, evidence = fits.saturating(part["n"], part["loss"], low, high)
            row |= {"floor": floor, "evidence": evidence}
        rows.append(row)
    return described(w, pd.DataFrame(rows))


def per_class(runs: pd.DataFrame, arm: str, low: int, high: int) -> pd.DataFrame:
    """k of every class on the test set for one arm and range of sizes: ``class, k, top1``.

    ``top1`` is that of the largest size, averaged over seeds.
    """
    part = runs[(runs["arm"] == arm) & (runs["eval_set"] == "test") & runs["n"].between(low, high)]
    rows = []
    for name, of_class in part.groupby("class", sort=False):
        n = of_class["n"]
        logs = np.log(of_class["loss"].clip(lower=CLASS_FLOOR)).groupby(n).mean()
        k = -float(np.polyfit(np.log(logs.index), logs, 1)[0])
        rows.append((name, k, float(of_class.loc[n == n.max(), "top1"].mean())))
    return pd.DataFrame(rows, columns=["class", "k", "top1"])


def intervention(rarity: store.Artifact) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rare-class intervention class by class, and what thinning changed.

    First: ``classes.parquet`` with ``k``, and ``loss`` and ``top1`` at the largest size, of
    classifiers trained on the pool's drawings. Second: ``quantity, difference, low, high``, thinned
    minus not thinned, paired by class, with the 95 % interval over the thinned classes.
    """
    runs = rarity.table("runs.parquet")
    n = np.sort(runs["n"].unique())
    largest = runs[runs["n"] == n[-1]].groupby(["arm", "class"], as_index=False)["loss"].mean()
    slopes = [per_class(runs, arm, n[0], n[-1]).assign(arm=arm) for arm in runs["arm"].unique()]
    measured = pd.concat(slopes).merge(largest).rename(columns={"arm": "pool"})
    table = rarity.table("classes.parquet").merge(measured, on=["pool", "class"])
    thinned = table[table.groupby("class")["thinned"].transform("any")]
    rows = []
    for column in COMPARED:
        wide = thinned.pivot(index="class", columns="thinned", values=column)
        rows.append((column, *inference.interval(wide[True] - wide[False])))
    return table, pd.DataFrame(rows, columns=["quantity", "difference", "low", "high"])
