"""Notebook 06: classifiers trained on growing sets of every source, prompt, guidance and generator.

After *Scaling Laws of Synthetic Images for Model Training ... for Now* (arXiv 2312.04567). The
classifier is a two-layer network on the study's frozen CLIP: a whole tower from scratch stays at
chance with this many images and minutes. What runs say is in ``study/exponents.py``.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import nested_subset
from helpers.engine import randomness, store
from helpers.errors import StudyError
from helpers.measure import folds
from helpers.measure.metrics import frechet
from helpers.models import heads
from helpers.study import arms
from helpers.study.arms import FEW_REAL
from helpers.worlds import World

BLOCK = 5  # seeds per job, so that more seeds add jobs and change none
BY_CLASS = ("synthetic", "retrieved")  # arms whose runs are kept class by class, too
DRAWS = 200  # bootstraps of the images that a judge looks at


def make(w: World) -> store.Artifact:
    """Train and measure every arm at every size. Needs the artifact ``arms``.

    ``runs.parquet`` has the rows of ``run`` for all arms, ``metrics.parquet`` those of ``judged``
    for all sets.
    """
    folder = store.load("arms", w).path
    return store.make("scaled", w, lambda path: _build(path, w, folder))


def _build(path: Path, w: World, folder: Path) -> None:
    jobs: dict[str, tuple] = {}
    for name in arms.arms(w):
        for first in range(0, w.scaling.seeds, BLOCK):
            seeds = range(first, min(first + BLOCK, w.scaling.seeds))
            jobs[f"runs/{name}-{first:03d}.parquet"] = (w, folder, name, seeds)
    files = store.fill(path, jobs, run, "arms trained at all sizes")
    store.write(path / "runs.parquet", _joined(files))
    jobs = {f"metrics/{name}.parquet": (w, folder, name) for name in arms.sets(w)}
    store.write(path / "metrics.parquet", _joined(store.fill(path, jobs, judged, "arms judged")))


def _joined(files: list[Path]) -> pd.DataFrame:
    return pd.concat([store.read_table(file) for file in files], ignore_index=True)


def shares(w: World, folder: Path, name: str) -> dict[int, dict[str, int]]:
    """Size -> how many images of which sets an arm is trained on; ``folder``: that of ``arms``.

    Sources that are not drawn here go on in doublings. No set gives more than half of its images
    (``arms.SPARE``), or seeds would share them. Raises ``StudyError`` where no size can be filled.
    """
    common = w.scaling.sizes
    further = [common[-1] * 2 ** (i + 1) for i in range(w.scaling.beyond)]
    kept = {}
    for n in common if name in (*arms.drawn(w), FEW_REAL) else (*common, *further):
        parts = {name: n}
        if name == "mixed":
            parts = {"retrieved": n - n // 2, "synthetic": n // 2}
        elif name == FEW_REAL:
            parts = {"train": n, "synthetic": common[-1]}
        if all(arms.SPARE * m <= _offered(w, folder, part) for part, m in parts.items()):
            kept[n] = parts
    if not kept:
        raise StudyError(
            f"{name} offers fewer than {arms.SPARE} times {common[0]} images; lower scaling sizes."
        )
    return kept


def _offered(w: World, folder: Path, name: str) -> int:
    return len(arms.images_of(w, folder, name))


def subset(w: World, folder: Path, name: str, n: int, seed: int) -> np.ndarray:
    """Positions of ``n`` images of a set, classes balanced; inside those for 2 n of the seed.

    Arms that share captions and noise (``arms.shared_rows``) share the choice, seed by seed.
    """
    labels = arms.images_of(w, folder, name).labels
    prompt = arms.arms(w)[name].prompt
    if prompt != arms.DEFAULT or n > w.scaling.sizes[-1]:
        return nested_subset(labels, n, randomness.rng(w, "scaling", "subset", name, seed))
    rows = arms.shared_rows(w) if name == "synthetic" else np.arange(len(labels))
    return rows[nested_subset(labels[rows], n, randomness.rng(w, "scaling", "subset", seed))]


def run(w: World, folder: Path, name: str, seeds: range) -> pd.DataFrame:
    """Train an ensemble, a head per size and seed, and measure it on every evaluation set.

    Columns: ``arm, n, seed, eval_set`` and those of ``folds.measured``; of the arms ``BY_CLASS``
    the test set's classes as well.
    """
    classes = tables.benchmark(w, w.tasks[0]).classes
    # All sets one after the other, and which of their rows each member learns from.
    asked = shares(w, folder, name)
    parts = list(next(iter(asked.values())))
    labels = [arms.images_of(w, folder, part).labels for part in parts]
    first = dict(zip(parts, np.cumsum([0, *map(len, labels)]), strict=False))
    features = np.concatenate([arms.embedding(folder, part) for part in parts], axis=1)
    members = [(n, seed) for n in asked for seed in seeds]
    subsets = []
    for n, seed in members:
        rows = [first[part] + subset(w, folder, part, m, seed) for part, m in asked[n].items()]
        subsets.append(np.concatenate(rows))
    # The same start at every size and in every arm.
    starts = [randomness.entropy(w.seed, "head", seed) for _, seed in members]
    all_labels = np.concatenate(labels)
    trained = heads.train(features, all_labels, subsets, starts, len(classes), w.scaling)
    held_out = {}
    for eval_set in (folds.VALIDATION, *arms.evaluation_sets(w)):
        embedded = arms.embedding(folder, eval_set)[0]
        held_out[eval_set] = (embedded, arms.images_of(w, folder, eval_set).labels)
    measured = heads.evaluate(trained, held_out, classes if name in BY_CLASS else ())
    runs = []
    for (n, seed), table in zip(members, measured, strict=True):
        runs.append(pd.DataFrame({"arm": name, "n": n, "seed": seed}, table.index).join(table))
    return pd.concat(runs, ignore_index=True)


@functools.lru_cache(maxsize=1)
def real_features(w: World, n: int) -> np.ndarray:
    """The judge's features of validation images, which a Frechet distance is measured to."""
    images = tables.benchmark(w, w.tasks[0]).val.images[: max(n, 2)]
    return worlds.backend(w).judge_features(w, images)


def judged(w: World, folder: Path, name: str) -> pd.DataFrame:
    """What a judge trained on other renderings makes of a set's images: rows per class and draw.

    Every set has the same number of images, the largest common size. ``recognizability``: F1 of the
    class asked for; ``diversity``: standard deviation of the judge's features, root mean square
    over them; NaN for a single image. Draw 0 has the images themselves, and beside these
    ``distance``, in place of LPIPS the mean distance of two images' unit features, and ``frechet``,
    the Frechet distance to validation images; the others are bootstraps within classes.
    """
    from scipy.spatial.distance import pdist
    from sklearn.metrics import f1_score

    classes = np.array(tables.benchmark(w, w.tasks[0]).classes, object)
    n = w.scaling.sizes[-1]
    split = arms.images_of(w, folder, name).take(subset(w, folder, name, n, 0))
    answers = worlds.backend(w).judge(w, np.asarray(split.images))["variant"].to_numpy()
    features = worlds.backend(w).judge_features(w, np.asarray(split.images))
    positions = pd.Series(np.arange(n)).groupby(split.labels)
    rng = randomness.rng(w, "scaling", "judged")
    parts = []
    for draw in range(1 + DRAWS):
        rows = positions.sample(frac=1, replace=draw > 0, random_state=rng).to_numpy()
        labels = split.labels[rows]
        table = pd.DataFrame({"arm": name, "draw": draw, "class": classes})
        f1 = f1_score(classes[labels], answers[rows], labels=classes, average=None, zero_division=0)
        variance = pd.DataFrame(features[rows]).groupby(labels).var().mean(axis=1)
        spread = np.sqrt(variance).reindex(range(len(classes)))
        parts.append(table.assign(recognizability=f1, diversity=spread))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distance = positions.apply(lambda rows: pdist(unit[rows]).mean() if len(rows) > 1 else np.nan)
    parts[0]["distance"] = distance.reindex(range(len(classes)))
    parts[0]["frechet"] = frechet(real_features(w, n), features)
    return pd.concat(parts, ignore_index=True)
