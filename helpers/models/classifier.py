"""Adapting one CLIP on one training set and measuring it: the recipe of [P] section 4, equal for every source."""

from __future__ import annotations

import io
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.data.subsets import thinned
from helpers.data.tables import Benchmark, Split
from helpers.engine import gpu, store
from helpers.errors import StudyError
from helpers.models import clip as clips
from helpers.models.augment import crop_windows, cropped
from helpers.models.clip import Clip
from helpers.models.linear import accuracy_of, chosen_probe
from helpers.models.train import rate
from helpers.worlds import FinetuneSettings


@dataclass(frozen=True, eq=False)
class Classifier:
    """A finetuned image tower with its trained classifier."""

    clip: Clip
    weight: object  # (classes, d) tensor
    bias: object  # (classes,) tensor


def steps_of(n: int, s: FinetuneSettings, task: str = "") -> tuple[int, int]:
    """Number of update steps for ``n`` images, and the batch size: the task's epochs, but never fewer than ``min_steps``."""
    batch = min(s.batch, n)
    return max(s.min_steps, math.ceil(dict(s.epochs_of).get(task, s.epochs) * n / batch)), batch


def finetune(
    clip: Clip,
    train: Split,
    bench: Benchmark,
    lr: float,
    seed: int,
    s: FinetuneSettings,
    resume: Path | None = None,
) -> tuple[Classifier, dict]:
    """Train image tower and text-initialised head with cross-entropy on ``train``; keep what validates best.

    Returns the adapted model, and ``{"val": accuracy, "step": step kept, "steps": all}``. The head starts as the mean text
    embedding per class times exp(logit scale), bias 0 [C]; normalisation layers keep their statistics. A long run keeps its
    state in the file ``resume`` and, killed, goes on from there to the same result.
    """
    import torch

    if not len(train):
        raise StudyError(
            f"no images to train on for task {bench.task!r}; see which classes have rows in notebook 03."
        )
    made, (steps, batch) = clips.copy(clip), steps_of(len(train), s, bench.task)
    scale = made.model.logit_scale.detach().exp()
    weight = torch.nn.Parameter(
        torch.tensor(clips.head(clip, bench.classes, bench.templates), device=gpu.device()) * scale
    )
    bias = torch.nn.Parameter(torch.zeros(len(weight), device=gpu.device()))
    parameters = [*made.model.visual.parameters(), weight, bias]
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=s.betas, weight_decay=s.weight_decay)
    generator, order, part = (
        torch.Generator().manual_seed(seed % 2**63),
        np.zeros(0, np.int64),
        s.at_once,
    )
    kept, first, saved = {"val": -1.0}, 0, time.monotonic()
    if resume and resume.exists():
        first, order, kept = _resumed(resume, made, weight, bias, optimiser, generator)
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for step in range(first, steps):
            while len(order) < batch:
                order = np.concatenate(
                    [order, torch.randperm(len(train), generator=generator).numpy()]
                )
            rows, order = order[:batch], order[batch:]
            images = ahead.result() if ahead else train.images[rows]
            ahead = (
                reader.submit(train.images.__getitem__, order[:batch])
                if len(order) >= batch
                else None
            )  # meanwhile
            optimiser.param_groups[0]["lr"] = rate(step, steps, lr, s.warmup)
            windows = crop_windows(batch, generator)
            with gpu.autocast(s.precision):
                x = cropped(clips.pixels(made, images), windows)
            wanted = torch.from_numpy(train.labels[rows]).to(gpu.device())
            part = _backward(made, weight, bias, x, wanted, part, s.precision, batch)
            torch.nn.utils.clip_grad_norm_(parameters, s.clip_norm)
            optimiser.step()
            optimiser.zero_grad()
            if (step + 1) in _checkpoints(steps, s.evaluations):
                kept = _better(kept, Classifier(made, weight, bias), bench, step + 1, s)
            if resume and time.monotonic() - saved > 60 * s.checkpoint_minutes:
                _keep(
                    resume,
                    made,
                    weight,
                    bias,
                    optimiser,
                    generator,
                    {"step": step + 1, "order": torch.from_numpy(order), "kept": kept},
                )
                saved = time.monotonic()
    _restore(made, weight, bias, kept.pop("state"))
    if resume:
        resume.unlink(missing_ok=True)
    return Classifier(made, weight.detach(), bias.detach()), {**kept, "steps": steps}


def _backward(made: Clip, weight, bias, x, wanted, part: int, precision: str, batch: int) -> int:
    """Gradients of the cross-entropy summed over images / ``batch``, ``part`` images at a time; returns the part that fits."""
    import torch

    while True:
        try:
            for i in range(0, len(x), part):
                with gpu.autocast(precision):
                    logits = (
                        made.model.encode_image(x[i : i + part], normalize=True) @ weight.T + bias
                    )
                loss = torch.nn.functional.cross_entropy(logits.float(), wanted[i : i + part])
                (loss * (len(logits) / batch)).backward()
            return part
        except torch.OutOfMemoryError:
            if part == 1:
                raise
        part, logits, loss = (
            max(1, min(part, len(x)) // 2),
            None,
            None,
        )  # what they were computed from is let go with them
        for parameter in (*made.model.visual.parameters(), weight, bias):
            parameter.grad = None


def _keep(file: Path, made: Clip, weight, bias, optimiser, generator, rest: dict) -> None:
    import torch

    buffer = io.BytesIO()
    torch.save(
        {
            **rest,
            "visual": made.model.visual.state_dict(),
            "head": (weight.detach(), bias.detach()),
            "optimiser": optimiser.state_dict(),
            "generator": generator.get_state(),
        },
        buffer,
    )
    store.write(file, buffer.getvalue())


def _resumed(
    file: Path, made: Clip, weight, bias, optimiser, generator
) -> tuple[int, np.ndarray, dict]:
    import torch

    state = torch.load(file, map_location="cpu", weights_only=True)
    _restore(made, weight, bias, (state["visual"], *state["head"]))
    optimiser.load_state_dict(state["optimiser"])
    generator.set_state(state["generator"])
    print(f"finetuning: goes on at step {state['step']}")
    return state["step"], state["order"].numpy(), state["kept"]


def _checkpoints(steps: int, evaluations: int) -> set[int]:
    return {math.ceil(steps * (i + 1) / evaluations) for i in range(evaluations)}


def _better(
    kept: dict, model: Classifier, bench: Benchmark, step: int, s: FinetuneSettings
) -> dict:
    val = thinned(bench.val, s.validation)
    accuracy = zero_shot(model, val)
    if accuracy <= kept["val"]:
        return kept
    state = {k: v.clone() for k, v in model.clip.model.visual.state_dict().items()}
    return {
        "val": accuracy,
        "step": step,
        "state": (state, model.weight.detach().clone(), model.bias.detach().clone()),
    }


def _restore(made: Clip, weight, bias, state: tuple) -> None:
    made.model.visual.load_state_dict(state[0])
    weight.data.copy_(state[1])
    bias.data.copy_(state[2])


def zero_shot(model: Classifier, split: Split) -> float:
    """Accuracy, 0..1, of the adapted encoder with its own trained head."""
    return accuracy_of(
        clips.embed_images(model.clip, split.images), model.weight, model.bias, split.labels
    )


def probe(clip: Clip, bench: Benchmark, s: FinetuneSettings, test: np.ndarray) -> dict:
    """Linear-probe accuracy, 0..1: penalty chosen on validation, test with a head trained on train and validation [C], or
    on train alone [P], as ``probe_on`` says.

    The encoder is frozen; ``test`` are the unit embeddings of the test images. Returns ``{"val", "test", "penalty"}``.
    """
    train, val = thinned(bench.train, s.probe_images), thinned(bench.val, s.probe_images)
    x, y = clips.embed_images(clip, train.images), clips.embed_images(clip, val.images)
    final, best = chosen_probe(
        x, train.labels, y, val.labels, len(bench.classes), s.probe_on, s.probe_penalties
    )
    return {
        "val": best[0],
        "test": accuracy_of(test, *final, bench.test.labels),
        "penalty": best[1],
    }


def measure(model: Classifier, bench: Benchmark, s: FinetuneSettings) -> dict:
    """Test accuracy of an adapted model: ``zero_shot`` and ``linear_probe``, 0..1."""
    test = clips.embed_images(model.clip, bench.test.images)
    return {
        "zero_shot": accuracy_of(test, model.weight, model.bias, bench.test.labels),
        "linear_probe": probe(model.clip, bench, s, test)["test"],
    }


def baseline(clip: Clip, bench: Benchmark, s: FinetuneSettings) -> dict:
    """The same of the unadapted CLIP with its text head."""
    import torch

    weight = torch.tensor(clips.head(clip, bench.classes, bench.templates), device=gpu.device())
    return measure(
        Classifier(clip, weight, torch.zeros(len(weight), device=gpu.device())), bench, s
    )
