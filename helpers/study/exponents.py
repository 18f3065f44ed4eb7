"""What notebook 06 reads off its finished runs: levels, exponents, correlations over classes.

No builder imports this. ``runs`` are tables of ``scaling`` or ``pairs``, either of all classes or
of classes. What is estimated has a value per seed on all test images, and one without each fold.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.engine import randomness
from helpers.engine.late import scipy
from helpers.measure import fits, folds, inference
from helpers.measure.inference import Cell, Estimate
from helpers.worlds import World

MEASURES = {"error": "error rate", "calibrated": "loss after temperature scaling (nats)"}
LEARNED = 1e-4  # nats, or error rate: what is below is learned; its logarithm would be noise
DRAWS = 200  # bootstraps of classes
Span = tuple[int, int]  # first and last size


def halved(sizes: Sequence[int]) -> dict[str, Span]:
    """The ranges that exponents are fitted on: all sizes, and the upper half, at least three."""
    upper = sizes[-max(fits.FEWEST, (len(sizes) + 1) // 2) :]
    return {"full": (sizes[0], sizes[-1]), "upper": (upper[0], upper[-1])}


def curves(runs: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure of every run, (runs, 1 + ``folds.FOLDS``), indexed by ``class, seed, n``."""
    if measure == "error":
        return 1 - curves(runs, "top1")
    values = runs.set_index(["class", "seed", "n"])[folds.columns(measure)]
    return values.set_axis(range(1 + folds.FOLDS), axis=1).sort_index()


def slopes(runs: pd.DataFrame, measure: str, span: Span) -> pd.DataFrame:
    """k of the ``curves`` of one arm and set in a range, a row per class and seed."""
    wide = curves(runs[runs["n"].between(*span)], measure).unstack("n")
    n = wide.columns.levels[1]
    values = wide.clip(lower=LEARNED).to_numpy().reshape(len(wide), 1 + folds.FOLDS, len(n))
    return pd.DataFrame(fits.power_law(n, np.moveaxis(values, 2, 0))[0], wide.index)


def estimated(values: pd.DataFrame | np.ndarray) -> Estimate:
    """The estimate of values (seeds, 1 + ``folds.FOLDS``): on all images, then without a fold."""
    values = np.asarray(values, float)
    return inference.jackknifed(values[:, 0], values[:, 1:])


def levels(runs: pd.DataFrame) -> pd.DataFrame:
    """Every measure, and ``top1``, by size: ``arm, eval_set, n, measure, mean, low, high``."""
    rows = []
    for key, part in runs.groupby(["arm", "eval_set", "n"]):
        rows += [(*key, m, *estimated(curves(part, m))[:3]) for m in (*MEASURES, "top1")]
    columns = ["arm", "eval_set", "n", "measure", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns).replace([np.inf, -np.inf], np.nan)


def fit(runs: pd.DataFrame, spans: Mapping[str, Span]) -> pd.DataFrame:
    """Power laws of every arm, set, measure and range; NaN for intervals that are not known.

    Columns ``arm, eval_set, measure, range, k, k_low, k_high, b, n_min, n_max``, and ``evidence``:
    above 0 it prefers the form with a floor; NaN with few sizes.
    """
    rows = []
    for (arm, eval_set), part in runs.groupby(["arm", "eval_set"]):
        for measure, (name, span) in itertools.product(MEASURES, spans.items()):
            e = estimated(slopes(part, measure, span))
            inside = curves(part[part["n"].between(*span)], measure)[0].clip(lower=LEARNED)
            sizes = inside.index.get_level_values("n")
            b = np.log(inside).mean() + e.value * np.log(sizes.to_numpy()).mean()
            several = sizes.nunique() > fits.FEWEST
            evidence = fits.saturating(sizes, inside)[2] if several else np.nan
            rows.append((arm, eval_set, measure, name, *e[:3], b, *span, evidence))
    columns = ["arm", "eval_set", "measure", "range", "k", "k_low", "k_high", "b", "n_min", "n_max"]
    table = pd.DataFrame(rows, columns=[*columns, "evidence"])
    return table.replace([np.inf, -np.inf], np.nan)


def contrast(
    runs: pd.DataFrame, weights: Mapping, spans: Mapping, measures: Sequence = tuple(MEASURES)
) -> dict[tuple[str, str], Estimate]:
    """A sum of exponents, by measure and range, with ``weights`` by arm and evaluation set."""
    found = {}
    runs_of = dict(list(runs.groupby(["arm", "eval_set"])))
    for measure, name in itertools.product(measures, spans):
        k = [weight * slopes(runs_of[a], measure, spans[name]) for a, weight in weights.items()]
        found[measure, name] = estimated(sum(k))
    return found


def agreed(found: Mapping[tuple, Estimate], floor: bool, unit: str = "seeds") -> list[Cell]:
    """One cell whose interval spans those of the calibrated loss on both ranges.

    So a verdict needs both. If not all estimates, by measure and range, have one sign, it spans
    them all: it holds zero, and can only say that all are small.
    """
    one_sign = len({estimate.value > 0 for estimate in found.values()}) == 1
    joined = [e for key, e in found.items() if key[0] == "calibrated" or not one_sign]
    _, lows, highs, _, df, seeds, images = zip(*joined, strict=True)
    low, high = min(lows), max(highs)
    se = (high - low) / 2 / scipy.stats.t.ppf(0.975, min(df)) if min(df) > 0 else np.inf
    spanned = inference.around((low + high) / 2, se, min(df), seeds[0], max(images))
    name = "both ranges" if one_sign else "measures or ranges disagree"
    return [Cell(name, spanned, floor, unit)]


def per_class(runs: pd.DataFrame, span: Span) -> pd.DataFrame:
    """Of an arm's classes, means over seeds: ``class, k`` and, at its end, ``calibrated, top1``."""
    table = runs[runs["n"] == span[1]].groupby("class")[["calibrated", "top1"]].mean()
    table.insert(0, "k", slopes(runs, "calibrated", span)[0].groupby("class").mean())
    return table.dropna().reset_index()


def class_correlation(w: World, x: np.ndarray, runs: pd.DataFrame, span: Span) -> Estimate:
    """Rank correlation over an arm's classes of ``x`` with k of the calibrated loss.

    ``x`` (1 + draws, classes): values of the drawn images, then of bootstraps; (1, classes) of what
    has no images. Classes, drawn images, seeds and test images are resampled, the last as
    pseudovalues of folds.
    """
    k = slopes(runs, "calibrated", span)
    whole = k[0].groupby("class").mean().to_numpy()
    pseudo = folds.FOLDS * k[[0]].to_numpy() - (folds.FOLDS - 1) * k.drop(columns=0).to_numpy()
    pseudo = pseudo.reshape(len(whole), -1, folds.FOLDS)
    rng = randomness.rng(w, "scaling", "ranks")
    again = []
    for draw in range(DRAWS):
        chosen = [rng.integers(n, size=n) for n in pseudo.shape]
        again.append((x[draw % len(x), chosen[0]], pseudo[np.ix_(*chosen)].mean((1, 2))))
    return fits.rank_correlation(x[0], whole, again, len(whole))


def changes(table: pd.DataFrame, columns: Sequence) -> pd.DataFrame:
    """Thinned minus not thinned, a row per ``lot`` and each ``class`` that the lot thins."""
    keys = ["lot", "class"]
    both = table[table.groupby(keys)["thinned"].transform("any")].set_index(keys).sort_index()
    return both.loc[both["thinned"], list(columns)] - both.loc[~both["thinned"], list(columns)]
