"""Images per second through CLIP's image tower, against a plain float32 loop.

open_clip's ViT-B-16 shape at 224 pixels from images of 256; on a CPU the miniature's own tower.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from helpers.engine import gpu
from helpers.models import clip
from helpers.pocket.train import upstream
from tests import tiny
from tests.bench._models import Method, compare

VIT_B_16 = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49_408,
        "width": 512,
        "heads": 8,
        "layers": 12,
    },
}


def main(rows: int | None, rounds: int) -> None:
    """Compare a plain loop with ``clip.embed_images`` on ``rows`` images.

    On a GPU also compiled, on a CPU also in batches as large as a GPU takes.
    """
    import torch

    fast = gpu.device() == "cuda"
    if fast:
        with tempfile.TemporaryDirectory() as folder:
            model = clip.build(VIT_B_16, tiny.clip_tokenizer(Path(folder)))
    else:
        model = clip.by_name(str(upstream.WEIGHTS / "clip"))
    n = rows or (8_192 if fast else 2_048)
    side = 256 if fast else model.image_size
    images = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)

    def plain(n: int):
        parts = []
        with torch.inference_mode():
            for i in range(0, n, 64):
                x = clip.pixels(model, images[i : i + 64])
                parts.append(model.model.encode_image(x, normalize=True).cpu().numpy())
        return parts

    methods = {
        "float32, 64 at a time": Method(plain, n, 64),
        "the study's": Method(lambda n: clip.embed_images(model, images[:n]), n, 64),
    }
    if fast:
        quick = dataclasses.replace(model, model=copy.deepcopy(model.model))
        quick.model.visual = torch.compile(quick.model.visual)
        methods["the study's, compiled"] = Method(
            lambda n: clip.embed_images(quick if n > 64 else model, images[:n]), n, 64
        )
    else:
        together = Method(lambda n: clip.embed_images(model, images[:n], 256), n, 64)
        methods["the study's, 256 at a time"] = together
    compare("embed", methods, rounds, "images")
