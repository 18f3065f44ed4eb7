"""Images per second through finetuning, against the published float32 loop ([C] finetune.py).

open_clip's ViT-B-16 at 224 pixels, 100 classes, batch 512 from images of 256 pixels; on a CPU a
tiny shape. The published loop decodes each image in a loader and computes in float32; here both get
decoded images, so only the arithmetic is compared.
"""

from __future__ import annotations

import copy
import tempfile
from collections import deque
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data.tables import Benchmark, Split
from helpers.engine import gpu
from helpers.models import classifier, clip
from helpers.models.train import Schedule, cropped
from tests import tiny
from tests.bench._models import Method, compare
from tests.bench.embed import VIT_B_16

CLASSES = 100


def task(n: int, side: int) -> Benchmark:
    """A task of random images: what they show does not change how long they take."""
    rng = np.random.default_rng(0)
    classes = tuple(f"thing {i}" for i in range(CLASSES))

    def split(k: int) -> Split:
        images = rng.integers(0, 256, (k, side, side, 3), dtype=np.uint8)
        return Split(images, np.arange(k) % CLASSES)

    train = split(n)
    few = split(4)
    return Benchmark(
        task="things",
        classes=classes,
        noun="thing",
        domain="a thing",
        templates=("a photo of a {}.",),
        backgrounds=(),
        details=pd.DataFrame(),
        train=train,
        val=few,
        test=few,
    )


def published(start: clip.Clip, bench: Benchmark, steps: int, batch: int) -> None:
    """[C]'s loop: float32, gradients clipped at 1, AdamW, cosine after a warm-up.

    Its augmentation is open_clip's, as ours.
    """
    import torch

    model = copy.deepcopy(start.model)
    head = torch.nn.Linear(model.visual.output_dim, CLASSES).to(gpu.device())
    parameters = [*model.visual.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    schedule = Schedule(steps, batch, 1e-5, round(0.1 * steps))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = schedule.rate(step)
        x = cropped(clip.pixels(start, bench.train.images[:batch]), generator)
        wanted = torch.from_numpy(bench.train.labels[:batch]).to(gpu.device())

        def backward(rows, x=x, wanted=wanted):
            features = model.encode_image(x[rows.start : rows.stop])
            logits = head(torch.nn.functional.normalize(features, dim=-1))
            loss = torch.nn.functional.cross_entropy(logits, wanted[rows.start : rows.stop])
            (loss * (len(rows) / batch)).backward()

        # in parts, if it has to be
        deque(gpu.fitting_batches(backward, range(batch), batch, "the published loop"), maxlen=0)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    next(iter(parameters)).sum().item()


def main(rows: int | None, rounds: int) -> None:
    """Compare the published loop with ours, in float32 and as it runs; ``rows`` images a round."""
    fast = gpu.device() == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        model = clip.build(VIT_B_16 if fast else tiny.CLIP, tiny.clip_tokenizer(Path(folder)))
    batch = 512 if fast else 32
    steps = max(1, (rows or (10_240 if fast else 1_024)) // batch)
    bench = task(batch, 256 if fast else 40)

    def ours(n: int, precision: str) -> None:
        settings = {
            "batch": batch,
            "min_steps": n // batch,
            "epochs": 1,
            "precision": precision,
        }
        w = worlds.replace(worlds.get("pocket"), finetune=settings)
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder, "state")
            classifier.finetune(model, bench.train, bench, 1e-5, 0, w.finetune, state)

    def theirs(n: int) -> None:
        published(model, bench, n // batch, batch)

    images = steps * batch
    methods = {
        "published loop, float32": Method(theirs, images, batch),
        "the study's": Method(lambda n: ours(n, "bf16"), images, images),
        "the study's, fp32": Method(lambda n: ours(n, "fp32"), images, images),
    }
    compare("finetune", methods, rounds, "images")
