"""Training sets of the world's first task that are compared: how they are drawn and embedded."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import balanced, nested_subset, repeated
from helpers.data.tables import Split
from helpers.engine import artifacts, randomness, store
from helpers.errors import StudyError, unknown
from helpers.measure.folds import LOOKED_AT, VALIDATION
from helpers.models import clip
from helpers.study import synthesis
from helpers.worlds import World

DEFAULT = "language model"  # the captions of notebook 01
LEAKS = ("alt text", "training captions")  # written for real images, so they tell what those show
KINDS = ("class names", "class and parent", "templates", *LEAKS, "class and description")
EMBEDDED = 200  # images per embedding job
SPARE = 2  # times the largest size are drawn, so that two seeds share half of it, not all
FEW_REAL = "few real"  # real images with a fixed number of drawn ones
COMPOSED = ("mixed", FEW_REAL)  # arms that are made of two sets


def prompts(w: World, task: str, kind: str) -> pd.DataFrame:
    """Prompts of one of ``KINDS``: ``caption, class, label``; ``StudyError`` where none exist."""
    if kind not in KINDS:
        raise unknown("kind of prompt", kind, KINDS)
    bench = tables.benchmark(w, task)
    missing = {"class and description": not bench.descriptions}
    missing["training captions"] = "caption" not in bench.train.facts
    if missing.get(kind):
        raise StudyError(f"{bench.task} lacks what {kind!r} needs; take it out of scaling prompts.")
    if kind in LEAKS:
        real = tables.source_set(w, task, "retrieved") if kind == "alt text" else bench.train
        return real.facts[["caption", "class"]].assign(label=real.labels)
    if kind == "class and description":
        names = bench.filled(["{}"])
        return names.assign(caption=names["class"] + ", " + list(bench.descriptions))
    patterns = {"class names": ["{}"], "class and parent": [f"{{}} {bench.noun}"]}
    return bench.filled(patterns.get(kind, bench.templates))


def unfiltered(w: World, task: str) -> Split:
    """All images that notebook 02 drew for a task, with those that its filter drops."""
    synthetic = store.load("synthetic", w)
    table = synthetic.table(f"{task}.parquet")
    return Split(synthetic.array(f"{task}.npy"), table["label"].to_numpy(np.int64), table)


@store.builds("prompted")
def prompted(path: Path, w: World) -> None:
    """Draw the prompt ablation of notebook 07, ``{kind}-*.tar``: each seed takes half of it."""
    for kind in w.robustness.prompts:
        rng = randomness.rng(w, "prompted", kind)
        table = prompts(w, w.robustness.task, kind)
        table = repeated(table, 2 * max(w.robustness.prompted), rng)
        synthesis.draw_table(path, w, table, kind)


@functools.lru_cache(maxsize=4)
def drawn_from(w: World, kind: str) -> Split:
    """The ablation's images of one kind of prompt, or of notebook 01's captions; unfiltered."""
    if kind == DEFAULT:
        return unfiltered(w, w.robustness.task)
    return tables.read_tars(store.load("prompted", w).files(f"{kind}-*.tar"))


@dataclass(frozen=True)
class Arm:
    """One way to get training images: its name in the tables, and how its images are drawn."""

    name: str
    source: str
    prompt: str = "no prompt"
    guidance: float = 0.0
    generator: str = ""


def arms(w: World) -> dict[str, Arm]:
    """Arms by name; those that are drawn here differ from ``synthetic`` in one factor each."""
    s = w.synthesis
    base = Arm("synthetic", "synthetic", DEFAULT, s.guidance, s.generator)
    varied = functools.partial(replace, base)
    every = [Arm("train", "train"), Arm("retrieved", "retrieved")]
    every += [varied(name=name, source=name) for name in (*COMPOSED, base.name)]
    guidances = [g for g in w.scaling.guidances if g != s.guidance]
    every += [varied(name=f"guidance-{g:g}", guidance=g) for g in guidances]
    every += [varied(name=f"prompt-{k.replace(' ', '-')}", prompt=k) for k in w.scaling.prompts]
    others = [g for g in w.scaling.generators if g != s.generator]
    every += [varied(name=f"generator-{g}", source=f"synthetic-{g}", generator=g) for g in others]
    return {arm.name: arm for arm in every}


def drawn(w: World) -> dict[str, Arm]:
    """The arms that are drawn for notebook 06."""
    return {name: arm for name, arm in arms(w).items() if "-" in name}


def sets(w: World) -> list[str]:
    """Names of the sets of training images, which the arms in ``COMPOSED`` are made of."""
    return [name for name in arms(w) if name not in COMPOSED]


def recipe(w: World, name: str, largest: int) -> str:
    """The hash of all settings that say how runs of notebook 06 are made, whichever there are.

    ``name`` is their artifact. The ``largest`` size stays in: it says what a run's images are of.
    """
    which = {"sizes": (largest,), "pairs": (largest,), "guidances": (), "prompts": (), "lots": 1}
    which |= {"generators": (w.synthesis.generator,), "seeds": 1, "pair_seeds": 1}
    settled = worlds.replace(w, scaling=which, finetune={"seeds": 1}, robustness={"seeds": 1})
    return artifacts.recipe(name, settled)


@store.builds("arms")
def make(path: Path, w: World) -> None:
    """Draw the arms, ``drawn/{arm}-*.tar``, and embed every set, ``embedded/{set}-*.npy``."""
    worlds.backend(w).shifted(w, w.tasks[0])  # rendered before workers start
    shard = w.synthesis.shard
    jobs = {}
    # Without guidance an image costs half the work, so these shards come last.
    for arm in sorted(drawn(w).values(), key=lambda arm: arm.guidance <= 1):
        world = worlds.replace(w, synthesis={"guidance": arm.guidance, "generator": arm.generator})
        rows = captions_for(w, arm).to_dict("records")
        for start in range(0, len(rows), shard):
            jobs[f"drawn/{arm.name}-{start:07d}.tar"] = (world, rows[start : start + shard])
    store.check_disk(path, 4 * len(jobs) * shard * w.image_size**2 * 3)
    store.fill(path, jobs, synthesis.draw_shard, "shards of arms drawn")
    parts = {
        f"embedded/{name}-{start:07d}.npy": (w, path, name, start, start + EMBEDDED)
        for name in (*sets(w), *evaluation_sets(w))
        for start in range(0, len(images_of(w, path, name)), EMBEDDED)
    }
    store.fill(path, parts, embed_shard, "shards of images embedded")


@functools.lru_cache(maxsize=2)
def evaluation_sets(w: World, task: str = "") -> dict[str, Split]:
    """A task's held-out sets by name: validation, ``test``, and those far from the train split."""
    task = task or w.tasks[0]
    bench = tables.benchmark(w, task)
    val = balanced(bench.val, LOOKED_AT)
    return {VALIDATION: val, "test": bench.test, **worlds.backend(w).shifted(w, task)}


def captions_for(w: World, arm: Arm) -> pd.DataFrame:
    """What to draw for an arm: ``caption, label, class, seed``, ``SPARE`` times the largest size.

    Arms that differ in guidance or generator take captions *and* seeds from notebook 02, so that
    images can be compared one by one. Raises ``StudyError`` where that drew fewer.
    """
    if arm.prompt == DEFAULT:
        shared = unfiltered(w, w.tasks[0]).take(shared_rows(w))
        return shared.facts[["caption", "label", "class", "seed"]]
    n = SPARE * w.scaling.sizes[-1]
    rng = randomness.rng(w, "scaling", "wanted", arm.prompt)
    seeds = [str(randomness.entropy(w.seed, "scaling", arm.prompt, i)) for i in range(n)]
    return repeated(prompts(w, w.tasks[0], arm.prompt), n, rng).assign(seed=seeds)


def shared_rows(w: World) -> np.ndarray:
    """Rows of notebook 02's images whose captions and seeds the arms of other guidance share."""
    n = SPARE * w.scaling.sizes[-1]
    labels = unfiltered(w, w.tasks[0]).labels
    if n > len(labels):
        drew = f"{n} images an arm are wanted, notebook 02 drew only {len(labels)} of {w.tasks[0]}"
        raise StudyError(f"{drew}. Lower scaling sizes, or raise captions per_class.")
    return nested_subset(labels, n, randomness.rng(w, "scaling", "wanted", DEFAULT))


@functools.lru_cache(maxsize=32)
def images_of(w: World, path: Path, name: str) -> Split:
    """The images of a set, those of ``drawn`` from the artifact's folder ``path``; unfiltered.

    Sources that offer more than ``SPARE`` times the largest size give so many.
    """
    task = w.tasks[0]
    if name in ("train", "retrieved"):
        train = tables.benchmark(w, task).train
        every = train if name == "train" else tables.source_set(w, task, "retrieved")
        most = min(len(every), SPARE * w.scaling.sizes[-1] * 2**w.scaling.beyond)
        return every.take(nested_subset(every.labels, most, randomness.rng(w, "offered", name)))
    if name == "synthetic":
        return unfiltered(w, task)
    if name in drawn(w):
        return tables.read_tars(sorted((path / "drawn").glob(f"{name}-???????.tar")))
    return evaluation_sets(w)[name]


def embed_shard(w: World, path: Path, name: str, start: int, stop: int) -> np.ndarray:
    """Unit embeddings of images, (1, n, d) float32; of training sets mirrored, too, (2, n, d)."""
    images = np.array(images_of(w, path, name).images[start:stop])
    views = (images, images[:, :, ::-1]) if name in sets(w) else (images,)
    return np.stack([clip.embed_images(clip.load(w), view) for view in views])


@functools.lru_cache(maxsize=32)
def embedding(path: Path, name: str) -> np.ndarray:
    """All embeddings of a set, as ``embed_shard`` makes them."""
    files = sorted((path / "embedded").glob(f"{name}-???????.npy"))
    return np.concatenate([np.load(file) for file in files], axis=1)
