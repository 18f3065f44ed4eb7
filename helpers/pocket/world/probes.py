"""Probe sets of the miniature: test images rendered again with one factor changed, exactly, from their recorded factors.

Nothing is pasted, so a swapped background leaves no seam; what a picture shows is known, not annotated.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.tables import Split
from helpers.engine import store
from helpers.engine.randomness import entropy
from helpers.errors import unknown
from helpers.measure.probes import DEPTH_AWARE, IMAGE_SPACE, SEVERITIES, ProbeSets
from helpers.pocket.render import scenes
from helpers.pocket.render.blueprints import AIRCRAFT, chimera
from helpers.pocket.render.pictures import TASKS, factors, render, subject
from helpers.pocket.render.scenes import STYLE_SHARES, STYLES, WEATHER_SHARES, WEATHERS
from helpers.pocket.world import wording
from helpers.pocket.world.benchmarks import scene_of
from helpers.pocket.world.corruptions import corrupt
from helpers.worlds import World

RENDERED = (
    "original",
    "mixed_same",
    "mixed_rand",
    "renditions",
    "context_0",
    "context_1",
    "context_2",
    "ood_near",
    "ood_far",
)
CORRUPTED = tuple(
    f"{name}-{severity}" for name in (*IMAGE_SPACE, *DEPTH_AWARE) for severity in SEVERITIES
)
PARTS = {  # what a thing of no class is put together from, each part from another class
    "flowers": (
        ("petals", "shape"),
        ("centre", "centre_colour"),
        ("hue", "saturation"),
        ("leaves",),
    ),
    "cars": (("body", "length", "height", "rear_windows"), ("doors",), ("arches",), ("lights",)),
}
PAINT = {
    "flowers": ("hue", "saturation", "centre_colour")
}  # of cars and aircraft the livery says nothing about the class


def probe_sets(w: World, task: str) -> ProbeSets:
    """Every probe set of a task, rendered on first use. Raises ``StudyError`` on a task that the world does not have."""
    if task not in w.tasks:
        raise unknown(f"task in world {w.name!r}", task, w.tasks)
    done = (store.folder("probes", w, task=task) / "manifest.json").exists()
    made = (
        store.load("probes", w, task=task)
        if done
        else store.make("probes", w, lambda p: _build(p, w, task), task=task)
    )
    sets = {}
    for file in made.files("*.npy"):
        if file.stem != "depth":
            facts = store.read_table(
                made.path / f"{file.stem if '-' not in file.stem else 'original'}.parquet"
            )
            sets[file.stem] = Split(made.array(file.name), facts["label"].to_numpy(np.int64), facts)
    return ProbeSets(sets, groups(task))


def _build(path: Path, w: World, task: str) -> None:
    n = min(w.robustness.probe_images, w.pool.benchmark_per_class * len(TASKS[task]))
    names = [*RENDERED, *(["cue_conflict"] if task in PAINT else [])]
    plans = {name: [changed(w, task, name, i) for i in range(n)] for name in names}
    jobs = {f"{name}.npy": (w, plan) for name, plan in plans.items()}
    store.fill(
        path,
        {**jobs, "depth.npy": (w, plans["original"], "depth")},
        pictures,
        "probe sets rendered",
    )
    for name, plan in plans.items():
        store.write(
            path / f"{name}.parquet",
            pd.DataFrame(
                [{**facts, "seed": str(s), **factors(scene)} for _, scene, s, facts in plan]
            ),
        )
    jobs = {
        f"{name}.npy": (path, name, entropy(w.pool.seed, "corruption", name)) for name in CORRUPTED
    }
    store.fill(path, jobs, corrupted_set, "probe sets corrupted")


def pictures(w: World, plan: list[tuple], layer: str = "pixels") -> np.ndarray:
    """Render a plan's things in their scenes; ``layer`` "pixels" (n, size, size, 3) or "depth" (n, size, size), uint8."""
    return np.stack(
        [getattr(render(thing, scene, seed, w.image_size), layer) for thing, scene, seed, _ in plan]
    )


def changed(w: World, task: str, name: str, i: int) -> tuple:
    """The i-th test image as the set ``name`` shows it: thing, scene, seed, and facts with its ``class`` and ``label``."""
    cls, scene, seed = scene_of(w, task, "test", i)
    classes, rng = (
        list(TASKS[task]),
        np.random.default_rng(entropy(w.pool.seed, "probe", task, name, i)),
    )
    thing, facts = subject(task, cls), {"class": cls, "label": classes.index(cls)}
    if name.startswith("mixed"):
        scene = dataclasses.replace(
            scene, background=_background(w, task, i, name == "mixed_same", rng)
        )
    elif name == "renditions":
        scene = dataclasses.replace(
            scene, style=("poster", "faded", "sketch")[i // len(classes) % 3]
        )
    elif name.startswith("context"):
        scene = _in_context(scene, int(name[-1]), i // len(classes) % 2, rng)
    elif name == "cue_conflict":
        thing, facts = _conflict(task, i, rng)
    elif name.startswith("ood"):
        plain = sorted(wording.PLAIN)
        thing = unseen(task, rng) if name == "ood_near" else plain[i % len(plain)]
        facts = {"class": thing if isinstance(thing, str) else thing.name, "label": -1}
    return thing, scene, seed, facts


def _background(w: World, task: str, i: int, same: bool, rng: np.random.Generator) -> str:
    """The background of another test image, of the same class or of another one (ImageNet-9's mixed-same, mixed-rand)."""
    classes, n = len(TASKS[task]), w.pool.benchmark_per_class * len(TASKS[task])
    others = [j for j in range(n) if j != i and (j % classes == i % classes) == same]
    return scene_of(w, task, "test", others[rng.integers(len(others))])[1].background


def uncommon(factor: str) -> tuple[str, ...]:
    """Values of "weather" or "style" that the pool shows less than two thirds as often as even shares would."""
    shares = {"weather": WEATHER_SHARES, "style": STYLE_SHARES["pool"]}[factor]
    return tuple(value for value, share in shares.items() if share < 2 / 3 / len(shares))


def _in_context(scene: scenes.Scene, k: int, turn: int, rng: np.random.Generator) -> scenes.Scene:
    """The scene with k uncommon attributes out of weather and style; with k = 1 the two take turns (FOCUS)."""
    wanted = {
        "weather": k == 2 or (k == 1 and turn == 0),
        "style": k == 2 or (k == 1 and turn == 1),
    }
    values = {"weather": WEATHERS, "style": STYLES}
    for factor, rare in wanted.items():
        if (getattr(scene, factor) in uncommon(factor)) != rare:
            choices = [v for v in values[factor] if (v in uncommon(factor)) == rare]
            scene = dataclasses.replace(scene, **{factor: choices[rng.integers(len(choices))]})
    return scene


def colour(flower) -> str:
    """The colour of a flower's petals in a word."""
    if flower.saturation < 0.1:
        return "white"
    hue = sum(flower.hue) / 2 % 1
    return next(
        name
        for name, top in (
            ("red", 0.05),
            ("yellow", 0.2),
            ("purple", 0.82),
            ("pink", 0.945),
            ("red", 1),
        )
        if hue <= top
    )


def groups(task: str) -> pd.DataFrame:
    """Class x {``shape``: number of petals, ``texture``: colour}; without columns where texture says nothing about the class."""
    if task not in PAINT:
        return pd.DataFrame(index=list(TASKS[task]))
    rows = {
        name: {"shape": str(f.petals) if f.petals < 10 else "many", "texture": colour(f)}
        for name, f in TASKS[task].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


@functools.cache
def _conflicts(task: str) -> list[tuple[str, str]]:
    table = groups(task)
    taken = set(zip(table["shape"], table["texture"], strict=True))
    return [
        (s, t)
        for s in sorted(set(table["shape"]))
        for t in sorted(set(table["texture"]))
        if (s, t) not in taken
    ]


def _conflict(task: str, i: int, rng: np.random.Generator) -> tuple:
    """A class's shape in another class's paint, such that no class has both; ``label`` is the shape's class."""
    table, (shape, texture) = groups(task), _conflicts(task)[i % len(_conflicts(task))]
    donors = [
        str(rng.choice(table.index[table[cue] == value]))
        for cue, value in (("shape", shape), ("texture", texture))
    ]
    form, paint = (subject(task, name) for name in donors)
    thing = dataclasses.replace(form, **{field: getattr(paint, field) for field in PAINT[task]})
    return thing, {
        "class": donors[0],
        "label": list(TASKS[task]).index(donors[0]),
        "painted": donors[1],
        "shape": shape,
        "texture": texture,
    }


def _looks(task: str, thing) -> tuple:
    if task == "flowers":
        return (thing.petals, thing.shape), thing.centre, colour(thing)
    return tuple(tuple(getattr(thing, field) for field in part) for part in PARTS[task])


def unseen(task: str, rng: np.random.Generator):
    """A thing of the task's kind that is of no class: parts of different classes, two of its looks unlike those of any class."""
    things = list(TASKS[task].values())
    while True:
        if task == "aircraft":
            made = chimera(things[rng.integers(len(things))], rng)
            if not any(made.attributes == plane.attributes for plane in AIRCRAFT.values()):
                return made
            continue
        donors = [things[j] for j in rng.permutation(len(things))[: len(PARTS[task])]]
        parts = {
            field: getattr(donor, field)
            for donor, part in zip(donors, PARTS[task], strict=True)
            for field in part
        }
        made = dataclasses.replace(donors[0], name="of no class", **parts)
        if all(
            sum(a != b for a, b in zip(_looks(task, made), _looks(task, t), strict=True)) >= 2
            for t in things
        ):
            return made


def corrupted_set(path: Path, name: str, seed: int) -> np.ndarray:
    """The original probe images of an artifact under "corruption-severity", uint8."""
    kind, severity = name.split("-")
    return corrupt(
        np.load(path / "original.npy"),
        np.load(path / "depth.npy"),
        kind,
        int(severity),
        np.random.default_rng(seed),
    )
