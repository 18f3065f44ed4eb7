"""Near-copies of pictures ([C], [P] section 3).

Descriptors are whole numbers whose products float32 adds without rounding, in any order.
"""

import numpy as np

from helpers.data.shards import Lazy
from helpers.data.tables import Benchmark
from helpers.engine import progress
from helpers.engine.late import faiss, functional, torch

SCALE = 4_000  # length of a descriptor; partial sums of a product stay below 2 ** 24
SIDE = 16  # of the thumbnail that a descriptor is made of
BATCH = 1_024  # pictures at a time
QUANTILE = 0.9995  # share of independent pictures that are no copies; [C] 0.604 of ISC
SAME = 0.98  # two pictures of a benchmark that are that similar are no independent pair
FLOOR = 0.85  # 18 of 18 copies, resized and on another ground, of clip art reach it, strangers 0.6
ENOUGH = 1_000  # pictures of val without a repeat whose quantile may lie below the floor


def descriptor(images: np.ndarray | Lazy) -> np.ndarray:
    """High-pass filtered thumbnails, (n, d) int16 of length ``SCALE``; [C] has ISC's descriptor."""
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
    x, y = (descriptors.astype(np.float32) for descriptors in (candidates, held_out))
    products, _ = faiss.knn(x, y, 1, metric=faiss.METRIC_INNER_PRODUCT)
    return products[:, 0] / SCALE**2


def threshold(bench: Benchmark) -> float:
    """Above this similarity a pair is a copy: few independent pairs (val with train) reach it.

    The same picture twice is no such pair; a benchmark that repeats itself is said to. Where pairs
    are few, their quantile says little, and ``FLOOR`` is the least.
    """
    train = descriptor(bench.train.images)
    similarity = {}
    for name in ("val", "test"):
        similarity[name] = nearest(descriptor(getattr(bench, name).images), train)
        if repeated := int((similarity[name] >= SAME).sum()):
            share = f"{repeated} of {len(similarity[name])} pictures of {name} are also in train"
            progress.say(f"the benchmark {bench.task} repeats itself: {share}")
    apart = similarity["val"][similarity["val"] < SAME]
    limit = float(np.quantile(apart, QUANTILE)) if len(apart) else FLOOR
    limit = limit if len(apart) >= ENOUGH else max(limit, FLOOR)
    progress.say(f"{bench.task}: near-copies are those of a similarity above {limit:.3f}")
    return limit
