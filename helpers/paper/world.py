"""The paper world as ``paper.toml`` has it, what its judge sees, and what nobody knows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data.tables import Split
from helpers.engine.store import Artifact
from helpers.errors import NotKnown, StudyError, unknown
from helpers.models import clip, families
from helpers.paper import config, probes
from helpers.paper.benchmarks import benchmark
from helpers.paper.config import identity
from helpers.worlds import World

RENDERED = "It is known in the rendered worlds only: python -m helpers.run pocket"


def configured(w: World) -> World:
    """``w`` with the user's own tasks, settings and CLIP; as it is without ``$STUDY_PAPER``.

    Raises ``StudyError`` on settings that do not exist.
    """
    if not os.environ.get("STUDY_PAPER"):
        return w
    s = config.settings()
    tasks = tuple(dict.fromkeys((*w.tasks, *s.tasks)))
    weights = {"pretrained": s.clip}
    if Path(s.clip).is_dir():
        weights = {"model": "upstream", "pretrained": identity(s.clip)}
    named = s.checkpoints or w.robustness.checkpoints
    w = worlds.replace(w, tasks=tasks, clip=weights, robustness={"checkpoints": named})
    w = worlds.replace(w, **s.world)
    families.checked(w.robustness.checkpoints)
    for task in w.tasks:
        if task not in tasks:
            raise unknown(f"task in [world] of {config.root() / config.FILE}", task, tasks)
    return w


def outside(w: World) -> dict[str, dict]:
    """Artifact -> weights, shards and settings outside the store that it is made of."""
    s = config.settings()
    names = (w.synthesis.generator, *w.analysis.generators, *w.scaling.generators)
    generators = {name: identity(s.generators[name]) for name in names if name in s.generators}
    probed = [name.partition("/")[2] for _, _, name in w.robustness.checkpoints]  # without library
    weights = [config.placed(config.root(), name, identity) for name in probed if name]
    parts = {
        "captions": {"language_model": identity(s.language_model)},
        "pool": {"shards": identity(str(s.laion))},
        "scaled": {"judge": config.placed(config.root(), s.judge, identity)},
        "robust": {"checkpoints": weights, "sets": probes.present(s.benchmarks)},
    }
    folders = {name: {"folder": identity(str(task.folder))} for name, task in s.tasks.items()}
    parts["benchmarks"] = {name: s.tasks[name].model_dump() | at for name, at in folders.items()}
    parts["judged"] = parts["scaled"]
    for name in ("synthetic", "samples", "analysed", "arms", "paired", "prompted"):
        parts[name] = {"generators": generators, "drawn": s.drawn, "kept": s.kept}
    if s.index:
        parts["embeddings"] = {"index": s.index}
    return parts


def judge_features(w: World, images: np.ndarray) -> np.ndarray:
    """Unit embeddings (n, d) of images by the judge; ``StudyError`` when it is missing."""
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
    raise StudyError(f"world {w.name!r} trains no models; retrain=True is for the rendered worlds.")
