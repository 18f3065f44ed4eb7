"""What images show: the judge's answers, kept; and in notebook 08 those of guided generators.

Does tuning repair a detail, learn images by heart, or only take over what surrounds the object?
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import copies, tables
from helpers.data.subsets import balanced, nested_subset
from helpers.data.tables import Split
from helpers.engine import store
from helpers.engine.late import sklearn
from helpers.models import clip
from helpers.study import guided
from helpers.worlds import World

REAL, REBUILT, OTHERS = "real", "real, by autoencoder", "other real images"
ROWS = "08_looks"  # what its committed rows are called
CONTROLS = (REAL, REBUILT, OTHERS)
READ = 800  # images whose backgrounds a reader is fitted on, and as many that it is tried on
MOST = 1_000  # images of a set that are looked at
BATCH = 32  # images at a time through the autoencoder


def judged(w: World, images: np.ndarray) -> pd.DataFrame:
    """What the world's judge sees in images (n, side, side, 3) uint8, a row each; asked once.

    Raises ``NotKnown`` where a world has no judge.
    """
    return _asked(w, "judge", images).table()


def judge_features(w: World, images: np.ndarray) -> np.ndarray:
    """The judge's features of such images, (n, d) float32; asked once."""
    return np.array(_asked(w, "judge_features", images).array("found.npy"))


def _asked(w: World, what: str, images: np.ndarray) -> store.Artifact:
    """What a function of the world says of images; the store keeps it under the images' hash."""
    digest = hashlib.sha256(np.asarray(images).tobytes()).hexdigest()[:12]
    about = {"by": what, "of": digest}
    if not store.finished("judged", w, **about):
        found = getattr(worlds.backend(w), what)(w, images)
        file = "found.npy" if isinstance(found, np.ndarray) else "found.parquet"
        store.make("judged", w, lambda path: store.write(path / file, found), **about)
    return store.load("judged", w, **about)


def jobs(path: Path, w: World, seed: int) -> dict[str, tuple]:
    """File -> arguments of ``measured``, for every guide and control of a seed."""
    asked = {}
    for k in w.mixes.shots:
        for way, source in {**dict.fromkeys(CONTROLS, ""), **guided.sources(w, k)}.items():
            how = source.partition(":")[2]
            asked[f"looks/{way} {k}-{seed:07d}.parquet"] = (w, path, way, how, k, seed)
    return asked


def measured(w: World, path: Path, way: str, how: str, k: int, seed: int) -> pd.DataFrame:
    """A row: ``way, k, seed`` and shares (0..1) of a guide's images, or of one of ``CONTROLS``.

    ``axles`` (of classes with several) and ``type`` that a judge finds right; ``near``, copies of
    the images that the generator was tuned on, of the ``k`` real ones of a class where it was not;
    ``background``, adjusted mutual information with the class; ``spread`` in a class, one minus the
    cosine for CLIP; ``read``, the share of backgrounds read rightly. Unknown ones are missing.
    """
    task = w.mixes.tasks[0]
    bench = tables.benchmark(w, task)
    split = images_of(w, path, way, how, k, seed)
    images, labels = np.asarray(split.images), split.labels
    found: dict[str, Any] = {"way": way, "k": k, "seed": seed, "near": np.nan, "spread": np.nan}
    if way != REAL:  # which would be copies of themselves
        learned = guided.learned(w, task, way, k, seed)
        sets = (copies.descriptor(np.asarray(each)) for each in (images, learned.images))
        near = copies.nearest(*sets)
        card = json.loads((store.load("retrieved", w).path / "card.json").read_text())
        found["near"] = (near > card["tasks"][task]["thresholds"]["copy"]).mean()
    seen = clip.embed_images(clip.load(w), images)
    alike = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
    if alike.any():
        found["spread"] = 1 - (seen @ seen.T)[alike].mean()
    if "background" in bench.train.facts:
        reader, found["read"] = background_reader(w, task)
        if alike.any():
            told = sklearn.metrics.adjusted_mutual_info_score(labels, reader.predict(seen))
            found["background"] = told
    if "axles" in bench.details:
        judged = worlds.backend(w).judge(w, images)
        wanted = bench.details["axles"].to_numpy()[labels]
        found["axles"] = (judged["axles"].to_numpy() == wanted)[wanted > 1].mean()
        found["type"] = (judged["variant"].to_numpy() == np.array(bench.classes)[labels]).mean()
    return pd.DataFrame([found])


def images_of(w: World, path: Path, way: str, how: str, k: int, seed: int) -> Split:
    """The images that ``measured`` looks at, classes in equal numbers."""
    task = w.mixes.tasks[0]
    if way == OTHERS:
        val = tables.benchmark(w, task).val
        rng = np.random.default_rng(seed)
        return val.take(nested_subset(val.labels, min(w.mixes.size, len(val)), rng))
    if way in CONTROLS:
        real = guided.real_images(w, task, k, seed)
        return real if way == REAL else Split(rebuilt(w, np.asarray(real.images)), real.labels)
    return balanced(guided.images(w, path, task, how, seed), MOST)


def rebuilt(w: World, images: np.ndarray) -> np.ndarray:
    """Images (n, side, side, 3) uint8 as the autoencoder of the world's generator gives them."""
    pipe = worlds.backend(w).pipeline(w)
    prepare = pipe.image_processor
    parts = []
    for start in range(0, len(images), BATCH):
        x = prepare.preprocess(images[start : start + BATCH] / 255)
        again = pipe.vae(x.to(pipe.device, pipe.vae.dtype)).sample.detach()
        parts.append(prepare.postprocess(again, "np"))
    return (255 * np.concatenate(parts)).round().astype(np.uint8)


@functools.lru_cache(maxsize=1)
def background_reader(w: World, task: str) -> tuple[Any, float]:
    """A classifier of backgrounds on CLIP's embeddings, and its accuracy (0..1) on validation."""
    bench = tables.benchmark(w, task)
    learned, tried = (balanced(split, READ) for split in (bench.train, bench.val))
    x, y = (clip.embed_images(clip.load(w), split.images) for split in (learned, tried))
    reader = sklearn.linear_model.LogisticRegression(max_iter=1_000)
    reader.fit(x, learned.facts["background"])
    return reader, reader.score(y, tried.facts["background"])
