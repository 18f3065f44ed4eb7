"""Notebook 07: three families of models, each trained on real, synthetic and mixed images.

[R] is *Is Synthetic Data all We Need?* (arXiv 2405.20469), whose models differ in size, recipe,
amount of data and seeds. Here these are equal. What results say is in ``study/summaries.py``.
"""

from __future__ import annotations

import dataclasses
import functools
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
from helpers.errors import unknown
from helpers.measure import attacks, metrics
from helpers.measure.folds import FOLDS, fold_of
from helpers.measure.metrics import DEPTH_AWARE, IMAGE_SPACE, SEVERITIES, ProbeSets
from helpers.models import clip, families
from helpers.models.classifier import Classifier
from helpers.study import arms
from helpers.worlds import World

FAMILIES = families.FAMILIES
SOURCES = families.SOURCES
PROMPTED = "supervised"  # the family of [R]'s prompt ablation
MODEL = ["family", "source", "n", "seed"]
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
Values = dict[tuple[str, str], float]  # (probe, setting) -> value
Answers = Mapping[str, Any]  # name of a set -> its Split with logits in place of images
Hits = dict[tuple[str, str], np.ndarray]  # (probe, setting) -> which images are right, (n,)


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


def make(w: World) -> store.Artifact:
    """Train and measure all models: ``results.parquet``, with the columns of ``measured``."""
    return store.make("robust", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    probe_sets(w)  # made before workers start, as are the tower and the drawings
    trained = not w.robustness.checkpoints
    if trained:
        worlds.backend(w).clip_folder(w)
        arms.prompted(w)
    jobs = {}
    for model in plan(w) if trained else finished(w):
        name = "-".join(map(str, model)).replace("/", "_").replace(" ", "_")
        jobs[f"runs/{name}.parquet"] = (w, *model)
    files = store.fill(path, jobs, run if trained else run_checkpoint, "models probed")
    results = pd.concat(map(store.read_table, files), ignore_index=True)
    store.write(path / "results.parquet", results)


def finished(w: World) -> list[tuple[str, str, str, int]]:
    """Family, source, name of the probed checkpoints, and in place of a seed their number.

    It pairs them: the first clone of a family is compared with its first real model.
    """
    listed = w.robustness.checkpoints
    compared = [model[:2] for model in listed]
    return [(*model, compared[:i].count(model[:2])) for i, model in enumerate(listed)]


def plan(w: World) -> list[tuple[str, str, int, int]]:
    """Family, source, number of images (at most what both sources offer) and seed of all models."""
    s = w.robustness
    n = min(s.images, *(len(tables.source_set(w, probed_task(w), name)) for name in SOURCES[:2]))
    models = [(family, "mixed", n) for family in s.mixed]
    # The shortest trainings come last, so that no core waits long at the end.
    for family in ("language-supervised", "self-supervised", PROMPTED):
        models += [(family, source, n) for source in SOURCES[:2]]
    models += [(PROMPTED, kind, size) for size in s.prompted for kind in kinds(w)]
    return [(*model, seed) for model in models for seed in range(s.seeds)]


def run(w: World, family: str, source: str, n: int, seed: int) -> pd.DataFrame:
    """Train one model on ``n`` images and measure everything: a row per number."""
    images = training_images(w, source, n, seed)
    real = training_images(w, "retrieved", n, seed)
    model = families.train(w, family, images, real, tables.benchmark(w, probed_task(w)), seed)
    return measured(w, model, (family, source, n, seed))


def run_checkpoint(w: World, family: str, source: str, name: str, seed: int) -> pd.DataFrame:
    """Measure a finished model by its name (``families.finished``): as ``run``, with n = 0."""
    file = worlds.backend(w).checkpoint(w, name)
    model = families.finished(file, tables.benchmark(w, probed_task(w)))
    return measured(w, model, (family, source, 0, seed))


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
    folds["val"][:] = -1  # stays whole: the temperature is fitted on it
    full = probe_sets(w).sets["original"]
    attacked = evenly_spread(len(full), w.robustness.attacked)
    hits = attack(w, model, full.take(attacked), about[-1])
    columns = {"value": values(sets, answers, hits)}
    for fold, column in enumerate(WITHOUT):
        kept = {name: s.take(np.flatnonzero(folds[name] != fold)) for name, s in answers.items()}
        kept = {name: split for name, split in kept.items() if len(split)}
        still = folds["original"][attacked] != fold
        columns[column] = values(sets, kept, {key: right[still] for key, right in hits.items()})
    table = pd.DataFrame(columns, dtype=float).rename_axis(["probe", "setting"]).sort_index()
    table.loc["reliability", WITHOUT] = np.nan  # it is drawn, and needs no interval
    table = table.round(5).reset_index()  # as kept in text
    return pd.DataFrame([about] * len(table), columns=MODEL).join(table)


def values(sets: ProbeSets, answers: Answers, hits: Hits) -> Values:
    """Every probe's numbers."""
    found: Values = {key: float(right.mean()) for key, right in hits.items()}
    for key, name in ACCURACIES.items():
        if name in answers:
            found[key] = sets.accuracy(name, answers[name].images, answers[name].labels)
    found["accuracy", "chance"] = 1 / answers["original"].images.shape[1]
    further = {**calibration(answers), "ood": out_of_distribution(answers)}
    if {"mixed_same", "mixed_rand"} <= set(answers):
        gap = found["background", "mixed_same"] - found["background", "mixed_rand"]
        further["background"] = {"gap": gap}
    if "cue_conflict" in answers:
        cues = answers["cue_conflict"]
        further["shape"] = metrics.shape_bias(cues.images.argmax(1), cues.facts, sets.groups)
    for probe, numbers in further.items():
        found |= {(probe, setting): number for setting, number in numbers.items()}
    return found


def calibration(answers: Answers) -> dict[str, dict[str, float]]:
    """On test images all calibration measures and a reliability diagram; on hard sets the ECE.

    Settings of the diagram: ``{bin}-confidence``, ``-accuracy``, ``-share``, for bins with images.
    """
    test, val = ((answers[name].images, answers[name].labels) for name in ("test", "val"))
    numbers = metrics.calibration(*test, *val)
    for name in HARD:
        if name in answers:
            numbers[f"ece_{name}"] = metrics.ece(answers[name].images, answers[name].labels)
    bins = metrics.reliability(*test).set_index("bin").stack()
    diagram = {f"{number:02d}-{name}": value for (number, name), value in bins.items()}
    return {"calibration": numbers, "reliability": diagram}


def out_of_distribution(answers: Answers) -> dict[str, float]:
    """How well images of no class are told from test images: ``{near or far}-{score}-{metric}``."""
    found: dict[str, float] = {}
    known = metrics.ood_scores(answers["original"].images)
    for kind in ("near", "far"):
        if f"ood_{kind}" in answers:
            for name, scores in metrics.ood_scores(answers[f"ood_{kind}"].images).items():
                numbers = metrics.ood_metrics(known[name], scores)
                found |= {f"{kind}-{name}-{metric}": n for metric, n in numbers.items()}
    return found


def attack(w: World, model: Classifier, images: Split, seed: int) -> Hits:
    """Which images are right under ("fgsm" or "pgd", L-inf radius in 255ths); "0" is clean.

    PGD looks only for what it did not find in a smaller ball.
    """
    import torch

    def right(changed: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model.pixel_logits(changed).argmax(1) == labels

    radii = sorted(w.robustness.epsilons)
    generator = torch.Generator().manual_seed(randomness.entropy(w.seed, "attack", seed) % 2**63)
    parts = []
    for start in range(0, len(images), ATTACKED_AT_ONCE):
        part = images.take(np.arange(start, min(start + ATTACKED_AT_ONCE, len(images))))
        pixels = torch.tensor(np.ascontiguousarray(part.images), device=gpu.device())
        x = pixels.permute(0, 3, 1, 2).float() / 255
        y = torch.from_numpy(part.labels).to(gpu.device())
        stand = right(x, y)
        found = {("fgsm", "0"): stand, ("pgd", "0"): stand}
        steps = attacks.fgsm(model.pixel_logits, x, y, [radius / 255 for radius in radii])
        for radius, step in zip(radii, steps, strict=True):
            found["fgsm", f"{radius:g}"] = right(step, y)
            ball = (radius / 255, w.robustness.pgd_steps, generator)
            walk = attacks.pgd(model.pixel_logits, x[stand], y[stand], *ball)
            stand = stand.masked_scatter(stand, right(walk, y[stand]))
            found["pgd", f"{radius:g}"] = stand
        parts.append(found)
    return {key: torch.cat([found[key] for found in parts]).cpu().numpy() for key in parts[0]}
