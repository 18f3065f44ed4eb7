"""What the study keeps: every artifact, what it depends on, and the key that follows from it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass

from helpers import worlds
from helpers.engine import sources
from helpers.engine.places import PACKAGE
from helpers.errors import unknown
from helpers.worlds import World

MEASURED = "pocket"  # the world in which the costs below were measured


@dataclass(frozen=True)
class Spec:
    """What an artifact depends on: a builder, settings, other artifacts and shipped files.

    ``builder`` is a module below ``helpers`` ("{backend}": the world's own package) or a function
    that this package supplies; its source and that of its imports are part of the key. ``settings``
    and ``needs`` (other artifacts) are names, with spaces between.
    """

    notebook: str
    cost: str
    builder: str
    settings: str = ""
    needs: str = ""
    files: tuple[str, ...] = ()


SHOTS = ("study/examples.csv",)
SOURCES = "synthetic retrieved benchmarks"
CARD = ("pocket/weights/card.json",)
FACTORS = "seed synthesis clip scaling.sizes scaling.guidances scaling.prompts scaling.generators"
INTERVENTION = "seed upstream synthesis clip scaling"
PAIRED = "seed synthesis scaling.pairs scaling.pair_seeds robustness"
PROBE = "finetune.probe_images finetune.probe_penalties finetune.probe_on finetune.few_labels"
PROMPTS = "robustness.task robustness.prompts robustness.prompted"
PROBING = "finetuned probes prompted"
RENDERED = "image_size pool.seed"
TESTED = f"{RENDERED} pool.benchmark_per_class pool.test_per_class_of"
ARTIFACTS = {
    "pool": Spec("00", "30 s", "open_pool", "image_size pool"),
    "benchmarks": Spec("00", "30 s", "benchmark", TESTED),
    "upstream": Spec(
        "00", "5 s", "{backend}.train.upstream", "pool.upstream upstream", "pool", CARD
    ),
    "quality": Spec("00", "10 s", "quality", f"seed synthesis {PROBE}", "pool benchmarks upstream"),
    "captions": Spec("01", "30 s", "study.captions", "seed captions", "upstream", SHOTS),
    "synthetic": Spec("02", "2 min", "study.synthesis", "synthesis clip", "captions upstream"),
    "judged": Spec("02", "10 s", "judge", "image_size tasks", "benchmarks upstream"),
    "samples": Spec("02", "5 s", "study.synthesis", "synthesis", "upstream"),
    "embeddings": Spec("03", "1 min", "study.embeddings", "clip", "pool benchmarks upstream"),
    "retrieved": Spec("03", "1 min", "study.retrieval", "retrieval", "pool embeddings"),
    "finetuned": Spec("04", "3 min", "study.finetune", "seed finetune", SOURCES),
    "fidelity": Spec("05", "5 s", "study.analysis", "analysis.judged", "finetuned"),
    "analysed": Spec("05", "2 min", "study.analysis", "seed analysis", "finetuned"),
    "shifted": Spec("06", "30 s", "shifted", f"{RENDERED} scaling.shifted_per_class"),
    "arms": Spec("06", "2 min", "study.arms", FACTORS, "finetuned shifted"),
    "paired": Spec("06", "2 min", "study.pairs", PAIRED, "finetuned shifted"),
    "scaled": Spec("06", "2 min", "study.scaling", "seed scaling", "arms"),
    "rarity": Spec("06 -p intervention=True", "8 min", "intervention", INTERVENTION, "finetuned"),
    "probes": Spec("07", "30 s", "probe_sets", f"{TESTED} robustness.probe_images"),
    "prompted": Spec("07", "30 s", "study.arms", f"seed synthesis {PROMPTS}", "finetuned"),
    "robust": Spec("07", "3 min", "study.robustness", "seed robustness", PROBING),
    "mixed": Spec("08", "3 min", "study.mixes", "seed mixes adapter", "analysed"),
}


def spec(name: str) -> Spec:
    """What the artifact called ``name`` depends on. Raises ``StudyError`` on an unknown name."""
    if name not in ARTIFACTS:
        raise unknown("artifact", name, ARTIFACTS)
    return ARTIFACTS[name]


def key(name: str, w: World, **variant: str) -> str:
    """The hash that names an artifact: of all that it depends on; it begins with its edition."""
    return edition(name, w) + _hash(name, w, True, variant)[4:]


def edition(name: str, w: World, digits: int = 4) -> str:
    """What all keys of an artifact begin with: a hash of its code, and that of what it needs."""
    parts = [code(name, w), *(edition(n, w) for n in spec(name).needs.split())]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:digits]


def recipe(name: str, w: World) -> str:
    """The same without the source of modules: what runs found counts after code was tidied up."""
    return _hash(name, w, False, {})


def _hash(name: str, w: World, modules: bool, variant: Mapping[str, str]) -> str:
    every = dataclasses.asdict(w)
    names = spec(name).settings.split()
    parts = {
        "name": name,
        "backend": w.backend,
        "variant": variant,
        "settings": {s: functools.reduce(operator.getitem, s.split("."), every) for s in names},
        "needs": {n: _hash(n, w, modules, {}) for n in spec(name).needs.split()},
        "code": {
            m: d for m, d in code(name, w).items() if modules or m.startswith(w.backend + "/")
        },
        "outside": worlds.backend(w).outside(w).get(name),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def code(name: str, w: World) -> dict[str, str]:
    """Modules and shipped files that an artifact depends on by itself, each with its hash."""
    builder = spec(name).builder.replace("{backend}", w.backend)
    seam = worlds.backend(w).SEAM
    module = seam[builder].partition(":")[0] if builder in seam else f"helpers.{builder}"
    found = {m: sources.digest(m) for m in sources.closure(module, w.backend)}
    for file in spec(name).files:
        if file.startswith((f"{w.backend}/", "study/")) and (PACKAGE / file).exists():
            found[file] = hashlib.sha256((PACKAGE / file).read_bytes()).hexdigest()
    return found
