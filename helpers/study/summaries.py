"""What notebook 07 reads off its results: one number per probe, and [R]'s claims.

[R] is *Is Synthetic Data all We Need?* (arXiv 2405.20469). No builder imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.engine import places
from helpers.measure import inference
from helpers.measure.inference import Cell
from helpers.study.robustness import MODEL, WITHOUT

# The one number of a probe is the mean over those of its settings that are listed here, ...
ONE_NUMBER = (
    ("accuracy", "test"),
    ("renditions", "accuracy"),
    ("context", "P2"),
    ("calibration", "ece"),
    ("ood", "near-entropy-auroc"),
    ("ood", "far-entropy-auroc"),
    ("shape", "shape_bias"),
    ("background", "gap"),
)
# ... or over all its settings without radius 0, which is no attack.
AVERAGED = ("corruption", "corruption_3d", "fgsm", "pgd")
RELATIVE = {  # accuracies under a probe -> the same model's accuracy that they are a share of
    "renditions": ("accuracy", "clean"),
    "corruption": ("accuracy", "clean"),
    "corruption_3d": ("accuracy", "clean"),
    "fgsm": ("fgsm", "0"),  # on the attacked images
    "pgd": ("pgd", "0"),
    "context": ("context", "P0"),
}
LOWEST = {"calibration": 0.0, "ood": 0.5, "fgsm": 0.0, "pgd": 0.0}  # others: chance
KIND = ["family", "source", "n"]
VALUES = ["value", *WITHOUT]


def asked() -> pd.DataFrame:
    """[R]'s claims by number: ``probe, families, side, other``; the difference is side - other."""
    claims = pd.read_csv(places.PACKAGE / "study" / "robustness_claims.csv", index_col="claim")
    return claims.assign(families=claims["families"].str.split(" and "))


def summary(results: pd.DataFrame, relative: bool = False) -> pd.DataFrame:
    """One number per model and probe: ``MODEL``, ``probe``, ``VALUES``.

    With ``relative`` only the probes of ``RELATIVE``, as the share that is left of the accuracy
    named there, where that is not zero.
    """
    named = pd.MultiIndex.from_frame(results[["probe", "setting"]]).isin(ONE_NUMBER)
    averaged = results["probe"].isin(AVERAGED) & (results["setting"] != "0")
    table = results[named | averaged].groupby([*MODEL, "probe"])[VALUES].mean()
    if not relative:
        return table.reset_index()
    wholes = []
    for probe, (of, setting) in RELATIVE.items():
        whole = results[(results["probe"] == of) & (results["setting"] == setting)]
        wholes.append(whole.assign(probe=probe).set_index([*MODEL, "probe"])[VALUES])
    whole = pd.concat(wholes).reindex(table.index)
    return (table / whole.where(whole > 0)).dropna(subset="value").reset_index()


def averages(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean of ``value`` per key, its 95 % interval over seeds and test images: ``mean, low, high``.

    The interval of a single model is not known, and infinite.
    """
    rows = []
    for key, part in table.groupby(list(keys)):
        rows.append((*key, *inference.jackknifed(part["value"], part[WITHOUT])[:3]))
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high"])


def paired(table: pd.DataFrame, side: str, other: str) -> pd.DataFrame:
    """Differences of two sources by seed: ``family, n, probe, seed``, and ``VALUES`` of them."""
    keys = ["family", "n", "probe", "seed"]
    first, second = (table[table["source"] == s].set_index(keys)[VALUES] for s in (side, other))
    return (first - second).dropna(subset="value").reset_index()


def silent(means: pd.DataFrame, results: pd.DataFrame, margins: Mapping[str, float]) -> list[bool]:
    """Which ``means`` (``KIND, probe, mean``) are within a probe's margin of chance or the best.

    Of a share of an accuracy 1 is the best, nothing is lost; the shape bias has a floor and a
    ceiling of its own. Probes without a margin always say something.
    """
    levels = results.groupby([*KIND, "probe", "setting"])["value"].mean()
    found = []
    for row in means.itertuples():
        level = levels[row.family, row.source, row.n]
        low, high = LOWEST.get(row.probe, level["accuracy", "chance"]), 1.0
        if row.probe == "shape":
            low, high = level["shape", "floor"], level["shape", "ceiling"]
        elif row.probe in RELATIVE:
            low /= max(level[RELATIVE[row.probe]], 1e-9)
        margin = margins.get(row.probe, np.nan)
        found.append(bool(row.mean <= low + margin or row.mean >= high - margin))
    return found


def cells(results: pd.DataFrame, margins: Mapping[str, float]) -> dict[str, list[Cell]]:
    """The claims' differences, paired by seed, at the largest size of both sides: claim -> cells.

    A cell is at the floor where both sides are ``silent`` by the claim's margin. Claims of which a
    family lacks two pairs are left out. Accuracies under a probe are shares (``RELATIVE``), those
    of the plain test images points.
    """
    absolute = summary(results)
    shares = summary(results, relative=True)
    table = pd.concat([absolute[~absolute["probe"].isin(RELATIVE)], shares])
    found = {}
    for claim, (probe, families, *sides) in asked().iterrows():
        compared = table[(table["probe"] == probe) & table["source"].isin(sides)]
        pairs = paired(compared, *sides)
        unit = 100 if probe == "accuracy" else 1
        parts = []
        for family in families:
            part = pairs[pairs["family"] == family]
            part = part[part["n"] == part["n"].max()]
            if len(part) > 1:
                estimate = inference.jackknifed(unit * part["value"], unit * part[WITHOUT])
                both = compared.merge(part[["family", "n", "probe", "seed"]])
                means = averages(both, [*KIND, "probe"])
                floor = all(silent(means, results, {probe: margins[claim] / unit}))
                parts.append(Cell(family, estimate, floor))
        if len(parts) == len(families):
            found[claim] = parts
    return found
