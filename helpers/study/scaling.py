"""Notebook 06: classifiers trained on growing sets of every source, prompt, guidance and generator.

After *Scaling Laws of Synthetic Images for Model Training ... for Now* (arXiv 2312.04567). The
classifier is a two-layer network, trained from scratch on the frozen image tower of the study's
CLIP: a whole tower from scratch stays at chance with this many images and minutes. What is read off
the finished runs is in ``study/exponents.py``.
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
    store.load("arms", w)
    return store.make("scaled", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    folder = store.load("arms", w).path
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


def parts_of(name: str) -> tuple[str, ...]:
    """The sets of images that an arm is made of."""
    return ("retrieved", "synthetic") if name == "mixed" else (name,)


def sizes(w: World, folder: Path, name: str) -> list[int]:
    """The sizes that an arm is trained at; ``folder`` is that of the artifact ``arms``.

    These are the common ones, and further doublings for the sources that offer more. Raises
    ``StudyError`` on an arm with fewer images than the smallest size.
    """
    common = w.scaling.sizes
    further = [common[-1] * 2 ** (i + 1) for i in range(w.scaling.beyond)]
    asked = common if name in arms.drawn(w) else (*common, *further)
    parts = parts_of(name)
    offered = min(len(arms.images_of(w, folder, part)) for part in parts) * len(parts)
    kept = [n for n in asked if n <= offered]
    if not kept:
        raise StudyError(
            f"{name} offers {offered} images, fewer than the smallest size {common[0]}; "
            "lower scaling sizes."
        )
    return kept


def subset(w: World, folder: Path, name: str, n: int, seed: int) -> np.ndarray:
    """Positions of ``n`` images of a set, classes balanced; inside those for 2 n of the seed."""
    labels = arms.images_of(w, folder, name).labels
    return nested_subset(labels, n, randomness.rng(w, "scaling", "subset", name, seed))


def run(w: World, folder: Path, name: str) -> pd.DataFrame:
    """One arm at all its sizes and seeds: a table of ``measured``."""
    asked = sizes(w, folder, name)
    if name == "mixed":
        return measured(
            w, folder, name, {n: {"retrieved": n - n // 2, "synthetic": n // 2} for n in asked}
        )
    return measured(w, folder, name, {n: {name: n} for n in asked})


def few_real(w: World, folder: Path, added: int) -> pd.DataFrame:
    """Growing numbers of real images of the task, always with the same number of drawn ones.

    A table of ``measured`` with the column ``added``; ``n`` is the number of real images.
    """
    asked = sizes(w, folder, "train")
    if added:
        asked = [0, *asked]
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
    classes = tables.benchmark(w, arms.scaled_task(w)).classes
    parts = list(next(iter(shares.values())))
    part_labels = [arms.images_of(w, folder, part).labels for part in parts]
    first = dict(zip(parts, np.cumsum([0, *map(len, part_labels)]), strict=False))
    members = [(n, seed) for n in shares for seed in range(w.scaling.seeds)]
    subsets = [
        np.concatenate(
            [first[part] + subset(w, folder, part, m, seed) for part, m in shares[n].items()]
        )
        for n, seed in members
    ]
    features = np.concatenate([arms.embedding(folder, part) for part in parts], axis=1)
    labels = np.concatenate(part_labels)
    # The same start at every size and in every arm.
    seeds = [randomness.entropy(w.seed, "head", seed) for _, seed in members]
    trained = heads.train(features, labels, subsets, seeds, len(classes), w.scaling)
    rows = []
    for eval_set, split in arms.evaluation_sets(w).items():
        embedded = arms.embedding(folder, eval_set)[0]
        loss, top1 = heads.evaluate(trained, embedded, split.labels, len(classes))
        images = np.bincount(split.labels, minlength=len(classes))
        for i, (n, seed) in enumerate(members):
            of_member = {"arm": name, "n": n, "seed": seed, "eval_set": eval_set, "class": classes}
            of_member |= {"images": images, "loss": loss[i], "top1": top1[i]}
            rows.append(pd.DataFrame(of_member))
    return pd.concat(rows, ignore_index=True)


def judged(w: World, folder: Path, name: str) -> pd.DataFrame:
    """What a judge trained on other renderings makes of a set's images: one row per class.

    The number of images is the same for every set, where it has as many. ``recognizability``: F1 of
    the class asked for; ``diversity``: standard deviation of the features, root mean square over
    dimensions; ``distance``: mean pairwise distance of unit features, in place of LPIPS;
    ``frechet``: Frechet distance of all the images to validation images.
    """
    from sklearn.metrics import f1_score

    benchmark = tables.benchmark(w, arms.scaled_task(w))
    classes = benchmark.classes
    n = min(w.scaling.sizes[-1], sizes(w, folder, name)[-1])
    split = arms.images_of(w, folder, name).take(subset(w, folder, name, n, 0))
    images = np.asarray(split.images)
    answers = worlds.backend(w).judge(w, images)["variant"].to_numpy()
    truth = np.array(classes, object)[split.labels]
    f1 = f1_score(truth, answers, labels=list(classes), average=None, zero_division=0)
    features = worlds.backend(w).judge_features(w, images)
    real = worlds.backend(w).judge_features(w, benchmark.val.images[: max(n, 2)])
    groups = [features[split.labels == label] for label in range(len(classes))]
    return pd.DataFrame(
        {
            "arm": name,
            "class": classes,
            "images": [len(group) for group in groups],
            "recognizability": f1,
            "diversity": [spread(group) for group in groups],
            "distance": [pairwise(group) for group in groups],
            "frechet": frechet(real, features),
        }
    )


def spread(features: np.ndarray) -> float:
    """Standard deviation of features (n, d), root mean square over d; NaN for fewer than two."""
    return float(np.sqrt(features.var(0, ddof=1).mean())) if len(features) > 1 else float("nan")


def pairwise(features: np.ndarray) -> float:
    """Mean Euclidean distance between two different images' unit features; NaN for fewer than two.

    ``features`` is (n, d), not yet of unit length.
    """
    import torch
    from torchmetrics.functional.pairwise import pairwise_euclidean_distance

    if len(features) < 2:
        return float("nan")
    unit = torch.nn.functional.normalize(torch.from_numpy(features).double(), dim=1)
    return float(pairwise_euclidean_distance(unit).sum() / (len(unit) * (len(unit) - 1)))
