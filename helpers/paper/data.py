"""LAION shards and public benchmarks from folders on this machine."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import store
from helpers.pools import Benchmark, Pool, Split, read_tar
from helpers.probes import PUBLISHED
from helpers.worlds import StudyError, World, rng, unknown

TEMPLATES = {  # [C]
    "aircraft": ("a photo of a {}, a type of aircraft.", "a photo of the {}, a type of aircraft."),
    "cars": ("a photo of a {}.", "a photo of the {}."),
    "flowers": ("a photo of a {}, a type of flower.", "a photo of the {}, a type of flower."),
}
NOUNS = {"aircraft": "aircraft", "cars": "car", "flowers": "flower"}
BACKGROUNDS = ("runway", "hangar", "airport", "sky", "sunset", "sea", "mountains", "city", "meadow", "road", "garden", "forest")
DATASETS = {"aircraft": "FGVCAircraft", "cars": "StanfordCars", "flowers": "Flowers102"}  # torchvision's names


def root() -> Path:
    """``$STUDY_PAPER``. Raises ``StudyError`` when it is not set or not there."""
    path = os.environ.get("STUDY_PAPER", "")
    if not path or not Path(path).is_dir():
        raise StudyError(f"the paper world reads its data from the folder in $STUDY_PAPER (now {path or 'not set'!r}): laion/ with "
                         "img2dataset shards, benchmarks/ in torchvision's layouts. Without data: python -m helpers.run pocket")
    return Path(path)


def open_pool(w: World) -> Pool:
    """img2dataset shards under ``laion/``: ``00000.parquet`` with LAION's columns beside ``00000.tar``, one row per image.

    That is what helpers/paper/laion.py leaves; img2dataset's own tables also list the rows that did not come.
    """
    import pyarrow.parquet as pq

    shards = tuple(sorted((root() / "laion").glob("*.parquet")))
    if not shards:
        raise StudyError(f"no parquet shards in {root() / 'laion'}; fill it with helpers.paper.laion.download.")
    return Pool(shards, _fetch, tuple(pq.ParquetFile(s).metadata.num_rows for s in shards))


def _fetch(shard: Path, rows: np.ndarray) -> np.ndarray:
    images, listed = read_tar(shard.with_suffix(".tar"))[0], len(store.read_table(shard))
    if len(images) != listed:
        raise StudyError(f"{shard} lists {listed} rows, but its tar holds {len(images)} images, so nobody knows which is whose. Download "
                         "the shard again with helpers.paper.laion.download.")
    return images[rows]


@functools.cache
def benchmark(w: World, task: str) -> Benchmark:
    """A benchmark with its published train, validation and test splits; raises ``StudyError`` when it is not there."""
    if task not in w.tasks:
        raise unknown(f"task in world {w.name!r}", task, w.tasks)
    if task == "imagenet":
        from helpers.paper import probes

        return probes.benchmark(w)
    if task not in DATASETS:
        raise StudyError(f"task {task!r} is not read yet in the paper world; there are {', '.join((*DATASETS, 'imagenet'))}.")
    import torchvision

    folder = root() / "benchmarks"
    load = getattr(torchvision.datasets, DATASETS[task])
    names = ("train", "test") if task == "cars" else ("train", "val", "test")
    try:
        sets = {split: load(str(folder), split=split, download=False) for split in names}
    except RuntimeError as e:
        raise StudyError(f"{DATASETS[task]} not found under {folder}: {e}. Put it there in torchvision's layout.") from e
    splits = {split: _split(made, w.image_size) for split, made in sets.items()}
    if task == "cars":  # [C]: 80 / 20 of train
        order = rng(w, "cars", "validation").permutation(len(splits["train"]))
        cut = int(0.8 * len(order))
        splits = {"train": splits["train"].take(order[:cut]), "val": splits["train"].take(order[cut:]), "test": splits["test"]}
    classes = tuple(sets["train"].classes)
    return Benchmark(task, classes, NOUNS[task], f"a photo of a {NOUNS[task]}", TEMPLATES[task], BACKGROUNDS,
                     pd.DataFrame(index=list(classes)), **splits)


def published() -> pd.DataFrame:
    """The numbers of ``published.csv``; see ``helpers.paper.published`` for where they come from."""
    return pd.read_csv(Path(__file__).parent / "published.csv")[list(PUBLISHED)]


def _split(dataset, side: int) -> Split:
    images, labels = [], []
    for image, label in dataset:
        images.append(np.asarray(image.convert("RGB").resize((side, side))))
        labels.append(label)
    return Split(np.stack(images), np.array(labels, np.int64))
