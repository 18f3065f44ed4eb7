"""What is kept of a run on held-out images: losses and accuracy, by class and fold of the images.

Every arm has the same folds, so that a contrast can be taken again without each of them: what the
choice of the images adds to an interval follows from that (``inference.jackknifed``).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

FOLDS = 10
ALL = "all"  # in the column ``class``: images of all classes
VALIDATION = "val"  # the set that temperatures are chosen on
LOOKED_AT = 1_000  # images of it, at most


def fold_of(labels: np.ndarray) -> np.ndarray:
    """The fold of every image, 0 .. ``FOLDS`` - 1: each class's images are dealt out in turns."""
    return (pd.Series(labels).groupby(labels).cumcount().to_numpy() + labels) % FOLDS


def measured(
    logits: np.ndarray, labels: np.ndarray, temperature: float, classes: Sequence[str] = ()
) -> pd.DataFrame:
    """A row per fold that has images, over all classes; with ``classes``, likewise of each class.

    ``logits`` are (n, classes), ``labels`` (n,). Columns ``class, fold, images``, and means over
    the ``images``: ``loss`` (cross-entropy, nats), the same ``calibrated`` by dividing logits by
    ``temperature``, and ``top1`` accuracy (0..1).
    """
    from scipy.special import log_softmax

    rows = np.arange(len(labels))
    values = {"loss": -log_softmax(logits, axis=1)[rows, labels]}
    values["calibrated"] = -log_softmax(logits / temperature, axis=1)[rows, labels]
    values["top1"] = logits.argmax(1) == labels
    fold = fold_of(labels)
    parts = [_means(values, fold, [ALL])]
    if len(classes):
        parts.append(_means(values, labels * FOLDS + fold, classes))
    return pd.concat(parts, ignore_index=True)


def _means(values: dict[str, np.ndarray], cell: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame({"class": np.repeat(np.array(names, object), FOLDS)})
    table["fold"] = np.tile(np.arange(FOLDS), len(names))
    table["images"] = np.bincount(cell, minlength=len(table))
    for name, value in values.items():
        total = np.bincount(cell, value, len(table))
        table[name] = total / np.maximum(table["images"], 1)
    return table[table["images"] > 0]
