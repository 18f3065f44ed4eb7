"""Linear probes: multinomial logistic regression on frozen features."""

from collections.abc import Iterator, Sequence

import numpy as np

from helpers.engine import gpu
from helpers.engine.late import torch
from helpers.settings import FinetuneSettings

PENALTIES = FinetuneSettings().probe_penalties

Labelled = tuple[np.ndarray, np.ndarray]  # features (n, d) and labels (n,)
Solution = tuple[np.ndarray, np.ndarray]  # weight (classes, d) and bias (classes,), float32


def predicted(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The classes (n,) that a linear classifier finds in features (n, d)."""
    return (x @ weight.T + bias).argmax(1)


def accuracy_of(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy, 0..1, of a linear classifier on features (n, d)."""
    return float((predicted(x, weight, bias) == labels).mean())


def chosen_probe(train: Labelled, val: Labelled, classes: int, s: FinetuneSettings) -> Solution:
    """The probe whose penalty validates best; with ``probe_on`` "both" refitted on both [C]."""
    penalties = sorted(s.probe_penalties, reverse=True)
    solutions = dict(zip(penalties, linear_probes(train, classes, penalties), strict=True))
    _, best = max((accuracy_of(val[0], *solutions[p], val[1]), p) for p in penalties)
    if s.probe_on == "train":
        return solutions[best]
    both = (np.concatenate([train[0], val[0]]), np.concatenate([train[1], val[1]]))
    return next(linear_probes(both, classes, [best], solutions[best]))


def linear_probes(
    train: Labelled, classes: int, penalties: Sequence[float], start: Solution | None = None
) -> Iterator[Solution]:
    """Multinomial logistic regression for one penalty after the other, each from the one before.

    Each minimises mean cross-entropy + ``penalty`` / 2 * |weight|^2; scikit-learn's ``C`` is
    1 / (n * penalty). In principal axes, each stretched by what its variance, the penalty and the
    classifier's present doubt say its curvature is, L-BFGS takes a third of the steps.
    """
    x = torch.from_numpy(train[0]).float().to(gpu.device())
    y = torch.from_numpy(train[1]).to(gpu.device())
    start = start or (np.zeros((classes, x.shape[1]), np.float32), np.zeros(classes, np.float32))
    w, b = (torch.tensor(part, device=gpu.device()) for part in start)
    mean = x.mean(0)
    x = x - mean
    variance, axes = torch.linalg.eigh(x.T @ x / len(x))
    b = b + w @ mean
    x = x @ axes
    w = w @ axes
    for penalty in penalties:
        p = (x @ w.T + b).softmax(1)
        doubt = (p * (1 - p)).mean().clamp(min=1e-6)
        stretch = (doubt * variance.clamp(min=0) + penalty).rsqrt()
        shift = doubt.rsqrt()
        w, b = _minimised(x, y, w / stretch, b / shift, stretch, shift, penalty)
        weight = w @ axes.T
        yield weight.cpu().numpy(), (b - weight @ mean).cpu().numpy()


def _minimised(x, y, v, c, stretch, shift, penalty):
    """Weight and bias at the minimum; ``v`` and ``c`` are where they start, before stretching."""
    options = {"max_iter": 200, "tolerance_grad": 3e-5, "history_size": 10}
    both = [v.requires_grad_(), c.requires_grad_()]
    solver = torch.optim.LBFGS(both, line_search_fn="strong_wolfe", **options)

    def loss():
        solver.zero_grad()
        w = v * stretch
        entropy = torch.nn.functional.cross_entropy(x @ w.T + c * shift, y)
        value = entropy + penalty / 2 * w.square().sum()
        value.backward()
        return value

    solver.step(loss)
    return (v * stretch).detach(), (c * shift).detach()
