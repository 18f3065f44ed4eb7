"""What the trainings of the miniature share: processes, order of images, average of the weights."""

from __future__ import annotations

import copy
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helpers.engine import gpu, progress
from helpers.engine.late import torch
from helpers.models.train import Batches, Schedule, fit

BETAS = (0.9, 0.99)
FEW = 20_000  # image passes; below, processes take longer to start than they save
LOGGED = 100  # steps per line that says how a training goes


@dataclass(frozen=True)
class Worker:
    """One of the processes that share a training: number ``rank``, from 0, of ``count``."""

    rank: int = 0
    count: int = 1


def distribute(training: Callable, *args: Any, passes: int) -> None:
    """Run ``training(worker, *args)`` in one single-threaded process per core.

    They train a small network about twice as fast as one with several threads, but take seconds to
    start: on a GPU, and for few ``passes`` (images, all epochs), all stays in this process.
    """
    import torch.multiprocessing as mp

    count = 1 if gpu.device() == "cuda" or passes < FEW else gpu.cores()
    if count == 1:
        with torch.random.fork_rng():
            training(Worker(), *args)
        return
    with tempfile.TemporaryDirectory() as meeting:
        mp.spawn(_join, (count, f"file://{meeting}/meet", training, args), nprocs=count)


def _join(rank: int, count: int, meeting: str, training: Callable, args: tuple) -> None:
    import torch.distributed as dist

    # open_clip's loss calls a gather that torch is about to rename
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    training(Worker(rank, count), *args)
    dist.destroy_process_group()


def batches(n: int, size: int, seed: int, worker: Worker) -> Iterator[np.ndarray]:
    """A worker's part of endless shuffled batches of ``size`` positions out of ``n``."""
    rng = np.random.default_rng(seed)
    for rows in Batches(size, lambda: rng.permutation(n)):
        yield rows[worker.rank :: worker.count]


def train(
    model: torch.nn.Module,
    loss_of: Callable[[int], torch.Tensor],
    schedule: Schedule,
    label: str,
    worker: Worker,
    **options: Any,
) -> None:
    """Minimise ``loss_of(step)`` of one worker's batches; gradients are averaged over the workers.

    ``options`` are those of ``models.train.fit``. The first worker says how the loss falls.
    """
    parameters = list(model.parameters())
    losses: list[float] = []

    def backward(step: int) -> None:
        loss = loss_of(step)
        loss.backward()
        if worker.count > 1:
            _average_gradients(parameters, worker.count)
        losses.append(loss.item())
        if worker.rank == 0 and len(losses) % LOGGED == 0:
            progress.say(f"{label}: step {step + 1}, loss {np.mean(losses[-LOGGED:]):.4f}")

    fit(parameters, backward, schedule, betas=BETAS, **options)


def _average_gradients(parameters, count: int) -> None:
    import torch.distributed as dist

    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    parts = (flat / count).split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


class Average:
    """Exponential moving average of a model's weights, with a short memory at the start."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    def update(self, model: torch.nn.Module, step: int) -> None:
        """Move the average towards ``model`` after its update number ``step``, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged, new = ([p.detach() for p in m.parameters()] for m in (self.model, model))
        torch._foreach_lerp_(averaged, new, 1 - decay)


def save(model: Any, path: Path) -> None:
    """Write a part of a pipeline in half precision; the folder gets its name when it is whole."""
    temporary = path.with_name(f"{path.name}.tmp")
    copy.deepcopy(model).half().save_pretrained(temporary, safe_serialization=True)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)
