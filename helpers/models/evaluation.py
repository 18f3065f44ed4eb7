"""Logits of classifiers: of sets of images, and as a differentiable function for attacks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from helpers.models import clip
from helpers.models.classifier import Classifier

if TYPE_CHECKING:
    import torch

AT_ONCE = 256  # images resized together


def logits(model: Classifier, images: np.ndarray) -> np.ndarray:
    """Logits (n, classes) float32 of uint8 images (n, side, side, 3)."""
    embeddings = clip.embed_images(model.clip, images)
    return embeddings @ model.weight.cpu().numpy().T + model.bias.cpu().numpy()


def differentiable_logits(model: Classifier) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same as a differentiable function of pixels (n, 3, s, s) in 0..1.

    It holds the model's own resizing and normalisation.
    """

    def function(x):
        x = resized(x, model.clip.image_size)
        return model.logits(clip.pixels(model.clip, 255 * x.permute(0, 2, 3, 1)))

    return function


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 images as a tower of ``side`` pixels sees them, (n, side, side, 3).

    Sets that many models look at are reduced once, for all of them.
    """
    import torch

    if images.shape[1] == side:
        return images
    parts = []
    for start in range(0, len(images), AT_ONCE):
        x = torch.tensor(images[start : start + AT_ONCE]).permute(0, 3, 1, 2).float()
        x = torch.nn.functional.interpolate(x, (side, side), mode="bicubic", antialias=True)
        parts.append(x.clamp(0, 255).round().byte())
    return torch.cat(parts).permute(0, 2, 3, 1).numpy()


def resized(x: torch.Tensor, side: int) -> torch.Tensor:
    """Square images (n, 3, s, s) in 0..1 at another size, bicubic and antialiased.

    Two products of matrices give the same as ``interpolate`` up to rounding, but their gradient,
    which attacks ask for again and again, costs a tenth.
    """
    if x.shape[-1] == side:
        return x
    weights = _resizing(x.shape[-1], side).to(x.device)
    return (weights @ (x @ weights.T)).clamp(0, 1)


@functools.lru_cache(maxsize=4)
def _resizing(old: int, new: int) -> torch.Tensor:
    """The matrix (new, old) that resizes a column of pixels."""
    import torch

    # kept for gradients, even where the first caller asks in inference mode
    with torch.inference_mode(False):
        columns = torch.eye(old)[None, None]
        return torch.nn.functional.interpolate(columns, (new, old), mode="bicubic", antialias=True)[
            0, 0
        ]
