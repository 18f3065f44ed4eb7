"""Linear probes per hour: L-BFGS with a penalty chosen on validation, against AdamW for 200 epochs ([C] linear_probe.py).

Unit features of 512 numbers from a mixture of 100 classes, as many as FGVC-Aircraft has (10,000); on a CPU 2,000 with 32 numbers.
Both are fitted on the same features; the study's time has all four penalties and the final fit in it.
"""

from __future__ import annotations

import statistics

import numpy as np

from helpers import adapt, gpu
from tests.bench._models import seconds


def features(n: int, classes: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around unit centres, noisy enough that a perfect probe is right in about two of three, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    x = rng.normal(size=(classes, d))[labels] / np.sqrt(d) + rng.normal(size=(n, d)) * 0.55 * 12 / d**0.5 / np.sqrt(classes)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def published(x: np.ndarray, y: np.ndarray, classes: int, epochs: int = 200, batch: int = 256):
    """[C]: AdamW, betas 0.9 / 0.95, rate 0.01, weight decay 0.1, 200 warm-up steps, cosine, clip at 1; weight and bias."""
    import torch

    torch.manual_seed(0)
    head = torch.nn.Linear(x.shape[1], classes).to(gpu.device())
    x, y = torch.from_numpy(x).to(gpu.device()), torch.from_numpy(y).to(gpu.device())
    optimiser, step, steps = torch.optim.AdamW(head.parameters(), betas=(0.9, 0.95), weight_decay=0.1), 0, epochs * -(-len(x) // batch)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), device=x.device).split(batch):
            optimiser.param_groups[0]["lr"] = adapt.rate(step, steps, 1e-2, 200)
            torch.nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
    return head.weight.detach().cpu().numpy(), head.bias.detach().cpu().numpy()


def study(x: np.ndarray, y: np.ndarray, val: np.ndarray, wanted: np.ndarray, classes: int):
    """``adapt.probe`` on features: every penalty, the best on validation, fitted once more."""
    return adapt.chosen_probe(x, y, val, wanted, classes)[0]


def main(rows: int | None, rounds: int) -> None:
    """Fit both on the same features, print seconds, accuracy on held-out ones, and the ratio."""
    fast = gpu.device() == "cuda"
    n, classes, d = rows or (10_000 if fast else 2_000), 100 if fast else 20, 512 if fast else 32
    x, y = features(2 * n, classes, d)
    train, val, test = (slice(0, 2 * n // 3), slice(2 * n // 3, n), slice(n, 2 * n))
    methods = {"AdamW, 200 epochs": lambda: published(x[train], y[train], classes),
               "the study's": lambda: study(x[train], y[train], x[val], y[val], classes)}
    spent: dict[str, list[float]] = {label: [] for label in methods}
    for _ in range(rounds):
        for label, method in methods.items():
            spent[label].append(seconds(method))
    base = statistics.median(spent["AdamW, 200 epochs"])
    print(f"\n{gpu.describe()}, {rounds} rounds, {n:,} images, {classes} classes, {d} numbers\n"
          f"{'method':24s}{'seconds':>10s}{'min':>10s}{'max':>10s}{'faster':>10s}{'accuracy':>10s}")
    for label, method in methods.items():
        middle = statistics.median(spent[label])
        accuracy = adapt.accuracy_of(x[test], *method(), y[test])
        print(f"{label:24s}{middle:10.3f}{min(spent[label]):10.3f}{max(spent[label]):10.3f}{base / middle:10.1f}{accuracy:10.2%}")
