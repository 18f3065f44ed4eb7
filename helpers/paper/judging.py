"""A CLIP that plays no other part in the study, as the judge of what images show."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers import clip
from helpers.pools import Benchmark

JUDGE = ("ViT-L-14", "openai")  # not the CLIP that is adapted and that filters, and trained on other data


def features(images: np.ndarray) -> np.ndarray:
    """Unit embeddings (n, d) float32 of uint8 images by ``JUDGE``. Raises ``StudyError`` when its weights are not here."""
    return clip.embed_images(clip.named(*JUDGE), images)


def names(bench: Benchmark, images: np.ndarray) -> pd.DataFrame:
    """Zero-shot class names of images by ``JUDGE``, as column ``variant``."""
    scores = features(images) @ clip.head(clip.named(*JUDGE), bench.classes, bench.templates).T
    return pd.DataFrame({"variant": np.array(bench.classes, object)[scores.argmax(1)]})
