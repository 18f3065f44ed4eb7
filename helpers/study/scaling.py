"""Notebook 06: classifiers trained on growing sets of every source, prompt, guidance and generator.

After *Scaling Laws of Synthetic Images for Model Training ... for Now* (arXiv 2312.04567). The
classifier is a two-layer network on the study's frozen CLIP: a whole tower from scratch stays at
chance with this many images and minutes. What runs say is in ``study/exponents.py``.
"""

from __future__ import annotations

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
from helpers.study.runs import collect
from helpers.worlds import World

BLOCK = 5  # seeds that are trained together: more seeds add blocks and change none
BY_CLASS = ("synthetic", "retrieved")  # arms whose runs are kept class by class, too
DRAWS = 200  # bootstraps of the images that a judge looks at


@store.builds("scaled")
def make(path: Path, w: World) -> None:
    """Train and measure every arm at every size; have every set judged.

    ``runs.parquet`` has what ``run`` finds, ``metrics/*.parquet`` what ``judged`` does.
    """
    folder = store.load("arms", w).path
    recipe = arms.recipe(w, "scaled", w.scaling.sizes[-1])
    sizes = [(name, n) for name in arms.arms(w) for n in shares(w, folder, name)]
    parts = []
    for first in range(0, w.scaling.seeds, BLOCK):
        seeds = range(first, min(first + BLOCK, w.scaling.seeds))
        block = f"{seeds[0]:03d}-{seeds[-1]:03d}"
        jobs = {f"runs/{a}-{n:07d}-{block}.parquet": (w, folder, a, n, seeds) for a, n in sizes}
        label = f"sets trained on with seeds {seeds[0]} to {seeds[-1]}"
        parts.append(collect(path, w, "06", recipe, jobs, run, label)["table"])
    store.write(path / "runs.parquet", folds.unpacked(pd.concat(parts)))
    sets = {f"metrics/{name}.parquet": (w, folder, name) for name in arms.sets(w)}
    store.fill(path, sets, judged, "arms judged")


def shares(w: World, folder: Path, name: str) -> dict[int, dict[str, int]]:
    """Size -> how many images of which sets an arm is trained on; ``folder``: that of ``arms``.

    Sources that are not drawn here go on in doublings. No set gives more than half of its images
    (``arms.SPARE``), or seeds would share them. Raises ``StudyError`` where no size can be filled.
    """
    common = w.scaling.sizes
    further = [common[-1] * 2 ** (i + 1) for i in range(w.scaling.beyond)]
    kept = {}
    for n in common if name in (*arms.drawn(w), arms.FEW_REAL) else (*common, *further):
        parts = {name: n}
        if name == "mixed":
            parts = {"retrieved": n - n // 2, "synthetic": n // 2}
        elif name == arms.FEW_REAL:
            parts = {"train": n, "synthetic": common[-1]}
        offered = {part: len(arms.images_of(w, folder, part)) for part in parts}
        if all(arms.SPARE * m <= offered[part] for part, m in parts.items()):
            kept[n] = parts
    if not kept:
        few = f"{name} offers fewer than {arms.SPARE} times {common[0]} images"
        raise StudyError(f"{few}; lower scaling sizes.")
    return kept


def subset(w: World, folder: Path, name: str, n: int, seed: int) -> np.ndarray:
    """Positions of ``n`` images of a set, classes balanced; inside those for 2 n of the seed.

    Arms that share captions and noise (``arms.shared_rows``) share the choice, seed by seed.
    """
    labels = arms.images_of(w, folder, name).labels
    if arms.arms(w)[name].prompt != arms.DEFAULT or n > w.scaling.sizes[-1]:
        return nested_subset(labels, n, randomness.rng(w, "scaling", "subset", name, seed))
    rows = arms.shared_rows(w) if name == "synthetic" else np.arange(len(labels))
    return rows[nested_subset(labels[rows], n, randomness.rng(w, "scaling", "subset", seed))]


def run(w: World, folder: Path, name: str, n: int, seeds: range) -> pd.DataFrame:
    """Train a head per seed on ``n`` images of an arm, and measure all on every evaluation set.

    One row (``folds.packed``) of a table with ``arm, n, seed, eval_set`` and the columns of
    ``folds.measured``; of the arms ``BY_CLASS`` the test set's classes as well.
    """
    classes = tables.benchmark(w, w.tasks[0]).classes
    # The training sets of all seeds, one after the other.
    features = []
    labels = []
    for seed in seeds:
        for part, m in shares(w, folder, name)[n].items():
            rows = subset(w, folder, part, m, seed)
            features.append(arms.embedding(folder, part)[:, rows])
            labels.append(arms.images_of(w, folder, part).labels[rows])
    x = np.concatenate(features, axis=1)
    y = np.concatenate(labels)
    subsets = np.split(np.arange(len(y)), len(seeds))
    # The same start at every size and in every arm.
    starts = [randomness.entropy(w.seed, "head", seed) for seed in seeds]
    trained = heads.train(x, y, subsets, starts, len(classes), w.scaling)
    held_out = {}
    for eval_set, split in arms.evaluation_sets(w).items():
        held_out[eval_set] = (arms.embedding(folder, eval_set)[0], split.labels)
    measured = heads.evaluate(trained, held_out, classes if name in BY_CLASS else ())
    of_seeds = zip(seeds, measured, strict=True)
    return folds.packed(pd.concat([t.assign(arm=name, n=n, seed=seed) for seed, t in of_seeds]))


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

    bench = tables.benchmark(w, w.tasks[0])
    classes = range(len(bench.classes))
    n = w.scaling.sizes[-1]
    split = arms.images_of(w, folder, name).take(subset(w, folder, name, n, 0))
    images = np.asarray(split.images)
    answers = pd.Categorical(worlds.backend(w).judge(w, images)["variant"], bench.classes).codes
    features = worlds.backend(w).judge_features(w, images)
    positions = pd.Series(np.arange(n)).groupby(split.labels)
    rng = randomness.rng(w, "scaling", "judged")
    parts = []
    for draw in range(1 + DRAWS):
        rows = positions.sample(frac=1, replace=draw > 0, random_state=rng).to_numpy()
        labels = split.labels[rows]
        f1 = f1_score(labels, answers[rows], labels=classes, average=None, zero_division=0)
        spread = pd.DataFrame(features[rows]).groupby(labels).var().mean(axis=1) ** 0.5
        table = pd.DataFrame({"arm": name, "draw": draw, "class": bench.classes})
        parts.append(table.assign(recognizability=f1, diversity=spread.reindex(classes)))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distance = positions.apply(lambda rows: pdist(unit[rows]).mean() if len(rows) > 1 else np.nan)
    parts[0]["distance"] = distance.reindex(classes)
    real = worlds.backend(w).judge_features(w, bench.val.images[: max(n, 2)])
    parts[0]["frechet"] = frechet(real, features)
    return pd.concat(parts, ignore_index=True)
