"""The training loop of all models: schedule, order of images, AdamW."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.engine import store

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Schedule:
    """``steps`` updates of ``batch`` images each, at a rate that rises to ``lr`` and falls to zero.

    It rises linearly in ``warmup`` steps. Without a ``cooldown`` it then falls as half a cosine;
    with one it stays at ``lr`` and falls linearly in the last ``cooldown`` steps.
    """

    steps: int
    batch: int
    lr: float
    warmup: int = 1
    cooldown: float | None = None

    def rate(self, step: int) -> float:
        """Learning rate at a step, 0 .. ``steps`` - 1."""
        rising = max(1, self.warmup)
        if step < rising:
            return self.lr * (step + 1) / rising
        if self.cooldown is None:
            angle = math.pi * (step - rising) / max(1, self.steps - rising)
            return self.lr * 0.5 * (1 + math.cos(angle))
        return self.lr * min(1.0, (self.steps - step) / max(1.0, self.cooldown))


@dataclass
class Batches(Iterator):
    """Endless shuffled batches of ``size`` positions: permutations, laid end to end.

    The next ``permutation()`` is drawn only when it is needed; ``waiting`` are the positions that
    were drawn and not yet given out.
    """

    size: int
    permutation: Callable[[], np.ndarray]
    waiting: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __next__(self) -> np.ndarray:
        while len(self.waiting) < self.size:
            self.waiting = np.concatenate([self.waiting, self.permutation()])
        rows = self.waiting[: self.size]
        self.waiting = self.waiting[self.size :]
        return rows


def fit(
    parameters: Sequence[torch.Tensor],
    backward: Callable[[int], None],
    schedule: Schedule,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.01,
    clip_norm: float | None = 1.0,
    fused: bool | None = None,
    first: int = 0,
    state: dict[str, Any] | None = None,
    after: Callable[[int, torch.optim.Optimizer], None] | None = None,
) -> None:
    """Train ``parameters`` in place with AdamW, from step ``first`` to the end of the schedule.

    ``backward(step)`` leaves the gradients of a step in the parameters; they are clipped at the
    norm ``clip_norm`` (None: not at all). ``after(step, optimiser)`` is called after each step. A
    training that goes on starts from ``state``, the state of its optimiser.
    """
    import torch

    optimiser = torch.optim.AdamW(
        parameters, lr=schedule.lr, betas=betas, weight_decay=weight_decay, fused=fused
    )
    if state is not None:
        optimiser.load_state_dict(state)
    for step in range(first, schedule.steps):
        optimiser.param_groups[0]["lr"] = schedule.rate(step)
        backward(step)
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimiser.step()
        optimiser.zero_grad()
        if after is not None:
            after(step, optimiser)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state (tensors and plain values) in one piece, for ``torch.load``."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    store.write(path, buffer.getvalue())
