"""What all trainings share: schedule, order of images, random crops, and the loop with AdamW."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from helpers.engine import store
from helpers.engine.late import torch


@dataclass(frozen=True)
class Schedule:
    """``steps`` updates of ``batch`` images, at a rate that rises to ``lr`` in ``warmup`` steps.

    Then it falls as half a cosine or, with a ``cooldown``, linearly in that many last steps.
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

    The next is drawn only when it is needed; ``waiting`` are positions drawn and not given out.
    """

    size: int
    permutation: Callable[[], np.ndarray]
    waiting: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __next__(self) -> np.ndarray:
        while len(self.waiting) < self.size:
            self.waiting = np.concatenate([self.waiting, self.permutation()])
        rows, self.waiting = np.split(self.waiting, [self.size])
        return rows


def cropped(images: torch.Tensor, generator: torch.Generator, low: float = 0.9) -> torch.Tensor:
    """Random crops of ``low`` to 1 of the area, as open_clip's, of images (n, 3, s, s)."""
    side = (low + (1 - low) * torch.rand(len(images), generator=generator)).sqrt()
    shift = (2 * torch.rand(len(images), 2, generator=generator) - 1) * (1 - side)[:, None]
    window = torch.cat([side[:, None, None] * torch.eye(2), shift[:, :, None]], 2)  # affine maps
    whole = {"align_corners": False}
    grid = torch.nn.functional.affine_grid(window.to(images.device), images.shape, **whole)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="reflection", **whole)


def augmented(images: torch.Tensor, generator: torch.Generator, low: float = 0.9) -> torch.Tensor:
    """The same, half of them mirrored."""
    x = cropped(images, generator, low)
    mirrored = torch.rand(len(x), generator=generator).to(x.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(-1), x)


def fit(
    parameters: Sequence[torch.Tensor],
    backward: Callable[[int], None],
    schedule: Schedule,
    first: int = 0,
    state: dict[str, Any] | None = None,
    after: Callable[[int, torch.optim.Optimizer], None] | None = None,
    clip_norm: float | None = 1.0,
    **adamw: Any,
) -> None:
    """Train ``parameters`` in place with AdamW and its options, from step ``first`` to the end.

    ``backward(step)`` leaves a step's gradients, which are clipped at the norm ``clip_norm`` (None:
    not at all), then comes ``after(step, optimiser)``. ``state`` is what an optimiser goes on from.
    """
    optimiser = torch.optim.AdamW(parameters, lr=schedule.lr, **adamw)
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
    buffer = io.BytesIO()
    torch.save(state, buffer)
    store.write(path, buffer.getvalue())
