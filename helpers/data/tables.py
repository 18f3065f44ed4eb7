"""Image-text pools, benchmarks and training sets as small table types, and the files they are kept in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data.shards import Lazy, gathered, located, read_tar
from helpers.engine import store
from helpers.errors import NotKnown, unknown
from helpers.worlds import World

IN_MEMORY = 2**30  # bytes; training sets that are larger stay on disk


@dataclass(frozen=True)
class Split:
    """Labelled images: ``images`` (n, side, side, 3) uint8, ``labels`` (n,) int64, ``facts`` one row per image."""

    images: np.ndarray | Lazy
    labels: np.ndarray
    facts: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index) -> Split:
        """The images at the positions ``index``, in that order."""
        index = np.asarray(index) if len(index) else np.zeros(0, np.int64)
        facts = self.facts.iloc[index].reset_index(drop=True) if len(self.facts) else self.facts
        images = self.images.take(index) if isinstance(self.images, Lazy) else self.images[index]
        return Split(images, self.labels[index], facts)

    def plus(self, other: Split) -> Split:
        """These images followed by those of ``other``."""
        facts = pd.concat([self.facts, other.facts], ignore_index=True)
        both = (self.images, other.images)
        images = (
            Lazy(*both)
            if any(isinstance(images, Lazy) for images in both)
            else np.concatenate(both)
        )
        return Split(images, np.concatenate([self.labels, other.labels]), facts)


@dataclass(frozen=True)
class Benchmark:
    """One classification task: what its classes are called, how to talk about them, and its three splits."""

    task: str
    classes: tuple[str, ...]
    noun: str  # "aircraft"
    domain: str  # one text for the whole task, "a photo of an aircraft" (workshop version's filter)
    templates: tuple[str, ...]  # "a photo of a {}, a type of aircraft."
    backgrounds: tuple[str, ...]  # background words for class + background prompts
    details: pd.DataFrame  # class x countable attribute; no columns where nobody knows
    train: Split
    val: Split
    test: Split
    descriptions: tuple[
        str, ...
    ] = ()  # what each class looks like, in words; () where nobody wrote it down

    def texts(self, name: str) -> list[str]:
        """The templates filled with a class name."""
        return [t.format(name) for t in self.templates]


@dataclass(frozen=True)
class Pool:
    """The pairs that generator and CLIP were trained on. Rows are addressed by position, 0 to ``len(pool) - 1``."""

    shards: tuple[Path, ...]  # parquet with LAION's columns, in order
    fetch_rows: Callable[[Path, np.ndarray], np.ndarray]  # (shard, rows in it) -> images
    sizes: tuple[int, ...]
    truth_shards: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return sum(self.sizes)

    def captions(self, rows=None) -> pd.DataFrame:
        """LAION's columns of the pairs at positions ``rows``, in that order, read shard by shard; without, of all."""
        if rows is None:
            return pd.concat([store.read_table(p) for p in self.shards], ignore_index=True)
        parts = [
            (store.read_table(self.shards[i]).iloc[inside].set_axis(at))
            for i, inside, at in located(self.sizes, rows)
        ]
        return pd.concat(parts or [store.read_table(self.shards[0]).iloc[:0]]).sort_index()

    def truth(self) -> pd.DataFrame:
        """What is really in the images, row by row; for evaluation only. Raises ``NotKnown`` where nobody knows."""
        if not self.truth_shards:
            raise NotKnown(
                "nobody knows what the pictures of this pool really show. It is known in the rendered worlds only: "
                "python -m helpers.run pocket"
            )
        return pd.concat([store.read_table(p) for p in self.truth_shards], ignore_index=True)

    def __getitem__(self, rows) -> np.ndarray:
        return self.fetch(rows)

    def fetch(self, rows) -> np.ndarray:
        """The images at positions ``rows``, in that order: (n, side, side, 3) uint8."""
        return gathered(self.sizes, rows, lambda i, inside: self.fetch_rows(self.shards[i], inside))


def on_disk(files: Iterable[Path], rows=None) -> Lazy:
    """Arrays in ``.npy`` files one below the other, or some rows of that, still on disk."""
    return Lazy(*(np.load(f, mmap_mode="r") for f in files), rows=rows)


def training_set(artifact: store.Artifact, task: str, keep: str = "keep") -> Split:
    """The images of a task that a source offers after filtering, ready to train on.

    ``artifact`` is ``synthetic`` or ``retrieved``; ``keep`` names the column of ``{task}.parquet`` that says which
    rows passed. Raises ``StudyError`` on an unknown task or column.
    """
    tasks = [
        p.stem for p in artifact.files("*.parquet") if (artifact.path / f"{p.stem}.npy").exists()
    ]
    if task not in tasks:
        raise unknown(f"task in {artifact.name}", task, tasks)
    table = store.read_table(artifact.path / f"{task}.parquet")
    if keep not in table:
        raise unknown(
            f"selection of {artifact.name}", keep, [c for c in table if c.startswith("keep")]
        )
    rows = np.flatnonzero(table[keep].to_numpy(bool))
    facts = table.iloc[rows].reset_index(drop=True)
    images = artifact.array(f"{task}.npy")
    images = images[rows] if len(rows) * images[:1].nbytes < IN_MEMORY else Lazy(images, rows=rows)
    return Split(images, facts["label"].to_numpy(np.int64), facts)


@functools.lru_cache(maxsize=4)
def benchmark(w: World, task: str) -> Benchmark:
    """The benchmark of a task, kept in memory by every worker."""
    return worlds.backend(w).benchmark(w, task)


def chosen_variant(w: World, task: str) -> str:
    """The column of the retrieval variant, rule and filter, that notebook 04 chose for a task on validation."""
    return (
        store.load("finetuned", w)
        .table("variants.parquet")
        .query("chosen")
        .set_index("task")["keep"][task]
    )


@functools.lru_cache(maxsize=12)
def source_set(w: World, task: str, source: str, keep: str | None = None) -> Split:
    """What a source, "retrieved" or "synthetic", offers for a task after filtering.

    ``keep`` names the column that says which images passed; None stands for the retrieval variant
    that notebook 04 chose, and for the one filter of drawn images.
    """
    if keep is None:
        keep = chosen_variant(w, task) if source == "retrieved" else "keep"
    return training_set(store.load(source, w), task, keep)


def read_tars(paths: Iterable[Path]) -> Split:
    """The labelled images of several webdataset shards, in order."""
    parts = [read_tar(path) for path in paths]
    table = pd.DataFrame([row for _, rows in parts for row in rows])
    return Split(
        np.concatenate([images for images, _ in parts]), table["label"].to_numpy(np.int64), table
    )
