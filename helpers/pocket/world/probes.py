"""Probe sets of the miniature: test images rendered again with exactly one factor changed.

Nothing is pasted: a swapped background leaves no seam.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.data.tables import Split
from helpers.engine import store
from helpers.engine.randomness import entropy
from helpers.measure.metrics import DEPTH_AWARE, IMAGE_SPACE, SEVERITIES, ProbeSets
from helpers.pocket.chance import pick, stream
from helpers.pocket.render.blueprints import AIRCRAFT, chimera
from helpers.pocket.render.flowers import Flower
from helpers.pocket.render.pictures import TASKS, Subject, factors, render, subject
from helpers.pocket.render.scenes import STYLE_SHARES, WEATHER_SHARES, Scene
from helpers.pocket.world import wording
from helpers.pocket.world.benchmarks import check_task, scene_of
from helpers.pocket.world.corruptions import corrupt
from helpers.worlds import World

CORRUPTED = tuple(f"{kind}-{s}" for kind in (*IMAGE_SPACE, *DEPTH_AWARE) for s in SEVERITIES)
POOL_SHARES = {"weather": WEATHER_SHARES, "style": STYLE_SHARES["pool"]}
PARTS = {  # what a thing of no class is put together from, each part from another class
    "flowers": ("petals shape", "centre centre_colour", "hue saturation", "leaves"),
    "cars": ("body length height rear_windows", "doors", "arches", "lights"),
}
PAINT = {"flowers": ("hue", "saturation", "centre_colour")}  # where paint tells of the class
WHITE = 0.1  # saturation of petals below which they are called white
HUES = (("red", 0.05), ("yellow", 0.2), ("purple", 0.82), ("pink", 0.945), ("red", 1))  # up to
Generator = np.random.Generator


class Probe(NamedTuple):
    """What one image of a set shows, and its facts: ``class`` and ``label`` (-1: of no class)."""

    thing: Subject | str
    scene: Scene
    seed: int
    facts: dict


def probe_sets(w: World, task: str) -> ProbeSets:
    """Every probe set of a task, rendered on first use; ``StudyError`` if the world has no such."""
    check_task(w, task)
    artifact = store.get("probes", w, lambda path: _build(path, w, task), task=task)
    sets = {}
    for name in sorted((*rendered(task), *CORRUPTED)):
        table = "original" if name in CORRUPTED else name
        facts = store.read_table(artifact.path / f"{table}.parquet")
        images = artifact.array(f"{name}.npy")
        sets[name] = Split(images, facts["label"].to_numpy(np.int64), facts)
    return ProbeSets(sets, groups(task))


def rendered(task: str) -> tuple[str, ...]:
    """Names of the sets that are rendered; the others are corruptions of ``original``."""
    names = ("original", *SCENES, *THINGS)
    return tuple(name for name in names if name != "cue_conflict" or task in PAINT)


def _build(path: Path, w: World, task: str) -> None:
    n = min(w.robustness.probe_images, w.pool.benchmark_per_class * len(TASKS[task]))
    plans = {name: [probe(w, task, name, i) for i in range(n)] for name in rendered(task)}
    jobs = {f"{name}.npy": (w, plan) for name, plan in plans.items()}
    jobs["depth.npy"] = (w, plans["original"], "depth")
    store.fill(path, jobs, pictures, "probe sets rendered")
    for name, plan in plans.items():
        rows = [{**p.facts, "seed": str(p.seed), **factors(p.scene)} for p in plan]
        store.write(path / f"{name}.parquet", pd.DataFrame(rows))
    seeds = {name: entropy(w.pool.seed, "corruption", name) for name in CORRUPTED}
    jobs = {f"{name}.npy": (path, name, seed) for name, seed in seeds.items()}
    store.fill(path, jobs, corrupted_set, "probe sets corrupted")


def pictures(w: World, plan: list[Probe], layer: str = "pixels") -> np.ndarray:
    """Render a plan, uint8; ``layer`` "pixels" (n, size, size, 3) or "depth" (n, size, size)."""
    shown = (render(p.thing, p.scene, p.seed, w.image_size) for p in plan)
    return np.stack([getattr(picture, layer) for picture in shown])


def corrupted_set(path: Path, name: str, seed: int) -> np.ndarray:
    """The images of ``original`` under the corruption ``name``, "kind-severity", uint8."""
    kind, severity = name.split("-")
    images = np.load(path / "original.npy")
    depth = np.load(path / "depth.npy")
    return corrupt(images, depth, kind, int(severity), np.random.default_rng(seed))


def probe(w: World, task: str, name: str, i: int) -> Probe:
    """The i-th test image as the rendered set ``name`` shows it."""
    cls, scene, seed = scene_of(w, task, "test", i)
    rng = stream(w.pool.seed, "probe", task, name, i)
    if name in THINGS:
        thing, facts = THINGS[name](task, i, rng)
        return Probe(thing, scene, seed, facts)
    if name in SCENES:
        scene = SCENES[name](w, task, i, scene, rng)
    facts = {"class": cls, "label": list(TASKS[task]).index(cls)}
    return Probe(subject(task, cls), scene, seed, facts)


def _mixed(w: World, task: str, i: int, scene: Scene, rng: Generator, same: bool) -> Scene:
    """With the background of another test image, of the same class or not (ImageNet-9)."""
    classes = len(TASKS[task])
    n = w.pool.benchmark_per_class * classes
    others = [j for j in range(n) if j != i and (j % classes == i % classes) == same]
    _, other, _ = scene_of(w, task, "test", pick(others, rng))
    return dataclasses.replace(scene, background=other.background)


def _rendition(w: World, task: str, i: int, scene: Scene, rng: Generator) -> Scene:
    """In each of the styles in turn that are not photographs."""
    styles = ("poster", "faded", "sketch")
    return dataclasses.replace(scene, style=styles[i // len(TASKS[task]) % 3])


def _in_context(w: World, task: str, i: int, scene: Scene, rng: Generator, k: int) -> Scene:
    """With k uncommon attributes out of weather and style; with k = 1 they take turns (FOCUS)."""
    turn = ("weather", "style")[i // len(TASKS[task]) % 2]
    for factor, shares in POOL_SHARES.items():
        rare = k == 2 or (k == 1 and turn == factor)
        values = [value for value in shares if (value in uncommon(factor)) == rare]
        if getattr(scene, factor) not in values:
            scene = dataclasses.replace(scene, **{factor: pick(values, rng)})
    return scene


def uncommon(factor: str) -> tuple[str, ...]:
    """Values of "weather" or "style" that the pool shows less than 2/3 as often as even shares."""
    shares = POOL_SHARES[factor]
    return tuple(value for value, share in shares.items() if share < 2 / 3 / len(shares))


def colour(flower: Flower) -> str:
    """The colour of a flower's petals in a word."""
    if flower.saturation < WHITE:
        return "white"
    hue = sum(flower.hue) / 2 % 1
    return next(name for name, top in HUES if hue <= top)


def groups(task: str) -> pd.DataFrame:
    """Class x {``shape``: number of petals, ``texture``: colour}.

    No columns where texture says nothing about the class: cars and aircraft come in all liveries.
    """
    if task not in PAINT:
        return pd.DataFrame(index=list(TASKS[task]))
    rows = {}
    for name, flower in TASKS[task].items():
        count = str(flower.petals) if flower.petals < 10 else "many"
        rows[name] = {"shape": count, "texture": colour(flower)}
    return pd.DataFrame.from_dict(rows, orient="index")


@functools.cache
def _conflicts(task: str) -> list[tuple[str, str]]:
    """Shape and texture that classes have, but no class both."""
    table = groups(task)
    taken = set(zip(table["shape"], table["texture"], strict=True))
    pairs = itertools.product(sorted(set(table["shape"])), sorted(set(table["texture"])))
    return [pair for pair in pairs if pair not in taken]


def _conflict(task: str, i: int, rng: Generator) -> tuple[Subject, dict]:
    """A class's shape in another class's paint; ``label`` is the shape's class."""
    table = groups(task)
    shape, texture = _conflicts(task)[i % len(_conflicts(task))]
    form = str(rng.choice(table.index[table["shape"] == shape]))
    paint = str(rng.choice(table.index[table["texture"] == texture]))
    coat = {field: getattr(subject(task, paint), field) for field in PAINT[task]}
    facts = {"class": form, "label": list(TASKS[task]).index(form)}
    facts |= {"painted": paint, "shape": shape, "texture": texture}
    return dataclasses.replace(subject(task, form), **coat), facts


def unseen(task: str, rng: Generator) -> Subject:
    """A thing of the task's kind that is of no class.

    It differs from every class: an aircraft in a detail, a flower or car in two looks.
    """
    while True:
        if task == "aircraft":
            thing = chimera(pick(list(AIRCRAFT.values()), rng), rng)
        else:
            thing = _mixture(task, rng)
        if all(_differ(task, thing, known) for known in TASKS[task].values()):
            return thing


def _mixture(task: str, rng: Generator) -> Subject:
    things = list(TASKS[task].values())
    donors = [things[j] for j in rng.permutation(len(things))[: len(PARTS[task])]]
    fields = {}
    for donor, part in zip(donors, PARTS[task], strict=True):
        fields |= {field: getattr(donor, field) for field in part.split()}
    return dataclasses.replace(donors[0], name="of no class", **fields)


def _differ(task: str, a: Subject, b: Subject) -> bool:
    if task == "aircraft":
        return a.attributes != b.attributes
    return sum(x != y for x, y in zip(_looks(task, a), _looks(task, b), strict=True)) >= 2


def _looks(task: str, thing: Subject) -> tuple:
    if task == "flowers":
        return (thing.petals, thing.shape), thing.centre, colour(thing)
    return tuple([getattr(thing, field) for field in part.split()] for part in PARTS[task])


def _near(task: str, i: int, rng: Generator) -> tuple[Subject, dict]:
    thing = unseen(task, rng)
    return thing, {"class": thing.name, "label": -1}


def _far(task: str, i: int, rng: Generator) -> tuple[str, dict]:
    plain = sorted(wording.PLAIN)
    thing = plain[i % len(plain)]
    return thing, {"class": thing, "label": -1}


SCENES: dict[str, Callable[..., Scene]] = {  # set -> the scene in which it shows a test image
    "mixed_same": functools.partial(_mixed, same=True),
    "mixed_rand": functools.partial(_mixed, same=False),
    "renditions": _rendition,
    "context_0": functools.partial(_in_context, k=0),
    "context_1": functools.partial(_in_context, k=1),
    "context_2": functools.partial(_in_context, k=2),
}
# set -> what it shows in the scene of a test image
THINGS = {"ood_near": _near, "ood_far": _far, "cue_conflict": _conflict}
