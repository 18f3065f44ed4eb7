"""Near-copies of pictures: their descriptor, the nearest held-out picture, the threshold, duplicates within a set ([C], [P] section 3).

Descriptors are whole numbers whose products float32 adds without rounding, in any order: what counts as a copy depends
neither on blocks, nor on threads, nor on the number of workers.
"""

from __future__ import annotations

import numpy as np

from helpers.data.tables import Benchmark

SCALE = 4_000  # length of a descriptor; partial sums of a product stay below 2 ** 24
BLOCK = 50_000  # held-out pictures that are compared at a time


def descriptor(images: np.ndarray, side: int = 16, batch: int = 1_024) -> np.ndarray:
    """What two copies of a picture share after cropping, tinting and re-encoding: (n, d) int16 of length ``SCALE``.

    A thumbnail of each colour channel, high-pass filtered and standardised; stands in for the ISC descriptor of [C].
    """
    import torch

    parts = [np.zeros((0, 3 * side * side), np.int16)]
    for i in range(0, len(images), batch):
        x = torch.tensor(np.ascontiguousarray(images[i : i + batch])).permute(0, 3, 1, 2).float()
        x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
        around = torch.nn.functional.avg_pool2d(
            torch.nn.functional.pad(x, (2,) * 4, mode="reflect"), 5, 1
        )
        x = (x - around).flatten(2)
        x = (x - x.mean(2, keepdim=True)) / (x.std(2, keepdim=True) + 1e-3)
        parts.append(
            (SCALE * torch.nn.functional.normalize(x.flatten(1), dim=1)).round().short().numpy()
        )
    return np.concatenate(parts)


def nearest(candidates: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Largest similarity of each candidate to any held-out picture, both as descriptors: (n,) float32 in -1..1, by faiss."""
    import faiss

    best, x = np.full(len(candidates), -1, np.float32), candidates.astype(np.float32)
    for i in range(0, len(held_out), BLOCK):
        found, _ = faiss.knn(
            x, held_out[i : i + BLOCK].astype(np.float32), 1, metric=faiss.METRIC_INNER_PRODUCT
        )
        best = np.maximum(best, found[:, 0] / SCALE**2)
    return best


def threshold(bench: Benchmark, quantile: float) -> float:
    """The similarity above which a pair counts as a copy: a high quantile of validation against train images.

    Those are independent pictures, so what they reach is what different pictures reach; results play no part.
    """
    return float(
        np.quantile(nearest(descriptor(bench.val.images), descriptor(bench.train.images)), quantile)
    )


def duplicates(descriptors: np.ndarray, limit: float, block: int = 1_024) -> np.ndarray:
    """Which pictures, (n,) bool, repeat an earlier one that stays: of near-copies (similarity above ``limit``) the first stays."""
    import faiss

    again, stay = np.zeros(len(descriptors), bool), faiss.IndexFlatIP(descriptors.shape[1])
    for start in range(0, len(descriptors), block):
        x, here = (
            descriptors[start : start + block].astype(np.float32),
            again[start : start + block],
        )
        here[:] = stay.search(x, 1)[0][:, 0] > limit * SCALE**2
        near = np.tril(x @ x.T > limit * SCALE**2, -1)
        for i in np.flatnonzero(near.any(1)):
            here[i] |= (near[i] & ~here).any()
        stay.add(x[~here])
    return again
