"""What notebook 07 reads off its results: a number per probe, intervals; no builder imports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from helpers.measure import inference
from helpers.study.robustness import MODEL, WITHOUT

KEYS = [*MODEL, "probe"]
KIND = ["family", "source", "n"]
VALUES = ["value", *WITHOUT]


def summary(results: pd.DataFrame, numbers: Mapping[str, str]) -> pd.DataFrame:
    """One number per model and probe, ``KEYS`` and ``VALUES``: the mean over its settings.

    ``numbers``: probe -> the settings that count, as a regular expression.
    """
    counts = []
    for probe, settings in numbers.items():
        of_probe = results[results["probe"] == probe]
        counts.append(of_probe[of_probe["setting"].str.fullmatch(settings)])
    return pd.concat(counts).groupby(KEYS)[VALUES].mean().reset_index()


def shares(
    table: pd.DataFrame, results: pd.DataFrame, wholes: Mapping[str, tuple[str, str]]
) -> pd.DataFrame:
    """A ``summary`` of ``results`` as shares of another accuracy of the same model.

    ``wholes``: probe -> probe and setting of that accuracy. Where it is zero, there is no share.
    """
    of = [summary(results, dict([whole])).assign(probe=probe) for probe, whole in wholes.items()]
    whole = pd.concat(of).set_index(KEYS)
    parts = table[table["probe"].isin(wholes)].set_index(KEYS)
    shares = parts / whole.where(whole > 0).reindex(parts.index)
    return shares.dropna(subset="value").reset_index()


def averages(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean of ``value`` per key and 95 % interval (infinite of one model): ``mean, low, high``."""
    rows = []
    for key, part in table.groupby(list(keys)):
        rows.append((*key, *inference.jackknifed(part["value"], part[WITHOUT])[:3]))
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high"])


def paired(table: pd.DataFrame, side: str, other: str) -> pd.DataFrame:
    """Differences of two sources by seed: ``family, n, probe, seed``, and ``VALUES`` of them."""
    keys = ["family", "n", "probe", "seed"]
    first, second = (table[table["source"] == s].set_index(keys)[VALUES] for s in (side, other))
    return (first - second).dropna(subset="value").reset_index()
