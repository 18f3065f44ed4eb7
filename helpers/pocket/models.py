"""The upstream models of the miniature in use: captions, drawings, judgements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import equally_many
from helpers.pocket.train import generator, judges, language, upstream
from helpers.worlds import World


def prepare(w: World) -> None:
    """Find or train the upstream models, before processes that need them share out work."""
    upstream.folder(w)


def write_captions(w: World, prompts: list[str], rng: np.random.Generator) -> list[str]:
    """Continue each few-shot prompt by the world's language model; captions follow from ``rng``."""
    seeds = rng.integers(2**62, size=len(prompts))
    return language.write(upstream.folder(w) / "language", prompts, seeds.tolist(), w.captions)


def draw(
    w: World,
    captions: list[str],
    seeds: list[int],
    images: np.ndarray | None = None,
    strength: float | None = None,
) -> np.ndarray:
    """One image per caption and seed, (n, side, side, 3) uint8.

    With ``images`` and ``strength`` (0..1] they are made from those by SDEdit.
    """
    equally_many(captions=captions, seeds=seeds, images=images)
    pipe = generator.load(upstream.folder(w) / "generator", w.synthesis.generator)
    return generator.draw(pipe, captions, seeds, w.synthesis, images, strength)


def judge(w: World, images: np.ndarray) -> pd.DataFrame:
    """What the judges see in images (n, side, side, 3) uint8, one row each.

    Details of aircraft, ``variant`` and ``is_aircraft`` (0..1).
    """
    return judges.judge(upstream.folder(w), images)


def judge_features(w: World, images: np.ndarray) -> np.ndarray:
    """Features of the variant judge, (n, d) float32, for image metrics; images as for ``judge``."""
    return judges.embed(upstream.folder(w), "variant", images)


def clip_folder(w: World) -> Path:
    """Where the world's CLIP is kept."""
    return upstream.folder(w) / "clip"
