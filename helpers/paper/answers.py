"""What the paper world says of images: by ``judge`` in paper.toml, a CLIP that has no other part in
the study, or that nobody knows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.tables import Split
from helpers.engine.store import Artifact
from helpers.errors import NotKnown, StudyError
from helpers.models import clip
from helpers.paper import config
from helpers.paper.benchmarks import benchmark
from helpers.worlds import World

RENDERED = "It is known in the rendered worlds only: python -m helpers.run pocket"


def judge_features(w: World, images: np.ndarray) -> np.ndarray:
    """Unit embeddings (n, d) of images by the judge. ``StudyError`` when its weights are missing."""
    return clip.embed_images(clip.by_name(config.settings().judge), images)


def judge(w: World, images: np.ndarray) -> pd.DataFrame:
    """The class of the first task that the judge sees in images, zero-shot: column ``variant``."""
    bench = benchmark(w, w.tasks[0])
    head = clip.head(clip.by_name(config.settings().judge), bench.classes, bench.templates)
    scores = judge_features(w, images) @ head.T
    return pd.DataFrame({"variant": np.array(bench.classes, object)[scores.argmax(1)]})


def prepare(w: World) -> None:
    """Nothing is trained: each published model is looked for where it is used."""


def shifted(w: World, task: str) -> dict[str, Split]:
    """No sets: nobody has sketched these classes, or dressed them in new textures."""
    return {}


def main_gear(w: World, name: str) -> tuple[float, float] | None:
    """None: nobody has measured where wheels stand in photographs."""
    return None


def intervention(w: World) -> Artifact:
    """Raises ``NotKnown``: nobody trains Stable Diffusion anew on a pool with a class thinned."""
    problem = f"world {w.name!r} cannot train its generator again on another pool"
    raise NotKnown(f"{problem}. {RENDERED} 06 -p intervention=True")


def quality(w: World) -> dict:
    """Raises ``NotKnown``: the published models come with their own papers."""
    raise NotKnown(f"world {w.name!r} does not measure its upstream models. {RENDERED} 00")


def retrain(w: World) -> Path:
    """Raises ``StudyError``: the published models are downloaded."""
    problem = f"world {w.name!r} cannot train its upstream models"
    raise StudyError(f"{problem}; retrain=True is for the rendered worlds.")
