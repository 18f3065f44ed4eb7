"""Images that stay on disk until they are asked for, in the form of an array; webdataset shards."""

import collections
import functools
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from helpers.data import columns, pictures
from helpers.engine import gpu
from helpers.errors import StudyError, reading

BYTES = 100_000_000  # of one member of a tar
HEADER = 2**20  # bytes of a long name, and of what pax says of a member


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


class Member(NamedTuple):
    """A file in a tar: its name up to the last dot, its ending, and where its bytes are."""

    key: str
    ending: str
    start: int
    size: int


class _Headers(io.FileIO):
    """A tar of which only headers are read; ``ReadError`` on one that claims to be endless."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= HEADER:
            raise tarfile.ReadError(f"it has a header of {size:,} bytes")
        return super().read(size)


class Tar:
    """Images of a webdataset shard, decoded when asked for; ``StudyError`` where it is damaged.

    All have the size that they have, or with ``side`` that of ``pictures.rgb``. Nothing is
    unpacked: links, devices, sparse files, dot files and members over ``BYTES`` are not there.
    """

    def __init__(self, path: Path, side: int | None = None) -> None:
        self.path = path
        self.side = side
        columns.check(path, "a tar")
        with reading(path, tarfile.TarError):
            about = path.stat()
            self.members = _members(path, about.st_mtime_ns, about.st_size)
        self.images = [member for member in self.members if member.ending in pictures.ENDINGS]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        wanted, back = np.unique(rows, return_inverse=True)
        members = [self.images[i] for i in wanted]
        read = zip(members, self.read(members), strict=True)
        images = [pictures.rgb(x, f"{self.path}: {m.key}{m.ending}", self.side) for m, x in read]
        if len({image.shape for image in images}) > 1:
            raise StudyError(f"{self.path} holds images of several sizes. Make them of one.")
        return np.stack(images)[back]

    def rows(self) -> list[dict]:
        """What is known of each image, in order."""
        texts = self.read([member for member in self.members if member.ending == ".json"])
        with reading(self.path, RecursionError):
            return [json.loads(text) for text in texts]

    def read(self, members: Sequence[Member]) -> Iterator[bytes]:
        """The bytes of members, one after the other."""
        with reading(self.path), self.path.open("rb") as file:
            for member in members:
                file.seek(member.start)
                yield file.read(member.size)

    def matched(self, keys: Sequence[str] | None, listed: int, table: Path) -> np.ndarray:
        """The image of each of a table's ``listed`` rows: its position here, or -1 for none.

        Both have the same ``keys``, as img2dataset writes them, perhaps but for zeros in front and
        folders of the tar; what has the key of another has none. Without keys both are as many, and
        in order. Else raises ``StudyError``.
        """
        names = [member.key for member in self.images]
        if keys is not None and not {*names} & {*keys}:
            if not any("/" in key for key in keys):
                names = [name.rpartition("/")[2] for name in names]
            names, keys = ([key.lstrip("0") for key in either] for either in (names, keys))
        counts = collections.Counter(names)
        if keys is None and len(names) == listed and names == sorted(counts):
            return np.arange(listed)
        if keys is None or not counts.keys() <= {*keys}:
            both = f"{listed} rows, its tar {len(self)} images; neither keys nor order pair them up"
            raise StudyError(f"{table} lists {both}: nobody knows which is whose. Make both anew.")
        place = {name: i for i, name in enumerate(names) if counts[name] == 1}
        rows = collections.Counter(keys)
        return np.array([place.get(k, -1) if rows[k] == 1 else -1 for k in keys], np.int64)


@functools.lru_cache(maxsize=16)
def _members(tar: Path, changed: int, size: int) -> list[Member]:
    """The readable members of a tar, whole to its end; ``changed`` as a tar may be replaced."""
    found = []
    with _Headers(tar) as opened, tarfile.open(fileobj=opened, mode="r:") as file:
        for member in file:
            name = Path(member.name.encode(errors="backslashreplace").decode())  # Latin-1, too
            plain = member.isreg() and not member.issparse() and member.size <= BYTES
            if plain and not name.name.startswith("."):
                key = str(name.with_suffix("")) if name.name else ""
                found.append(Member(key, name.suffix.lower(), member.offset_data, member.size))
        opened.seek(file.offset)  # where tarfile stops, without a word, at damage, too
        rest = opened.read(HEADER)
    if not tarfile.BLOCKSIZE <= len(rest) < HEADER or rest.strip(b"\0"):
        raise ValueError(f"no end at byte {file.offset:,}: cut, or joined by cat, not tar -A?")
    return found


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
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self), *self[:1].shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(self), chunk):
            file.write(np.ascontiguousarray(self[start : start + chunk]).data)


def located(sizes: Sequence[int], rows: Any) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (shard, positions in it, positions in ``rows``); ``StudyError`` on rows beyond all."""
    rows = np.asarray(rows, dtype=np.int64)
    if len(rows) and not (rows.min() >= 0 and rows.max() < sum(sizes)):
        raise StudyError(f"rows {rows.min()} .. {rows.max()} asked for of 0 .. {sum(sizes) - 1}.")
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
