"""Notebook 07: three families of models, each trained on real, synthetic and mixed images.

[R] is *Is Synthetic Data all We Need?* (arXiv 2405.20469), whose models differ in size, recipe,
amount of data and seeds. Here these are equal. What results say is in ``study/summaries.py``.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import evenly_spread, nested_subset, thinned
from helpers.data.tables import Split
from helpers.engine import gpu, randomness, store
from helpers.engine.late import torch
from helpers.errors import unknown
from helpers.measure import attacks, metrics
from helpers.measure.folds import FOLDS, fold_of, unpacked
from helpers.measure.metrics import DEPTH_AWARE, IMAGE_SPACE, SEVERITIES, ProbeSets
from helpers.models import clip, families
from helpers.models.classifier import Classifier
from helpers.models.families import FAMILIES, SOURCES
from helpers.study import arms, finetune
from helpers.study.runs import collect
from helpers.worlds import World

MODEL = ["family", "source", "n", "seed"]
AT_ONCE = 4  # seeds after which the rows of finished models are kept
ATTACKED_AT_ONCE = 128
HARD = ("renditions", "natural_adversarial")  # sets of other, harder images of the classes
ACCURACIES = {  # (probe, setting) of an accuracy -> the set of images that it is taken on
    ("accuracy", "test"): "test",
    ("accuracy", "clean"): "original",  # the test images that most other sets are changes of
    **{(name, "accuracy"): name for name in HARD},
    **{("corruption", f"{c}-{s}"): f"{c}-{s}" for c in IMAGE_SPACE for s in SEVERITIES},
    **{("corruption_3d", f"{c}-{s}"): f"{c}-{s}" for c in DEPTH_AWARE for s in SEVERITIES},
    **{("context", f"P{k}"): f"context_{k}" for k in range(3)},
    **{("background", name): name for name in ("mixed_same", "mixed_rand")},
}
WITHOUT = [f"without_{fold}" for fold in range(FOLDS)]  # values without a fold of the images


def probed_task(w: World) -> str:
    """The task that is probed; ``StudyError`` when it must be trained on and is not there."""
    if w.robustness.task not in w.tasks and not w.robustness.checkpoints:
        raise unknown(f"task in world {w.name!r}", w.robustness.task, w.tasks)
    return w.robustness.task


@functools.lru_cache(maxsize=2)
def probe_sets(w: World) -> ProbeSets:
    """The probed task's probe sets, on disk and mapped into memory."""
    return worlds.backend(w).probe_sets(w, probed_task(w))


@functools.lru_cache(maxsize=2)
def small_sets(w: World) -> ProbeSets:
    """The probe sets, ``test`` and ``val``, in memory at the size that the towers see."""
    probed = probe_sets(w)
    bench = tables.benchmark(w, probed_task(w))
    own = {"test": bench.test, "val": thinned(bench.val, w.robustness.validation)}
    small = {}
    for name, split in {**probed.sets, **own}.items():
        images = clip.shrunk(np.array(split.images), w.robustness.image_size)
        small[name] = dataclasses.replace(split, images=images)
    return dataclasses.replace(probed, sets=small)


def kinds(w: World) -> tuple[str, ...]:
    """The compared kinds of prompts: the ablated ones and the language model's captions."""
    return (*w.robustness.prompts, arms.DEFAULT)


def training_images(w: World, source: str, n: int, seed: int) -> Split:
    """``n`` images of a source or kind of prompt, classes balanced; ``mixed`` has half of each."""
    if source not in (*SOURCES, *kinds(w)):
        raise unknown("source", source, (*SOURCES, *kinds(w)))
    if source == "mixed":
        real = training_images(w, "retrieved", n - n // 2, seed)
        return real.plus(training_images(w, "synthetic", n // 2, seed))
    drawn = source in kinds(w)
    split = arms.drawn_from(w, source) if drawn else tables.source_set(w, probed_task(w), source)
    return split.take(nested_subset(split.labels, n, randomness.rng(w, "robust", source, seed)))


@store.builds("robust")
def make(path: Path, w: World) -> None:
    """Train and measure all models: ``results.parquet``, with the columns of ``measured``."""
    probe_sets(w)  # made before workers start, as are the tower and the drawings
    if not w.robustness.checkpoints:
        worlds.backend(w).clip_folder(w)
        if w.robustness.prompts:
            arms.prompted(w)
    models = plan(w)
    recipe = finetune.recipe(w, "robust")
    results = []
    for first in range(0, 1 + max(seed for *_, seed in models), AT_ONCE):
        lot = [model for model in models if first <= model[-1] < first + AT_ONCE]
        jobs = {file_of(w, *model): (w, *model) for model in lot}
        rows = collect(path, w, "07", recipe, jobs, kept_run, f"models from seed {first} on")
        results.append(unpacked(rows["numbers"]))
    store.write(path / "results.parquet", pd.concat(results, ignore_index=True))


def plan(w: World) -> list[tuple[str, str, int | str, int]]:
    """Family, source, number of images (at most what both sources offer) and seed of all models.

    Finished checkpoints have their name in place of a number of images, and are numbered in place
    of seeds: the first clone of a family is compared with its first real model.
    """
    s = w.robustness
    if s.checkpoints:
        compared = [model[:2] for model in s.checkpoints]
        return [(*model, compared[:i].count(model[:2])) for i, model in enumerate(s.checkpoints)]
    n = min(s.images, *(len(tables.source_set(w, probed_task(w), name)) for name in SOURCES[:2]))
    models = [(family, "mixed", n) for family in s.mixed]
    # The shortest trainings come last, so that no core waits long; then [R]'s ablation of prompts.
    models += [(family, source, n) for family in FAMILIES[::-1] for source in SOURCES[:2]]
    models += [("supervised", kind, size) for size in s.prompted for kind in kinds(w)]
    return [(*model, seed) for model in models for seed in range(s.seeds)]


def file_of(w: World, family: str, source: str, n: int | str, seed: int) -> str:
    """The file of a run. One on drawings for this notebook says of how many its images are."""
    of = f"-of-{2 * max(w.robustness.prompted)}" if source in w.robustness.prompts else ""
    name = f"{family}-{source}-{n}{of}-{seed}".replace("/", "_").replace(" ", "_")
    return f"runs/{name}.parquet"


def kept_run(w: World, *model: Any) -> pd.DataFrame:
    """``run`` as one row: ``MODEL``, ``accuracy`` on test images, and all ``numbers``, packed."""
    table = run(w, *model)
    accuracy = table.query("probe == 'accuracy' and setting == 'test'")["value"].to_list()
    numbers = zlib.compress(table.to_csv(index=False).encode(), 9)
    return table.loc[:0, MODEL].assign(accuracy=accuracy, numbers=numbers)


def run(w: World, family: str, source: str, n: int | str, seed: int) -> pd.DataFrame:
    """Measure everything on a model that is trained on ``n`` images: a row per number.

    A name in place of ``n`` is that of a finished model (``families.finished``), with n = 0.
    """
    bench = tables.benchmark(w, probed_task(w))
    if isinstance(n, str):
        model = families.finished(worlds.backend(w).checkpoint(w, n), bench)
        return measured(w, model, (family, source, 0, seed))
    images, real = (training_images(w, name, n, seed) for name in (source, "retrieved"))
    model = families.train(w, family, images, real, bench, seed)
    return measured(w, model, (family, source, n, seed))


def measured(w: World, model: Classifier, about: tuple[str, str, int, int]) -> pd.DataFrame:
    """Every probe on one model: ``MODEL`` (``about``), probe, setting, value, and ``WITHOUT``.

    Sets of the same test images, changed, have the same labels, and so the same folds.
    """
    sets = small_sets(w)
    answers = {}  # logits in place of images
    for name, split in sets.sets.items():
        logits = sets.chosen(name, model.image_logits(split.images))
        answers[name] = dataclasses.replace(split, images=logits)
    folds = {name: fold_of(split.labels) for name, split in answers.items()}
    folds["val"][:] = FOLDS  # in none, so it stays whole: the temperature is fitted on it
    full = probe_sets(w).sets["original"]
    attacked = evenly_spread(len(full), w.robustness.attacked)
    hits = attack(w, model, full.take(attacked), about[-1])
    columns = {}
    for fold, column in enumerate(["value", *WITHOUT], start=-1):
        kept = {name: s.take(np.flatnonzero(folds[name] != fold)) for name, s in answers.items()}
        kept = {name: split for name, split in kept.items() if len(split)}
        still = folds["original"][attacked] != fold
        columns[column] = values(sets, kept, {key: right[still] for key, right in hits.items()})
    table = pd.DataFrame(columns, dtype=float).rename_axis(["probe", "setting"]).sort_index()
    table.loc["reliability", WITHOUT] = np.nan  # it is drawn, and needs no interval
    table = table.round(5).reset_index()  # as kept in text
    return pd.DataFrame([about] * len(table), columns=MODEL).join(table)


def values(sets: ProbeSets, answers: Mapping[str, Any], hits: Mapping) -> dict:
    """Every probe's numbers, as far as its sets are there: (probe, setting) -> value.

    ``answers`` have logits in place of images; ``hits`` are what ``attack`` returns. Settings of
    ``reliability`` are ``{bin}-confidence``, ``-accuracy`` and ``-share``, for bins with images;
    those of ``ood``, how well images of no class are told from test images,
    ``{near or far}-{score}-{metric}``.
    """
    found = {key: float(right.mean()) for key, right in hits.items()}

    def add(probe: str, numbers: Mapping[str, float], prefix: str = "") -> None:
        found.update({(probe, prefix + setting): value for setting, value in numbers.items()})

    of = {name: (split.images, split.labels) for name, split in answers.items()}
    for key, name in ACCURACIES.items():
        if name in of:
            found[key] = sets.accuracy(name, *of[name])
    add("accuracy", {"chance": 1 / of["original"][0].shape[1]})
    add("calibration", metrics.calibration(*of["test"], *of["val"]))
    add("calibration", {f"ece_{name}": metrics.ece(*of[name]) for name in HARD if name in of})
    bins = metrics.reliability(*of["test"]).set_index("bin").stack()
    add("reliability", {f"{number:02d}-{name}": value for (number, name), value in bins.items()})
    known = metrics.ood_scores(of["original"][0])
    for kind in {"ood_near", "ood_far"} & set(of):
        for name, scores in metrics.ood_scores(of[kind][0]).items():
            add("ood", metrics.ood_metrics(known[name], scores), f"{kind[4:]}-{name}-")
    if {"mixed_same", "mixed_rand"} <= set(of):
        gap = found["background", "mixed_same"] - found["background", "mixed_rand"]
        add("background", {"gap": gap})
    if "cue_conflict" in of:
        cues = answers["cue_conflict"]
        add("shape", metrics.shape_bias(cues.images.argmax(1), cues.facts, sets.groups))
    return found


def attack(w: World, model: Classifier, images: Split, seed: int) -> dict:
    """Which images are right, (n,), under ("fgsm" or "pgd", L-inf radius in 255ths); "0" is clean.

    PGD looks only for what it did not find in a smaller ball.
    """

    def right(changed: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model.pixel_logits(changed).argmax(1) == labels

    radii = {f"{radius:g}": radius / 255 for radius in sorted(w.robustness.epsilons)}
    generator = torch.Generator().manual_seed(randomness.entropy(w.seed, "attack", seed) % 2**63)
    parts = []
    for start in range(0, len(images), ATTACKED_AT_ONCE):
        part = images.take(np.arange(start, min(start + ATTACKED_AT_ONCE, len(images))))
        pixels = torch.tensor(np.ascontiguousarray(part.images), device=gpu.device())
        x = pixels.permute(0, 3, 1, 2).float() / 255
        y = torch.from_numpy(part.labels).to(gpu.device())
        stand = right(x, y)
        found = {("fgsm", "0"): stand, ("pgd", "0"): stand}
        steps = attacks.fgsm(model.pixel_logits, x, y, list(radii.values()))
        for (name, radius), step in zip(radii.items(), steps, strict=True):
            found["fgsm", name] = right(step, y)
            ball = (radius, w.robustness.pgd_steps, generator)
            if stand.any():  # a tower takes no empty batch
                walk = attacks.pgd(model.pixel_logits, x[stand], y[stand], *ball)
                stand = stand.masked_scatter(stand, right(walk, y[stand]))
            found["pgd", name] = stand
        parts.append(found)
    return {key: torch.cat([found[key] for found in parts]).cpu().numpy() for key in parts[0]}
