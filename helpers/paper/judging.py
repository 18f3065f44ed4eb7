"""A CLIP that plays no other part in the study, as the judge of what images show: ``judge`` in paper.toml."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers import clip
from helpers.clip import Clip
from helpers.paper import config
from helpers.pools import Benchmark


def load() -> Clip:
    """The judge. Raises ``StudyError`` when its weights are not here."""
    return clip.by_name(config.settings().judge)


def features(images: np.ndarray) -> np.ndarray:
    """Unit embeddings (n, d) float32 of uint8 images by the judge."""
    return clip.embed_images(load(), images)


def names(bench: Benchmark, images: np.ndarray) -> pd.DataFrame:
    """Zero-shot class names of images by the judge, as column ``variant``."""
    scores = features(images) @ clip.head(load(), bench.classes, bench.templates).T
    return pd.DataFrame({"variant": np.array(bench.classes, object)[scores.argmax(1)]})
