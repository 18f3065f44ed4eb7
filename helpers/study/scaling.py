"""Notebook 06: classifiers trained on growing sets of every source, prompt, guidance and generator.

After *Scaling Laws of Synthetic Images for Model Training ... for Now* (arXiv 2312.04567). The
classifier is a two-layer network on the study's frozen CLIP: a whole tower from scratch stays at
chance with this many images and minutes. What runs say is in ``study/exponents.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import nested_subset
from helpers.engine import randomness, store
from helpers.errors import StudyError
from helpers.measure.metrics import frechet
from helpers.models import heads
from helpers.study import arms
from helpers.worlds import World

FEW_REAL = "few real"  # in the column ``arm``: real images with a fixed number of drawn ones


def make(w: World) -> store.Artifact:
    """Train and measure every arm at every size. Needs the artifact ``arms``.

    ``runs.parquet`` has a row per arm, n, seed, evaluation set and class; ``few_real.parquet``
    likewise, with the number of images ``added``; ``metrics.parquet`` one per set and class.
    """
    folder = store.load("arms", w).path
    return store.make("scaled", w, lambda path: _build(path, w, folder))


def _build(path: Path, w: World, folder: Path) -> None:
    added = (0, sizes(w, folder, "synthetic")[-1])
    steps: tuple[tuple[str, Callable, Iterable, str], ...] = (
        ("runs", run, arms.arms(w), "arms trained at all sizes"),
        ("few_real", few_real, added, "few-real arms trained"),
        ("metrics", judged, arms.sets(w), "arms judged"),
    )
    for name, function, values, label in steps:
        jobs = {f"{name}/{value}.parquet": (w, folder, value) for value in values}
        files = store.fill(path, jobs, function, label)
        table = pd.concat([store.read_table(file) for file in files], ignore_index=True)
        store.write(path / f"{name}.parquet", table)


def sizes(w: World, folder: Path, name: str) -> list[int]:
    """The sizes that an arm is trained at; ``folder`` is that of the artifact ``arms``.

    Sources that offer more go on in doublings. Raises ``StudyError`` where none can be filled.
    """
    common = w.scaling.sizes
    further = [common[-1] * 2 ** (i + 1) for i in range(w.scaling.beyond)]
    asked = common if name in arms.drawn(w) else (*common, *further)
    parts = ("retrieved", "synthetic") if name == "mixed" else (name,)
    offered = min(len(arms.images_of(w, folder, part)) for part in parts) * len(parts)
    kept = [n for n in asked if n <= offered]
    if not kept:
        raise StudyError(f"{name} offers {offered} images, below {common[0]}; lower scaling sizes.")
    return kept


def subset(w: World, folder: Path, name: str, n: int, seed: int) -> np.ndarray:
    """Positions of ``n`` images of a set, classes balanced; inside those for 2 n of the seed."""
    labels = arms.images_of(w, folder, name).labels
    return nested_subset(labels, n, randomness.rng(w, "scaling", "subset", name, seed))


def run(w: World, folder: Path, name: str) -> pd.DataFrame:
    """One arm at all its sizes and seeds: a table of ``measured``."""
    asked = sizes(w, folder, name)
    shares = {n: {name: n} for n in asked}
    if name == "mixed":
        shares = {n: {"retrieved": n - n // 2, "synthetic": n // 2} for n in asked}
    return measured(w, folder, name, shares)


def few_real(w: World, folder: Path, added: int) -> pd.DataFrame:
    """``measured`` of growing numbers ``n`` of real images, always with ``added`` drawn ones."""
    asked = sizes(w, folder, "train")
    asked = [0, *asked] if added else asked
    shares = {n: {"train": n, "synthetic": added} for n in asked}
    table = measured(w, folder, FEW_REAL, shares)
    table.insert(3, "added", added)
    return table


def measured(
    w: World, folder: Path, name: str, shares: Mapping[int, Mapping[str, int]]
) -> pd.DataFrame:
    """Train an ensemble, a head per size and seed, and evaluate it class by class on every set.

    ``shares``: size -> the number of images of each set, the same sets at all sizes. Columns:
    ``arm, n, seed, eval_set, class, images, loss, top1``, the mean cross-entropy in nats over the
    ``images`` of a class and their accuracy (0..1).
    """
    classes = tables.benchmark(w, w.tasks[0]).classes
    # All sets one after the other, and which of their rows each member learns from.
    parts = list(next(iter(shares.values())))
    labels = [arms.images_of(w, folder, part).labels for part in parts]
    first = dict(zip(parts, np.cumsum([0, *map(len, labels)]), strict=False))
    features = np.concatenate([arms.embedding(folder, part) for part in parts], axis=1)
    members = [(n, seed) for n in shares for seed in range(w.scaling.seeds)]
    subsets = []
    for n, seed in members:
        rows = [first[part] + subset(w, folder, part, m, seed) for part, m in shares[n].items()]
        subsets.append(np.concatenate(rows))
    # The same start at every size and in every arm.
    seeds = [randomness.entropy(w.seed, "head", seed) for _, seed in members]
    trained = heads.train(features, np.concatenate(labels), subsets, seeds, len(classes), w.scaling)
    results = []
    for eval_set, split in arms.evaluation_sets(w).items():
        embedded = arms.embedding(folder, eval_set)[0]
        loss, top1 = heads.evaluate(trained, embedded, split.labels, len(classes))
        images = np.bincount(split.labels, minlength=len(classes))
        for i, (n, seed) in enumerate(members):
            about = {"arm": name, "n": n, "seed": seed, "eval_set": eval_set, "class": classes}
            values = {"images": images, "loss": loss[i], "top1": top1[i]}
            results.append(pd.DataFrame(about | values))
    return pd.concat(results, ignore_index=True)


def judged(w: World, folder: Path, name: str) -> pd.DataFrame:
    """What a judge trained on other renderings makes of a set's images: one row per class.

    The number of images is the same for every set, where it has as many. ``recognizability``: F1 of
    the class asked for; ``diversity`` and ``distance`` (in place of LPIPS): ``spread`` of the
    judge's features; ``frechet``: Frechet distance of all the images to validation images.
    """
    from sklearn.metrics import f1_score

    bench = tables.benchmark(w, w.tasks[0])
    names = list(bench.classes)
    n = min(w.scaling.sizes[-1], sizes(w, folder, name)[-1])
    split = arms.images_of(w, folder, name).take(subset(w, folder, name, n, 0))
    images = np.asarray(split.images)
    answers = worlds.backend(w).judge(w, images)["variant"].to_numpy()
    truth = np.array(names, object)[split.labels]
    f1 = f1_score(truth, answers, labels=names, average=None, zero_division=0)
    features = worlds.backend(w).judge_features(w, images)
    real = worlds.backend(w).judge_features(w, bench.val.images[: max(n, 2)])
    table = pd.DataFrame({"arm": name, "class": names})
    table["images"] = np.bincount(split.labels, minlength=len(names))
    table["recognizability"] = f1
    spreads = [spread(features[split.labels == label]) for label in range(len(names))]
    table[["diversity", "distance"]] = spreads
    return table.assign(frechet=frechet(real, features))


def spread(features: np.ndarray) -> tuple[float, float]:
    """Standard deviation of features (n, d), root mean square over d, and their mean distance.

    The distance is Euclidean, between two images' unit features. NaN for fewer than two images.
    """
    import torch
    from torchmetrics.functional.pairwise import pairwise_euclidean_distance

    n = len(features)
    if n < 2:
        return np.nan, np.nan
    unit = torch.nn.functional.normalize(torch.from_numpy(features).double(), dim=1)
    distance = pairwise_euclidean_distance(unit).sum() / (n * (n - 1))
    return float(np.sqrt(features.var(0, ddof=1).mean())), float(distance)
