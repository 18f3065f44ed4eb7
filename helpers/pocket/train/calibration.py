"""How good the upstream models are by themselves: the figures of their card, and the only ones they are calibrated on."""

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
from helpers.pocket.train.diffusion import to_model
from helpers.pocket.world.benchmarks import benchmark
from helpers.pocket.world.pool import open_pool
from helpers.worlds import World

PER_CLASS = 8  # aircraft drawn per class and budget
SHARD, JUDGED = 48, 200  # images drawn, and images judged, per job


def quality(w: World) -> dict:
    """Quality of CLIP, judges, autoencoder and generator on baselines; shares in 0..1, kept as artifact ``quality``.

    ``clip``: zero-shot and linear probe on test, per task, unadapted. ``judge_axles``, ``judge_variants``: judges on test
    renderings; ``autoencoder_axles`` the same after encoding and decoding. ``generator``, per budget: how often a judge
    sees an ``aircraft`` and the ``variant`` asked for, and the ``frechet`` distance to pool images.
    """
    return json.loads(
        (store.make("quality", w, lambda path: _build(path, w)).path / "quality.json").read_text()
    )


def _build(path: Path, w: World) -> None:
    upstream.folder(w)  # models are made before workers start
    wanted = len(prompts(w)[0])
    jobs = {
        f"drawn/{b}-{i:05d}.npy": (w, b, i, min(i + SHARD, wanted))
        for b in generator.BUDGETS
        for i in range(0, wanted, SHARD)
    }
    store.fill(path, jobs, draw_shard, "shards drawn by three generators")
    jobs = {
        f"seen/{task}-{i:05d}.parquet": (w, task, i, min(i + JUDGED, n))
        for task in w.tasks
        for n in [len(benchmark(w, task).test)]
        for i in range(0, n, JUDGED)
    }
    store.fill(path, jobs, seen_shard, "shards of test images judged")
    clips = store.fill(
        path, {f"clip/{task}.json": (w, task) for task in w.tasks}, clip_baseline, "CLIP baselines"
    )
    fids = store.fill(
        path,
        {f"budget/{b}.json": (w, path, b) for b in generator.BUDGETS},
        generated,
        "generator budgets judged",
    )
    seen = {
        task: pd.concat(
            [store.read_table(f) for f in sorted((path / "seen").glob(f"{task}-*.parquet"))]
        )
        for task in w.tasks
    }
    axles = seen["aircraft"][["axles_right", "rebuilt_axles_right", "rebuilt_error"]].mean()
    store.write(
        path / "quality.json",
        {
            "clip": {f.stem: json.loads(f.read_text()) for f in clips},
            "generator": {f.stem: json.loads(f.read_text()) for f in fids},
            "judge_axles": float(axles.iloc[0]),
            "autoencoder_axles": float(axles.iloc[1]),
            "autoencoder_error": float(axles.iloc[2]),
            "judge_variants": {
                task: float(table["variant_right"].mean()) for task, table in seen.items()
            },
        },
    )


def clip_baseline(w: World, task: str) -> dict:
    """Zero-shot and linear-probe test accuracy of the unadapted CLIP."""
    return classifier.baseline(clip.load(w), benchmark(w, task), w.finetune)


def seen_shard(w: World, task: str, start: int, stop: int) -> pd.DataFrame:
    """What judges say of some test images, one row per image: ``variant_right``, and for aircraft ``axles_right``.

    Aircraft also have ``rebuilt_axles_right`` and the mean absolute ``rebuilt_error`` (0..255) after the autoencoder.
    """
    bench, folder = benchmark(w, task), upstream.folder(w)
    images, labels = bench.test.images[start:stop], bench.test.labels[start:stop]
    seen = judges.judge(folder, images)
    table = pd.DataFrame(
        {"variant_right": seen["variant"].to_numpy() == np.array(bench.classes, object)[labels]}
    )
    if task != "aircraft":
        return table
    wanted, rebuilt = (
        bench.details["axles"].to_numpy()[labels],
        reconstruct(folder / "generator", images),
    )
    return table.assign(
        axles_right=seen["axles"].to_numpy() == wanted,
        rebuilt_axles_right=judges.judge(folder, rebuilt)["axles"].to_numpy() == wanted,
        rebuilt_error=np.abs(rebuilt.astype(float) - images).mean((1, 2, 3)),
    )


def reconstruct(folder, images: np.ndarray) -> np.ndarray:
    """uint8 images after the generator's autoencoder."""
    import torch

    vae, out = generator.load(folder, "long").vae, []
    with torch.inference_mode():
        for i in range(0, len(images), 128):
            y = vae.decode(vae.encode(to_model(images[i : i + 128])).latent_dist.mean).sample
            out.append(
                ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            )
    return np.concatenate(out)


def prompts(w: World) -> tuple[list[str], list[str]]:
    """The class of every picture drawn for the card, and its caption."""
    wanted = [name for name in benchmark(w, "aircraft").classes for _ in range(PER_CLASS)]
    return wanted, [f"a photo of a {name} aircraft" for name in wanted]


def draw_shard(w: World, budget: str, start: int, stop: int) -> np.ndarray:
    """Some of the card's pictures, by one generator budget."""
    seeds = [entropy(w.seed, "quality", i) for i in range(start, stop)]
    return generator.draw(
        generator.load(upstream.folder(w) / "generator", budget),
        prompts(w)[1][start:stop],
        seeds,
        w.synthesis,
    )


def generated(w: World, path: Path, budget: str) -> dict:
    """Recognisability and Frechet distance of the aircraft drawn by one generator budget."""
    images = np.concatenate([np.load(f) for f in sorted((path / "drawn").glob(f"{budget}-*.npy"))])
    folder, truth = upstream.folder(w), open_pool(w).truth()
    seen = judges.judge(folder, images)
    rows = np.flatnonzero((truth["kind"] == "aircraft") & (truth["style"] == "photo"))
    real = open_pool(w).fetch(
        rng_of(w, "quality").choice(rows, min(len(rows), 4 * len(images)), replace=False)
    )
    return {
        "aircraft": float((seen["is_aircraft"] > 0.5).mean()),
        "variant": float((seen["variant"] == prompts(w)[0]).mean()),
        "frechet": frechet(
            judges.embed(folder, "variant", real), judges.embed(folder, "variant", images)
        ),
    }
