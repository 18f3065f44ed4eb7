"""Linear probes: multinomial logistic regression on cached features, for one penalty or many in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helpers.engine import gpu
from helpers.worlds import FinetuneSettings

PENALTIES = FinetuneSettings().probe_penalties


def accuracy_of(features: np.ndarray, weight, bias, labels: np.ndarray) -> float:
    """Accuracy, 0..1, of a linear classifier on features."""
    w, b = (
        np.asarray(v.detach().cpu() if hasattr(v, "detach") else v, np.float32)
        for v in (weight, bias)
    )
    return float(((features @ w.T + b).argmax(1) == labels).mean())


def chosen_probe(
    x: np.ndarray,
    labels: np.ndarray,
    val: np.ndarray,
    wanted: np.ndarray,
    classes: int,
    fit_on: str = "train",
    penalties: Sequence[float] = PENALTIES,
):
    """The probe with the penalty that validates best, and ``(validation accuracy, penalty)``; ``x`` and ``val`` are features."""
    descending, best = sorted(penalties, reverse=True), (-1.0, 0.0)
    found = dict(zip(descending, linear_probes(x, labels, classes, descending), strict=True))
    for penalty, solution in found.items():
        best = max(best, (accuracy_of(val, *solution, wanted), penalty))
    if fit_on == "train":
        return found[best[1]], best
    return linear_probe(
        np.concatenate([x, val]), np.concatenate([labels, wanted]), classes, best[1], found[best[1]]
    ), best


from collections.abc import Iterator


def linear_probe(
    features: np.ndarray, labels: np.ndarray, classes: int, penalty: float, start=None
):
    """Multinomial logistic regression: weight (classes, d) and bias (classes,) float32 arrays.

    Minimises mean cross-entropy + ``penalty`` / 2 * |weight|^2; scikit-learn's ``C`` is 1 / (n * penalty). ``start`` is an
    earlier solution to go on from.
    """
    return next(linear_probes(features, labels, classes, (penalty,), start))


def linear_probes(
    features: np.ndarray, labels: np.ndarray, classes: int, penalties: Sequence[float], start=None
) -> Iterator[tuple]:
    """``linear_probe`` for one penalty after the other, each started at the solution before.

    By L-BFGS in coordinates in which the objective curves about equally in all directions: features are centred and turned to
    their principal axes, and each axis is stretched by what its variance, the penalty and the classifier's present doubt
    (mean of p (1 - p)) say its curvature is. The optimum is the same, and found in a third of the steps.
    """
    import torch

    x, y = (
        torch.from_numpy(features).float().to(gpu.device()),
        torch.from_numpy(labels).to(gpu.device()),
    )
    start = start or (np.zeros((classes, x.shape[1]), np.float32), np.zeros(classes, np.float32))
    w, b = (torch.tensor(part, device=gpu.device()) for part in start)
    mean = x.mean(0)
    x = x - mean
    variance, axes = torch.linalg.eigh(x.T @ x / len(x))
    x, w, b = x @ axes, w @ axes, b + w @ mean
    for penalty in penalties:
        p = (x @ w.T + b).softmax(1)
        doubt = (p * (1 - p)).mean().clamp(min=1e-6)
        stretch, shift = (doubt * variance.clamp(min=0) + penalty).rsqrt(), doubt.rsqrt()
        w, b = _minimised(x, y, w / stretch, b / shift, stretch, shift, penalty)
        weight = w @ axes.T
        yield weight.cpu().numpy(), (b - weight @ mean).cpu().numpy()


def _minimised(x, y, v, c, stretch, shift, penalty: float):
    import torch

    v.requires_grad_(True), c.requires_grad_(True)
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
        value = (
            torch.nn.functional.cross_entropy(x @ w.T + c * shift, y)
            + penalty / 2 * w.square().sum()
        )
        value.backward()
        return value

    solver.step(loss)
    return (v * stretch).detach(), (c * shift).detach()
