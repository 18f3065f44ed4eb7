"""How good the upstream models are by themselves: the figures of their card, and the only ones they are calibrated on."""

from __future__ import annotations

import json

import numpy as np

from helpers import adapt, clip, gpu, store
from helpers.pocket import generator, judges, upstream
from helpers.pocket.benchmarks import benchmark
from helpers.pocket.pool import open_pool
from helpers.worlds import World, entropy
from helpers.worlds import rng as rng_of

PER_CLASS = 8  # aircraft drawn per class and budget


def quality(w: World) -> dict:
    """Quality of CLIP, judges, autoencoder and generator on baselines; shares in 0..1, kept as artifact ``quality``.

    ``clip``: zero-shot and linear probe on test, per task, unadapted. ``judge_axles``, ``judge_variants``: judges on test
    renderings; ``autoencoder_axles`` the same after encoding and decoding. ``generator``, per budget: how often a judge
    sees an ``aircraft`` and the ``variant`` asked for, and the ``frechet`` distance to pool images.
    """
    made = store.make("quality", w, lambda path: _build(path, w))
    parts = {f.stem: json.loads(f.read_text()) for f in made.files("*.json") if f.name != "manifest.json"}
    return {"clip": {task: parts[f"clip-{task}"] for task in w.tasks}, **parts["judges"],
            "judge_variants": {task: parts[f"variants-{task}"]["share"] for task in w.tasks},
            "generator": {b: parts[f"generator-{b}"] for b in generator.BUDGETS}}


def _build(path, w: World) -> None:
    store.fill(path, {f"generator-{b}.json": (w, b) for b in generator.BUDGETS}, generated, "generator budgets judged")
    store.fill(path, {f"clip-{task}.json": (w, task) for task in w.tasks}, clip_baseline, "CLIP baselines")
    store.fill(path, {f"variants-{task}.json": (w, task) for task in w.tasks}, variants_named, "tasks judged")
    store.fill(path, {"judges.json": (w,)}, axles_counted, "axles counted")


def clip_baseline(w: World, task: str) -> dict:
    """Zero-shot and linear-probe test accuracy of the unadapted CLIP."""
    return adapt.baseline(clip.load(w), benchmark(w, task), w.finetune)


def variants_named(w: World, task: str) -> dict:
    """How often the variant judge names the class of a test image."""
    bench = benchmark(w, task)
    seen = judges.judge(upstream.folder(w), bench.test.images)["variant"].to_numpy()
    return {"share": float((seen == np.array(bench.classes, object)[bench.test.labels]).mean())}


def axles_counted(w: World) -> dict:
    """How often the detail judge counts axles right, on test images and on what the autoencoder makes of them."""
    bench, folder = benchmark(w, "aircraft"), upstream.folder(w)
    rebuilt = reconstruct(folder / "generator", bench.test.images)
    wanted = bench.details["axles"].to_numpy()[bench.test.labels]
    right = {name: float((judges.judge(folder, images)["axles"].to_numpy() == wanted).mean())
             for name, images in (("judge_axles", bench.test.images), ("autoencoder_axles", rebuilt))}
    return {**right, "autoencoder_error": float(np.abs(rebuilt.astype(float) - bench.test.images).mean())}


def reconstruct(folder, images: np.ndarray) -> np.ndarray:
    """uint8 images after the generator's autoencoder."""
    import torch

    from helpers.pocket.diffusion import to_model

    vae, out = generator.load(folder, "long").vae, []
    with torch.inference_mode():
        for i in range(0, len(images), 128):
            y = vae.decode(vae.encode(to_model(images[i : i + 128])).latent_dist.mean).sample
            out.append(((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(out)


def generated(w: World, budget: str) -> dict:
    """Recognisability and Frechet distance of aircraft drawn by one generator budget."""
    from helpers.worlds import adapt as with_settings

    bench, w = benchmark(w, "aircraft"), with_settings(w, synthesis={"generator": budget})
    wanted = [name for name in bench.classes for _ in range(PER_CLASS)]
    captions = [f"a photo of a {name} aircraft" for name in wanted]
    pipe = generator.load(upstream.folder(w) / "generator", budget)
    images = generator.draw(pipe, captions, [entropy(w.seed, "quality", i) for i in range(len(wanted))], w.synthesis)
    seen = judges.judge(upstream.folder(w), images)
    truth = open_pool(w).truth()
    rows = np.flatnonzero((truth["kind"] == "aircraft") & (truth["style"] == "photo"))
    real = open_pool(w).fetch(rng_of(w, "quality").choice(rows, min(len(rows), 4 * len(images)), replace=False))
    return {"aircraft": float((seen["is_aircraft"] > 0.5).mean()), "variant": float((seen["variant"] == wanted).mean()),
            "frechet": frechet(upstream.folder(w), real, images)}


def frechet(folder, real: np.ndarray, drawn: np.ndarray) -> float:
    """Frechet distance of two sets of uint8 images in the features of the variant judge (torchmetrics' FID)."""
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    from helpers.pocket.diffusion import to_model

    features = judges.features(folder, "variant").to(gpu.device())
    metric = FrechetInceptionDistance(feature=features, input_img_size=(3, *real.shape[1:3]), normalize=False)
    metric.inception.eval()
    for images, is_real in ((real, True), (drawn, False)):
        for i in range(0, len(images), 256):
            with torch.inference_mode():
                metric.update(to_model(images[i : i + 256]), real=is_real)
    return float(metric.compute())
