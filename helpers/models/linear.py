"""Linear probes: multinomial logistic regression on frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from helpers.engine import gpu
from helpers.worlds import FinetuneSettings

PENALTIES = FinetuneSettings().probe_penalties

Solution = tuple[np.ndarray, np.ndarray]  # weight (classes, d) and bias (classes,), float32


def accuracy_of(features: np.ndarray, weight: Any, bias: Any, labels: np.ndarray) -> float:
    """Accuracy, 0..1, of a linear classifier (arrays or tensors) on features (n, d)."""
    weight, bias = (
        np.asarray(part.detach().cpu() if hasattr(part, "detach") else part, np.float32)
        for part in (weight, bias)
    )
    return float(((features @ weight.T + bias).argmax(1) == labels).mean())


def chosen_probe(
    x: np.ndarray,
    labels: np.ndarray,
    val: np.ndarray,
    val_labels: np.ndarray,
    classes: int,
    fit_on: str = "train",
    penalties: Sequence[float] = PENALTIES,
) -> tuple[Solution, tuple[float, float]]:
    """The probe with the penalty that validates best, and ``(validation accuracy, penalty)``.

    ``x`` and ``val`` are features (n, d). With ``fit_on="both"`` the probe is fitted again, on
    training and validation images together.
    """
    descending = sorted(penalties, reverse=True)
    solutions = dict(zip(descending, linear_probes(x, labels, classes, descending), strict=True))
    best = (-1.0, 0.0)
    for penalty, solution in solutions.items():
        best = max(best, (accuracy_of(val, *solution, val_labels), penalty))
    penalty = best[1]
    if fit_on == "train":
        return solutions[penalty], best
    features = np.concatenate([x, val])
    both = np.concatenate([labels, val_labels])
    return next(linear_probes(features, both, classes, [penalty], solutions[penalty])), best


def linear_probes(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    penalties: Sequence[float],
    start: Solution | None = None,
) -> Iterator[Solution]:
    """Multinomial logistic regression for one penalty after the other, from ``start`` on.

    Each minimises mean cross-entropy + ``penalty`` / 2 * |weight|^2, beginning at the solution
    before; scikit-learn's ``C`` is 1 / (n * penalty). By L-BFGS in coordinates in which the
    objective curves about equally in all directions: features are centred and turned to their
    principal axes, and each axis is stretched by what its variance, the penalty and the
    classifier's present doubt (mean of p (1 - p)) say its curvature is. The optimum is the same,
    and found in a third of the steps.
    """
    import torch

    x = torch.from_numpy(features).float().to(gpu.device())
    y = torch.from_numpy(labels).to(gpu.device())
    start = start or (np.zeros((classes, x.shape[1]), np.float32), np.zeros(classes, np.float32))
    w, b = (torch.tensor(part, device=gpu.device()) for part in start)
    # centre the features and turn them to their principal axes
    mean = x.mean(0)
    x = x - mean
    variance, axes = torch.linalg.eigh(x.T @ x / len(x))
    x = x @ axes
    b = b + w @ mean
    w = w @ axes
    for penalty in penalties:
        p = (x @ w.T + b).softmax(1)
        doubt = (p * (1 - p)).mean().clamp(min=1e-6)
        stretch = (doubt * variance.clamp(min=0) + penalty).rsqrt()
        shift = doubt.rsqrt()
        w, b = _minimised(x, y, w / stretch, b / shift, stretch, shift, penalty)
        weight = w @ axes.T
        yield weight.cpu().numpy(), (b - weight @ mean).cpu().numpy()


def _minimised(x, y, v, c, stretch, shift, penalty: float):
    """Weight and bias at the minimum; ``v`` and ``c`` are where they start, before stretching."""
    import torch

    v.requires_grad_(True)
    c.requires_grad_(True)
    solver = torch.optim.LBFGS(
        [v, c],
        max_iter=200,
        tolerance_grad=3e-5,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss():
        solver.zero_grad()
        w = v * stretch
        entropy = torch.nn.functional.cross_entropy(x @ w.T + c * shift, y)
        value = entropy + penalty / 2 * w.square().sum()
        value.backward()
        return value

    solver.step(loss)
    return (v * stretch).detach(), (c * shift).detach()
