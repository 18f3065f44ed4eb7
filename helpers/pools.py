"""Image-text pools, benchmarks and training sets as small table types, and the files they are kept in."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import store, worlds
from helpers.worlds import StudyError, World, unknown


@dataclass(frozen=True)
class Split:
    """Labelled images: ``images`` (n, side, side, 3) uint8, ``labels`` (n,) int64, ``facts`` one row per image."""

    images: np.ndarray
    labels: np.ndarray
    facts: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index) -> Split:
        """The images at the positions ``index``, in that order."""
        index = np.asarray(index) if len(index) else np.zeros(0, np.int64)
        facts = self.facts.iloc[index].reset_index(drop=True) if len(self.facts) else self.facts
        return Split(self.images[index], self.labels[index], facts)

    def plus(self, other: Split) -> Split:
        """These images followed by those of ``other``."""
        facts = pd.concat([self.facts, other.facts], ignore_index=True)
        return Split(np.concatenate([self.images, other.images]), np.concatenate([self.labels, other.labels]), facts)


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

    def captions(self) -> pd.DataFrame:
        """All rows of all shards: LAION's columns, in the pool's order."""
        return pd.concat([store.read_table(p) for p in self.shards], ignore_index=True)

    def truth(self) -> pd.DataFrame:
        """What is really in the images, row by row; for evaluation only. Raises ``StudyError`` where nobody knows."""
        if not self.truth_shards:
            raise StudyError("this pool comes without ground truth; it is known in the rendered worlds only "
                             "(python -m helpers.run pocket).")
        return pd.concat([store.read_table(p) for p in self.truth_shards], ignore_index=True)

    def fetch(self, rows) -> np.ndarray:
        """The images at positions ``rows``, in that order: (n, side, side, 3) uint8."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise StudyError(f"rows {rows.min()} .. {rows.max()} asked for; the pool has rows 0 .. {len(self) - 1}.")
        starts = np.cumsum((0, *self.sizes))
        shard = np.searchsorted(starts, rows, side="right") - 1
        parts, where = [], []
        for i in np.unique(shard):
            here = np.flatnonzero(shard == i)
            parts.append(self.fetch_rows(self.shards[i], rows[here] - starts[i]))
            where.append(here)
        if not parts:
            return np.zeros((0, 1, 1, 3), np.uint8)
        return np.concatenate(parts)[np.argsort(np.concatenate(where), kind="stable")]


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
    return Split(artifact.array(f"{task}.npy")[rows], facts["label"].to_numpy(np.int64), facts)


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
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i, (image, row) in enumerate(zip(images, rows, strict=True), start=first):
            parts = {"png": png(image), "txt": row["caption"].encode(), "json": json.dumps(row, default=str).encode()}
            if "label" in row:
                parts["cls"] = str(row["label"]).encode()
            for ending, data in parts.items():
                info = tarfile.TarInfo(f"{i:09d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read_tar(path: Path) -> tuple[np.ndarray, list[dict]]:
    """All images (n, side, side, 3) and rows of a webdataset shard, in order. Raises ``StudyError`` when it is damaged."""
    from PIL import Image, UnidentifiedImageError

    images, rows = [], []
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                data = tar.extractfile(member).read()
                if member.name.endswith(".json"):
                    rows.append(json.loads(data))
                elif member.name.endswith((".png", ".jpg", ".jpeg", ".webp")):
                    images.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    except (tarfile.TarError, UnidentifiedImageError, OSError, ValueError) as e:
        raise StudyError(f"cannot read {path}: {e}. It is truncated or holds a broken image; delete it and run again.") from e
    return np.stack(images), rows


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


def copy_descriptor(images: np.ndarray, side: int = 16, batch: int = 1_024) -> np.ndarray:
    """What two copies of a picture share after cropping, tinting and re-encoding: (n, d) float32 of unit length.

    A thumbnail of each colour channel, high-pass filtered and standardised; stands in for the ISC descriptor of [C].
    """
    import torch

    parts = [np.zeros((0, 3 * side * side), np.float32)]
    for i in range(0, len(images), batch):
        x = torch.tensor(np.ascontiguousarray(images[i : i + batch])).permute(0, 3, 1, 2).float()
        x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
        around = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (2,) * 4, mode="reflect"), 5, 1)
        x = (x - around).flatten(2)
        x = (x - x.mean(2, keepdim=True)) / (x.std(2, keepdim=True) + 1e-3)
        parts.append(torch.nn.functional.normalize(x.flatten(1), dim=1).numpy())
    return np.concatenate(parts)


def copies(candidates: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Largest similarity of each candidate image to any held-out image, (n,) float32 in -1..1; exact, by faiss."""
    import faiss

    found, _ = faiss.knn(copy_descriptor(candidates), copy_descriptor(held_out), 1, metric=faiss.METRIC_INNER_PRODUCT)
    return found[:, 0]


def copy_threshold(bench: Benchmark, quantile: float) -> float:
    """The similarity above which a pair counts as a copy: a high quantile of validation against train images.

    Those are independent renderings, so what they reach is what different pictures reach; results play no part.
    """
    return float(np.quantile(copies(bench.val.images, bench.train.images), quantile))


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
