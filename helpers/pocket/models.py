"""What the miniature answers at the seam: its upstream models in use, and what it has not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.data.tables import Benchmark
from helpers.engine import artifacts, places, store
from helpers.errors import Need, equally_many
from helpers.measure.metrics import PUBLISHED
from helpers.pocket.render.aircraft import WHEEL, axle_positions
from helpers.pocket.render.canvas import UNIT
from helpers.pocket.render.pictures import subject
from helpers.pocket.train import generator, judges, language, upstream
from helpers.worlds import World


def configured(w: World) -> World:
    """The world with the user's own settings; the miniature has none beside helpers/worlds.py."""
    return w


def outside(w: World) -> dict[str, dict]:
    """Artifact -> what it is made of outside the store: learning rates chosen elsewhere."""
    if w.finetune.selection_seeds:
        return {}
    digest = hashlib.sha256((places.PACKAGE / "study" / "rates.csv").read_bytes()).hexdigest()
    return {"finetuned": {"rates": digest}}


def check(w: World) -> tuple[list[Need], dict[str, str]]:
    """What this world needs and whether it is here; no costs, which are known from a run only."""
    later = "01 02 03 04 05 06 07 08"  # notebook 00 can train them again
    shipped = w.pool.upstream != "committed" or (upstream.WEIGHTS / "card.json").exists()
    restore = "git checkout -- helpers/pocket/weights"
    weights = Need("upstream weights", later, shipped, str(upstream.WEIGHTS), restore)
    free = store.free(places.root())
    rare = {"judged", "samples", "rarity"}  # small, or made on request only
    usual = artifacts.ARTIFACTS.keys() - rare
    made = [store.size(store.folder(name, w)) for name in usual if store.finished(name, w)]
    need = max(0, 2e9 - sum(made)) if len(made) < len(usual) else 0
    disk = f"{free / 1e9:.0f} GB free for {places.root()}, {need / 1e9:.1f} wanted"
    return [weights, Need("disk", f"00 {later}", free >= need, disk, "Set STUDY_RUNS.")], {}


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
    return generator.draw(pipeline(w), captions, seeds, w.synthesis, images, strength)


def pipeline(w: World) -> Any:
    """The diffusers pipeline that ``draw`` uses, the same object each time."""
    return generator.load(upstream.folder(w) / "generator", w.synthesis.generator)


def judge(w: World, images: np.ndarray) -> pd.DataFrame:
    """What the judges see in images (n, side, side, 3) uint8: see ``judges.judge``."""
    return judges.judge(upstream.folder(w), images)


def judge_features(w: World, images: np.ndarray) -> np.ndarray:
    """Features of the variant judge, (n, d) float32, for image metrics; images as for ``judge``."""
    return judges.embed(upstream.folder(w), "variant", images)


def clip_folder(w: World) -> Path:
    """Where the world's CLIP is kept."""
    return upstream.folder(w) / "clip"


def checkpoint(w: World, name: str) -> str:
    """``name``: that of a finished model (``families.finished``)."""
    return name


def search_index(w: World, bench: Benchmark) -> pd.DataFrame | None:
    """None: the index of this pool is built in notebook 03."""
    return None


def main_gear(w: World, name: str) -> tuple[float, float] | None:
    """Begin and end of the main wheels, nose left, in shares of the side from its middle."""
    positions = [x for leg in axle_positions(subject("aircraft", name)) for x in leg]
    return (min(positions) - WHEEL) / UNIT, (max(positions) + WHEEL) / UNIT


def published(w: World) -> pd.DataFrame:
    """No rows: this world's numbers are not to be mixed with those of photographs."""
    return pd.DataFrame(columns=PUBLISHED)
