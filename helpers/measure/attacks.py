"""Adversarial attacks on a differentiable function of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from helpers.errors import StudyError


def fgsm(logits_of: Callable, x, y, radii: Sequence[float]) -> list:
    """One step along the sign of the gradient, for each size in ``radii``; pixels ``x`` (n, 3, s, s) and the results in 0..1."""
    direction = _gradient(logits_of, x, y)[0].sign()
    return [(x + eps * direction).clamp(0, 1) for eps in radii]


def pgd(logits_of: Callable, x, y, eps: float, steps: int, generator):
    """Projected gradient descent in the L-inf ball: random start, step 2.5 ``eps`` / ``steps``; per image the worst point met."""
    import torch

    if steps < 1 or eps < 0:
        raise StudyError(
            f"PGD was given {steps} steps and eps {eps}; it wants at least one step and eps >= 0."
        )
    noise = 2 * torch.rand(x.shape, generator=generator).to(x.device) - 1
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    at = (x + eps * noise).clamp(0, 1)
    worst, highest = at, torch.full((len(x),), -torch.inf, device=x.device)
    for step in range(steps + 1):
        gradient, loss = _gradient(logits_of, at, y, step < steps)
        worst = torch.where((loss >= highest)[:, None, None, None], at, worst)
        highest = torch.maximum(loss, highest)
        if step < steps:
            at = (at + 2.5 * eps / steps * gradient.sign()).clamp(low, high)
    return worst


def _gradient(logits_of: Callable, x, y, wanted: bool = True):
    """Gradient at ``x``, where it is wanted, and each image's loss."""
    import torch

    with torch.set_grad_enabled(wanted):
        x = x.detach().requires_grad_(wanted)
        loss = torch.nn.functional.cross_entropy(logits_of(x).float(), y, reduction="none")
        return torch.autograd.grad(loss.sum(), x)[0] if wanted else None, loss.detach()
