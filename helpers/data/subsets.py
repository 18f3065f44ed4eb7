"""Which rows of a table are taken: nested, balanced, evenly spread, best of a class."""

import numpy as np
import pandas as pd

from helpers.data.tables import Split
from helpers.errors import StudyError


def evenly_spread(n: int, most: int) -> np.ndarray:
    """At most ``most`` of the positions 0 .. ``n`` - 1, in order, evenly spread from end to end."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def thinned(split: Split, most: int) -> Split:
    """At most ``most`` images, evenly spread over the split; the same ones for every arm."""
    return split if len(split) <= most else split.take(evenly_spread(len(split), most))


def balanced(split: Split, most: int) -> Split:
    """At most ``most`` images, as many of every class: evenly spread ones may miss some of them."""
    if len(split) <= most:
        return split
    chosen = nested_subset(split.labels, most, np.random.default_rng(0))
    return split.take(np.sort(chosen))


def nested_subset(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of ``n`` images, drawn from classes in turns; those for 2 n hold those for n.

    Raises ``StudyError`` when there are fewer than ``n`` images.
    """
    if n > len(labels):
        raise StudyError(f"a subset of {n} images was asked for, but there are only {len(labels)}.")
    order = rng.permutation(len(labels))
    turn = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    shuffled_classes = rng.permutation(int(labels.max()) + 1 if len(labels) else 0)
    return order[np.lexsort((shuffled_classes[labels[order]], turn))][:n]


def repeated(table: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """``n`` rows of classes in turns, each class's over and over; ``StudyError`` without rows."""
    if not len(table):
        raise StudyError("there are no captions to draw from; run notebooks 01 to 03 again.")
    table = table.iloc[rng.permutation(len(table))]
    turn = table.groupby("label").cumcount().to_numpy()
    size = table.groupby("label")["label"].transform("size").to_numpy()
    rounds = int(np.ceil(n / table["label"].nunique() / size.min()))
    turns = np.concatenate([turn + size * i for i in range(rounds)])
    first = np.argsort(turns, kind="stable")[:n] % len(table)
    return table.iloc[first].reset_index(drop=True)


def top_share(scores: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Mask of the best-scoring ``share`` of each class, at least one ([P] section 3: top 30 %)."""
    rank = pd.Series(scores).groupby(labels).rank(ascending=False, method="first")
    size = pd.Series(labels).groupby(labels).transform("size")
    return (rank <= np.maximum(np.ceil(share * size - 1e-9), 1)).to_numpy()
