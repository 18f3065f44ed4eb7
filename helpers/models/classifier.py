"""A CLIP's image tower as a classifier, finetuned and measured by one recipe ([P] section 4)."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from helpers.data.subsets import balanced, nested_subset
from helpers.data.tables import Benchmark, Split
from helpers.engine import gpu, progress
from helpers.engine.late import functional, nn, torch
from helpers.errors import StudyError
from helpers.models import clip as clips
from helpers.models.clip import Clip
from helpers.models.linear import Solution, chosen_probe, predicted
from helpers.models.train import Batches, Schedule, cropped, fit, save_state
from helpers.settings import FinetuneSettings as Settings

RECIPE: dict[str, Any] = {"betas": (0.9, 0.95), "weight_decay": 0.1, "fused": True}  # [P], [C]
CHECKPOINT_MINUTES = 10.0  # a run keeps its state so often


@dataclass(frozen=True, eq=False)
class Classifier:
    """An image tower with a linear head on its unit embeddings."""

    clip: Clip
    weight: torch.Tensor  # (classes, d)
    bias: torch.Tensor  # (classes,)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes) of ``clip.pixels`` (n, 3, s, s)."""
        return self.clip.model.encode_image(x, normalize=True) @ self.weight.T + self.bias

    def pixel_logits(self, x: torch.Tensor) -> torch.Tensor:
        """The same of pixels (n, 3, s, s) in 0..1; their gradient is cheap."""
        x = clips.resized(x, self.clip.image_size)
        return self.logits(clips.pixels(self.clip, 255 * x.permute(0, 2, 3, 1)))

    def image_logits(self, images: Any) -> np.ndarray:
        """The same of uint8 images (n, side, side, 3), as an array (n, classes) float32."""
        weight, bias = self.head()
        return clips.embed_images(self.clip, images) @ weight.T + bias

    def head(self) -> Solution:
        """Weight and bias as arrays."""
        return self.weight.detach().cpu().numpy(), self.bias.detach().cpu().numpy()

    def trainable(self) -> torch.nn.Module:
        """Image tower, weight and bias, in this order, as one module."""
        return nn.ModuleList([self.clip.model.visual, nn.ParameterList([self.weight, self.bias])])


def text_classifier(clip: Clip, bench: Benchmark, scaled: bool = True) -> Classifier:
    """A CLIP as a classifier: its text head times exp(logit scale), on which ECE depends [C]."""
    head = torch.tensor(clips.head(clip, bench.classes, bench.templates), device=gpu.device())
    if scaled:
        head = head * clip.model.logit_scale.detach().exp()
    return Classifier(clip, head, torch.zeros(len(head), device=gpu.device()))


def schedule(n: int, lr: float, s: Settings, task: str = "") -> Schedule:
    """The task's epochs over ``n`` images, at least ``min_steps``: warm-up, then a cosine [P]."""
    batch = min(s.batch, n)
    epochs = dict(s.epochs_of).get(task, s.epochs)
    steps = max(s.min_steps, math.ceil(epochs * n / batch))
    warmup = round(s.warmup * steps if s.warmup < 1 else s.warmup)
    return Schedule(steps, batch, lr, warmup)


def finetune(
    clip: Clip, train: Split, bench: Benchmark, lr: float, seed: int, s: Settings, resume: Path
) -> tuple[Classifier, int]:
    """Train a copy of the image tower, and its text head, with cross-entropy on ``train``.

    Returns what stands at the end, and the number of steps: no checkpoint is chosen. Normalisation
    layers keep their statistics. A run keeps its state in the file ``resume`` and, killed, goes on
    to the same result. Raises ``StudyError`` without images.
    """
    if not len(train):
        raise StudyError(f"no images of task {bench.task!r} to train on; see notebook 03.")
    start = text_classifier(clip, bench)
    head = (torch.nn.Parameter(part) for part in (start.weight, start.bias))
    model = Classifier(replace(clip, model=copy.deepcopy(clip.model)), *head)
    trainable = model.trainable()
    plan = schedule(len(train), lr, s, bench.task)
    generator = torch.Generator().manual_seed(seed % 2**63)
    order = Batches(plan.batch, lambda: torch.randperm(len(train), generator=generator).numpy())
    state: dict[str, Any] = {"step": 0, "optimiser": None}
    at_once = plan.batch
    saved = time.monotonic()

    if resume.exists():
        state = torch.load(resume, map_location="cpu", weights_only=True)
        trainable.load_state_dict(state["model"])
        generator.set_state(state["generator"])
        order.waiting = state["order"].numpy()
        progress.say(f"finetuning: goes on at step {state['step']}")

    def backward(step: int) -> None:
        nonlocal at_once
        rows, images = next(batches)
        with gpu.autocast(s.precision):
            x = cropped(clips.pixels(model.clip, images), generator)
        labels = torch.from_numpy(train.labels[rows]).to(gpu.device())
        at_once = accumulate(model, x, labels, at_once, s.precision)

    def after(step: int, optimiser: torch.optim.Optimizer) -> None:
        nonlocal saved
        if time.monotonic() - saved > 60 * CHECKPOINT_MINUTES:
            state = {"step": step + 1, "order": torch.from_numpy(order.waiting)}
            state |= {"model": trainable.state_dict(), "optimiser": optimiser.state_dict()}
            save_state(resume, state | {"generator": generator.get_state()})
            saved = time.monotonic()

    parameters = list(trainable.parameters())
    with ThreadPoolExecutor(1) as reader:
        batches = _read_ahead(train, order, reader)
        fit(parameters, backward, plan, state["step"], state["optimiser"], after, **RECIPE)
    resume.unlink(missing_ok=True)
    return model, plan.steps


def _read_ahead(train: Split, order: Batches, reader: ThreadPoolExecutor) -> Iterator[tuple]:
    """Positions and images of batches; the next is read meanwhile if its positions are drawn."""
    ahead = None
    for rows in order:
        images = ahead.result() if ahead else train.images[rows]
        following = order.waiting[: order.size]
        drawn = len(following) == order.size
        ahead = reader.submit(train.images.__getitem__, following) if drawn else None
        yield rows, images


def accumulate(
    model: Classifier, x: torch.Tensor, labels: torch.Tensor, at_once: int, precision: str
) -> int:
    """Leave a batch's gradients, ``at_once`` or fewer images at a time; returns how many fit."""

    def add_gradients() -> None:
        for start in range(0, len(x), at_once):
            part = slice(start, start + at_once)
            with gpu.autocast(precision):
                logits = model.logits(x[part])
            loss = functional.cross_entropy(logits.float(), labels[part])
            (loss * (len(logits) / len(x))).backward()

    while True:
        try:
            add_gradients()
            return at_once
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
        at_once = max(1, min(at_once, len(x)) // 2)
        model.trainable().zero_grad()


def measure(
    model: Classifier, bench: Benchmark, s: Settings, held_out: str = "test", seed: int = 0
) -> dict[str, np.ndarray]:
    """The classes (n,) that are predicted for a split's images, per metric.

    ``zero_shot`` is the model's own head; ``linear_probe`` is fitted on many labelled images,
    ``probe_{k}`` on k of each class, drawn by ``seed``.
    """
    train, val = (balanced(split, s.probe_images) for split in (bench.train, bench.val))
    x, y = (clips.embed_images(model.clip, split.images) for split in (train, val))
    images = clips.embed_images(model.clip, getattr(bench, held_out).images)
    classes = len(bench.classes)
    held = (y, val.labels)
    alone = replace(s, probe_on="train")
    probed = s if held_out == "test" else alone
    heads = {"zero_shot": model.head()}
    heads["linear_probe"] = chosen_probe((x, train.labels), held, classes, probed)
    for k in s.few_labels:
        rng = np.random.default_rng((seed, k))
        rows = nested_subset(train.labels, min(k * classes, len(train)), rng)
        heads[f"probe_{k}"] = chosen_probe((x[rows], train.labels[rows]), held, classes, alone)
    return {name: predicted(images, *head) for name, head in heads.items()}


def baseline(clip: Clip, bench: Benchmark, s: Settings, held_out: str = "test") -> dict[str, Any]:
    """The same of a CLIP before finetuning, with its text head."""
    return measure(text_classifier(clip, bench, scaled=False), bench, s, held_out)
