"""Images that stay on disk until they are asked for, in the form of an array."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from helpers.engine import gpu, store
from helpers.errors import StudyError


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
    with (
        tarfile.open(fileobj=buffer, mode="w") as tar,
        ThreadPoolExecutor(gpu.cores()) as threads,
    ):  # a GPU waits for this
        for i, (data, row) in enumerate(
            zip(threads.map(png, images), rows, strict=True), start=first
        ):
            parts = {
                "png": data,
                "txt": row["caption"].encode(),
                "json": json.dumps(row, default=str).encode(),
            }
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
    return tuple(
        np.array([m[1:] for m in members if m[0].endswith(ends)], np.int64).reshape(-1, 2)
        for ends in ((".png", ".jpg", ".jpeg", ".webp"), ".json")
    )


@contextlib.contextmanager
def _opened(tar: Path) -> Iterator[tuple]:
    """A reader of members, and what ``_contents`` says; damage becomes a ``StudyError``."""
    try:
        with open(tar, "rb") as file:
            about = os.fstat(file.fileno())
            places = _contents(tar, (about.st_mtime_ns, about.st_size))
            yield lambda place: os.pread(file.fileno(), int(place[1]), int(place[0])), *places
    except (
        tarfile.TarError,
        OSError,
        ValueError,
    ) as e:  # the errors of PIL and json are of these kinds
        raise StudyError(
            f"cannot read {tar}: {e}. It is truncated or holds a broken image; delete it and run again."
        ) from e


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
        raise StudyError(
            f"{shard} lists {listed} rows, but its tar holds {len(images)} images, so nobody knows which is whose. "
            "Delete both and make them again (LAION's with helpers.paper.download.laion.download)."
        )
    return images[rows]


def to_image_folder(tars: Iterable[Path], classes: Sequence[str], folder: Path) -> Path:
    """Unpack webdataset shards into ``folder/class name/key.png``, the layout of torchvision's ``ImageFolder``."""
    for path in tars:
        images, rows = read_tar(path)
        for i, (image, row) in enumerate(zip(images, rows, strict=True)):
            name = classes[row["label"]].replace("/", "_")
            store.write(folder / name / f"{path.stem}-{i:05d}.png", png(image))
    return folder


class Lazy:
    """Images that stay where they are until asked for: the ``rows`` of ``sources`` laid end to end, all without.

    Indexed like an array (n, side, side, 3) uint8: by a number, a slice, positions or a mask. A source is whatever has a
    length and answers positions with images: a memory-mapped array, files decoded on demand, a ``Tar``, a ``Pool``.
    """

    def __init__(self, *sources, rows=None):
        self.sources, self.sizes = sources, [len(s) for s in sources]
        self.rows = np.arange(sum(self.sizes)) if rows is None else np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key) -> np.ndarray:
        rows = self.rows[key]
        if np.ndim(rows) == 0:
            return self[[key]][0]
        return gathered(self.sizes, rows, lambda i, inside: self.sources[i][inside])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def take(self, index) -> Lazy:
        """The images at these positions, still where they are."""
        return Lazy(*self.sources, rows=self.rows[index])

    def save(self, file, chunk: int = 4_096) -> None:
        """Write to an open file what ``np.save`` would, without holding more than ``chunk`` images."""
        like = self[:1]
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (len(self), *like.shape[1:])}
        )
        for start in range(0, len(self), chunk):
            file.write(np.ascontiguousarray(self[start : start + chunk]).data)


def located(sizes: Sequence[int], rows) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Where ``rows`` lie in shards of these sizes: (shard, positions in it, positions in ``rows``) of each shard that has any.

    Raises ``StudyError`` on a row that is in none.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if len(rows) and not (rows.min() >= 0 and rows.max() < sum(sizes)):
        raise StudyError(
            f"rows {rows.min()} .. {rows.max()} asked for; the pool has rows 0 .. {sum(sizes) - 1}."
        )
    starts = np.cumsum((0, *sizes))
    shard = np.searchsorted(starts, rows, side="right") - 1
    for i in np.unique(shard):
        at = np.flatnonzero(shard == i)
        yield int(i), rows[at] - starts[i], at


def gathered(
    sizes: Sequence[int], rows, read: Callable[[int, np.ndarray], np.ndarray]
) -> np.ndarray:
    """The images at positions ``rows``, in that order, of shards of these sizes; ``read``: shard, positions in it -> images."""
    made = np.zeros((0, 1, 1, 3), np.uint8)
    for i, inside, at in located(sizes, rows):
        part = read(i, inside)
        made = made if len(made) else np.empty((len(rows), *part.shape[1:]), part.dtype)
        made[at] = part
    return made
