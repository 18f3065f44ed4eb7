"""Many small classifiers on frozen CLIP features at once, by batched multiplication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from helpers.engine import gpu
from helpers.engine.late import torch
from helpers.errors import StudyError
from helpers.measure import folds
from helpers.models.train import Schedule, fit
from helpers.settings import ScalingSettings

LR = 3e-3
WARMUP = 0.1  # share of the steps
ADAMW: dict[str, Any] = {"weight_decay": 0.5, "fused": True}
# Two-layer networks side by side, of tensors (members, d, hidden), (members, 1, hidden),
# (members, hidden, classes) and (members, 1, classes).
Heads: TypeAlias = "tuple[torch.Tensor, ...]"


def logits_of(heads: Heads, x: torch.Tensor) -> torch.Tensor:
    """(members, n, d) features of unit length -> (members, n, classes)."""
    first, shift, second, bias = heads
    hidden = torch.relu(torch.baddbmm(shift, x * x.shape[-1] ** 0.5, first))
    return torch.baddbmm(bias, hidden, second)


def start(d: int, classes: int, seeds: Sequence[int], hidden: int) -> Heads:
    """Untrained heads, each drawn from its own seed: the same whatever stands beside it."""
    firsts, seconds = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed % 2**63)
        firsts.append(torch.randn(d, hidden, generator=generator) * (2 / d) ** 0.5)
        seconds.append(torch.randn(hidden, classes, generator=generator) * 0.1 / hidden**0.5)
    shift, bias = (torch.zeros(len(seeds), 1, width) for width in (hidden, classes))
    parts = (torch.stack(firsts), shift, torch.stack(seconds), bias)
    return tuple(part.to(gpu.device()).requires_grad_() for part in parts)


def train(
    features: np.ndarray,
    labels: np.ndarray,
    subsets: Sequence[np.ndarray],
    seeds: Sequence[int],
    classes: int,
    s: ScalingSettings,
) -> Heads:
    """One head per subset of the rows, for ``s.steps`` updates of ``s.batch`` images each.

    ``features`` (2, n, d) float32 holds each image and its mirror image; either is drawn, with
    replacement. ``subsets`` are positions in 0 .. n - 1. A member depends on its own subset and
    seed only. Raises ``StudyError`` on an empty subset.
    """
    if not all(len(rows) for rows in subsets):
        raise StudyError("a training set without images was asked for; every size is at least 1.")
    x = torch.from_numpy(features).flatten(0, 1).to(gpu.device())
    y = torch.from_numpy(labels).repeat(2).to(gpu.device())
    heads = start(features.shape[2], classes, seeds, s.hidden)
    # each member's positions in x and y, (steps, batch): rows, and where their mirror images are
    size = (s.steps, s.batch)
    drawn = []
    for subset, seed in zip(subsets, seeds, strict=True):
        generator = torch.Generator().manual_seed((seed + 1) % 2**63)
        rows = torch.from_numpy(subset)[torch.randint(len(subset), size, generator=generator)]
        mirrored = torch.randint(2, size, generator=generator)
        drawn.append(rows + features.shape[1] * mirrored)
    positions = torch.stack(drawn)

    def backward(step: int) -> None:
        chosen = positions[:, step].to(gpu.device())
        logits = logits_of(heads, x[chosen])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y[chosen].flatten())
        # the sum of the members' means: their gradients do not mix
        (loss * len(subsets)).backward()

    schedule = Schedule(s.steps, s.batch, LR, round(WARMUP * s.steps))
    fit(heads, backward, schedule, clip_norm=None, **ADAMW)
    return tuple(part.detach() for part in heads)


def evaluate(
    heads: Heads, sets: Mapping[str, tuple[np.ndarray, np.ndarray]], classes: Sequence[str]
) -> list[pd.DataFrame]:
    """What ``folds.of_sets`` finds of each head.

    ``sets``: name -> features (n, d) and labels (n,). ``classes`` are measured apart on "test".
    """
    inputs = {name: torch.from_numpy(x)[None].to(gpu.device()) for name, (x, _) in sets.items()}
    labels = {name: y for name, (_, y) in sets.items()}
    tables = []
    for i in range(len(heads[0])):
        member = tuple(part[i : i + 1] for part in heads)
        with torch.inference_mode():
            logits = {name: logits_of(member, x)[0].cpu().numpy() for name, x in inputs.items()}
        tables.append(folds.of_sets(logits, labels, classes))
    return tables
