"""Notebook 07: three families of models, each trained on real, synthetic and mixed images, under the same probes.

[R] is *Is Synthetic Data all We Need?* (arXiv 2405.20469), whose models differ in size, recipe, amount of data and number of
seeds. Here these are equal (helpers/models/families.py), and every number comes once per seed.
"""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import nested_subset, thinned
from helpers.data.tables import Split
from helpers.engine import gpu, randomness, store
from helpers.errors import NotKnown, unknown
from helpers.measure import attacks, inference, metrics, probes
from helpers.measure.probes import ProbeSets
from helpers.models import checkpoints, evaluation, families
from helpers.models.classifier import Classifier
from helpers.study import arms
from helpers.worlds import World

FAMILIES, SOURCES = families.FAMILIES, families.SOURCES
COST = ("language-supervised", "self-supervised", "supervised")  # to train, most first
ABLATED = "language-supervised"  # the family of [R]'s mixing ablation
PROMPTED = "supervised"  # and of its prompt ablation
MODEL = ["family", "source", "n", "seed"]
SUMMARY = {  # probe -> settings that its one number is the mean of, as a regular expression
    "accuracy": "test",
    "renditions": "accuracy",
    "corruption": ".+",
    "corruption_3d": ".+",
    "fgsm": "(?!0$).+",
    "pgd": "(?!0$).+",
    "context": "P2",
    "calibration": "ece",
    "ood": "(near|far)-entropy-auroc",
    "shape": "shape_bias",
    "background": "gap",
}
ATTACKED_AT_ONCE = 128
PROMPT_HELPS = {
    "accuracy": "test accuracy",
    "corruption": "corruptions",
    "context": "uncommon attributes",
}
RELATIVE = (
    "renditions",
    "corruption",
    "corruption_3d",
    "fgsm",
    "pgd",
    "context",
)  # accuracies, which a share of clean accuracy suits


def task(w: World) -> str:
    """The task that is probed. Raises ``StudyError`` when models are to be trained on it and the world does not have it."""
    if w.robustness.task not in w.tasks and not w.robustness.checkpoints:
        raise unknown(f"task in world {w.name!r}", w.robustness.task, w.tasks)
    return w.robustness.task


@functools.lru_cache(maxsize=2)
def probe_sets(w: World) -> ProbeSets:
    """The probed task's probe sets, on disk and mapped into memory."""
    return worlds.backend(w).probe_sets(w, task(w))


@functools.lru_cache(maxsize=2)
def looked_at(w: World) -> dict[str, np.ndarray]:
    """Every set that goes through the models, at the size that the towers see: the probe sets, ``test`` and ``val``."""
    bench, side = tables.benchmark(w, task(w)), w.robustness.image_size
    splits = {
        **probe_sets(w).sets,
        "test": bench.test,
        "val": thinned(bench.val, w.robustness.validation),
    }
    return {
        name: evaluation.shrunk(
            split.images if type(split.images) is np.ndarray else np.array(split.images), side
        )  # off the disk
        for name, split in splits.items()
    }


def common_size(w: World) -> int:
    """Images per model: what is wanted, or what both sources can offer."""
    return min(
        w.robustness.images,
        *(len(tables.source_set(w, task(w), source)) for source in ("retrieved", "synthetic")),
    )


def kinds(w: World) -> tuple[str, ...]:
    """The kinds of prompts that are compared: the ablated ones and the language model's captions."""
    return (*w.robustness.prompts, arms.DEFAULT)


def training_images(w: World, source: str, n: int, seed: int) -> Split:
    """``n`` images of a source, classes balanced; ``mixed`` takes half from each, so that the number stays the same.

    A kind of prompt is a source, too: images drawn from such prompts, unfiltered (``arms.draw_prompts``).
    """
    if source not in (*SOURCES, *kinds(w)):
        raise unknown("source", source, (*SOURCES, *kinds(w)))
    taken = []
    for name, k in (
        {source: n} if source != "mixed" else {"retrieved": n - n // 2, "synthetic": n // 2}
    ).items():
        split = arms.prompted(w, name) if name in kinds(w) else tables.source_set(w, task(w), name)
        taken.append(
            split.take(nested_subset(split.labels, k, randomness.rng(w, "robust", name, seed)))
        )
    return taken[0] if len(taken) == 1 else taken[0].plus(taken[1])


def run(w: World, family: str, source: str, n: int, seed: int) -> pd.DataFrame:
    """Train one model on ``n`` images and measure everything; one row per number: ``MODEL``, ``probe, setting, value``."""
    images, real = training_images(w, source, n, seed), training_images(w, "retrieved", n, seed)
    return _tidy(
        measure(
            w, families.train(w, family, images, real, tables.benchmark(w, task(w)), seed), seed
        ),
        family,
        source,
        n,
        seed,
    )


def run_checkpoint(w: World, family: str, source: str, name: str, seed: int) -> pd.DataFrame:
    """Measure a finished model by its name (``checkpoints.load``): the columns of ``run``, with n = 0."""
    rows = measure(
        w,
        checkpoints.load(worlds.backend(w).checkpoint(w, name), tables.benchmark(w, task(w))),
        seed,
    )
    return _tidy(rows, family, source, 0, seed)


def _tidy(rows: dict, family: str, source: str, n: int, seed: int) -> pd.DataFrame:
    table = pd.DataFrame(
        [(*key, float(value)) for key, value in rows.items()], columns=["probe", "setting", "value"]
    )
    return table.assign(family=family, source=source, n=n, seed=seed)[[*MODEL, *table]]


def measure(w: World, model: Classifier, seed: int) -> dict[tuple[str, str], float]:
    """Every probe on one model: (probe, setting) -> value. A set goes through the model once; the probes share its logits."""
    made, bench = probe_sets(w), tables.benchmark(w, task(w))
    seen = {
        name: made.chosen(name, evaluation.logits(model, images))
        for name, images in looked_at(w).items()
    }
    test, val = seen["test"], thinned(bench.val, w.robustness.validation)
    right = {
        name: made.accuracy(name, seen[name])
        for name, split in made.sets.items()
        if split.labels.min() >= 0
    }
    rows = {
        ("accuracy", "test"): metrics.accuracy(test, bench.test.labels),
        ("accuracy", "clean"): right["original"],
    }
    rows |= _keyed(
        "calibration", metrics.calibration(test, bench.test.labels, seen["val"], val.labels)
    )
    for name in {"renditions", "natural_adversarial"} & set(seen):
        rows[name, "accuracy"], rows["calibration", f"ece_{name}"] = (
            right[name],
            metrics.ece(seen[name], made.sets[name].labels),
        )
    rows |= _keyed("reliability", reliability_rows(test, bench.test.labels))
    for kind in {"near", "far"} & {name.removeprefix("ood_") for name in seen}:
        for name, known in metrics.ood_scores(seen["original"]).items():
            found = metrics.ood_metrics(known, metrics.ood_scores(seen[f"ood_{kind}"])[name])
            rows |= _keyed(
                "ood", {f"{kind}-{name}-{metric}": value for metric, value in found.items()}
            )
    rows |= attack(w, model, made.sets["original"], seed)
    rows |= _keyed(
        "corruption", {k: v for k, v in right.items() if k.split("-")[0] in probes.IMAGE_SPACE}
    )
    rows |= _keyed(
        "corruption_3d", {k: v for k, v in right.items() if k.split("-")[0] in probes.DEPTH_AWARE}
    )
    if {"mixed_same", "mixed_rand"} <= set(right):
        rows |= _keyed(
            "background",
            {
                "mixed_same": right["mixed_same"],
                "mixed_rand": right["mixed_rand"],
                "gap": right["mixed_same"] - right["mixed_rand"],
            },
        )
    rows |= _keyed(
        "context", {f"P{k}": right[f"context_{k}"] for k in range(3) if f"context_{k}" in right}
    )
    if "cue_conflict" in seen:
        answers, facts = seen["cue_conflict"].argmax(1), made.sets["cue_conflict"].facts
        rows |= _keyed("shape", probes.shape_bias(answers, facts, made.groups))
    return dict(sorted(rows.items()))


def _keyed(probe: str, values: dict) -> dict[tuple[str, str], float]:
    return {(probe, setting): value for setting, value in values.items()}


def reliability_rows(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """A reliability diagram as settings: "bin-confidence", "bin-accuracy", "bin-share", for bins with images."""
    table = metrics.reliability(logits, labels).set_index("bin")
    return {f"{b:02d}-{name}": value for b, row in table.iterrows() for name, value in row.items()}


def attack(w: World, model: Classifier, split: Split, seed: int) -> dict[tuple[str, str], float]:
    """Accuracy under FGSM and PGD: ("fgsm" or "pgd", L-inf radius in 255ths) -> 0..1; radius "0" is the same images clean."""
    import torch

    some, f, radii = (
        thinned(split, w.robustness.attacked),
        evaluation.differentiable_logits(model),
        w.robustness.epsilons,
    )
    generator = torch.Generator().manual_seed(randomness.entropy(w.seed, "attack", seed) % 2**63)
    rows: dict[tuple[str, str], float] = dict.fromkeys(
        [(a, f"{e:g}") for a in ("fgsm", "pgd") for e in (0, *radii)], 0.0
    )
    for start in range(0, len(some), ATTACKED_AT_ONCE):
        part = some.take(np.arange(start, min(start + ATTACKED_AT_ONCE, len(some))))
        x = (
            torch.tensor(np.ascontiguousarray(part.images), device=gpu.device())
            .permute(0, 3, 1, 2)
            .float()
            / 255
        )
        y = torch.from_numpy(part.labels).to(gpu.device())
        steps = attacks.fgsm(f, x, y, [e / 255 for e in radii])
        walks = (attacks.pgd(f, x, y, e / 255, w.robustness.pgd_steps, generator) for e in radii)
        for key, at in zip(rows, itertools.chain([x], steps, [x], walks), strict=True):
            with torch.inference_mode():
                rows[key] += float((f(at).argmax(1) == y).sum()) / len(some)
    return rows


def make(w: World) -> store.Artifact:
    """All models of notebook 07, measured: ``results.parquet``, and one small file per model beside it."""
    return store.make("robust", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    jobs = {
        f"runs/{job[0]}-{job[1].replace(' ', '-')}-{job[2]:06d}-{job[3]}.parquet": (w, *job)
        for job in plan(w)
    }
    named = {
        f"runs/{i:04d}.parquet": (w, *model, seed) for i, (*model, seed) in enumerate(finished(w))
    }
    probe_sets(w)  # before the workers want them
    longest_first = dict(
        sorted(jobs.items(), key=lambda job: COST.index(job[1][1]))
    )  # so that no core waits long at the end
    store.fill(path, named or longest_first, run_checkpoint if named else run, "models probed")
    files = [path / file for file in named or jobs]
    store.write(
        path / "results.parquet", pd.concat([store.read_table(f) for f in files], ignore_index=True)
    )


def finished(w: World) -> list[tuple[str, str, str, int]]:
    """Family, source, name and number of the checkpoints; the first clone of a family is compared with its first real model."""
    given = [model[:2] for model in w.robustness.checkpoints]
    return [
        (*model, given[:i].count(model[:2])) for i, model in enumerate(w.robustness.checkpoints)
    ]


def ablations(w: World, results: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The mixing ablation and the prompt ablation in the form of ``summary``. Raises ``NotKnown`` where no models are trained."""
    if w.robustness.checkpoints:
        raise NotKnown(
            f"world {w.name!r} probes finished checkpoints, so nothing is trained for an ablation of mixing or prompts. "
            "The rendered worlds do: python -m helpers.run pocket 07"
        )
    return (
        summary(results[(results["family"] == ABLATED)]),
        summary(results[(results["family"] == PROMPTED) & results["source"].isin(kinds(w))]),
    )


def plan(w: World) -> list[tuple[str, str, int, int]]:
    """Family, source, images and seed of every model that is trained; none where the world takes finished checkpoints."""
    if w.robustness.checkpoints:
        return []
    worlds.backend(w).clip_folder(w), arms.draw_prompts(w)  # before the workers want them
    n, seeds = common_size(w), range(w.robustness.seeds)
    models = [
        (family, source, n, seed)
        for family in ("self-supervised", "language-supervised", "supervised")
        for source in SOURCES
        for seed in seeds
    ]
    models += [
        (PROMPTED, kind, k, seed)
        for k in w.robustness.prompted
        for kind in kinds(w)
        for seed in seeds
    ]
    return models + [
        (ABLATED, source, k, seed)
        for k in w.robustness.mixing_sizes
        if k < n
        for source in SOURCES
        for seed in seeds
    ]


def summary(results: pd.DataFrame, relative: bool = False) -> pd.DataFrame:
    """One number per model and probe of ``SUMMARY``: ``family, source, n, seed, probe, value``.

    With ``relative`` only the probes of ``RELATIVE``, as a share of the same model's clean accuracy, where that is not zero.
    """
    keep = [
        re.fullmatch(SUMMARY.get(probe, "(?!)"), setting) is not None
        for probe, setting in zip(results["probe"], results["setting"], strict=True)
    ]
    table = results[keep].groupby([*MODEL, "probe"])["value"].mean().reset_index()
    if not relative:
        return table
    clean = results.query("probe == 'accuracy' and setting == 'clean' and value > 0")[
        [*MODEL, "value"]
    ]
    table = table[table["probe"].isin(RELATIVE)].merge(clean, on=MODEL, suffixes=("", "_clean"))
    return table.assign(value=table["value"] / table["value_clean"]).drop(columns="value_clean")


def claims(results: pd.DataFrame, by_prompt: pd.DataFrame | None = None) -> pd.DataFrame:
    """[R]'s claims against these models: ``claim, difference, low, high, holds``.

    The difference is clone minus real (mixed minus real; with ``by_prompt``, the summary of the prompt ablation, captions minus
    class names), seed by seed, turned so that positive is better for the first, with its 95 % interval over seeds. A claim
    holds ("yes") or fails ("no") only where the interval excludes zero.
    """
    plain, shares = summary(results), summary(results, relative=True)
    rows = []
    for text, family, source, probe, sign, expected in _listed():
        table = shares if probe in RELATIVE else plain
        change = _changes(
            table[(table["family"] == family) & (table["probe"] == probe)], source, "retrieved"
        )
        rows += _verdict(text, sign * change, expected)
    for probe, name in PROMPT_HELPS.items() if by_prompt is not None else ():
        change = _changes(by_prompt[by_prompt["probe"] == probe], arms.DEFAULT, "class names")
        rows += _verdict(f"captions help more than class names on {name} ({PROMPTED})", change, 1)
    return pd.DataFrame(rows, columns=["claim", "difference", "low", "high", "holds"])


def _changes(table: pd.DataFrame, source: str, reference: str) -> pd.Series:
    """``source`` minus ``reference`` by seed, at the largest number of images; empty where one of them is missing."""
    by_seed = table[table["n"] == table["n"].max()].pivot(
        index="seed", columns="source", values="value"
    )
    return (
        (by_seed[source] - by_seed[reference]).dropna()
        if {source, reference} <= set(by_seed)
        else pd.Series(dtype=float)
    )


def _verdict(text: str, change: pd.Series, expected: int) -> list[tuple]:

    if not len(change):
        return []
    mean, low, high = inference.interval(change)
    direction = 0 if low <= 0 <= high else np.sign(mean)
    verdict = "no difference found" if not direction else "yes" if direction == expected else "no"
    return [(text, mean, low, high, verdict if len(change) > 1 else "one pair decides nothing")]


def _listed():
    """Text, family, source, probe, sign that makes larger better, and the direction that [R] claims."""
    names = {
        "shape": ("shape bias", 1),
        "background": ("background gap", -1),
        "calibration": ("calibration error", -1),
    }
    for family in FAMILIES:
        for probe, (name, sign) in names.items():
            expected, verb = (-1, "lag behind") if family == "supervised" else (1, "match or beat")
            yield (
                f"{family} clones {verb} real on {name}",
                family,
                "synthetic",
                probe,
                sign,
                expected,
            )
        for probe, name in (("pgd", "PGD"), ("corruption", "corruptions")):
            yield (
                f"{family} clones are more fragile under {name} (relative)",
                family,
                "synthetic",
                probe,
                1,
                -1,
            )
    yield (
        "mixing improves calibration (language-supervised)",
        "language-supervised",
        "mixed",
        "calibration",
        -1,
        1,
    )
