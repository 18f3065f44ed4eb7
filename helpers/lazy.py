"""Images that stay on disk until they are asked for, in the form of an array."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from helpers.worlds import StudyError


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
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (len(self), *like.shape[1:])})
        for start in range(0, len(self), chunk):
            file.write(np.ascontiguousarray(self[start : start + chunk]).data)


def located(sizes: Sequence[int], rows) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Where ``rows`` lie in shards of these sizes: (shard, positions in it, positions in ``rows``) of each shard that has any.

    Raises ``StudyError`` on a row that is in none.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if len(rows) and not (rows.min() >= 0 and rows.max() < sum(sizes)):
        raise StudyError(f"rows {rows.min()} .. {rows.max()} asked for; the pool has rows 0 .. {sum(sizes) - 1}.")
    starts = np.cumsum((0, *sizes))
    shard = np.searchsorted(starts, rows, side="right") - 1
    for i in np.unique(shard):
        at = np.flatnonzero(shard == i)
        yield int(i), rows[at] - starts[i], at


def gathered(sizes: Sequence[int], rows, read: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
    """The images at positions ``rows``, in that order, of shards of these sizes; ``read``: shard, positions in it -> images."""
    made = np.zeros((0, 1, 1, 3), np.uint8)
    for i, inside, at in located(sizes, rows):
        part = read(i, inside)
        made = made if len(made) else np.empty((len(rows), *part.shape[1:]), part.dtype)
        made[at] = part
    return made
