"""Images that stay on disk until they are asked for, in the form of an array; webdataset shards."""

import functools
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from helpers.engine import gpu
from helpers.errors import StudyError, reading

IMAGES = (".png", ".jpg", ".jpeg", ".webp")


def png(image: np.ndarray) -> bytes:
    """An image (side, side, 3) uint8 as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", compress_level=4)
    return buffer.getvalue()


def tar_bytes(images: np.ndarray, rows: Sequence[dict], first: int = 0) -> bytes:
    """A webdataset shard of images and ``rows`` (``caption``, perhaps ``label``, and others).

    Each gives .png, .txt, .json and perhaps .cls; keys count from ``first`` on.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar, ThreadPoolExecutor(gpu.cores()) as threads:
        pairs = zip(threads.map(png, images), rows, strict=True)
        for i, (image, row) in enumerate(pairs, start=first):
            about = json.dumps(row, default=str).encode()
            members = {"png": image, "txt": row["caption"].encode(), "json": about}
            if "label" in row:
                members["cls"] = str(row["label"]).encode()
            for ending, data in members.items():
                info = tarfile.TarInfo(f"{i:09d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Tar:
    """Images of a webdataset shard, decoded when asked for; ``StudyError`` where it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path, tarfile.TarError):
            about = path.stat()
            self.images, self.texts = _places(path, about.st_mtime_ns, about.st_size)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        wanted, back = np.unique(rows, return_inverse=True)
        with reading(self.path):
            files = map(io.BytesIO, self._read(self.images[wanted]))
            return np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])[back]

    def rows(self) -> list[dict]:
        """What is known of each image, in order."""
        with reading(self.path):
            return [json.loads(text) for text in self._read(self.texts)]

    def _read(self, places: np.ndarray) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for start, size in places:
                file.seek(start)
                yield file.read(size)


@functools.lru_cache(maxsize=64)
def _places(tar: Path, changed: int, size: int) -> list[np.ndarray]:
    """Starts and bytes of a tar's images, and of its rows; ``changed`` as a tar may be replaced."""
    with tarfile.open(tar, "r:") as file:
        members = [(Path(m.name).suffix, m.offset_data, m.size) for m in file]
    images = [place for ending, *place in members if ending in IMAGES]
    rows = [place for ending, *place in members if ending == ".json"]
    return [np.array(places, np.int64).reshape(-1, 2) for places in (images, rows)]


def fetch_tar(shard: Path, rows: np.ndarray) -> np.ndarray:
    """The images at positions ``rows`` of the tar beside a parquet shard, which lists them all."""
    images = Tar(shard.with_suffix(".tar"))
    listed = pq.ParquetFile(shard).metadata.num_rows
    if len(images) != listed:
        both = f"{listed} rows, its tar {len(images)} images, so nobody knows which is whose"
        again = "Delete both and make them again: helpers.paper.download.laion.download"
        raise StudyError(f"{shard} lists {both}. {again}.")
    return images[rows]


class Lazy:
    """``rows`` of ``sources``, end to end, where they are: mapped arrays, a ``Tar``, a ``Pool``.

    Indexed like an array (n, side, side, 3) uint8: by a number, a slice, positions or a mask.
    """

    def __init__(self, *sources: Any, rows: Any = None) -> None:
        self.sources = sources
        self.sizes = [len(source) for source in sources]
        self.rows = np.arange(sum(self.sizes)) if rows is None else np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        rows = self.rows[key]
        if np.ndim(rows) == 0:
            return self[[key]][0]
        return gathered(self.sizes, rows, lambda i, inside: self.sources[i][inside])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def take(self, index: Any) -> "Lazy":
        """The images at these positions, still where they are."""
        return Lazy(*self.sources, rows=self.rows[index])

    def save(self, file: BinaryIO, chunk: int = 4_096) -> None:
        """Write to an open file what ``np.save`` would, holding at most ``chunk`` images."""
        shape = (len(self), *self[:1].shape[1:])
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(self), chunk):
            file.write(np.ascontiguousarray(self[start : start + chunk]).data)


def located(sizes: Sequence[int], rows: Any) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (shard, positions in it, positions in ``rows``); ``StudyError`` on rows beyond all."""
    rows = np.asarray(rows, dtype=np.int64)
    if len(rows) and not (rows.min() >= 0 and rows.max() < sum(sizes)):
        asked = f"rows {rows.min()} .. {rows.max()}"
        raise StudyError(f"{asked} asked for; the pool has rows 0 .. {sum(sizes) - 1}.")
    starts = np.cumsum((0, *sizes))
    shard = np.searchsorted(starts, rows, side="right") - 1
    for i in np.unique(shard):
        at = np.flatnonzero(shard == i)
        yield int(i), rows[at] - starts[i], at


def gathered(sizes: Sequence[int], rows: Any, read: Callable[..., np.ndarray]) -> np.ndarray:
    """The images at positions ``rows`` of shards; ``read`` is (shard, positions) -> images."""
    images = np.zeros((0, 1, 1, 3), np.uint8)
    for i, inside, at in located(sizes, rows):
        part = read(i, inside)
        images = images if len(images) else np.empty((len(rows), *part.shape[1:]), part.dtype)
        images[at] = part
    return images
