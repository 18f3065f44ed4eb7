"""What is kept of a run on held-out images: losses and accuracy, on all of them and without a fold.

Every arm has the same folds, so that a contrast can be taken again without each of them: what the
choice of the images adds to an interval follows from that (``inference.jackknifed``).
"""

import io
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.engine.late import scipy
from helpers.measure import metrics

FOLDS = 10
ALL = "all"  # in the column ``class``: images of all classes
VALIDATION = "val"  # the set that temperatures are chosen on
LOOKED_AT = 1_000  # images of it, at most


def fold_of(labels: np.ndarray) -> np.ndarray:
    """The fold of every image, 0 .. ``FOLDS`` - 1: each class's images are dealt out in turns."""
    return (pd.Series(labels).groupby(labels).cumcount().to_numpy() + labels) % FOLDS


def columns(measure: str) -> list[str]:
    """The columns of a measure: its mean over all images, then over those without each fold."""
    return [measure, *(f"{measure}-{fold}" for fold in range(FOLDS))]


def measured(
    logits: np.ndarray, labels: np.ndarray, temperature: float, classes: Sequence[str] = ()
) -> pd.DataFrame:
    """A row over all classes; with ``classes``, another for each of them that has images.

    ``logits`` are (n, classes), ``labels`` (n,). Columns ``class, images, loss`` (cross-entropy,
    nats), the ``columns`` of ``calibrated``, the loss of logits divided by ``temperature``, and
    those of ``top1`` accuracy (0..1).
    """
    names = [ALL, *classes]
    rows = np.arange(len(labels))
    cell = labels * FOLDS + fold_of(labels)

    def sums(values: np.ndarray) -> np.ndarray:
        of_class = np.bincount(cell, values, logits.shape[1] * FOLDS).reshape(-1, FOLDS)
        of_fold = np.vstack([of_class.sum(0), of_class])[: len(names)]
        return of_fold.sum(1, keepdims=True) - np.insert(of_fold, 0, 0, axis=1)

    images = sums(np.ones(len(labels)))
    loss = sums(-scipy.special.log_softmax(logits, axis=1)[rows, labels])
    calibrated = sums(-scipy.special.log_softmax(logits / temperature, axis=1)[rows, labels])
    top1 = sums(logits.argmax(1) == labels)
    with np.errstate(invalid="ignore"):  # of classes without images, or all of whose are one fold
        means = np.hstack([loss[:, :1] / images[:, :1], calibrated / images, top1 / images])
    table = pd.DataFrame(means, columns=["loss", *columns("calibrated"), *columns("top1")])
    table = table.assign(**{"class": names, "images": images[:, 0].astype(int)})
    return table[table["images"] > 0]


def of_sets(
    logits: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], classes: Sequence[str] = ()
) -> pd.DataFrame:
    """What was ``measured`` on every set of images, its name in ``eval_set``; classes on "test".

    The temperature is that of the set ``VALIDATION``, which is not measured itself.
    """
    t = metrics.temperature(logits[VALIDATION], labels[VALIDATION])
    parts = []
    for name in [name for name in logits if name != VALIDATION]:
        part = measured(logits[name], labels[name], t, classes if name == "test" else ())
        parts.append(part.assign(eval_set=name))
    return pd.concat(parts, ignore_index=True)


def packed(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of one ``arm`` and size ``n`` as one row: means on test images, to be read, and in few
    bytes all that was ``measured``, the column ``table``."""
    on_test = runs[(runs["eval_set"] == "test") & (runs["class"] == ALL)]
    means = on_test.groupby(["arm", "n"], as_index=False)[["calibrated", "top1"]].mean().round(4)
    text = runs.to_csv(index=False, float_format="%.12g")
    return means.assign(runs=len(on_test), table=zlib.compress(text.encode(), 9))


def unpacked(tables: Iterable[bytes]) -> pd.DataFrame:
    """The tables that became zipped CSV, one below the other."""
    texts = (io.BytesIO(zlib.decompress(table)) for table in tables)
    parts = [pd.read_csv(text, dtype={"setting": str}) for text in texts]
    return pd.concat(parts, ignore_index=True)
