"""Training loops of the upstream models: one synchronous data-parallel loop over processes, and an exponential average."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.engine import gpu, store


def rate(step: int, steps: int, lr: float, warmup: float) -> float:
    """Learning rate at ``step`` of ``steps``: linear warm-up, then a cosine to zero ([P], per step).

    ``warmup`` is a share of the steps or, from 1 on, their number ([P] 500).
    """
    start = max(1, round(warmup * steps if warmup < 1 else warmup))
    if step < start:
        return lr * (step + 1) / start
    return lr * 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, steps - start)))


import copy
from collections.abc import Callable, Iterator

FEW = 20_000  # image passes: below, processes take longer to start than they save


@dataclass(frozen=True)
class Schedule:
    """``steps`` of ``batch`` images at a peak learning rate ``lr``: linear warm-up, cosine or flat with a cooldown, average."""

    steps: int
    batch: int
    lr: float
    warmup: float = 0.05
    cosine: bool = True
    cooldown: float = 0.0  # without cosine: share of the steps at the end in which the rate falls linearly to zero
    average: float = 0.0  # decay of the exponential moving average; 0: none
    weight_decay: float = 0.01

    def rate(self, step: int) -> float:
        """Learning rate at a step, 0 .. steps - 1."""
        start = max(1, int(self.warmup * self.steps))
        if step < start:
            return self.lr * (step + 1) / start
        if self.cosine:
            return self.lr * (
                0.5 + 0.5 * math.cos(math.pi * (step - start) / max(1, self.steps - start))
            )
        return self.lr * min(1.0, (self.steps - step) / max(1.0, self.cooldown * self.steps))


class Average:
    """Exponential moving average of a model's weights, with a short memory at the start."""

    def __init__(self, model, decay: float):
        self.model, self.decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    def update(self, model, step: int) -> None:
        import torch

        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.model.parameters()), [p.detach() for p in model.parameters()], 1 - decay
        )


def batches(n: int, size: int, seed: int, rank: int = 0, workers: int = 1) -> Iterator[np.ndarray]:
    """Endless shuffled batches of ``size // workers`` positions out of ``n``; the workers' batches do not overlap."""
    rng, epoch = np.random.default_rng(seed), np.zeros(0, np.int64)
    while True:
        while len(epoch) < size:
            epoch = np.concatenate([epoch, rng.permutation(n)])
        chosen, epoch = epoch[:size], epoch[size:]
        yield chosen[rank::workers]


def fit(
    model,
    loss_of: Callable,
    schedule: Schedule,
    rank: int = 0,
    workers: int = 1,
    after: Callable[[int, object], None] | None = None,
    start: int = 0,
    state: dict | None = None,
):
    """Minimise ``loss_of(model, step)`` with AdamW; gradients are averaged over ``workers`` processes.

    ``after(step, averaged model, optimiser)`` is called after every step in the first process. Returns the averaged
    model, or the model itself when the schedule averages nothing.
    """
    import torch

    optimiser = torch.optim.AdamW(
        model.parameters(), lr=schedule.lr, betas=(0.9, 0.99), weight_decay=schedule.weight_decay
    )
    average = Average(model, schedule.average) if schedule.average else None
    if state:
        optimiser.load_state_dict(state["optimiser"])
        average.model.load_state_dict(state["average"])
    for step in range(start, schedule.steps):
        optimiser.param_groups[0]["lr"] = schedule.rate(step)
        loss = loss_of(model, step)
        loss.backward()
        if workers > 1:
            _average_gradients(model, workers)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if average:
            average.update(model, step)
        if after and rank == 0:
            after(step, average.model if average else model, optimiser)
    return average.model if average else model.eval()


def _average_gradients(model, workers: int) -> None:
    import torch
    import torch.distributed as dist

    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    for g, part in zip(grads, (flat / workers).split([g.numel() for g in grads]), strict=True):
        g.copy_(part.view_as(g))


def distribute(worker: Callable, *args, passes: int) -> None:
    """Run ``worker(rank, workers, *args)`` in one single-threaded process per core, or once in this process on a GPU.

    On a CPU several single-threaded processes train a small network about twice as fast as one with several threads, but
    take seconds to start: a training of few ``passes`` (images seen, all epochs together) stays in this process too.
    """
    import torch

    workers = 1 if gpu.device() == "cuda" or passes < FEW else gpu.cores()
    if workers == 1:
        with torch.random.fork_rng():
            worker(0, 1, *args)
        return
    import tempfile

    import torch.multiprocessing as mp

    with tempfile.TemporaryDirectory() as meeting:
        mp.spawn(_join, (workers, f"file://{meeting}/meet", worker, args), nprocs=workers)


def _join(rank: int, workers: int, meeting: str, worker: Callable, args: tuple) -> None:
    import warnings

    import torch
    import torch.distributed as dist

    warnings.simplefilter(
        "ignore", FutureWarning
    )  # open_clip's loss calls a gather that torch is about to rename
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    worker(rank, workers, *args)
    dist.destroy_process_group()


class Log:
    """Prints the mean loss every ``every`` steps, with images per second."""

    def __init__(self, label: str, every: int, batch: int, rank: int = 0):
        self.label, self.every, self.batch, self.quiet = label, every, batch, rank > 0
        self.losses, self.start = [], time.monotonic()

    def __call__(self, step: int, loss: float) -> None:
        self.losses.append(loss)
        if len(self.losses) == self.every:
            speed = self.every * self.batch / (time.monotonic() - self.start)
            if not self.quiet:
                print(
                    f"{self.label}: step {step + 1}, loss {np.mean(self.losses):.4f}, {speed:.0f} images/s",
                    flush=True,
                )
            self.losses, self.start = [], time.monotonic()


def save_state(path: Path, state: dict) -> None:
    """Write a training state (tensors and plain values) in one piece, so that a killed training can go on."""

    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    store.write(path, buffer.getvalue())
