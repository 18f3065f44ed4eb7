"""The training sets whose scaling is compared: real, drawn in many ways, and what the frozen CLIP tower makes of each of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import clip, drawing, pools, store, worlds
from helpers.pools import Benchmark, Split
from helpers.worlds import StudyError, World, unknown

REAL = "no prompt"
DEFAULT = "language model"  # the captions of notebook 01
LEAKS = ("alt text",)  # prompts that were written for real images of the pool: they tell the generator what those show
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
    made = [Arm("train", "train"), Arm("retrieved", "retrieved"), replace(base, name="mixed", source="mixed"), base]
    made += [replace(base, name=f"guidance-{g:g}", guidance=g) for g in w.scaling.guidances if g != s.guidance]
    made += [replace(base, name=f"prompt-{p.replace(' ', '-')}", prompt=p) for p in w.scaling.prompts]
    made += [replace(base, name=f"generator-{g}", source=f"synthetic-{g}", generator=g) for g in w.scaling.generators
             if g != s.generator]
    return {arm.name: arm for arm in made}


def drawn(w: World) -> dict[str, Arm]:
    """The arms that are drawn here; the others are at hand from earlier notebooks."""
    return {name: arm for name, arm in arms(w).items() if "-" in name}


@functools.lru_cache(maxsize=2)
def bench(w: World) -> Benchmark:
    """The benchmark of the task, kept in memory by every worker."""
    return worlds.backend(w).benchmark(w, task(w))


def make(w: World) -> store.Artifact:
    """Draw the arms and embed every image set: ``drawn/{arm}-*.tar``, and ``embedded/{set}-*.npy`` with each mirror image."""
    return store.make("arms", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    worlds.backend(w).shifted(w, task(w))  # rendered before workers start
    jobs = {}
    for arm in drawn(w).values():
        changed = worlds.adapt(w, synthesis={"guidance": arm.guidance, "generator": arm.generator})
        rows = wanted(w, arm).to_dict("records")
        jobs |= {f"drawn/{arm.name}-{s:07d}.tar": (changed, rows[s : s + w.synthesis.shard])
                 for s in range(0, len(rows), w.synthesis.shard)}
    store.check_disk(path, 4 * len(jobs) * w.synthesis.shard * w.image_size**2 * 3)
    costly_first = dict(sorted(jobs.items(), key=lambda job: job[1][0].synthesis.guidance <= 1))  # without guidance: half the work
    store.fill(path, costly_first, drawing.draw_shard, "shards of arms drawn")
    jobs = {f"embedded/{name}-{i:07d}.npy": (w, path, name, i, i + EMBEDDED)
            for name in (*sets(w), *evaluation_sets(w)) for i in range(0, len(images_of(w, path, name)), EMBEDDED)}
    store.fill(path, jobs, embed_shard, "shards of images embedded")


def sets(w: World) -> list[str]:
    """Names of the training image sets; ``mixed`` is no set, but made of two."""
    return [name for name in arms(w) if name != "mixed"]


@functools.lru_cache(maxsize=2)
def evaluation_sets(w: World) -> dict[str, Split]:
    """The held-out sets by name: ``test``, drawn like the benchmark's train split, and those shifted away from it."""
    return {"test": bench(w).test, **worlds.backend(w).shifted(w, task(w))}


def wanted(w: World, arm: Arm) -> pd.DataFrame:
    """What to draw for an arm: ``caption, label, class, seed``, classes in turns, as many as the largest size.

    Arms that differ in guidance or generator take captions *and* seeds from notebook 02, so that images can be compared one
    by one. Raises ``StudyError`` on an unknown kind of prompt, or where there is nothing to draw from.
    """
    n, rng = w.scaling.sizes[-1], worlds.rng(w, "scaling", "wanted", arm.prompt)
    if arm.prompt == DEFAULT:
        table = store.read_table(store.load("synthetic", w).path / f"{task(w)}.parquet")[["caption", "label", "class", "seed"]]
    else:
        table = prompts(w, arm.prompt)
    if not len(table):
        raise StudyError(f"there is nothing to draw {arm.prompt!r} images from; run notebooks 01 to 03 again.")
    repeats = int(np.ceil(n / len(table)))
    if repeats > 1 and "seed" in table:
        raise StudyError(f"{n} images per arm were asked for, but notebook 02 drew only {len(table)} of {task(w)}. "
                         "Lower scaling sizes, or raise captions per_class.")
    many = pd.concat([table] * repeats, ignore_index=True)
    rows = many.iloc[pools.nested_subset(many["label"].to_numpy(), n, rng)].reset_index(drop=True)
    if "seed" not in rows:
        rows["seed"] = [str(worlds.entropy(w.seed, "scaling", arm.prompt, i)) for i in range(n)]
    return rows


def prompts(w: World, kind: str) -> pd.DataFrame:
    """The prompts of a kind as ``caption, label, class``; ``alt text`` are the captions of retrieved real images."""
    b = bench(w)
    names = pd.DataFrame({"class": b.classes, "label": range(len(b.classes))})
    ways = {"class names": ("{}",), "class and parent": (f"{{}} {b.noun}",), "templates": b.templates}
    if kind == "alt text":
        return retrieved(w).facts[["caption", "label", "class"]]
    if kind not in ways:
        raise unknown("kind of prompt", kind, [*ways, *LEAKS])
    return pd.concat([names.assign(caption=[way.format(c) for c in names["class"]]) for way in ways[kind]], ignore_index=True)


def retrieved(w: World) -> Split:
    """The retrieved images by the rule and filter that notebook 04 chose on validation."""
    chosen = store.read_table(store.load("finetuned", w).path / "variants.parquet").query("chosen")
    return pools.training_set(store.load("retrieved", w), task(w), chosen.loc[chosen["task"] == task(w), "keep"].iloc[0])


@functools.lru_cache(maxsize=32)
def images_of(w: World, path: Path, name: str) -> Split:
    """The images of a set by name, in the order in which they are embedded. Drawn ones are not filtered: neither are the paper's."""
    if name in ("test", "train"):
        return getattr(bench(w), name)
    if name == "retrieved":
        return retrieved(w)
    if name == "synthetic":
        made = store.load("synthetic", w)
        table = store.read_table(made.path / f"{task(w)}.parquet")
        return Split(made.array(f"{task(w)}.npy"), table["label"].to_numpy(np.int64), table)
    if name not in drawn(w):
        return evaluation_sets(w)[name]
    parts = [pools.read_tar(tar) for tar in sorted((path / "drawn").glob(f"{name}-???????.tar"))]
    table = pd.DataFrame([row for part in parts for row in part[1]])
    return Split(np.concatenate([images for images, _ in parts]), table["label"].to_numpy(np.int64), table)


def embed_shard(w: World, path: Path, name: str, start: int, stop: int) -> np.ndarray:
    """Unit CLIP embeddings of some images of a set and of their mirror images: (2, n, d) float32."""
    images, made = np.array(images_of(w, path, name).images[start:stop]), clip.load(w)
    return np.stack([clip.embed_images(made, images), clip.embed_images(made, images[:, :, ::-1])])


@functools.lru_cache(maxsize=32)
def embedding(path: Path, name: str) -> np.ndarray:
    """The embeddings of a set and of its mirror images, (2, n, d) float32."""
    return np.concatenate([np.load(f) for f in sorted((path / "embedded").glob(f"{name}-???????.npy"))], axis=1)
