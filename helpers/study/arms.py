"""The training sets whose scaling is compared: real, drawn in many ways, and what the frozen CLIP tower makes of each of them."""

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
from helpers.errors import StudyError, unknown
from helpers.models import clip
from helpers.study import synthesis
from helpers.worlds import World

REAL = "no prompt"
DEFAULT = "language model"  # the captions of notebook 01
LEAKS = (
    "alt text",
    "training captions",
)  # written for real images, of the pool and of the train split: they tell what those show
EMBEDDED = 200  # images per embedding job


@dataclass(frozen=True)
class Arm:
    """One way to get training images: what the tables call it, and how its images are drawn where they are."""

    name: str
    source: str
    prompt: str = REAL
    guidance: float = 0.0
    generator: str = ""


def task(w: World) -> str:
    """The task whose scaling is studied: the first of the world."""
    return w.tasks[0]


def arms(w: World) -> dict[str, Arm]:
    """All arms by name: three sources of any size, then the drawn ones, which differ from ``synthetic`` in one factor each."""
    s = w.synthesis
    base = Arm("synthetic", "synthetic", DEFAULT, s.guidance, s.generator)
    made = [
        Arm("train", "train"),
        Arm("retrieved", "retrieved"),
        replace(base, name="mixed", source="mixed"),
        base,
    ]
    made += [
        replace(base, name=f"guidance-{g:g}", guidance=g)
        for g in w.scaling.guidances
        if g != s.guidance
    ]
    made += [
        replace(base, name=f"prompt-{p.replace(' ', '-')}", prompt=p) for p in w.scaling.prompts
    ]
    made += [
        replace(base, name=f"generator-{g}", source=f"synthetic-{g}", generator=g)
        for g in w.scaling.generators
        if g != s.generator
    ]
    return {arm.name: arm for arm in made}


def drawn(w: World) -> dict[str, Arm]:
    """The arms that are drawn here; the others are at hand from earlier notebooks."""
    return {name: arm for name, arm in arms(w).items() if "-" in name}


def make(w: World) -> store.Artifact:
    """Draw the arms and embed every image set: ``drawn/{arm}-*.tar``, and ``embedded/{set}-*.npy`` with each mirror image."""
    return store.make("arms", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    worlds.backend(w).shifted(w, task(w))  # rendered before workers start
    jobs = {}
    for arm in drawn(w).values():
        changed = worlds.replace(
            w, synthesis={"guidance": arm.guidance, "generator": arm.generator}
        )
        rows = wanted(w, arm).to_dict("records")
        jobs |= {
            f"drawn/{arm.name}-{s:07d}.tar": (changed, rows[s : s + w.synthesis.shard])
            for s in range(0, len(rows), w.synthesis.shard)
        }
    store.check_disk(path, 4 * len(jobs) * w.synthesis.shard * w.image_size**2 * 3)
    costly_first = dict(
        sorted(jobs.items(), key=lambda job: job[1][0].synthesis.guidance <= 1)
    )  # without guidance: half the work
    store.fill(path, costly_first, synthesis.draw_shard, "shards of arms drawn")
    jobs = {
        f"embedded/{name}-{i:07d}.npy": (w, path, name, i, i + EMBEDDED)
        for name in (*sets(w), *evaluation_sets(w))
        for i in range(0, len(images_of(w, path, name)), EMBEDDED)
    }
    store.fill(path, jobs, embed_shard, "shards of images embedded")


def sets(w: World) -> list[str]:
    """Names of the training image sets; ``mixed`` is no set, but made of two."""
    return [name for name in arms(w) if name != "mixed"]


@functools.lru_cache(maxsize=2)
def evaluation_sets(w: World) -> dict[str, Split]:
    """The held-out sets by name: ``test``, drawn like the benchmark's train split, and those shifted away from it."""
    return {"test": tables.benchmark(w, task(w)).test, **worlds.backend(w).shifted(w, task(w))}


def wanted(w: World, arm: Arm) -> pd.DataFrame:
    """What to draw for an arm: ``caption, label, class, seed``, classes in turns, as many as the largest size.

    Arms that differ in guidance or generator take captions *and* seeds from notebook 02, so that images can be compared one
    by one. Raises ``StudyError`` on an unknown kind of prompt, or where there is nothing to draw from.
    """
    n, rng = w.scaling.sizes[-1], randomness.rng(w, "scaling", "wanted", arm.prompt)
    if arm.prompt == DEFAULT:
        table = store.read_table(store.load("synthetic", w).path / f"{task(w)}.parquet")[
            ["caption", "label", "class", "seed"]
        ]
    else:
        table = prompts(w, task(w), arm.prompt)
    if n > len(table) and "seed" in table:
        raise StudyError(
            f"{n} images per arm were asked for, but notebook 02 drew only {len(table)} of {task(w)}. "
            "Lower scaling sizes, or raise captions per_class."
        )
    rows = repeated(table, n, rng)
    if "seed" not in rows:
        rows["seed"] = [str(randomness.entropy(w.seed, "scaling", arm.prompt, i)) for i in range(n)]
    return rows


def prompts(w: World, task: str, kind: str) -> pd.DataFrame:
    """The prompts of a kind for a task as ``caption, label, class``; ``alt text`` are the captions of retrieved real images.

    Raises ``StudyError`` on an unknown kind, or where the benchmark has no descriptions or captions.
    """
    b = tables.benchmark(w, task)
    names = pd.DataFrame({"class": b.classes, "label": range(len(b.classes))})
    ways = {
        "class names": ("{}",),
        "class and parent": (f"{{}} {b.noun}",),
        "templates": b.templates,
    }
    known = {
        "alt text": True,
        "training captions": "caption" in b.train.facts,
        "class and description": bool(b.descriptions),
    }
    if kind not in {**ways, **known}:
        raise unknown("kind of prompt", kind, [*ways, *known])
    if not known.get(kind, True):
        raise StudyError(
            f"{b.task} comes without what {kind!r} prompts are made of in world {w.name!r}; take it out of scaling prompts."
        )
    if kind in LEAKS:
        facts = (tables.source_set(w, task, "retrieved") if kind == "alt text" else b.train).facts
        return facts[["caption", "class"]].assign(label=facts["class"].map(b.classes.index))
    if kind == "class and description":
        return names.assign(
            caption=[f"{c}, {text}" for c, text in zip(b.classes, b.descriptions, strict=True)]
        )
    return pd.concat(
        [names.assign(caption=[way.format(c) for c in names["class"]]) for way in ways[kind]],
        ignore_index=True,
    )


@functools.lru_cache(maxsize=32)
def images_of(w: World, path: Path, name: str) -> Split:
    """The images of a set by name, in the order in which they are embedded. Drawn ones are not filtered: neither are the paper's."""
    if name in ("test", "train"):
        return getattr(tables.benchmark(w, task(w)), name)
    if name == "retrieved":
        return tables.source_set(w, task(w), "retrieved")
    if name == "synthetic":
        return unfiltered(w, task(w))
    if name not in drawn(w):
        return evaluation_sets(w)[name]
    return tables.read_tars(sorted((path / "drawn").glob(f"{name}-???????.tar")))


def unfiltered(w: World, task: str) -> Split:
    """All images that notebook 02 drew for a task, those that its filter drops included."""
    made = store.load("synthetic", w)
    table = store.read_table(made.path / f"{task}.parquet")
    return Split(made.array(f"{task}.npy"), table["label"].to_numpy(np.int64), table)


def draw_prompts(w: World) -> store.Artifact:
    """Draw the prompt ablation of notebook 07, the largest set of ``w.robustness.prompted`` per kind: ``{prompt}-*.tar``."""
    s = w.robustness

    def build(path: Path) -> None:
        for kind in s.prompts:
            rows = repeated(
                prompts(w, s.task, kind), max(s.prompted), randomness.rng(w, "prompted", kind)
            )
            synthesis.draw_table(path, w, rows, kind)

    return store.make("prompted", w, build)


@functools.lru_cache(maxsize=4)
def prompted(w: World, kind: str) -> Split:
    """The images of one kind of prompt of ``draw_prompts``, or of notebook 02's captions; unfiltered, all of them."""
    if kind == DEFAULT:
        return unfiltered(w, w.robustness.task)
    return tables.read_tars(store.load("prompted", w).files(f"{kind}-*.tar"))


def embed_shard(w: World, path: Path, name: str, start: int, stop: int) -> np.ndarray:
    """Unit CLIP embeddings of some images of a set and of their mirror images: (2, n, d) float32."""
    images, made = np.array(images_of(w, path, name).images[start:stop]), clip.load(w)
    return np.stack([clip.embed_images(made, images), clip.embed_images(made, images[:, :, ::-1])])


@functools.lru_cache(maxsize=32)
def embedding(path: Path, name: str) -> np.ndarray:
    """The embeddings of a set and of its mirror images, (2, n, d) float32."""
    return np.concatenate(
        [np.load(f) for f in sorted((path / "embedded").glob(f"{name}-???????.npy"))], axis=1
    )
