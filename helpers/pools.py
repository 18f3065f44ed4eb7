"""Image-text pools, benchmarks and training sets as small table types, and the files they are kept in."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import gpu, store, worlds
from helpers.lazy import Lazy, gathered, located
from helpers.worlds import NotKnown, StudyError, World, unknown

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
        images = Lazy(*both) if any(isinstance(images, Lazy) for images in both) else np.concatenate(both)
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
    descriptions: tuple[str, ...] = ()  # what each class looks like, in words; () where nobody wrote it down

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
        parts = [(store.read_table(self.shards[i]).iloc[inside].set_axis(at)) for i, inside, at in located(self.sizes, rows)]
        return pd.concat(parts or [store.read_table(self.shards[0]).iloc[:0]]).sort_index()

    def truth(self) -> pd.DataFrame:
        """What is really in the images, row by row; for evaluation only. Raises ``NotKnown`` where nobody knows."""
        if not self.truth_shards:
            raise NotKnown("nobody knows what the pictures of this pool really show. It is known in the rendered worlds only: "
                           "python -m helpers.run pocket")
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
    tasks = [p.stem for p in artifact.files("*.parquet") if (artifact.path / f"{p.stem}.npy").exists()]
    if task not in tasks:
        raise unknown(f"task in {artifact.name}", task, tasks)
    table = store.read_table(artifact.path / f"{task}.parquet")
    if keep not in table:
        raise unknown(f"selection of {artifact.name}", keep, [c for c in table if c.startswith("keep")])
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
    return store.load("finetuned", w).table("variants.parquet").query("chosen").set_index("task")["keep"][task]


@functools.lru_cache(maxsize=8)
def source_set(w: World, task: str, source: str) -> Split:
    """What a source, "retrieved" (by the variant chosen in notebook 04) or "synthetic", offers for a task after filtering."""
    keep = chosen_variant(w, task) if source == "retrieved" else "keep"
    return training_set(store.load(source, w), task, keep)


def nested_subset(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of ``n`` images, classes as balanced as they can be; the subset for n lies inside the one for 2 n.

    Classes are taken in turns, each class's images in an order drawn from ``rng``. Raises ``StudyError`` when there are
    fewer than ``n`` images.
    """
    if n > len(labels):
        raise StudyError(f"a subset of {n} images was asked for, but there are only {len(labels)}.")
    order = rng.permutation(len(labels))
    turn = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    shuffled_classes = rng.permutation(int(labels.max()) + 1 if len(labels) else 0)
    return order[np.lexsort((shuffled_classes[labels[order]], turn))][:n]


def repeated(table: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """``n`` rows with classes (``label``) in turns; a shorter table is repeated: another seed draws another image.

    Raises ``StudyError`` on an empty table.
    """
    if not len(table):
        raise StudyError("there are no captions to draw from; run notebooks 01 to 03 again.")
    many = pd.concat([table] * int(np.ceil(n / len(table))), ignore_index=True)
    return many.iloc[nested_subset(many["label"].to_numpy(), n, rng)].reset_index(drop=True)


def top_share(scores: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Mask of the best-scoring ``share`` of each class, at least one ([P] section 3: top 30 % per class)."""
    rank = pd.Series(scores).groupby(labels).rank(ascending=False, method="first")
    size = pd.Series(labels).groupby(labels).transform("size")
    return (rank <= np.maximum(np.ceil(share * size - 1e-9), 1)).to_numpy()


def png(image: np.ndarray) -> bytes:
    """An image (side, side, 3) uint8 as the bytes of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", compress_level=4)
    return buffer.getvalue()


def tar_bytes(images: np.ndarray, rows: Sequence[dict], first: int = 0) -> bytes:
    """A webdataset shard: per image ``key.png``, ``key.txt`` (caption), ``key.json`` and, with a label, ``key.cls``.

    ``rows`` has one mapping per image, with ``caption`` and perhaps ``label``; keys count on from ``first``.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar, ThreadPoolExecutor(gpu.cores()) as threads:  # a GPU waits for this
        for i, (data, row) in enumerate(zip(threads.map(png, images), rows, strict=True), start=first):
            parts = {"png": data, "txt": row["caption"].encode(), "json": json.dumps(row, default=str).encode()}
            if "label" in row:
                parts["cls"] = str(row["label"]).encode()
            for ending, data in parts.items():
                info = tarfile.TarInfo(f"{i:09d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@functools.lru_cache(maxsize=64)
def _contents(tar: Path, version: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where images and rows of a webdataset shard start, and their bytes: (n, 2) each. ``version``: time and size of the file."""
    with tarfile.open(tar, "r:") as file:
        members = [(m.name, m.offset_data, m.size) for m in file]
    return tuple(np.array([m[1:] for m in members if m[0].endswith(ends)], np.int64).reshape(-1, 2)
                 for ends in ((".png", ".jpg", ".jpeg", ".webp"), ".json"))


@contextlib.contextmanager
def _opened(tar: Path) -> Iterator[tuple]:
    """A reader of members, and what ``_contents`` says; damage becomes a ``StudyError``."""
    try:
        with open(tar, "rb") as file:
            about = os.fstat(file.fileno())
            places = _contents(tar, (about.st_mtime_ns, about.st_size))
            yield lambda place: os.pread(file.fileno(), int(place[1]), int(place[0])), *places
    except (tarfile.TarError, OSError, ValueError) as e:  # the errors of PIL and json are of these kinds
        raise StudyError(f"cannot read {tar}: {e}. It is truncated or holds a broken image; delete it and run again.") from e


def _decoded(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def read_tar(path: Path) -> tuple[np.ndarray, list[dict]]:
    """All images (n, side, side, 3) and rows of a webdataset shard, in order. Raises ``StudyError`` when it is damaged."""
    with _opened(path) as (read, images, rows):
        return np.stack([_decoded(read(m)) for m in images]), [json.loads(read(m)) for m in rows]


class Tar:
    """The images of a webdataset shard; those at the positions asked for are read and decoded, each once, and no others.

    Raises ``StudyError`` when the shard is damaged.
    """

    def __init__(self, path: Path):
        self.path = path

    def __len__(self) -> int:
        with _opened(self.path) as (_, images, _):
            return len(images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        wanted, back = np.unique(rows, return_inverse=True)
        with _opened(self.path) as (read, images, _):
            return np.stack([_decoded(read(place)) for place in images[wanted]])[back]


def fetch_tar(shard: Path, rows: np.ndarray) -> np.ndarray:
    """The images at positions ``rows`` of the tar beside a parquet shard.

    Raises ``StudyError`` when the tar is damaged, or does not hold as many images as the shard lists.
    """
    import pyarrow.parquet as pq

    images, listed = Tar(shard.with_suffix(".tar")), pq.ParquetFile(shard).metadata.num_rows
    if len(images) != listed:
        raise StudyError(f"{shard} lists {listed} rows, but its tar holds {len(images)} images, so nobody knows which is whose. "
                         "Delete both and make them again (LAION's with helpers.paper.laion.download).")
    return images[rows]


def read_tars(paths: Iterable[Path]) -> Split:
    """The labelled images of several webdataset shards, in order."""
    parts = [read_tar(path) for path in paths]
    table = pd.DataFrame([row for _, rows in parts for row in rows])
    return Split(np.concatenate([images for images, _ in parts]), table["label"].to_numpy(np.int64), table)


def to_image_folder(tars: Iterable[Path], classes: Sequence[str], folder: Path) -> Path:
    """Unpack webdataset shards into ``folder/class name/key.png``, the layout of torchvision's ``ImageFolder``."""
    for path in tars:
        images, rows = read_tar(path)
        for i, (image, row) in enumerate(zip(images, rows, strict=True)):
            name = classes[row["label"]].replace("/", "_")
            store.write(folder / name / f"{path.stem}-{i:05d}.png", png(image))
    return folder


def frechet(real: np.ndarray, drawn: np.ndarray) -> float:
    """Frechet distance of two sets of features (n, d), by torchmetrics' FID behind an identity network."""
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    network = torch.nn.Identity()
    network.num_features = real.shape[1]
    metric = FrechetInceptionDistance(feature=network, normalize=False)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(drawn), real=False)
    return float(metric.compute())
