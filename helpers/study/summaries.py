"""What notebook 07 reads off its results: summaries, [R]'s claims. No builder imports this."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from helpers.engine import report
from helpers.errors import NotKnown
from helpers.measure import inference
from helpers.study import arms, robustness
from helpers.study.robustness import ABLATED, FAMILIES, MODEL, PROMPTED
from helpers.worlds import World

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
RELATIVE = ("renditions", *AVERAGED, "context")  # accuracies, which a share of the clean one suits


def summary(results: pd.DataFrame, relative: bool = False) -> pd.DataFrame:
    """One number per model and probe: ``family, source, n, seed, probe, value``.

    With ``relative`` only the probes of ``RELATIVE``, as a share of the same model's clean
    accuracy, where that is not zero.
    """
    named = pd.MultiIndex.from_frame(results[["probe", "setting"]]).isin(ONE_NUMBER)
    averaged = results["probe"].isin(AVERAGED) & (results["setting"] != "0")
    table = results[named | averaged].groupby([*MODEL, "probe"], as_index=False)["value"].mean()
    if not relative:
        return table
    clean = results.query("probe == 'accuracy' and setting == 'clean' and value > 0")
    table = table[table["probe"].isin(RELATIVE)]
    table = table.merge(clean[[*MODEL, "value"]], on=MODEL, suffixes=("", "_clean"))
    return table.assign(value=table["value"] / table["value_clean"]).drop(columns="value_clean")


def ablations(w: World, results: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The mixing ablation and the prompt ablation in the form of ``summary``.

    Raises ``NotKnown`` where no models are trained.
    """
    if w.robustness.checkpoints:
        raise NotKnown(
            f"world {w.name!r} probes finished checkpoints, so nothing is trained for an ablation"
            " of mixing or prompts. The rendered worlds do: python -m helpers.run pocket 07"
        )
    mixing = results[results["family"] == ABLATED]
    by_prompt = (results["family"] == PROMPTED) & results["source"].isin(robustness.kinds(w))
    return summary(mixing), summary(results[by_prompt])


@dataclass(frozen=True)
class Claim:
    """One of [R]'s claims: on ``probe``, ``source`` is better (1) or worse (-1) than ``reference``.

    A probe's numbers are turned by ``sign``, so that larger is better.
    """

    text: str
    family: str
    probe: str
    sign: int
    expected: int
    source: str = "synthetic"
    reference: str = "retrieved"


def listed() -> Iterator[Claim]:
    """[R]'s claims on clones (models of synthetic images), on mixing, and on prompts."""
    for family in FAMILIES:
        expected, verb = (-1, "lag behind") if family == "supervised" else (1, "match or beat")
        clones = f"{family} clones {verb} real on"
        yield Claim(f"{clones} shape bias", family, "shape", 1, expected)
        yield Claim(f"{clones} background gap", family, "background", -1, expected)
        yield Claim(f"{clones} calibration error", family, "calibration", -1, expected)
        fragile = f"{family} clones are more fragile under"
        yield Claim(f"{fragile} PGD (relative)", family, "pgd", 1, -1)
        yield Claim(f"{fragile} corruptions (relative)", family, "corruption", 1, -1)
    yield Claim(f"mixing improves calibration ({ABLATED})", ABLATED, "calibration", -1, 1, "mixed")
    helped = {"accuracy": "test accuracy", "corruption": "corruptions"}
    helped["context"] = "uncommon attributes"
    for probe, name in helped.items():
        text = f"captions help more than class names on {name} ({PROMPTED})"
        yield Claim(text, PROMPTED, probe, 1, 1, arms.DEFAULT, "class names")


def claims(results: pd.DataFrame, by_prompt: pd.DataFrame | None = None) -> pd.DataFrame:
    """[R]'s claims against these models: ``claim, difference, low, high, holds``.

    ``by_prompt`` is the summary of the prompt ablation. Differences are source minus reference, by
    seed, positive where the source is better. A claim holds ("yes") or fails ("no") only where the
    95 % interval over seeds excludes zero.
    """
    absolute = summary(results)
    relative = summary(results, relative=True)
    rows = []
    for claim in listed():
        table = relative if claim.probe in RELATIVE else absolute
        if claim.reference == "class names":
            table = absolute[:0] if by_prompt is None else by_prompt
        # By seed, at the largest number of images; empty where one side is missing.
        part = table[(table["family"] == claim.family) & (table["probe"] == claim.probe)]
        largest = part[part["n"] == part["n"].max()]
        wide = largest.pivot(index="seed", columns="source", values="value")
        wide = wide.reindex(columns=[claim.source, claim.reference])
        change = claim.sign * (wide[claim.source] - wide[claim.reference]).dropna()
        if not len(change):
            continue
        mean, low, high = inference.interval(change)
        above, below = ("yes", "no")[:: claim.expected]
        holds = report.verdict(low, high, above, below, "no difference found")
        if len(change) < 2:
            holds = "one pair decides nothing"
        rows.append((claim.text, mean, low, high, holds))
    return pd.DataFrame(rows, columns=["claim", "difference", "low", "high", "holds"])
