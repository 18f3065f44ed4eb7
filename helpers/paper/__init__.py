"""The published setting behind the same functions as the miniature: LLaMA, Stable Diffusion, LAION, public benchmarks.

Nothing is downloaded here. What there is, and where, says ``paper.toml`` in ``$STUDY_PAPER`` (helpers/paper/config.py); what is
missing, and how to get it, says ``python -m helpers.run paper --check``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from helpers.pools import Benchmark, Pool, Split
from helpers.probes import ProbeSets
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

    return doctor.needs(w), doctor.costs(w)


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

    return generator.draw(w, captions, seeds, images, strength)


def open_pool(w: World) -> Pool:
    """The LAION pairs under ``$STUDY_PAPER/laion``: img2dataset's shards, parquet beside webdataset tars."""
    from helpers.paper import data

    return data.open_pool(w)


def neighbours(w: World, texts: list[str], k: int) -> list[np.ndarray] | None:
    """Per text the pool positions that the ``index`` of paper.toml finds, by image and by caption; None without one."""
    from helpers.paper import index

    return index.neighbours(w, texts, k)


def benchmark(w: World, task: str) -> Benchmark:
    """A public benchmark under ``$STUDY_PAPER/benchmarks``, in torchvision's layout with the published splits, or your own."""
    from helpers.paper import data

    return data.benchmark(w, task)


def shifted(w: World, task: str) -> dict[str, Split]:
    """Raises ``NotKnown``: nobody has sketched these classes, or dressed them in new textures."""
    raise NotKnown(f"world {w.name!r} has no shifted sets of {task}. {_RENDERED} 06")


def judge(w: World, images: np.ndarray) -> pd.DataFrame:
    """Raises ``NotKnown``: nobody knows how many wheels the photographs show."""
    raise NotKnown(f"world {w.name!r} has no judge of details. {_RENDERED} 05")


def judge_features(w: World, images: np.ndarray) -> np.ndarray:
    """Raises ``NotKnown``: there is no network here that was trained on these classes and nothing else."""
    raise NotKnown(f"world {w.name!r} has no judge of details. {_RENDERED} 06")


def probe_sets(w: World, task: str) -> ProbeSets:
    """Raises ``StudyError``: the published probe sets are not read yet; the message says which folders they are."""
    raise StudyError(f"world {w.name!r} cannot probe {task!r} yet. It would read the folders imagenet-r, imagenet-a, imagenet-c, "
                     "cue-conflict, imagenet-9 and focus under $STUDY_PAPER/benchmarks. The rendered worlds can: "
                     "python -m helpers.run pocket 07")


def quality(w: World) -> dict:
    """Raises ``NotKnown``: the published models come with their own papers."""
    raise NotKnown(f"world {w.name!r} does not measure its upstream models. {_RENDERED} 00")


def clip_folder(w: World) -> Path:
    """The folder that ``clip`` in paper.toml names: weights, configuration and tokenizer (helpers.clip.save)."""
    from helpers.paper import config

    return Path(config.settings().clip)


def retrain(w: World) -> Path:
    """Raises ``StudyError``: the published models are downloaded."""
    raise StudyError(f"world {w.name!r} cannot train its upstream models; retrain=True is for the rendered worlds.")
