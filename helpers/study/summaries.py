"""What notebook 07 reads off its results: one number per probe, and [R]'s claims.

[R] is *Is Synthetic Data all We Need?* (arXiv 2405.20469). No builder imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from helpers.measure import inference
from helpers.measure.inference import Cell
from helpers.study import arms
from helpers.study.robustness import FAMILIES, MODEL, PROMPTED, WITHOUT

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
RELATIVE = {  # accuracies under a probe -> the accuracy of the same model that they are a share of
    "renditions": ("accuracy", "clean"),
    "corruption": ("accuracy", "clean"),
    "corruption_3d": ("accuracy", "clean"),
    "fgsm": ("fgsm", "0"),  # clean, on the attacked images
    "pgd": ("pgd", "0"),
    "context": ("context", "P0"),
}
LOWEST = {"calibration": 0.0, "ood": 0.5, "fgsm": 0.0, "pgd": 0.0}  # others: accuracy by chance
VALUES = ["value", *WITHOUT]
SUPERVISED, SELF, LANGUAGE = FAMILIES


class Contrast(NamedTuple):
    """A claim's difference on a ``probe``, ``side`` minus ``other``, in each of ``families``."""

    probe: str
    families: tuple[str, ...]
    side: str = "synthetic"
    other: str = "retrieved"
    unit: float = 1.0


CALIBRATED = ("retrieved", "synthetic")  # errors: what the clone has less is in its favour
PROMPTS = (arms.DEFAULT, "class names")
CONTRASTS = {  # claim -> what it is about; RB04, the background gap, cannot be tested here
    "RB01": Contrast("shape", (SELF,)),
    "RB02": Contrast("shape", (LANGUAGE,)),
    "RB03": Contrast("shape", (SUPERVISED,)),
    "RB05": Contrast("calibration", (SELF,), *CALIBRATED),
    "RB06": Contrast("calibration", (LANGUAGE,), *CALIBRATED),
    "RB07": Contrast("calibration", (SUPERVISED,), *CALIBRATED),
    "RB08": Contrast("pgd", (SUPERVISED,)),
    "RB09": Contrast("pgd", (SELF,)),
    "RB10": Contrast("pgd", (LANGUAGE,)),
    "RB11": Contrast("fgsm", FAMILIES),
    "RB12": Contrast("corruption", (SUPERVISED,)),
    "RB13": Contrast("corruption", (SELF,)),
    "RB14": Contrast("corruption", (LANGUAGE,)),
    "RB15": Contrast("corruption_3d", (SUPERVISED, LANGUAGE)),
    "RB16": Contrast("ood", (SUPERVISED,)),
    "RB17": Contrast("context", (SELF, LANGUAGE)),
    "RB18": Contrast("calibration", (LANGUAGE,), "retrieved", "mixed"),
    "RB19": Contrast("corruption", (LANGUAGE,), "mixed", "synthetic"),
    "RB20": Contrast("accuracy", (PROMPTED,), *PROMPTS, 100.0),
    "RB21": Contrast("corruption", (PROMPTED,), *PROMPTS),
    "RB22": Contrast("context", (PROMPTED,), *PROMPTS),
}


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
    return (table / whole.where(whole > 0)).dropna().reset_index()


def averages(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean of ``value`` per key, its 95 % interval over seeds and test images: ``mean, low, high``.

    The interval of a single model is unknown, and infinite.
    """
    rows = []
    for key, part in table.groupby(list(keys)):
        estimate = inference.jackknifed(part["value"], part[WITHOUT])
        rows.append((*key, *estimate[:3]))
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high"])


def says_nothing(results: pd.DataFrame, probe: str, level: float, margin: float) -> bool:
    """Whether a ``level`` of a probe is within ``margin`` of chance, or of the best there is.

    ``results`` are those of the kind of model that has this level. Of a share of an accuracy 1 is
    the best, nothing is lost; the shape bias has a floor and a ceiling of its own.
    """
    at = results.groupby(["probe", "setting"])["value"].mean()
    low, high = LOWEST.get(probe, at["accuracy", "chance"]), 1.0
    if probe == "shape":
        low, high = at["shape", "floor"], at["shape", "ceiling"]
    elif probe in RELATIVE:
        low /= at[RELATIVE[probe]]
    return bool(level <= low + margin or level >= high - margin)


def cells(results: pd.DataFrame, margins: Mapping[str, float]) -> dict[str, list[Cell]]:
    """The claims' differences, paired by seed, at the largest size of both sides: claim -> cells.

    ``margins`` (claim -> margin) say what is too near to chance. Claims of which a family lacks two
    pairs are left out. Accuracies under a probe are shares of those in ``RELATIVE``.
    """
    absolute = summary(results)
    shares = summary(results, relative=True)
    table = pd.concat([absolute[~absolute["probe"].isin(RELATIVE)], shares])
    found = {}
    for claim, contrast in CONTRASTS.items():
        if claim in margins:
            parts = [_cell(results, table, contrast, f, margins[claim]) for f in contrast.families]
            found[claim] = [cell for cell in parts if cell]
    return {
        claim: parts
        for claim, parts in found.items()
        if len(parts) == len(CONTRASTS[claim].families)
    }


def _cell(results, table, contrast, family, margin):
    """A claim's difference in one family; None without two pairs."""
    table = table[(table["probe"] == contrast.probe) & (table["family"] == family)]
    sides = {
        source: table[table["source"] == source].set_index(["n", "seed"])[VALUES]
        for source in (contrast.side, contrast.other)
    }
    pairs = (sides[contrast.side] - sides[contrast.other]).dropna()
    n = pairs.index.get_level_values("n").max()
    pairs = pairs[pairs.index.get_level_values("n") == n]
    if len(pairs) < 2:
        return None
    silent = []
    for source, side in sides.items():
        own = results[results[["family", "source", "n"]].eq([family, source, n]).all(axis=1)]
        level = side.loc[n, "value"].mean()
        silent.append(says_nothing(own, contrast.probe, level, margin / contrast.unit))
    pairs = contrast.unit * pairs
    return Cell(family, inference.jackknifed(pairs["value"], pairs[WITHOUT]), all(silent))
