"""Adversarial attacks on a function ``logits_of`` of pixels (n, 3, side, side), all in 0..1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from helpers.engine.late import torch
from helpers.errors import StudyError


def fgsm(
    logits_of: Callable, x: torch.Tensor, y: torch.Tensor, radii: Sequence[float]
) -> list[torch.Tensor]:
    """One step along the sign of the gradient at ``x``, labels ``y``, for each of ``radii``."""
    gradient, _ = _gradient(logits_of, x, y)
    return [(x + eps * gradient.sign()).clamp(0, 1) for eps in radii]


def pgd(
    logits_of: Callable, x: torch.Tensor, y: torch.Tensor, eps: float, steps: int, generator: Any
) -> torch.Tensor:
    """The worst points that projected gradient descent meets in the L-inf ball of radius ``eps``.

    It starts at random and takes ``steps`` steps of 2.5 ``eps`` / ``steps``. Raises ``StudyError``.
    """
    if steps < 1 or eps < 0:
        raise StudyError(f"PGD wants at least one step and eps >= 0, not {steps} and {eps}.")
    noise = 2 * torch.rand(x.shape, generator=generator).to(x.device) - 1
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    at = (x + eps * noise).clamp(0, 1)
    worst = at
    highest = torch.full((len(x),), -torch.inf, device=x.device)
    for step in range(steps + 1):
        gradient, loss = _gradient(logits_of, at, y, wanted=step < steps)
        worst = torch.where((loss >= highest)[:, None, None, None], at, worst)
        highest = torch.maximum(loss, highest)
        at = (at + 2.5 * eps / steps * gradient.sign()).clamp(low, high)
    return worst


def _gradient(logits_of, x, y, wanted=True):
    """Gradient at ``x``, 0 where it is not wanted, and each image's loss."""
    with torch.set_grad_enabled(wanted):
        x = x.detach().requires_grad_(wanted)
        loss = torch.nn.functional.cross_entropy(logits_of(x).float(), y, reduction="none")
        gradient = torch.autograd.grad(loss.sum(), x)[0] if wanted else torch.zeros_like(x)
    return gradient, loss.detach()
