"""What notebook 06 reads off its finished runs: scaling exponents. No builder imports this.

``runs`` are tables of ``scaling.run`` or ``pairs.run`` with the column ``error`` (``read``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.engine import store
from helpers.measure import fits, inference
from helpers.measure.folds import ALL, FOLDS
from helpers.study import arms
from helpers.worlds import World

RUN = ["source", "prompt", "guidance", "n", "seed", "loss", "top1", "eval_set", "calibrated"]
FIT = ["source", "prompt", "guidance", "eval_set", "k", "k_low", "k_high", "n_min", "n_max"]
FIT += ["measure", "range"]
MEASURES = {"error": "error rate", "calibrated": "loss after temperature scaling (nats)"}
COMPARED = ("retrieved", "recognizability", "hit", "calibrated", "top1", "k")  # when thinned
LEARNED = 1e-4  # nats, or error rate: what is below is learned; its logarithm would be noise


def read(artifact: store.Artifact, file: str) -> pd.DataFrame:
    """The runs in a file of an artifact, with the error rate, 0..1."""
    table = artifact.table(file)
    return table.assign(error=1 - table["top1"])


def ranges(w: World) -> dict[str, tuple[int, int]]:
    """The two declared ranges of sizes that exponents are fitted on, (first, last) each.

    ``full`` goes from one image per class - below, a class may have none, which no law describes -
    to the largest size that every arm has; ``upper`` is its upper half, at least three sizes: a
    curve that bends is flatter there, and the published ranges lie far to the right.
    """
    classes = len(tables.benchmark(w, w.tasks[0]).classes)
    return halved([n for n in w.scaling.sizes if n >= classes])


def halved(sizes: Sequence[int]) -> dict[str, tuple[int, int]]:
    """The ranges ``full`` and ``upper`` of sizes in ascending order."""
    upper = sizes[-max(fits.FEWEST, (len(sizes) + 1) // 2) :]
    return {"full": (sizes[0], sizes[-1]), "upper": (upper[0], upper[-1])}


def of_set(runs: pd.DataFrame, eval_set: str) -> pd.DataFrame:
    """Runs on one evaluation set, over all classes."""
    return runs[(runs["eval_set"] == eval_set) & (runs["class"] == ALL)]


def curves(runs: pd.DataFrame, column: str, keys: Sequence[str] = ("seed",)) -> pd.DataFrame:
    """Means of ``column`` over the images of every run: on all, then without each fold.

    A row per ``keys`` and ``n``, its index; 1 + ``FOLDS`` columns.
    """
    total = runs.assign(total=runs[column] * runs["images"])
    options = {"index": [*keys, "n"], "columns": "fold", "aggfunc": "sum", "fill_value": 0}
    sums = total.pivot_table(values="total", **options).reindex(columns=range(FOLDS), fill_value=0)
    images = total.pivot_table(values="images", **options)
    images = images.reindex(columns=range(FOLDS), fill_value=0)
    left = [np.insert(t.to_numpy(), 0, 0, axis=1) for t in (sums, images)]
    means = (sums.to_numpy().sum(1)[:, None] - left[0]) / (
        images.to_numpy().sum(1)[:, None] - left[1]
    )
    return pd.DataFrame(means, sums.index)


def slopes(table: pd.DataFrame, span: tuple[int, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """k and b of every row of ``curves`` but for ``n``, fitted from ``span[0]`` to ``span[1]``."""
    sizes = table.index.get_level_values("n")
    wide = table[(sizes >= span[0]) & (sizes <= span[1])].unstack("n")
    n = np.unique(wide.columns.get_level_values("n"))
    values = wide.clip(lower=LEARNED).to_numpy().reshape(len(wide), table.shape[1], len(n))
    k, b = fits.power_law(n, np.moveaxis(values, 2, 0))
    return pd.DataFrame(k, wide.index), pd.DataFrame(b, wide.index)


def estimated(values: pd.DataFrame | np.ndarray) -> inference.Estimate:
    """The estimate of values (seeds, 1 + ``FOLDS``): on all images, then without each fold."""
    values = np.asarray(values, float)
    return inference.jackknifed(values[:, 0], values[:, 1:])


def levels(runs: pd.DataFrame) -> pd.DataFrame:
    """Every measure, and ``top1``, by size: ``arm, eval_set, measure, n, mean, low, high``."""
    rows = []
    for (arm, eval_set), part in runs[runs["class"] == ALL].groupby(["arm", "eval_set"]):
        for measure in (*MEASURES, "top1"):
            for n, values in curves(part, measure).groupby("n"):
                value, low, high, *_ = estimated(values)
                rows.append((arm, eval_set, measure, n, value, low, high))
    columns = ["arm", "eval_set", "measure", "n", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns).replace([np.inf, -np.inf], np.nan)


def over_classes(w: World, runs: pd.DataFrame) -> pd.DataFrame:
    """Losses, accuracy and error of every run over all images: columns ``RUN``, ``arm, error``."""
    runs = runs[runs["class"] == ALL]
    keys = ["arm", "n", "seed", "eval_set"]
    values = ["loss", "calibrated", "top1", "error"]
    sums = runs[values].mul(runs["images"], axis=0).assign(images=runs["images"])
    sums = sums.groupby([runs[key] for key in keys], sort=False).sum().reset_index()
    sums[values] = sums[values].div(sums.pop("images"), axis=0)
    return described(w, sums).sort_values(keys, ignore_index=True)


def described(w: World, table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with what is known of the arms in its column ``arm``: source, prompt, guidance."""
    known = arms.arms(w)
    about = [known[name] for name in table["arm"]]
    columns = ("source", "prompt", "guidance")
    return table.assign(**{column: [getattr(arm, column) for arm in about] for column in columns})


def fit(runs: pd.DataFrame, spans: Mapping[str, tuple[int, int]]) -> pd.DataFrame:
    """Power laws of every arm, set, measure and range; NaN for intervals that are not known.

    Columns ``arm, eval_set, measure, range, k, k_low, k_high, b, n_min, n_max``, and ``floor``: the
    asymptote of the saturating form, which an ``evidence`` above 0 prefers; NaN with few sizes.
    """
    rows = []
    for (arm, eval_set), part in runs[runs["class"] == ALL].groupby(["arm", "eval_set"]):
        for measure in MEASURES:
            table = curves(part, measure)
            for name, span in spans.items():
                k, b = slopes(table, span)
                e = estimated(k)
                row = {"arm": arm, "eval_set": eval_set, "measure": measure, "range": name}
                row |= {"k": e.value, "k_low": e.low, "k_high": e.high, "b": b[0].mean()}
                row |= {"n_min": span[0], "n_max": span[1], "floor": np.nan, "evidence": np.nan}
                inside = table[0].loc[:, span[0] : span[1]]
                sizes = inside.index.get_level_values("n")
                if sizes.nunique() > fits.FEWEST:
                    learned = inside.clip(lower=LEARNED)
                    _, row["floor"], row["evidence"] = fits.saturating(sizes, learned)
                rows.append(row)
    return pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan)


def by_class(runs: pd.DataFrame, arm: str, span: tuple[int, int]) -> pd.DataFrame:
    """k of every class's calibrated loss on the test set: a row per class and seed."""
    part = runs[(runs["arm"] == arm) & (runs["eval_set"] == "test") & (runs["class"] != ALL)]
    return slopes(curves(part, "calibrated", ("class", "seed")), span)[0]


def per_class(runs: pd.DataFrame, arm: str, span: tuple[int, int]) -> pd.DataFrame:
    """Of every class, means over seeds: ``class, k``, and ``calibrated, top1`` at ``span[1]``."""
    part = runs[(runs["arm"] == arm) & (runs["eval_set"] == "test") & (runs["n"] == span[1])]
    columns = {"k": by_class(runs, arm, span)[0].groupby("class").mean()}
    for column in ("calibrated", "top1"):
        columns[column] = curves(part, column, ("class", "seed"))[0].groupby("class").mean()
    return pd.DataFrame(columns).dropna().reset_index()


def intervention(rarity: store.Artifact) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rare-class intervention class by class, and what thinning changed.

    First: ``classes.parquet`` with ``k`` on all sizes, and ``calibrated`` loss and ``top1`` at the
    largest, of classifiers trained on the pool's drawings. Second: ``changes`` of ``COMPARED``.
    """
    runs = rarity.table("runs.parquet")
    span = (runs["n"].min(), runs["n"].max())
    found = [per_class(runs, pool, span).assign(pool=pool) for pool in runs["arm"].unique()]
    table = rarity.table("classes.parquet").merge(pd.concat(found), on=["pool", "class"])
    return table, changes(table, COMPARED)


def changes(table: pd.DataFrame, columns: Sequence) -> pd.DataFrame:
    """Thinned minus not thinned, a row per ``lot`` and each ``class`` that the lot thins."""
    thinned = table[table.groupby(["lot", "class"])["thinned"].transform("any")]
    sides = [
        thinned[thinned["thinned"] == side].set_index(["lot", "class"])[list(columns)].sort_index()
        for side in (True, False)
    ]
    return sides[0] - sides[1]
