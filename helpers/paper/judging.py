"""A CLIP that plays no other part in the study, as the judge of what images show: ``judge`` in paper.toml."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.models import clip
from helpers.models.clip import Clip
from helpers.paper import config
from helpers.paper.benchmarks import benchmark
from helpers.worlds import World


def load() -> Clip:
    """The judge. Raises ``StudyError`` when its weights are not here."""
    return clip.by_name(config.settings().judge)


def judge_features(w: World, images: np.ndarray) -> np.ndarray:
    """Unit embeddings (n, d) float32 of uint8 images by the judge."""
    return clip.embed_images(load(), images)


def judge(w: World, images: np.ndarray) -> pd.DataFrame:
    """The class of the first task that the judge sees in images, zero-shot: column ``variant``."""
    bench = benchmark(w, w.tasks[0])
    scores = judge_features(w, images) @ clip.head(load(), bench.classes, bench.templates).T
    return pd.DataFrame({"variant": np.array(bench.classes, object)[scores.argmax(1)]})
