"""The card of the shipped weights: how they came about, and how good they are by themselves."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.engine import gpu, store
from helpers.engine.late import torch
from helpers.engine.randomness import entropy
from helpers.engine.randomness import rng as rng_of
from helpers.errors import StudyError
from helpers.measure.metrics import frechet
from helpers.models import classifier
from helpers.models import clip as clips
from helpers.pocket.train import autoencoder, clip, generator, judges, unet, upstream
from helpers.pocket.world.benchmarks import benchmark
from helpers.pocket.world.pool import open_pool
from helpers.worlds import World, replace

CONSTANTS = {  # of the training, beside its settings
    "clip_lr": clip.LR,
    "autoencoder_lr": autoencoder.LR,
    "autoencoder_batch": autoencoder.BATCH,
    "latent_channels": autoencoder.LATENT_CHANNELS,
    "generator_lr": unet.LR,
    "judge_width": judges.WIDTH,
}
PER_CLASS = 8  # aircraft drawn per class and budget
SHARD = 48  # images drawn per job
JUDGED = 200  # images judged per job


def retrain(w: World) -> Path:
    """Train the upstream models anew and put them, with their card, where the shipped weights are.

    Returns that folder. Takes hours on a CPU. Raises ``StudyError`` where a world uses others.
    """
    if w.pool.upstream != "committed":
        raise StudyError(
            f"retrain=True was given in world {w.name!r}, which trains its own upstream models on "
            "first use. It is for the shipped ones, of the world pocket; to train these again, "
            f"delete {store.folder('upstream', w)}."
        )
    own = replace(w, pool={"upstream": "train"})
    start = time.monotonic()
    trained = upstream.folder(own)
    shutil.rmtree(upstream.WEIGHTS, ignore_errors=True)
    left_out = shutil.ignore_patterns("manifest.json", ".lock")
    shutil.copytree(trained, upstream.WEIGHTS, ignore=left_out)
    minutes = (time.monotonic() - start) / 60
    digests = {}
    for file in sorted(upstream.WEIGHTS.rglob("*")):
        if file.is_file():
            name = str(file.relative_to(upstream.WEIGHTS))
            digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    card = {
        "command": "python -m helpers.run pocket 00 -p retrain=True",
        "seed": w.pool.seed,
        "pool": upstream.pool_hash(w),
        "image_size": w.image_size,
        "training": {**dataclasses.asdict(w.upstream), **CONSTANTS},
        "minutes": round(minutes),
        "machine": gpu.describe(),
        "date": str(datetime.date.today()),
        "quality": quality(own),
        "files": digests,
    }
    store.write(upstream.WEIGHTS / "card.json", card)
    upstream.check_card.cache_clear()
    return upstream.WEIGHTS


def quality(w: World) -> dict:
    """Quality of CLIP, judges, autoencoder and generator, shares in 0..1; artifact ``quality``.

    ``clip``: zero-shot and linear probe on test, per task, before finetuning. ``judge_axles`` and
    ``judge_variants``: judges on test renderings; ``autoencoder_axles`` the same after encoding and
    decoding. ``generator``, per budget: how often a judge sees an ``aircraft`` and the ``variant``
    asked for, and the ``frechet`` distance to pool images. All but ``clip`` is what the card of the
    shipped weights says, where a world uses them.
    """
    artifact = store.make("quality", w, lambda path: _build(path, w))
    return json.loads((artifact.path / "quality.json").read_text())


def _build(path: Path, w: World) -> None:
    folder = upstream.folder(w)  # models are trained before workers start
    if w.pool.upstream == "committed":
        found = json.loads((folder / "card.json").read_text())["quality"]
    else:
        found = _measured(path, w)
    jobs = {f"clip/{task}.json": (w, task) for task in w.tasks}
    baselines = store.fill(path, jobs, clip_baseline, "CLIP baselines")
    found["clip"] = {f.stem: json.loads(f.read_text()) for f in baselines}
    store.write(path / "quality.json", found)


def _measured(path: Path, w: World) -> dict:
    """The quality of judges, autoencoder and generators."""
    # draw aircraft with every budget, and judge them
    jobs = {}
    for budget in generator.BUDGETS:
        for start in range(0, len(prompts(w)[0]), SHARD):
            jobs[f"drawn/{budget}-{start:05d}.npy"] = (w, budget, start)
    store.fill(path, jobs, draw_shard, "shards drawn by three generators")
    jobs = {f"budget/{budget}.json": (w, path, budget) for budget in generator.BUDGETS}
    budgets = store.fill(path, jobs, generated, "generator budgets judged")

    # judge test images, as they are and after the autoencoder
    jobs = {}
    for task in w.tasks:
        for start in range(0, len(benchmark(w, task).test), JUDGED):
            jobs[f"seen/{task}-{start:05d}.parquet"] = (w, task, start)
    store.fill(path, jobs, judged_shard, "shards of test images judged")
    seen = store.Artifact("quality", path)
    judged = {task: seen.table(f"seen/{task}-*.parquet").mean() for task in w.tasks}
    return {
        "generator": {f.stem: json.loads(f.read_text()) for f in budgets},
        "judge_axles": float(judged["aircraft"]["axles_right"]),
        "autoencoder_axles": float(judged["aircraft"]["rebuilt_axles_right"]),
        "autoencoder_error": float(judged["aircraft"]["rebuilt_error"]),
        "judge_variants": {task: float(means["variant_right"]) for task, means in judged.items()},
    }


def clip_baseline(w: World, task: str) -> dict[str, float]:
    """Zero-shot and linear-probe test accuracy of CLIP before finetuning."""
    bench = benchmark(w, task)
    answers = classifier.baseline(clips.load(w), bench, w.finetune)
    return {name: float((found == bench.test.labels).mean()) for name, found in answers.items()}


def judged_shard(w: World, task: str, start: int) -> pd.DataFrame:
    """Whether judges are right about ``JUDGED`` test images, a row per image: ``variant_right``.

    Aircraft also have ``axles_right`` and, after the autoencoder, ``rebuilt_axles_right`` and the
    mean absolute ``rebuilt_error`` (0..255).
    """
    bench = benchmark(w, task)
    folder = upstream.folder(w)
    images = bench.test.images[start : start + JUDGED]
    labels = bench.test.labels[start : start + JUDGED]
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
    vae = generator.load(folder, "long").vae
    parts = []
    with torch.inference_mode():
        for x in autoencoder.batches(images):
            latents = vae.encode(x).latent_dist.mean
            y = (vae.decode(latents).sample.clamp(-1, 1) + 1) * 127.5
            parts.append(y.round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def prompts(w: World) -> tuple[list[str], list[str]]:
    """The class of every picture drawn for the card, and its caption."""
    classes = [name for name in benchmark(w, "aircraft").classes for _ in range(PER_CLASS)]
    return classes, [f"a photo of a {name} aircraft" for name in classes]


def draw_shard(w: World, budget: str, start: int) -> np.ndarray:
    """``SHARD`` of the card's pictures, by one generator budget."""
    captions = prompts(w)[1][start : start + SHARD]
    seeds = [entropy(w.seed, "quality", i) for i in range(start, start + len(captions))]
    pipe = generator.load(upstream.folder(w) / "generator", budget)
    return generator.draw(pipe, captions, seeds, w.synthesis)


def generated(w: World, path: Path, budget: str) -> dict[str, float]:
    """Recognisability and Frechet distance of the aircraft drawn by one generator budget."""
    folder = upstream.folder(w)
    pool = open_pool(w)
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
