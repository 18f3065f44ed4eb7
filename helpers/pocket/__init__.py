"""The miniature: a rendered pool and everything trained on it, behind the same functions as the published setting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from helpers import store
from helpers.errors import equally_many
from helpers.pools import Benchmark, Pool, Split
from helpers.probes import PUBLISHED, ProbeSets
from helpers.store import Artifact
from helpers.worlds import Need, World


def configured(w: World) -> World:
    """The world with the user's own settings; the miniature has none beside helpers/worlds.py."""
    return w


def outside(w: World) -> dict[str, dict]:
    """Artifact -> what it is made of that lies outside the store: nothing, all of it is made here."""
    return {}


def check(w: World) -> tuple[list[Need], dict[str, str]]:
    """What this world needs and whether it is here, and what its notebooks cost where that is known by other means than a run."""
    from helpers.pocket import upstream

    later = "01 02 03 04 05 06 07"  # notebook 00 can train them again
    shipped = w.pool.upstream != "committed" or (upstream.WEIGHTS / "card.json").exists()
    free = store.free(store.root())
    return [Need("upstream weights", later, shipped, str(upstream.WEIGHTS), "git checkout -- helpers/pocket/weights"),
            Need("disk", f"00 {later}", free >= 2e9, f"{free / 1e9:.0f} GB free for {store.root()}, 2 GB wanted", "Set STUDY_RUNS.")], {}


def write_captions(w: World, prompts: list[str], rng: np.random.Generator) -> list[str]:
    """Continue each few-shot prompt by the world's language model; the same ``rng`` state gives the same captions."""
    from helpers.pocket import language, upstream

    seeds = rng.integers(2**62, size=len(prompts))
    return language.write(upstream.folder(w) / "language", prompts, seeds.tolist(), w.captions)


def draw(w: World, captions: list[str], seeds: list[int], images: np.ndarray | None = None,
         strength: float | None = None) -> np.ndarray:
    """One image per caption and seed, (n, side, side, 3) uint8; with ``images`` and ``strength`` (0..1] by SDEdit."""
    from helpers.pocket import generator, upstream

    equally_many(captions=captions, seeds=seeds, images=images)
    pipe = generator.load(upstream.folder(w) / "generator", w.synthesis.generator)
    return generator.draw(pipe, captions, seeds, w.synthesis, images, strength)


def open_pool(w: World) -> Pool:
    """The image-text pool that generator and CLIP were trained on; rendered on first use."""
    from helpers.pocket import pool

    return pool.open_pool(w)


def search_index(w: World, bench: Benchmark) -> pd.DataFrame | None:
    """None: the index of this pool is built in notebook 03."""
    return None


def benchmark(w: World, task: str) -> Benchmark:
    """Images, labels, class names and templates of a task; rendered on first use."""
    from helpers.pocket import benchmarks

    return benchmarks.benchmark(w, task)


def shifted(w: World, task: str) -> dict[str, Split]:
    """Test sets far from every training set, by name: ``sketch`` (line sketches) and ``unseen`` (new textures and contexts)."""
    from helpers.pocket import shifts

    return shifts.shifted(w, task)


def judge(w: World, images: np.ndarray) -> pd.DataFrame:
    """What the judges see in images (n, side, side, 3) uint8: details of aircraft, ``variant``, ``is_aircraft`` (0..1)."""
    from helpers.pocket import judges, upstream

    return judges.judge(upstream.folder(w), images)


def judge_features(w: World, images: np.ndarray) -> np.ndarray:
    """Features of the variant judge, (n, d) float32, of uint8 images (n, side, side, 3): the eyes of the image metrics."""
    from helpers.pocket import judges, upstream

    return judges.embed(upstream.folder(w), "variant", images)


def main_gear(w: World, name: str) -> tuple[float, float] | None:
    """Where the main wheels of an aircraft begin and end, as shares of the picture's side from its middle, nose to the left."""
    from helpers.pocket.aircraft import WHEEL, axle_positions
    from helpers.pocket.canvas import UNIT
    from helpers.pocket.render import subject

    places = [x for leg in axle_positions(subject("aircraft", name)) for x in leg]
    return (min(places) - WHEEL) / UNIT, (max(places) + WHEEL) / UNIT


def intervention(w: World) -> Artifact:
    """Generators trained on pools in which classes were made rare, and what they draw (helpers/pocket/rarity.py); minutes."""
    from helpers.pocket import rarity

    return rarity.make(w)


def published(w: World) -> pd.DataFrame:
    """No rows: this world's numbers are not to be mixed with those of photographs."""
    return pd.DataFrame(columns=PUBLISHED)


def probe_sets(w: World, task: str) -> ProbeSets:
    """What the robustness probes look at: test images of a task with one factor changed; rendered on first use."""
    from helpers.pocket import probes

    return probes.probe_sets(w, task)


def checkpoint(w: World, name: str) -> str:
    """``name``: that of a finished model (``checkpoints.load``)."""
    return name


def quality(w: World) -> dict:
    """How good the upstream models are by themselves, and where the calibration wants them."""
    from helpers.pocket import calibration

    return calibration.quality(w)


def clip_folder(w: World) -> Path:
    """Where the world's CLIP is kept."""
    from helpers.pocket import upstream

    return upstream.folder(w) / "clip"


def retrain(w: World) -> Path:
    """Train the shipped upstream models again (hours on a CPU); returns the folder they are in."""
    from helpers.pocket import upstream

    return upstream.retrain(w)
