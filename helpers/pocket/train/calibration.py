"""How good the upstream models are by themselves: the figures of their card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.engine import store
from helpers.engine.randomness import entropy
from helpers.engine.randomness import rng as rng_of
from helpers.measure.metrics import frechet
from helpers.models import classifier, clip
from helpers.pocket.train import generator, judges, upstream
from helpers.pocket.train.autoencoder import to_model
from helpers.pocket.world.benchmarks import benchmark
from helpers.pocket.world.pool import open_pool
from helpers.worlds import World

PER_CLASS = 8  # aircraft drawn per class and budget
SHARD = 48  # images drawn per job
JUDGED = 200  # images judged per job
AT_ONCE = 128  # images through the autoencoder together


def quality(w: World) -> dict:
    """Quality of CLIP, judges, autoencoder and generator, shares in 0..1; artifact ``quality``.

    ``clip``: zero-shot and linear probe on test, per task, before finetuning. ``judge_axles`` and
    ``judge_variants``: judges on test renderings; ``autoencoder_axles`` the same after encoding and
    decoding. ``generator``, per budget: how often a judge sees an ``aircraft`` and the ``variant``
    asked for, and the ``frechet`` distance to pool images.
    """
    artifact = store.make("quality", w, lambda path: _build(path, w))
    return json.loads((artifact.path / "quality.json").read_text())


def _build(path: Path, w: World) -> None:
    upstream.folder(w)  # models are trained before workers start
    tests = {task: len(benchmark(w, task).test) for task in w.tasks}

    # draw aircraft with every budget, and judge them
    jobs = {}
    for budget in generator.BUDGETS:
        for start, stop in _parts(len(prompts(w)[0]), SHARD):
            jobs[f"drawn/{budget}-{start:05d}.npy"] = (w, budget, start, stop)
    store.fill(path, jobs, draw_shard, "shards drawn by three generators")
    jobs = {f"budget/{budget}.json": (w, path, budget) for budget in generator.BUDGETS}
    budgets = store.fill(path, jobs, generated, "generator budgets judged")

    # judge test images, as they are and after the autoencoder
    jobs = {}
    for task, n in tests.items():
        for start, stop in _parts(n, JUDGED):
            jobs[f"seen/{task}-{start:05d}.parquet"] = (w, task, start, stop)
    files = store.fill(path, jobs, judged_shard, "shards of test images judged")
    judged = {}
    for task in tests:
        parts = [store.read_table(f) for f in files if f.name.startswith(f"{task}-")]
        judged[task] = pd.concat(parts)
    axles = judged["aircraft"][["axles_right", "rebuilt_axles_right", "rebuilt_error"]].mean()

    # zero-shot and linear probe of CLIP
    jobs = {f"clip/{task}.json": (w, task) for task in w.tasks}
    baselines = store.fill(path, jobs, clip_baseline, "CLIP baselines")

    found = {
        "clip": {f.stem: json.loads(f.read_text()) for f in baselines},
        "generator": {f.stem: json.loads(f.read_text()) for f in budgets},
        "judge_axles": float(axles["axles_right"]),
        "autoencoder_axles": float(axles["rebuilt_axles_right"]),
        "autoencoder_error": float(axles["rebuilt_error"]),
        "judge_variants": {task: float(t["variant_right"].mean()) for task, t in judged.items()},
    }
    store.write(path / "quality.json", found)


def _parts(n: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def clip_baseline(w: World, task: str) -> dict[str, float]:
    """Zero-shot and linear-probe test accuracy of CLIP before finetuning."""
    return classifier.baseline(clip.load(w), benchmark(w, task), w.finetune)


def judged_shard(w: World, task: str, start: int, stop: int) -> pd.DataFrame:
    """Whether judges are right about some test images, one row per image: ``variant_right``.

    Aircraft also have ``axles_right`` and, after the autoencoder, ``rebuilt_axles_right`` and the
    mean absolute ``rebuilt_error`` (0..255).
    """
    bench, folder = benchmark(w, task), upstream.folder(w)
    images, labels = bench.test.images[start:stop], bench.test.labels[start:stop]
    judged = judges.judge(folder, images)
    variants = np.array(bench.classes, object)[labels]
    table = pd.DataFrame({"variant_right": judged["variant"].to_numpy() == variants})
    if task != "aircraft":
        return table
    axles = bench.details["axles"].to_numpy()[labels]
    rebuilt = reconstruct(folder / "generator", images)
    return table.assign(
        axles_right=judged["axles"].to_numpy() == axles,
        rebuilt_axles_right=judges.judge(folder, rebuilt)["axles"].to_numpy() == axles,
        rebuilt_error=np.abs(rebuilt.astype(float) - images).mean((1, 2, 3)),
    )


def reconstruct(folder: Path, images: np.ndarray) -> np.ndarray:
    """uint8 images (n, side, side, 3) after the autoencoder of a generator's folder."""
    import torch

    vae = generator.load(folder, "long").vae
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), AT_ONCE):
            latents = vae.encode(to_model(images[start : start + AT_ONCE])).latent_dist.mean
            y = (vae.decode(latents).sample.clamp(-1, 1) + 1) * 127.5
            parts.append(y.round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def prompts(w: World) -> tuple[list[str], list[str]]:
    """The class of every picture drawn for the card, and its caption."""
    classes = [name for name in benchmark(w, "aircraft").classes for _ in range(PER_CLASS)]
    return classes, [f"a photo of a {name} aircraft" for name in classes]


def draw_shard(w: World, budget: str, start: int, stop: int) -> np.ndarray:
    """Some of the card's pictures, by one generator budget."""
    seeds = [entropy(w.seed, "quality", i) for i in range(start, stop)]
    pipe = generator.load(upstream.folder(w) / "generator", budget)
    return generator.draw(pipe, prompts(w)[1][start:stop], seeds, w.synthesis)


def generated(w: World, path: Path, budget: str) -> dict[str, float]:
    """Recognisability and Frechet distance of the aircraft drawn by one generator budget."""
    folder, pool = upstream.folder(w), open_pool(w)
    images = np.concatenate([np.load(f) for f in sorted((path / "drawn").glob(f"{budget}-*.npy"))])
    judged = judges.judge(folder, images)
    truth = pool.truth()
    photos = np.flatnonzero((truth["kind"] == "aircraft") & (truth["style"] == "photo"))
    size = min(len(photos), 4 * len(images))
    real = pool.fetch(rng_of(w, "quality").choice(photos, size, replace=False))
    embeddings = [judges.embed(folder, "variant", pictures) for pictures in (real, images)]
    return {
        "aircraft": float((judged["is_aircraft"] > 0.5).mean()),
        "variant": float((judged["variant"] == prompts(w)[0]).mean()),
        "frechet": frechet(*embeddings),
    }
