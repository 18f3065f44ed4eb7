"""Seconds to train notebook 06's heads as one ensemble, against one after the other.

Sizes, seeds, updates and features are the same either way. Both run on one thread and on all;
methods take turns, round by round, in one process. The table's title says how far the networks of
both ways are apart, which is rounding.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from helpers import worlds
from helpers.engine import gpu
from helpers.models import heads

IMAGES = 2_000
WIDTH = 128  # numbers per feature
CLASSES = 24
STEPS = 60
BASELINE = "one by one, 1 thread"


def data(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit features (2, images, WIDTH) around class centres, and labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % CLASSES
    x = rng.normal(size=(CLASSES, WIDTH))[labels] + rng.normal(size=(2, images, WIDTH))
    return (x / np.linalg.norm(x, axis=2, keepdims=True)).astype(np.float32), labels


def members(images: int, settings) -> tuple[list[np.ndarray], list[int]]:
    """Subsets and seeds of one arm of notebook 06: every size with every seed."""
    subsets = []
    seeds = []
    for n in settings.sizes:
        if n > images:
            continue
        for seed in range(settings.seeds):
            subsets.append(np.random.default_rng(seed).permutation(images)[:n])
            seeds.append(seed)
    return subsets, seeds


def together(features, labels, subsets, seeds, settings):
    """All members as one batched multiplication."""
    trained = heads.train(features, labels, subsets, seeds, CLASSES, settings)
    return [p.cpu().numpy() for p in trained.parameters]


def one_by_one(features, labels, subsets, seeds, settings):
    """The same members, each trained alone."""
    networks = [
        together(features, labels, [rows], [seed], settings)
        for rows, seed in zip(subsets, seeds, strict=True)
    ]
    return [np.concatenate(parts) for parts in zip(*networks, strict=True)]


def main(rows: int | None, rounds: int) -> None:
    """Train on ``rows`` features, ``rounds`` times each way.

    Prints medians, extremes and the ratio to the baseline.
    """
    import torch

    settings = worlds.replace(worlds.get("pocket"), scaling={"steps": STEPS}).scaling
    features, labels = data(rows or IMAGES)
    subsets, seeds = members(len(labels), settings)
    ensemble = together(features, labels, subsets, seeds, settings)
    alone = one_by_one(features, labels, subsets, seeds, settings)
    apart = max(np.abs(a - b).max() for a, b in zip(ensemble, alone, strict=True))
    methods = {BASELINE: (one_by_one, 1), "ensemble, 1 thread": (together, 1)}
    if gpu.cores() > 1:
        both = (("one by one", one_by_one), ("ensemble", together))
        methods |= {f"{name}, {gpu.cores()} threads": (fn, gpu.cores()) for name, fn in both}
    seconds: dict[str, list[float]] = {label: [] for label in methods}
    for _ in range(rounds):
        for label, (fn, threads) in methods.items():
            torch.set_num_threads(threads)
            start = time.perf_counter()
            fn(features, labels, subsets, seeds, settings)
            seconds[label].append(time.perf_counter() - start)
    print(
        f"{len(subsets)} heads of {WIDTH} x {settings.hidden} x {CLASSES}, {STEPS} updates of "
        f"{settings.batch}; {gpu.describe()}, {rounds} rounds; "
        f"largest difference of a weight {apart:.1e}"
    )
    print(f"{'method':28s}{'seconds':>10s}{'min':>10s}{'max':>10s}{'speed-up':>10s}")
    base = statistics.median(seconds[BASELINE])
    for label, each in seconds.items():
        middle = statistics.median(each)
        print(f"{label:28s}{middle:10.2f}{min(each):10.2f}{max(each):10.2f}{base / middle:10.2f}")
