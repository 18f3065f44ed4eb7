"""Judges: small networks that name the class and read the details of a picture. They only measure.

The detail judge learns from *chimeras*, aircraft with random details: it has to look at the wheels.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.engine import gpu, store
from helpers.engine.late import functional, nn, torch
from helpers.engine.randomness import entropy
from helpers.models.train import Schedule
from helpers.pocket.render.blueprints import AIRCRAFT, chimera
from helpers.pocket.render.pictures import TASKS, render, subject
from helpers.pocket.render.scenes import sample_scene
from helpers.pocket.render.things import OTHERS
from helpers.pocket.train import loop
from helpers.pocket.train.autoencoder import to_model
from helpers.pocket.world.benchmarks import details
from helpers.worlds import World

JUDGES = ("details", "variant")
CLASSES = [(task, name) for task in TASKS for name in TASKS[task]]
# attribute -> possible values
DETAILS = {name: sorted(set(values)) for name, values in details("aircraft").items()}
# how many answers each question to a judge has
GROUPS = {"details": [2, *(len(values) for values in DETAILS.values())], "variant": [len(CLASSES)]}
WIDTH = 32  # channels of the first convolutions
GRID = 4  # the last layer sees means over so many rows and columns
LR = 3e-3
BATCH = 128
WARMUP = 0.05  # share of the steps
WEIGHT_DECAY = 0.05
SHARD = 500  # training pictures per file
AT_ONCE = {"cuda": 256, "cpu": 32}  # images looked at together: on a CPU what its cache holds


def network(which: str) -> torch.nn.Sequential:
    """A judge without training: (n, 3, s, s) in -1..1 -> (n, answers to all questions).

    Seven convolutions, the first at full resolution, then means over a grid.
    """
    layers: list[nn.Module] = []
    channels = 3
    for factor, stride in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1)):
        convolution = nn.Conv2d(channels, factor * WIDTH, 3, stride, 1, bias=False)
        channels = factor * WIDTH
        layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
    answers = nn.Linear(GRID**2 * channels, sum(GROUPS[which]))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(GRID), nn.Flatten(), answers)


def example(w: World, which: str, i: int) -> tuple[np.ndarray, list[int]]:
    """The i-th training picture of a judge and its targets; -1 where a target does not apply."""
    seed = entropy(w.pool.seed, "judge", which, i)
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, "pool" if i % 2 else "benchmark")
    if which == "variant":
        label = i % len(CLASSES)
        thing = subject(*CLASSES[label])
        targets = [label]
    elif rng.random() < 0.2:
        kind = str(rng.choice(["flowers", "cars", "other"]))
        names = list(OTHERS) if kind == "other" else list(TASKS[kind])
        name = str(rng.choice(names))
        thing = name if kind == "other" else TASKS[kind][name]
        targets = [0, *[-1] * len(DETAILS)]
    else:
        thing = chimera(AIRCRAFT[str(rng.choice(list(AIRCRAFT)))], rng)
        facts = thing.attributes
        targets = [1]
        for name, values in DETAILS.items():
            targets.append(values.index(facts[name]) if facts[name] in values else -1)
    return render(thing, scene, seed, w.image_size).pixels, targets


def examples(w: World, which: str, start: int, stop: int) -> pd.DataFrame:
    """Training pictures ``start`` to ``stop``: ``pixels`` (bytes) and ``targets`` (list)."""
    rows = [example(w, which, i) for i in range(start, stop)]
    return pd.DataFrame({"pixels": [p.tobytes() for p, _ in rows], "targets": [t for _, t in rows]})


def train(w: World, which: str, folder: Path) -> None:
    """Train a judge on renderings of its own, unless ``judge-{which}.safetensors`` is there."""
    if (folder / f"judge-{which}.safetensors").exists():
        return
    n = w.upstream.judge_images
    side = w.image_size
    jobs = {}
    for start in range(0, n, SHARD):
        jobs[f"judge-{which}-{start:06d}.parquet"] = (w, which, start, min(start + SHARD, n))
    files = store.fill(folder, jobs, examples, f"pictures for the {which} judge")
    table = pd.concat([store.read_table(f) for f in files], ignore_index=True)
    pixels = np.stack([np.frombuffer(p, np.uint8).reshape(side, side, 3) for p in table["pixels"]])
    np.save(folder / "judge.npy", pixels)
    targets = np.stack(table["targets"]).astype(np.int64)
    loop.distribute(_train, which, w, targets, folder, passes=w.upstream.judge_epochs * n)
    for leftover in [*files, folder / "judge.npy"]:
        leftover.unlink()


def _train(worker: loop.Worker, which: str, w: World, targets: np.ndarray, folder: Path) -> None:
    from safetensors.torch import save

    seed = entropy(w.pool.seed, "judge", which)
    torch.manual_seed(seed % 2**31)
    net = network(which).to(gpu.device(), memory_format=torch.channels_last)
    pixels = np.load(folder / "judge.npy", mmap_mode="r")
    steps = max(1, w.upstream.judge_epochs * len(pixels) // BATCH)
    schedule = Schedule(steps, min(BATCH, len(pixels)), LR, int(WARMUP * steps))
    order = loop.batches(len(pixels), schedule.batch, seed, worker)

    def loss_of(step: int) -> torch.Tensor:
        chosen = np.sort(next(order))
        wanted = torch.from_numpy(targets[chosen]).to(gpu.device())
        answers = net(to_model(pixels[chosen])).split(GROUPS[which], 1)
        losses = [
            functional.cross_entropy(answer, wanted[:, i], ignore_index=-1)
            for i, answer in enumerate(answers)
            if (wanted[:, i] >= 0).any()
        ]
        return sum(losses)

    loop.train(net, loss_of, schedule, f"judge of {which}", worker, weight_decay=WEIGHT_DECAY)
    if worker.rank == 0:
        halves = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
        contiguous = {k: v.contiguous() for k, v in halves.items()}
        store.write(folder / f"judge-{which}.safetensors", save(contiguous))


@functools.cache
def _load(folder: Path, which: str):
    from safetensors.torch import load_file

    halves = load_file(folder / f"judge-{which}.safetensors")
    net = network(which)
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in halves.items()})
    return net.to(gpu.device(), memory_format=torch.channels_last).eval()


def _applied(network, images: np.ndarray) -> torch.Tensor:
    """Outputs of a network for uint8 images (n, side, side, 3)."""
    with torch.inference_mode():
        size = AT_ONCE[gpu.device()]
        starts = range(0, len(images), size)
        return torch.cat([network(to_model(images[i : i + size])).cpu() for i in starts])


def judge(folder: Path, images: np.ndarray) -> pd.DataFrame:
    """What the judges see, one row per image.

    Columns: the attributes of ``Benchmark.details``, ``variant``, ``is_aircraft`` (0..1).
    """
    answers = _applied(_load(folder, "details"), images).split(GROUPS["details"], 1)
    is_aircraft, *parts = (part.numpy() for part in answers)
    columns: dict[str, Any] = {}
    for name, part in zip(DETAILS, parts, strict=True):
        columns[name] = np.array(DETAILS[name], dtype=object)[part.argmax(1)]
    variant = _applied(_load(folder, "variant"), images).numpy().argmax(1)
    columns["variant"] = [CLASSES[i][1] for i in variant]
    columns["is_aircraft"] = 1 / (1 + np.exp(is_aircraft[:, 0] - is_aircraft[:, 1]))
    return pd.DataFrame(columns)


def embed(folder: Path, which: str, images: np.ndarray) -> np.ndarray:
    """What a judge's last convolution sees, averaged over the picture: (n, d) float32."""
    convolutions = _load(folder, which)[:-3]
    features = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    return _applied(features, images).float().numpy()
