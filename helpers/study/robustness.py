"""Notebook 07: three families of models, each trained on real, synthetic and mixed images.

[R] is *Is Synthetic Data all We Need?* (arXiv 2405.20469), whose models differ in size, recipe,
amount of data and number of seeds. Here these are equal (``models/families.py``), and every number
comes once per seed. What is read off the results is in ``study/summaries.py``.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import nested_subset, thinned
from helpers.data.tables import Split
from helpers.engine import gpu, randomness, store
from helpers.errors import unknown
from helpers.measure import attacks, metrics, probes
from helpers.measure.probes import DEPTH_AWARE, IMAGE_SPACE, SEVERITIES, ProbeSets
from helpers.models import clip, families
from helpers.models.classifier import Classifier
from helpers.study import prompts
from helpers.worlds import World

FAMILIES = families.FAMILIES
SOURCES = families.SOURCES
COSTLY_FIRST = ("language-supervised", "self-supervised", "supervised")  # families, to train
ABLATED = "language-supervised"  # the family of [R]'s mixing ablation
PROMPTED = "supervised"  # and of its prompt ablation
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
}
Values = dict[tuple[str, str], float]  # (probe, setting) -> value
Logits = Mapping[str, np.ndarray]  # name of a set -> a model's logits on it, (n, classes)


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
    benchmark = tables.benchmark(w, probed_task(w))
    validation = thinned(benchmark.val, w.robustness.validation)
    small = {}
    for name, split in {**probed.sets, "test": benchmark.test, "val": validation}.items():
        images = clip.shrunk(np.array(split.images), w.robustness.image_size)
        small[name] = dataclasses.replace(split, images=images)
    return dataclasses.replace(probed, sets=small)


def kinds(w: World) -> tuple[str, ...]:
    """The compared kinds of prompts: the ablated ones and the language model's captions."""
    return (*w.robustness.prompts, prompts.DEFAULT)


def training_images(w: World, source: str, n: int, seed: int) -> Split:
    """``n`` images of a source, classes balanced; ``mixed`` takes half of them from each source.

    A kind of prompt is a source, too: images drawn from such prompts, unfiltered.
    """
    if source not in (*SOURCES, *kinds(w)):
        raise unknown("source", source, (*SOURCES, *kinds(w)))
    if source == "mixed":
        real = training_images(w, "retrieved", n - n // 2, seed)
        return real.plus(training_images(w, "synthetic", n // 2, seed))
    if source in kinds(w):
        split = prompts.drawn_from(w, source)
    else:
        split = tables.source_set(w, probed_task(w), source)
    return split.take(nested_subset(split.labels, n, randomness.rng(w, "robust", source, seed)))


def make(w: World) -> store.Artifact:
    """All models of notebook 07, measured: ``results.parquet``, and a file per model beside it.

    Columns: ``MODEL``, ``probe, setting, value``.
    """
    return store.make("robust", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    probe_sets(w)  # made before workers start, as are the tower and the drawings
    jobs: dict[str, tuple] = {}
    if w.robustness.checkpoints:
        jobs |= {f"runs/{i:04d}.parquet": (w, *model) for i, model in enumerate(finished(w))}
        store.fill(path, jobs, run_checkpoint, "models probed")
    else:
        worlds.backend(w).clip_folder(w)
        prompts.draw(w)
        for family, source, n, seed in plan(w):
            file = f"runs/{family}-{source.replace(' ', '-')}-{n:06d}-{seed}.parquet"
            jobs[file] = (w, family, source, n, seed)
        # The longest come first, so that no core waits long at the end.
        order = sorted(jobs, key=lambda file: COSTLY_FIRST.index(jobs[file][1]))
        store.fill(path, {file: jobs[file] for file in order}, run, "models probed")
    results = pd.concat([store.read_table(path / file) for file in jobs], ignore_index=True)
    store.write(path / "results.parquet", results)


def finished(w: World) -> list[tuple[str, str, str, int]]:
    """Family, source, name and number of the checkpoints that are probed.

    The number, in place of a seed, counts those of one family and source: the first clone of a
    family is compared with its first real model.
    """
    given = w.robustness.checkpoints
    compared = [(family, source) for family, source, _ in given]
    return [(*model, compared[:i].count(model[:2])) for i, model in enumerate(given)]


def plan(w: World) -> list[tuple[str, str, int, int]]:
    """Family, source, number of images and seed of every model that is trained.

    The number is what the settings ask for, or what both sources can offer.
    """
    s = w.robustness
    offered = [len(tables.source_set(w, probed_task(w), source)) for source in SOURCES[:2]]
    n = min(s.images, *offered)
    compared = [
        (family, source, n)
        for family in ("self-supervised", "language-supervised", "supervised")
        for source in SOURCES
    ]
    by_prompt = [(PROMPTED, kind, size) for size in s.prompted for kind in kinds(w)]
    smaller = [size for size in s.mixing_sizes if size < n]
    mixing = [(ABLATED, source, size) for size in smaller for source in SOURCES]
    models = (*compared, *by_prompt, *mixing)
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
    """What ``measure`` says as rows; ``about`` are the values of the columns ``MODEL``."""
    values = measure(w, model, about[-1])
    rows = [(*about, *key, float(value)) for key, value in values.items()]
    return pd.DataFrame(rows, columns=[*MODEL, "probe", "setting", "value"])


def measure(w: World, model: Classifier, seed: int) -> Values:
    """Every probe on one model, in order; a set of images goes through the model once."""
    sets = small_sets(w)
    logits = {
        name: sets.chosen(name, model.image_logits(split.images))
        for name, split in sets.sets.items()
    }
    values = accuracies(sets, logits) | attack(w, model, probe_sets(w).sets["original"], seed)
    further = {
        "calibration": calibration,
        "reliability": reliability,
        "ood": out_of_distribution,
        "background": background,
        "shape": shape,
    }
    for probe, function in further.items():
        values |= {(probe, setting): v for setting, v in function(sets, logits).items()}
    return dict(sorted(values.items()))


def accuracies(sets: ProbeSets, logits: Logits) -> Values:
    """The accuracies (0..1) of ``ACCURACIES`` on the sets that are there."""
    there = {key: name for key, name in ACCURACIES.items() if name in logits}
    return {key: sets.accuracy(name, logits[name]) for key, name in there.items()}


def calibration(sets: ProbeSets, logits: Logits) -> dict[str, float]:
    """All calibration measures on test images, and the calibration error (ECE) on hard sets."""
    labels = {name: sets.sets[name].labels for name in logits}
    values = metrics.calibration(logits["test"], labels["test"], logits["val"], labels["val"])
    there = [name for name in HARD if name in logits]
    return values | {f"ece_{name}": metrics.ece(logits[name], labels[name]) for name in there}


def reliability(sets: ProbeSets, logits: Logits) -> dict[str, float]:
    """A reliability diagram: ``{bin}-confidence``, ``-accuracy``, ``-share``; bins with images."""
    table = metrics.reliability(logits["test"], sets.sets["test"].labels).set_index("bin")
    return {f"{b:02d}-{name}": value for b, row in table.iterrows() for name, value in row.items()}


def out_of_distribution(sets: ProbeSets, logits: Logits) -> dict[str, float]:
    """How well images of no class are told from test images: ``{near or far}-{score}-{metric}``."""
    values: dict[str, float] = {}
    known = metrics.ood_scores(logits["original"])
    for kind in ("near", "far"):
        if f"ood_{kind}" in logits:
            for name, scores in metrics.ood_scores(logits[f"ood_{kind}"]).items():
                found = metrics.ood_metrics(known[name], scores)
                values |= {f"{kind}-{name}-{metric}": value for metric, value in found.items()}
    return values


def background(sets: ProbeSets, logits: Logits) -> dict[str, float]:
    """Accuracy before other backgrounds of the same class and of another, and the gap."""
    both = [name for name in ("mixed_same", "mixed_rand") if name in logits]
    if len(both) < 2:
        return {}
    same, other = (sets.accuracy(name, logits[name]) for name in both)
    return {"mixed_same": same, "mixed_rand": other, "gap": same - other}


def shape(sets: ProbeSets, logits: Logits) -> dict[str, float]:
    """Shape bias, where the task puts shape and texture in conflict."""
    if "cue_conflict" not in logits:
        return {}
    facts = sets.sets["cue_conflict"].facts
    return probes.shape_bias(logits["cue_conflict"].argmax(1), facts, sets.groups)


def attack(w: World, model: Classifier, split: Split, seed: int) -> Values:
    """Accuracy (0..1) under ("fgsm" or "pgd", L-inf radius in 255ths); radius "0" is clean."""
    import torch

    images = thinned(split, w.robustness.attacked)
    radii = w.robustness.epsilons
    logits_of = model.pixel_logits
    generator = torch.Generator().manual_seed(randomness.entropy(w.seed, "attack", seed) % 2**63)
    right: Values = collections.defaultdict(float)
    for start in range(0, len(images), ATTACKED_AT_ONCE):
        part = images.take(np.arange(start, min(start + ATTACKED_AT_ONCE, len(images))))
        pixels = torch.tensor(np.ascontiguousarray(part.images), device=gpu.device())
        x = pixels.permute(0, 3, 1, 2).float() / 255
        y = torch.from_numpy(part.labels).to(gpu.device())
        steps = attacks.fgsm(logits_of, x, y, [radius / 255 for radius in radii])
        walks = [
            attacks.pgd(logits_of, x, y, radius / 255, w.robustness.pgd_steps, generator)
            for radius in radii
        ]
        for name, attacked in (("fgsm", steps), ("pgd", walks)):
            for radius, changed in zip((0, *radii), (x, *attacked), strict=True):
                with torch.inference_mode():
                    hits = (logits_of(changed).argmax(1) == y).sum()
                right[name, f"{radius:g}"] += float(hits) / len(images)
    return dict(right)
