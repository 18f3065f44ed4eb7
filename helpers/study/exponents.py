"""What notebook 06 reads off its finished runs: scaling exponents and what they are compared with.

Nothing that is built imports this module, so a change here rebuilds nothing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.engine import randomness, store
from helpers.measure import fits, inference
from helpers.study import arms
from helpers.study.arms import Arm
from helpers.study.scaling import FEW_REAL
from helpers.worlds import World

RUN = ["source", "prompt", "guidance", "n", "seed", "loss", "top1", "eval_set"]
FIT = ["source", "prompt", "guidance", "eval_set", "k", "k_low", "k_high", "n_min", "n_max"]
COMPARED = ("retrieved", "recognizability", "hit", "loss", "top1", "k")  # in the intervention
CLASS_FLOOR = 1e-4  # nats: a class with a lower loss is learned; its logarithm would be noise
PUBLISHED = (
    ("real", 0.528, 0.239, 0.207),
    ("Stable Diffusion, CLIP templates", 0.195, 0.253, 0.308),
    ("Stable Diffusion, captions", 0.245, 0.161, 0.179),
    ("Muse, captions", 0.237, 0.252, 0.226),
    ("Imagen, captions", 0.265, 0.152, 0.189),
)


def over_classes(w: World, runs: pd.DataFrame) -> pd.DataFrame:
    """Loss and top-1 of every run over the images of all classes: columns ``RUN`` and ``arm``."""
    keys = [column for column in ("arm", "n", "seed", "added", "eval_set") if column in runs]
    sums = runs.assign(loss=runs["loss"] * runs["images"], top1=runs["top1"] * runs["images"])
    table = sums.groupby(keys, as_index=False, sort=False)[["loss", "top1", "images"]].sum()
    table[["loss", "top1"]] = table[["loss", "top1"]].div(table["images"], axis=0)
    return described(w, table.drop(columns="images")).sort_values(keys, ignore_index=True)


def described(w: World, table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with what is known of the arms in its column ``arm``: source, prompt, guidance."""
    known = {**arms.arms(w), FEW_REAL: Arm(FEW_REAL, "train")}
    rows = [known[name] for name in table["arm"]]
    return table.assign(
        source=[arm.source for arm in rows],
        prompt=[arm.prompt for arm in rows],
        guidance=[arm.guidance for arm in rows],
    )


def declared(w: World) -> tuple[int, int]:
    """The smallest and largest size that all exponents are fitted on.

    They go from one image per class to the largest size that every arm has.
    """
    classes = tables.benchmark(w, arms.scaled_task(w)).classes
    return max(len(classes), w.scaling.sizes[0]), w.scaling.sizes[-1]


def fit(w: World, results: pd.DataFrame, low: int, high: int) -> pd.DataFrame:
    """Power laws of every arm and evaluation set on ``low`` to ``high`` images.

    ``results`` is a table of ``over_classes``. Columns ``FIT``, ``arm``, ``b``, ``floor``,
    ``evidence``: above 0 it prefers the saturating form, whose asymptote is ``floor``; both are NaN
    with too few sizes to tell.
    """
    rows = []
    for (arm, eval_set), part in results.groupby(["arm", "eval_set"], sort=False):
        rng = randomness.rng(w, "scaling", "bootstrap", arm, eval_set)
        law = fits.power_law(part["n"], part["loss"], part["seed"], low, high, rng)
        row = {"arm": arm, "eval_set": eval_set, "k": law.k, "k_low": law.k_low}
        row |= {"k_high": law.k_high, "n_min": law.n_min, "n_max": law.n_max, "b": law.b}
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
    for name, rows_of_class in part.groupby("class", sort=False):
        n, loss = rows_of_class["n"], rows_of_class["loss"]
        logs = np.log(loss.clip(lower=CLASS_FLOOR)).groupby(n).mean()
        k = -float(np.polyfit(np.log(logs.index), logs, 1)[0])
        top1 = float(rows_of_class.loc[n == n.max(), "top1"].mean())
        rows.append({"class": name, "k": k, "top1": top1})
    return pd.DataFrame(rows)


def intervention(rarity: store.Artifact) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rare-class intervention class by class, and what thinning changed.

    First table: a row per ``pool`` and ``class``, with ``thinned, pairs, retrieved,
    recognizability, hit``, and of classifiers trained on the pool's drawings ``k``, and ``loss``
    and ``top1`` at the largest size. Second: ``quantity, difference, low, high``, thinned minus not
    thinned, paired by class, with the 95 % interval over the thinned classes.
    """
    runs = rarity.table("runs.parquet")
    n = np.sort(runs["n"].unique())
    largest = runs[runs["n"] == n[-1]].groupby(["arm", "class"])["loss"].mean().reset_index()
    slopes = [per_class(runs, arm, n[0], n[-1]).assign(arm=arm) for arm in runs["arm"].unique()]
    measured = pd.concat(slopes).merge(largest).rename(columns={"arm": "pool"})
    table = rarity.table("classes.parquet").merge(measured, on=["pool", "class"])
    thinned = table[table.groupby("class")["thinned"].transform("any")]
    rows = []
    for column in COMPARED:
        wide = thinned.pivot(index="class", columns="thinned", values=column)
        rows.append((column, *inference.interval(wide[True] - wide[False])))
    return table, pd.DataFrame(rows, columns=["quantity", "difference", "low", "high"])


def with_published(table: pd.DataFrame, points: pd.DataFrame, family: str) -> pd.DataFrame:
    """``table`` with the published points of a family below, on ImageNet's validation images.

    They are marked by their source: "published real", "published synthetic" or "published mixed".
    They have one seed and the same columns; what the publication does not say stays empty.
    """
    rows = points[points["family"] == family]
    if not len(rows):
        return table
    source = "published " + rows["training"]
    rows = rows.assign(source=source, seed=0, eval_set="ImageNet validation")
    return pd.concat([table, rows.reindex(columns=table.columns)], ignore_index=True)


def published() -> pd.DataFrame:
    """Exponents of arXiv 2312.04567, measured in the pixels of its teaser figure, to 0.002.

    They are of whole networks, ImageNet classes and other sizes: only their order can be set beside
    the exponents here.
    """
    columns = ["training set", "ImageNet validation", "ImageNet-Sketch", "ImageNet-R"]
    return pd.DataFrame(PUBLISHED, columns=columns)
