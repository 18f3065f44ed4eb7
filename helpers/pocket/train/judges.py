"""Judges: small networks that name the class and read the details of a picture. They measure; nothing is trained on them.

The detail judge learns from *chimeras*, aircraft whose details are drawn at random whatever their silhouette, so that it
has to look at the wheels and cannot infer them from the type.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.engine import gpu, store
from helpers.engine.randomness import entropy
from helpers.models import train as training
from helpers.pocket.render.blueprints import AIRCRAFT, chimera
from helpers.pocket.render.pictures import TASKS, render, subject
from helpers.pocket.render.scenes import sample_scene
from helpers.pocket.render.things import OTHERS
from helpers.pocket.train.diffusion import to_model
from helpers.pocket.world.benchmarks import details
from helpers.worlds import World

SHARD = 500
DETAILS = {
    name: sorted(set(values)) for name, values in details("aircraft").items()
}  # attribute -> possible values
CLASSES = [(task, name) for task in TASKS for name in TASKS[task]]


def network(outputs: int, width: int = 32):
    """Seven convolutions, the first at full resolution, then means over a 4 x 4 grid: (n, 3, s, s) in -1..1 -> (n, outputs)."""
    from torch import nn

    layers, channels = [], 3
    for out, stride in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1)):
        layers += [
            nn.Conv2d(channels, out * width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out * width),
            nn.ReLU(),
        ]
        channels = out * width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, outputs)
    )


def example(w: World, which: str, i: int) -> tuple[np.ndarray, list[int]]:
    """The i-th training picture of a judge and its targets; -1 where a target does not apply."""
    seed = entropy(w.pool.seed, "judge", which, i)
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, "pool" if i % 2 else "benchmark")
    if which == "variant":
        task, name = CLASSES[i % len(CLASSES)]
        return render(subject(task, name), scene, seed, w.image_size).pixels, [i % len(CLASSES)]
    if rng.random() < 0.2:
        return render(_something_else(rng), scene, seed, w.image_size).pixels, [
            0,
            *[-1] * len(DETAILS),
        ]
    plane = chimera(AIRCRAFT[str(rng.choice(list(AIRCRAFT)))], rng)
    facts = plane.attributes
    targets = [
        values.index(facts[a]) if facts[a] in values else -1 for a, values in DETAILS.items()
    ]
    return render(plane, scene, seed, w.image_size).pixels, [1, *targets]


def _something_else(rng: np.random.Generator):
    task = str(rng.choice(["flowers", "cars", "other"]))
    if task == "other":
        return str(rng.choice(list(OTHERS)))
    return TASKS[task][str(rng.choice(list(TASKS[task])))]


def examples(w: World, which: str, start: int, stop: int) -> pd.DataFrame:
    """Training pictures ``start`` to ``stop`` as a table: ``pixels`` (bytes) and ``targets`` (list)."""
    rows = [example(w, which, i) for i in range(start, stop)]
    return pd.DataFrame({"pixels": [p.tobytes() for p, _ in rows], "targets": [t for _, t in rows]})


def train(w: World, which: str, folder: Path) -> None:
    """Train the "variant" or the "details" judge on renderings of its own; leaves ``judge-{which}.safetensors``."""
    n, side = w.upstream.judge_images, w.image_size
    jobs = {
        f"judge-{which}-{s:06d}.parquet": (w, which, s, min(s + SHARD, n))
        for s in range(0, n, SHARD)
    }
    files = store.fill(folder, jobs, examples, f"pictures for the {which} judge")
    table = pd.concat([store.read_table(f) for f in files], ignore_index=True)
    pixels = np.stack([np.frombuffer(p, np.uint8).reshape(side, side, 3) for p in table["pixels"]])
    np.save(folder / "judge.npy", pixels)
    np.save(folder / "judge-targets.npy", np.stack(table["targets"]).astype(np.int64))
    training.distribute(
        _train, which, w, folder, passes=w.upstream.judge_epochs * w.upstream.judge_images
    )
    for leftover in [*files, folder / "judge.npy", folder / "judge-targets.npy"]:
        leftover.unlink()


def _groups(which: str) -> list[int]:
    return [len(CLASSES)] if which == "variant" else [2, *(len(v) for v in DETAILS.values())]


def _train(rank: int, workers: int, which: str, w: World, folder: Path) -> None:
    import torch
    from safetensors.torch import save

    torch.manual_seed(entropy(w.pool.seed, "judge", which) % 2**31)
    groups = _groups(which)
    net = network(sum(groups), w.upstream.judge_width).to(
        gpu.device(), memory_format=torch.channels_last
    )
    pixels, targets = (
        np.load(folder / "judge.npy", mmap_mode="r"),
        np.load(folder / "judge-targets.npy"),
    )
    steps = max(1, w.upstream.judge_epochs * len(pixels) // 128)
    schedule = training.Schedule(steps, min(128, len(pixels)), 3e-3, weight_decay=0.05)
    order = training.batches(
        len(pixels), schedule.batch, entropy(w.pool.seed, "judge", which), rank, workers
    )
    log = training.Log(f"judge of {which}", 100, schedule.batch, rank)

    def loss_of(model, step):
        chosen = np.sort(next(order))
        parts = model(to_model(pixels[chosen])).split(groups, 1)
        wanted = torch.from_numpy(targets[chosen]).to(gpu.device())
        losses = [
            torch.nn.functional.cross_entropy(p, wanted[:, i], ignore_index=-1)
            for i, p in enumerate(parts)
            if (wanted[:, i] >= 0).any()
        ]
        log(step, sum(losses).item())
        return sum(losses)

    net = training.fit(net, loss_of, schedule, rank, workers)
    if rank == 0:
        halves = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
        store.write(
            folder / f"judge-{which}.safetensors",
            save({k: v.contiguous() for k, v in halves.items()}),
        )


@functools.cache
def _load(folder: Path, which: str):
    import torch
    from safetensors.torch import load_file

    state = {
        k: v.float() if v.is_floating_point() else v
        for k, v in load_file(folder / f"judge-{which}.safetensors").items()
    }
    net = network(sum(_groups(which)), len(state["0.weight"]))
    net.load_state_dict(state)
    return net.to(gpu.device(), memory_format=torch.channels_last).eval()


def logits(folder: Path, which: str, images: np.ndarray) -> list[np.ndarray]:
    """Logits of each group of outputs of a judge, for uint8 images (n, side, side, 3)."""
    import torch

    net, groups = _load(folder, which), _groups(which)
    with torch.inference_mode():
        parts = [net(to_model(images[i : i + 256])).cpu() for i in range(0, len(images), 256)]
    return [g.numpy() for g in torch.cat(parts).split(groups, 1)]


def judge(folder: Path, images: np.ndarray) -> pd.DataFrame:
    """What the judges see, one row per image: the attributes of ``Benchmark.details``, ``variant``, ``is_aircraft`` (0..1)."""
    is_aircraft, *parts = logits(folder, "details", images)
    variant = logits(folder, "variant", images)[0].argmax(1)
    share = 1 / (1 + np.exp(is_aircraft[:, 0] - is_aircraft[:, 1]))
    seen = {
        a: np.array(v, dtype=object)[p.argmax(1)]
        for (a, v), p in zip(DETAILS.items(), parts, strict=True)
    }
    return pd.DataFrame({**seen, "variant": [CLASSES[i][1] for i in variant], "is_aircraft": share})


def features(folder: Path, which: str):
    """The judge up to its last convolution, averaged over the picture: (n, 3, side, side) in -1..1 -> (n, ``num_features``)."""
    from torch import nn

    net = _load(folder, which)
    made = nn.Sequential(*net[:-3], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    made.num_features = net[-1].in_features // 16
    return made


def embed(folder: Path, which: str, images: np.ndarray) -> np.ndarray:
    """``features`` of uint8 images (n, side, side, 3): (n, d) float32."""
    import torch

    network = features(folder, which).to(gpu.device()).eval()
    with torch.inference_mode():
        parts = [
            network(to_model(images[i : i + 256])).float().cpu().numpy()
            for i in range(0, len(images), 256)
        ]
    return np.concatenate(parts)
