"""Training the miniature's CLIP on the pool's pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers.engine import gpu
from helpers.engine.late import torch
from helpers.engine.randomness import entropy
from helpers.models import clip as clips
from helpers.models.train import Schedule, augmented
from helpers.pocket.train import loop
from helpers.pocket.train.vocabulary import CONTEXT, tokens
from helpers.worlds import World

LR = 2e-3
WARMUP = 0.1  # share of the steps
WEIGHT_DECAY = 0.1


def config(w: World, vocabulary: int) -> dict[str, Any]:
    """open_clip's description of it: timm's ``test_resnet`` and a text tower of two layers."""
    vision = {"timm_model_name": "test_resnet", "timm_model_pretrained": False}
    vision |= {"timm_pool": "avg", "timm_proj": "linear", "image_size": w.image_size}
    text = {"context_length": CONTEXT, "vocab_size": vocabulary, "width": 128, "heads": 4}
    return {"embed_dim": 128, "vision_cfg": vision, "text_cfg": {**text, "layers": 2}}


def train(w: World, texts: Sequence[str], path: Path) -> None:
    """Contrastive training on ``images.npy`` in ``path`` and their captions, into ``path``/clip.

    The loss is symmetric InfoNCE as in open_clip.
    """
    from transformers import CLIPTokenizerFast

    if not (path / "clip").exists():
        ids = tokens(CLIPTokenizerFast.from_pretrained(path / "tokenizer"), texts)
        loop.distribute(_train, w, ids, path, passes=w.upstream.clip_epochs * w.pool.rows)


def _train(worker: loop.Worker, w: World, tokens: np.ndarray, path: Path) -> None:

    torch.manual_seed(entropy(w.pool.seed, "clip") % 2**31)
    images = np.load(path / "images.npy", mmap_mode="r")
    ids = torch.from_numpy(tokens).long().to(gpu.device())
    architecture = config(w, int(ids.max()) + 1)
    clip = clips.build(architecture, path / "tokenizer")
    batch = min(w.upstream.clip_batch, len(images) // worker.count * worker.count)
    steps = max(1, w.upstream.clip_epochs * len(images) // batch)
    schedule = Schedule(steps, batch, LR, int(WARMUP * steps))
    order = loop.batches(len(images), batch, entropy(w.pool.seed, "clip"), worker)
    generator = torch.Generator().manual_seed(entropy(w.pool.seed, "clip", worker.rank) % 2**63)
    contrast = clips.contrastive_loss(worker.rank, worker.count)

    def loss_of(step: int) -> torch.Tensor:
        chosen = np.sort(next(order))
        # mirrored too: no caption tells left from right
        x = augmented(clips.pixels(clip, images[chosen]), generator)
        with gpu.autocast():
            image, text, scale = clip.model(x, ids[chosen])
        return contrast(image.float(), text.float(), scale.float())

    clip.model.train()
    loop.train(clip.model, loss_of, schedule, "CLIP", worker, weight_decay=WEIGHT_DECAY)
    clip.model.eval()
    if worker.rank == 0:
        clips.save(clip, path / "clip.tmp", architecture)
        (path / "clip.tmp").rename(path / "clip")
