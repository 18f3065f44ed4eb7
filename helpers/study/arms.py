"""The training sets whose scaling is compared, and what the frozen CLIP tower makes of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import repeated
from helpers.data.tables import Split
from helpers.engine import randomness, store
from helpers.errors import StudyError
from helpers.models import clip
from helpers.study import prompts, synthesis
from helpers.worlds import World

REAL = "no prompt"
EMBEDDED = 200  # images per embedding job


@dataclass(frozen=True)
class Arm:
    """One way to get training images: its name in the tables, and how its images are drawn."""

    name: str
    source: str
    prompt: str = REAL
    guidance: float = 0.0
    generator: str = ""


def scaled_task(w: World) -> str:
    """The task whose scaling is studied: the first of the world."""
    return w.tasks[0]


def arms(w: World) -> dict[str, Arm]:
    """All arms by name.

    ``train``, ``retrieved``, ``mixed`` and ``synthetic`` come from earlier notebooks. The others
    are drawn for this one; each differs from ``synthetic`` in one factor.
    """
    s = w.synthesis
    scaling = w.scaling
    base = Arm("synthetic", "synthetic", prompts.DEFAULT, s.guidance, s.generator)
    mixed = replace(base, name="mixed", source="mixed")
    listed = [Arm("train", "train"), Arm("retrieved", "retrieved"), mixed, base]
    guidances = [g for g in scaling.guidances if g != s.guidance]
    generators = [g for g in scaling.generators if g != s.generator]
    listed += [replace(base, name=f"guidance-{g:g}", guidance=g) for g in guidances]
    listed += [
        replace(base, name=f"prompt-{kind.replace(' ', '-')}", prompt=kind)
        for kind in scaling.prompts
    ]
    listed += [
        replace(base, name=f"generator-{g}", source=f"synthetic-{g}", generator=g)
        for g in generators
    ]
    return {arm.name: arm for arm in listed}


def drawn(w: World) -> dict[str, Arm]:
    """The arms that are drawn for notebook 06."""
    return {name: arm for name, arm in arms(w).items() if "-" in name}


def sets(w: World) -> list[str]:
    """Names of the sets of training images; ``mixed`` is made of two of them."""
    return [name for name in arms(w) if name != "mixed"]


def make(w: World) -> store.Artifact:
    """Draw the arms, ``drawn/{arm}-*.tar``, and embed every set, ``embedded/{set}-*.npy``."""
    return store.make("arms", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    worlds.backend(w).shifted(w, scaled_task(w))  # rendered before workers start
    shards = {}
    for arm in drawn(w).values():
        factors = {"guidance": arm.guidance, "generator": arm.generator}
        changed = worlds.replace(w, synthesis=factors)
        rows = captions_for(w, arm).to_dict("records")
        for start in range(0, len(rows), w.synthesis.shard):
            part = rows[start : start + w.synthesis.shard]
            shards[f"drawn/{arm.name}-{start:07d}.tar"] = (changed, part)
    store.check_disk(path, 4 * len(shards) * w.synthesis.shard * w.image_size**2 * 3)
    # Without guidance an image costs half the work, so these shards come last.
    costly_first = sorted(shards, key=lambda file: shards[file][0].synthesis.guidance <= 1)
    jobs = {file: shards[file] for file in costly_first}
    store.fill(path, jobs, synthesis.draw_shard, "shards of arms drawn")
    parts = {
        f"embedded/{name}-{start:07d}.npy": (w, path, name, start, start + EMBEDDED)
        for name in (*sets(w), *evaluation_sets(w))
        for start in range(0, len(images_of(w, path, name)), EMBEDDED)
    }
    store.fill(path, parts, embed_shard, "shards of images embedded")


@functools.lru_cache(maxsize=2)
def evaluation_sets(w: World) -> dict[str, Split]:
    """The held-out sets by name: ``test``, and those that are shifted away from the train split."""
    task = scaled_task(w)
    return {"test": tables.benchmark(w, task).test, **worlds.backend(w).shifted(w, task)}


def captions_for(w: World, arm: Arm) -> pd.DataFrame:
    """What to draw for an arm: ``caption, label, class, seed``, as many as the largest size.

    Classes come in turns. Arms that differ in guidance or generator take captions *and* seeds from
    notebook 02, so that images can be compared one by one. Raises ``StudyError`` on an unknown kind
    of prompt, or where there is nothing to draw from.
    """
    n = w.scaling.sizes[-1]
    task = scaled_task(w)
    rng = randomness.rng(w, "scaling", "wanted", arm.prompt)
    if arm.prompt != prompts.DEFAULT:
        rows = repeated(prompts.prompts(w, task, arm.prompt), n, rng)
        seeds = [str(randomness.entropy(w.seed, "scaling", arm.prompt, i)) for i in range(n)]
        return rows.assign(seed=seeds)
    table = prompts.unfiltered(w, task).facts[["caption", "label", "class", "seed"]]
    if n > len(table):
        raise StudyError(
            f"{n} images per arm were asked for, but notebook 02 drew only {len(table)} of {task}. "
            "Lower scaling sizes, or raise captions per_class."
        )
    return repeated(table, n, rng)


@functools.lru_cache(maxsize=32)
def images_of(w: World, path: Path, name: str) -> Split:
    """The images of a set by name, in the order in which they are embedded.

    ``path`` is the folder of the artifact. Drawn images are not filtered: neither are the paper's.
    """
    task = scaled_task(w)
    if name == "train":
        return tables.benchmark(w, task).train
    if name == "retrieved":
        return tables.source_set(w, task, "retrieved")
    if name == "synthetic":
        return prompts.unfiltered(w, task)
    if name in drawn(w):
        return tables.read_tars(sorted((path / "drawn").glob(f"{name}-???????.tar")))
    return evaluation_sets(w)[name]


def embed_shard(w: World, path: Path, name: str, start: int, stop: int) -> np.ndarray:
    """Unit CLIP embeddings of images of a set and of their mirror images: (2, n, d) float32."""
    images = np.array(images_of(w, path, name).images[start:stop])
    tower = clip.load(w)
    views = (images, images[:, :, ::-1])
    return np.stack([clip.embed_images(tower, view) for view in views])


@functools.lru_cache(maxsize=32)
def embedding(path: Path, name: str) -> np.ndarray:
    """The embeddings of a set and of its mirror images, (2, n, d) float32."""
    files = sorted((path / "embedded").glob(f"{name}-???????.npy"))
    return np.concatenate([np.load(file) for file in files], axis=1)
