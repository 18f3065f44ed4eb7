"""Many small classifiers at once: ensembles of two-layer networks on frozen CLIP features, trained by batched multiplication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helpers.engine import gpu
from helpers.errors import StudyError
from helpers.models.train import rate
from helpers.worlds import ScalingSettings


@dataclass(frozen=True, eq=False)
class Heads:
    """``members`` classifiers side by side: tensors (members, d, hidden), (members, 1, hidden), (members, hidden, classes), ..."""

    parameters: tuple

    def logits(self, x):
        """(members, n, d) features of unit length -> (members, n, classes)."""
        import torch

        first, shift, second, bias = self.parameters
        hidden = torch.relu(torch.baddbmm(shift, x * x.shape[-1] ** 0.5, first))
        return torch.baddbmm(bias, hidden, second)


def start(d: int, classes: int, seeds: Sequence[int], hidden: int) -> Heads:
    """Untrained heads, each drawn from its own seed: the same whatever stands beside it."""
    import torch

    firsts, seconds = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed % 2**63)
        firsts.append(torch.randn(d, hidden, generator=generator) * (2 / d) ** 0.5)
        seconds.append(torch.randn(hidden, classes, generator=generator) * 0.1 / hidden**0.5)
    parts = (
        torch.stack(firsts),
        torch.zeros(len(seeds), 1, hidden),
        torch.stack(seconds),
        torch.zeros(len(seeds), 1, classes),
    )
    return Heads(tuple(p.to(gpu.device()).requires_grad_() for p in parts))


def train(
    features: np.ndarray,
    labels: np.ndarray,
    subsets: Sequence[np.ndarray],
    seeds: Sequence[int],
    classes: int,
    s: ScalingSettings,
) -> Heads:
    """One head per subset of the rows, all for ``s.steps`` updates of ``s.batch`` images drawn with replacement.

    ``features`` (2, n, d) float32 holds each image and its mirror image, one of which is drawn; ``subsets`` are positions in
    0..n-1. A member depends on its own subset and seed only. Raises ``StudyError`` on an empty subset.
    """
    import torch

    if not all(len(rows) for rows in subsets):
        raise StudyError(
            "a training set without images was asked for; every size must be at least 1."
        )
    n, device = features.shape[1], gpu.device()
    x, y = torch.from_numpy(features).flatten(0, 1).to(device), torch.from_numpy(labels).to(device)
    heads = start(features.shape[2], classes, seeds, s.hidden)
    rows, mirrored = _draws(subsets, seeds, s)
    optimiser = torch.optim.AdamW(heads.parameters, lr=s.lr, weight_decay=s.weight_decay)
    for step in range(s.steps):
        optimiser.param_groups[0]["lr"] = rate(step, s.steps, s.lr, s.warmup)
        chosen = rows[:, step].to(device)
        logits = heads.logits(x[chosen + n * mirrored[:, step].to(device)])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y[chosen].flatten())
        (
            loss * len(subsets)
        ).backward()  # the sum of the members' means: their gradients do not mix
        optimiser.step()
        optimiser.zero_grad()
    return Heads(tuple(p.detach() for p in heads.parameters))


def _draws(subsets, seeds, s):
    import torch

    rows, mirrored = [], []
    for subset, seed in zip(subsets, seeds, strict=True):
        generator = torch.Generator().manual_seed((seed + 1) % 2**63)
        rows.append(
            torch.from_numpy(np.asarray(subset))[
                torch.randint(len(subset), (s.steps, s.batch), generator=generator)
            ]
        )
        mirrored.append(torch.randint(2, (s.steps, s.batch), generator=generator))
    return torch.stack(rows), torch.stack(mirrored)


def evaluate(
    heads: Heads, features: np.ndarray, labels: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean cross-entropy (nats) and top-1 accuracy (0..1) per member and class, (members, classes); nan for absent classes."""
    import torch

    x, y = (
        torch.from_numpy(features)[None].to(gpu.device()),
        torch.from_numpy(labels).to(gpu.device()),
    )
    losses, hits = [], []
    for i in range(len(heads.parameters[0])):
        one = Heads(tuple(p[i : i + 1] for p in heads.parameters))
        with torch.inference_mode():
            logits = one.logits(x)[0].float()
            losses.append(
                torch.nn.functional.cross_entropy(logits, y, reduction="none").cpu().numpy()
            )
            hits.append((logits.argmax(1) == y).float().cpu().numpy())
    member = np.eye(classes)[labels]
    with np.errstate(invalid="ignore"):
        return (np.stack(losses) @ member / member.sum(0), np.stack(hits) @ member / member.sum(0))
