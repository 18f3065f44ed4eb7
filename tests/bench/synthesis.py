"""Images per second of the paper world's generator, against ``pipe(prompt)`` for each caption.

PNG files are included. Stable Diffusion 1.5's shape, DDIM, 50 steps, guidance 2, 512 to 256 pixels;
on a CPU a tiny one, 64 to 32 pixels, 10 steps. Both ways compute in bfloat16 on a GPU.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

from helpers import worlds
from helpers.data import shards
from helpers.engine import gpu
from helpers.study import synthesis
from tests import tiny
from tests.bench._models import Method, compare


def plain(folder: Path, settings, side: int):
    """``run(n)`` by diffusers' pipeline as one would write it, an image after the other."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=gpu.precision())
    pipe = pipe.to(gpu.device())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)

    def run(n: int):
        for i in range(n):
            image = pipe(
                caption(i),
                height=side,
                width=side,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                generator=torch.Generator().manual_seed(i),
            ).images[0]
            shards.png(np.asarray(image.resize((side // 2, side // 2))))

    return run


def caption(i: int) -> str:
    """The ``i``-th caption; all differ."""
    return f"photo {i} of an aircraft above the sea at dusk"


def main(rows: int | None, rounds: int) -> None:
    """Compare both ways; ``rows`` is how many images the study's way draws per round.

    From 500 on it is compiled.
    """
    fast = gpu.device() == "cuda"
    w = worlds.get("paper") if fast else worlds.get("paper", synthesis={"steps": 10, "batch": 16})
    n = rows or (512 if fast else 64)
    side = 512 if fast else tiny.SIDE
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, STUDY_PAPER=folder):
        path = tiny.generator(Path(folder) / "generator", tiny.PUBLISHED if fast else tiny.TINY)
        (Path(folder) / "paper.toml").write_text(
            f'drawn = {side}\nkept = {side // 2}\n[generators]\n"1.5" = "generator"\n'
        )

        def study(n: int):
            table = [{"caption": caption(i), "seed": i, "label": 0} for i in range(n)]
            return synthesis.draw_shard(w, table)

        methods = {
            "pipe(prompt), one at a time": Method(plain(path, w.synthesis, side), 4),
            f"the study's shards, {w.synthesis.batch} at a time": Method(study, n, 4),
        }
        compare("synthesis", methods, rounds, "images")
