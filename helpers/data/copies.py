"""Near-copies of pictures ([C], [P] section 3).

Descriptors are whole numbers whose products float32 adds without rounding, in any order.
"""

import numpy as np

from helpers.data.shards import Lazy
from helpers.data.tables import Benchmark

SCALE = 4_000  # length of a descriptor; partial sums of a product stay below 2 ** 24
SIDE = 16  # of the thumbnail that a descriptor is made of
BATCH = 1_024  # pictures at a time
QUANTILE = 0.9995  # share of independent pictures that are no copies; [C] 0.604 of ISC


def descriptor(images: np.ndarray | Lazy) -> np.ndarray:
    """High-pass filtered thumbnails, (n, d) int16 of length ``SCALE``; [C] has ISC's descriptor."""
    import torch
    from torch.nn import functional

    parts = [np.zeros((0, 3 * SIDE * SIDE), np.int16)]
    for i in range(0, len(images), BATCH):
        x = torch.tensor(np.ascontiguousarray(images[i : i + BATCH])).permute(0, 3, 1, 2).float()
        x = functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        x = x - functional.avg_pool2d(functional.pad(x, (2,) * 4, mode="reflect"), 5, 1)
        x = x.flatten(2)
        x = (x - x.mean(2, keepdim=True)) / (x.std(2, keepdim=True) + 1e-3)
        x = functional.normalize(x.flatten(1), dim=1)
        parts.append((SCALE * x).round().short().numpy())
    return np.concatenate(parts)


def nearest(candidates: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Largest similarity of each candidate to any held-out picture, -1..1, both as descriptors."""
    import faiss

    x, y = (descriptors.astype(np.float32) for descriptors in (candidates, held_out))
    products, _ = faiss.knn(x, y, 1, metric=faiss.METRIC_INNER_PRODUCT)
    return products[:, 0] / SCALE**2


def threshold(bench: Benchmark) -> float:
    """Above this similarity a pair is a copy: few independent pairs (val with train) reach it."""
    similarity = nearest(descriptor(bench.val.images), descriptor(bench.train.images))
    return float(np.quantile(similarity, QUANTILE))
