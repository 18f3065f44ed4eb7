"""The published setting behind the same functions as the miniature: LLaMA, Stable Diffusion, LAION, public benchmarks.

Nothing is downloaded here. What there is, and where, says ``paper.toml`` in ``$STUDY_PAPER`` (helpers/paper/config.py); what is
missing, and how to get it, says ``python -m helpers.run paper --check``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import equally_many
from helpers.pools import Benchmark, Pool, Split
from helpers.probes import ProbeSets
from helpers.store import Artifact
from helpers.worlds import Need, NotKnown, StudyError, World

_RENDERED = "It is known in the rendered worlds only: python -m helpers.run pocket"


def configured(w: World) -> World:
    """The world with the user's own tasks and settings, read from ``paper.toml`` if there is one."""
    from helpers.paper import config

    return config.configured(w)


def outside(w: World) -> dict[str, dict]:
    """Artifact -> what it is made of that lies outside the store: weights, shards, own tasks; part of the artifact's key."""
    from helpers.paper import config

    return config.outside(w)


def check(w: World) -> tuple[list[Need], dict[str, str]]:
    """Weights, data sets, index, memory and disk: found or not; and the GPU-hours of each notebook from measured rates."""
    from helpers.paper import doctor

    return doctor.check(w)


def write_captions(w: World, prompts: list[str], rng: np.random.Generator) -> list[str]:
    """Continue each few-shot prompt by LLaMA-2 7B (base), nucleus sampling ([P] section 3).

    Raises ``StudyError`` when the weights are not there; they are gated.
    """
    from helpers.paper import language

    return language.write(w, prompts, rng)


def draw(w: World, captions: list[str], seeds: list[int], images: np.ndarray | None = None,
         strength: float | None = None) -> np.ndarray:
    """One image per caption and seed by Stable Diffusion, 512 reduced to 256 pixels; SDEdit with ``images`` ([P] section 5)."""
    from helpers.paper import generator

    equally_many(captions=captions, seeds=seeds, images=images)
    return generator.draw(w, captions, seeds, images, strength)


def open_pool(w: World) -> Pool:
    """The LAION pairs under ``$STUDY_PAPER/laion``: img2dataset's shards, parquet beside webdataset tars."""
    from helpers.paper import data

    return data.open_pool(w)


def search_index(w: World, bench: Benchmark) -> pd.DataFrame | None:
    """What the index named in paper.toml has nearest to the class names (helpers/paper/index.py); None where none is named."""
    from helpers.paper import config, index

    return index.search(w, config.settings().index, bench) if config.settings().index else None


def benchmark(w: World, task: str) -> Benchmark:
    """A public benchmark under ``$STUDY_PAPER/benchmarks``, in torchvision's layout with the published splits, or your own."""
    from helpers.paper import data

    return data.benchmark(w, task)


def shifted(w: World, task: str) -> dict[str, Split]:
    """No sets: nobody has sketched these classes, or dressed them in new textures."""
    return {}


def judge(w: World, images: np.ndarray) -> pd.DataFrame:
    """The class of the first task that another CLIP, trained on other data than the study's, sees in images: ``variant``."""
    from helpers.paper import judging

    return judging.names(benchmark(w, w.tasks[0]), images)


def judge_features(w: World, images: np.ndarray) -> np.ndarray:
    """That CLIP's unit embeddings (n, d) float32 of uint8 images: the eyes of the image metrics."""
    from helpers.paper import judging

    return judging.features(images)


def main_gear(w: World, name: str) -> tuple[float, float] | None:
    """None: nobody has measured where wheels stand in photographs."""
    return None


def intervention(w: World) -> Artifact:
    """Raises ``NotKnown``: nobody trains Stable Diffusion anew on a pool with a class thinned out."""
    raise NotKnown(f"world {w.name!r} cannot train its generator again on another pool. {_RENDERED} 06 -p intervention=True")


def published(w: World) -> pd.DataFrame:
    """Published accuracy (0..1), loss (nats) and ECE on ImageNet validation images by training set, prompt and size.

    Checkpoints of *Scaling Laws of Synthetic Images* (1M to 16M images; CLIP 64M to 371M pairs) as scored again by [R]: result files of
    its repository (visinf/benchmarking-synthetic-clones, a443db5), the prompt and the mixing ablation.
    """
    from helpers.paper import data

    return data.published()


def probe_sets(w: World, task: str) -> ProbeSets:
    """ImageNet's probe sets from the folders imagenet, imagenet-r, imagenet-a, imagenet-c, imagenet-9, focus, cue-conflict, sun and
    inaturalist under ``$STUDY_PAPER/benchmarks`` (helpers/paper/probes.py). Raises ``StudyError`` on another task."""
    from helpers.paper import probes

    if task != "imagenet":
        raise StudyError(f"world {w.name!r} has probe sets of 'imagenet' only, not of {task!r}; set robustness={{'task': 'imagenet'}}.")
    return probes.probe_sets(w)


def checkpoint(w: World, name: str) -> str:
    """The name of a finished model (``checkpoints.load``), with a path in it that is relative to ``$STUDY_PAPER`` made absolute."""
    from helpers.paper import config

    return config.checkpoint(name)


def quality(w: World) -> dict:
    """Raises ``NotKnown``: the published models come with their own papers."""
    raise NotKnown(f"world {w.name!r} does not measure its upstream models. {_RENDERED} 00")


def clip_folder(w: World) -> Path:
    """The folder that ``clip`` in paper.toml names: weights, configuration and tokenizer (``helpers.clip.load_folder``)."""
    from helpers.paper import config

    return Path(config.settings().clip)


def retrain(w: World) -> Path:
    """Raises ``StudyError``: the published models are downloaded."""
    raise StudyError(f"world {w.name!r} cannot train its upstream models; retrain=True is for the rendered worlds.")
