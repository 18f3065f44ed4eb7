"""What the paper world needs, whether it is here, what it costs; of weights, headers are read."""

from __future__ import annotations

import functools
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.data.subsets import evenly_spread
from helpers.engine import gpu, places, store
from helpers.errors import Need, StudyError
from helpers.models import clip, families, weights
from helpers.paper import benchmarks, config, generator, index, language, pools, probes
from helpers.worlds import World

GIGABYTES = dict.fromkeys(config.GENERATORS.values(), 5.5)  # of safetensors, as published
GIGABYTES["meta-llama/Llama-2-7b-hf"] = 13.5
KNOWN = {task: public.classes for task, public in benchmarks.PUBLIC.items()}
IMAGENET_TEST = 50_000  # images of its validation split, on which models are tested
TASKS = "00 01 02 03 04 05 06 08"  # what is done with a task
DECODED = 64  # pictures of each split and probe set, evenly spread, all where there are fewer
PIXEL = 3 + 2  # bytes an image takes per pixel: in the array that is trained on, and as PNG
OVERHEAD = 1.5  # memory for a model in use, as a multiple of its weights


def check(w: World) -> tuple[list[Need], dict[str, str]]:
    """What is needed and found, and what each notebook costs; without ``$STUDY_PAPER``, what an
    empty folder would lack. Raises ``StudyError`` on a ``paper.toml`` that cannot be read.
    """
    path = os.environ.get("STUDY_PAPER", "")
    if _here(config.root):
        return needs(w), costs(w)
    where = str(places.TOP / path) if path else "not set"
    advice = f"Make a folder for {config.FILE}, weights and data: export STUDY_PAPER=FOLDER."
    rows = [Need("$STUDY_PAPER", f"{TASKS} 07", False, where, advice)]
    with tempfile.TemporaryDirectory() as empty:
        os.environ["STUDY_PAPER"] = empty
        try:
            top = str(config.root())
            for need in needs(w):
                texts = {k: getattr(need, k).replace(top, "$STUDY_PAPER") for k in ("where", "get")}
                rows.append(need._replace(**texts))
            return rows, costs(w)
        finally:
            os.environ["STUDY_PAPER"] = path


def needs(w: World) -> list[Need]:
    """What notebooks 00 to 07 look for: weights, benchmarks, pool, index, memory, disk."""
    s = config.settings()
    new = w.captions.max_new_tokens
    drawing = {w.synthesis.generator: "00 02 05 06 08"}  # generator -> notebooks
    for name in (*w.analysis.generators, *w.scaling.generators):
        numbers = ["00 05"] * (name in w.analysis.generators)
        numbers += ["06"] * (name in w.scaling.generators)
        drawing.setdefault(name, " ".join(numbers))
    tag = "" if Path(s.clip).is_dir() else f"{w.clip.model}/{w.clip.pretrained}"
    wanted = [  # what, for which notebooks, where it is looked for, by what, and with what
        ("language model", "01", s.language_model, language.checked, s.language_model, new),
        *(
            (f"generator {name}", numbers, s.generators.get(name, name), _generator, name)
            for name, numbers in drawing.items()
        ),
        ("CLIP", "00 02 03 04 05 06 07 08", s.clip, clip.checked, tag or s.clip),
        *((f"benchmark {task}", TASKS, s.benchmarks, _counts, w, task) for task in w.tasks),
        ("pool", "00 01 03", s.laion, lambda: f"{_pairs(s.laion):,} pairs in {s.laion}"),
        ("index", "03", s.index, index.located, w, s.index),
        ("CLIP that judges", "06", s.judge, clip.checked, s.judge),
        ("probed benchmark", "07", s.benchmarks, _counts, w, w.robustness.task),
        ("probe sets", "07", s.benchmarks, _probe_sets, w),
    ]
    for family, source, name in w.robustness.checkpoints:
        place, model = f"{name}, {family} on {source}", config.checkpoint(w, name)
        wanted.append(("probed checkpoint", "07", place, _checkpoint, w, model))
    rows = [_found(*row) for row in wanted if row[2]]
    models = [s.language_model, *(s.generators.get(name, "") for name in drawing)]
    return [*rows, _memory(OVERHEAD * max(map(_size, models))), _disk(w)]


def _found(what: str, numbers: str, place: object, find: Callable, *arguments) -> Need:
    """A need at the place that ``find(*arguments)`` returns, or missing, by the error it raises."""
    try:
        return Need(what, numbers, True, _short(find(*arguments)))
    except (StudyError, PermissionError) as e:
        key = {"CLIP that judges": "judge", "probed checkpoint": "checkpoints"}.get(what)
        other = f" Or name another folder or file as {key} in {config.FILE}." if key else ""
        return Need(what, numbers, False, f"looked for {_short(place)}", f"{e}{other}")


def _short(place: object) -> str:
    """A place, relative to ``$STUDY_PAPER`` if it is in there."""
    return str(place).replace(f"{config.root()}{os.sep}", "")


def _generator(name: str) -> Path:
    s = config.settings()
    return generator.checked(f"generator {name}", generator.named(name), s.drawn, s.kept)


def _checkpoint(w: World, name: str) -> Path:
    """The file of a finished model that is opened: timm's with its weights, CLIP's without."""
    library, _, rest = name.partition("/")
    if library == "open_clip":
        return clip.checked(rest)
    bench = _here(benchmarks.benchmark, w, w.robustness.task)
    if bench:
        families.finished(name, bench)
    gpu.forget()
    return weights.checkpoint_file(name)


def _counts(w: World, task: str) -> str:
    bench = benchmarks.benchmark(w, task)
    counts = []
    for name in benchmarks.SPLITS:
        images = getattr(bench, name).images
        images[evenly_spread(len(images), DECODED)]
        counts.append(f"{name} {len(images):,}")
    return f"{', '.join(counts)}, {len(bench.classes):,} classes"


def _probe_sets(w: World) -> str:
    """How many probe sets are there, and which are not; each is listed, and held against tables."""
    base = config.settings().benchmarks
    present = probes.present(base)
    tops = {name: Path(place).parts[0] for name, place in probes.PLACES.items()}
    lacking = [top for top in tops.values() if top not in {tops[name] for name in present}]
    if (base / "imagenet").is_dir() or w.robustness.task != "imagenet":
        for files, *_ in probes.listed(w.robustness.task)[0].values():
            benchmarks.Decoded(files, w.image_size)[evenly_spread(len(files), DECODED)]
    without = f"; without {', '.join(dict.fromkeys(lacking))}" if lacking else ""
    return f"{len(present)} of {len(tops)} in {base}{without}"


_pairs = functools.lru_cache(maxsize=1)(pools.size)  # asked for three times


def _here(find: Callable, *arguments) -> Any:
    """What ``find(*arguments)`` returns, or None while it is not here."""
    try:
        return find(*arguments)
    except (StudyError, PermissionError):
        return None


def _size(name: str) -> float:
    """Bytes of the weights: of the files where they are here, else as published."""
    folder = _here(weights.folder, "weights", name)
    files = folder.rglob("*.safetensors") if folder else ()
    return sum(f.stat().st_size for f in files) or 1e9 * GIGABYTES.get(name, 0)


def _memory(need: float) -> Need:
    have = gpu.memory()
    note = "" if gpu.device() == "cuda" else "; no GPU here"
    where = f"{have / 1e9:.0f} GB on {gpu.describe()}, {need / 1e9:.1f} GB wanted{note}"
    return Need("memory of the device", "00 01 02 05", have >= need, where, "Take a larger GPU.")


def _disk(w: World) -> Need:
    drawn = sum(items for _, step, items in work(w) if step == "synthesis")
    need = drawn * config.settings().kept ** 2 * PIXEL
    have = store.free(places.root())
    where = f"{have / 1e9:,.0f} GB free for {places.root()}, {need / 1e9:,.1f} wanted"
    advice = f"Set STUDY_RUNS to a larger disk, or lower captions per_class in {config.FILE}."
    return Need("disk for what is drawn", "02 05 06", have >= need, where, advice)


def work(w: World) -> list[tuple[str, str, float]]:
    """What the notebooks handle: number, step as in ``tests/bench``, and how many captions written,
    images drawn, embedded, or passed through training (times epochs); 0 while not known.
    """
    training = w.finetune
    analysis = w.analysis
    scaling = w.scaling
    robust = w.robustness
    captions = 0
    for task in w.tasks:
        bench = _here(benchmarks.benchmark, w, task)
        classes = len(bench.classes) if bench else KNOWN.get(task, 0)
        captions += classes * dict(w.captions.per_class_of).get(task, w.captions.per_class)
    # 04: both sources at all sizes, on the seeds of all learning rates and on those reported
    largest = training.sizes[-1]
    further = [largest * 2**i for i in range(1, training.synthetic_beyond + 1)]
    tried = training.selection_seeds * len(training.lrs)
    swept = (2 * sum(training.sizes) + sum(further)) * (training.seeds + tried)
    middle = training.sizes[len(training.sizes) // 2]
    swept += middle * len(w.retrieval.rules) * training.selection_seeds
    epochs = sum(dict(training.epochs_of).get(task, training.epochs) for task in w.tasks)
    # 05: arms that are filtered after drawing, every strength of SDEdit, and mixtures
    drawn = len(analysis.generators) + 1
    filtered = math.ceil(2 * drawn * analysis.size / w.clip.top_share)
    edited = len(analysis.strengths) * analysis.size
    mixed = sum(2 * real + added for real, added in analysis.mixes)
    ablated = (drawn + 1) * analysis.size + edited + mixed
    # 06: every guidance, prompt and generator but those of notebook 02, twice the largest size
    arms = len(scaling.prompts) + sum(g != w.synthesis.guidance for g in scaling.guidances)
    arms += sum(g != w.synthesis.generator for g in scaling.generators)
    paired = 3 * len(scaling.pairs) * scaling.pair_seeds * robust.steps * robust.batch
    # 07: every checkpoint on all probe sets
    sets = len(probes.present(config.settings().benchmarks))
    bench = _here(benchmarks.benchmark, w, robust.task)
    tested = len(bench.test) if bench else IMAGENET_TEST
    probed = robust.probe_images * sets + robust.validation + tested
    attacks = robust.attacked * len(robust.epsilons) * (robust.pgd_steps + 2)
    return [
        ("01", "caption", captions * 4 / 3),
        ("02", "synthesis", captions),
        ("03", "embed", 2 * (_here(_pairs, config.settings().laion) or 0)),
        ("04", "finetune", epochs * swept),
        ("05", "synthesis", filtered + training.seeds * edited),
        ("05", "finetune", training.epochs * training.seeds * ablated),
        ("06", "synthesis", 2 * (arms * scaling.sizes[-1] + scaling.pairs[-1])),
        ("06", "embed", 5 * (arms + 3) * scaling.sizes[-1]),  # mirrored and judged ones counted
        ("06", "finetune", paired),
        ("07", "embed", len(robust.checkpoints) * probed),
        ("07", "finetune", len(robust.checkpoints) * attacks),
    ]


def costs(w: World) -> dict[str, str]:
    """Notebook -> hours, from the rates that benchmarks left (``measured``); how to get them."""
    rates = measured(w)
    parts: dict[str, list[str]] = {"00": ["minutes"]}
    unknown: dict[str, None] = {}  # steps, in order
    for number, step, items in work(w):
        cost = f"{items:,.0f} x {step}"
        if not items:
            cost = f"{step} is not known before the data are there"
        elif step in rates.index:
            rate, device = rates.loc[step, ["per_second", "device"]]
            cost = f"{items / rate / 3600:,.1f} hours on {device} ({cost} at {rate:,.1f} a second)"
        else:
            unknown[step] = None
        parts.setdefault(number, []).append(cost)
    told = {number: "; ".join(costs) for number, costs in parts.items()}
    if unknown:
        first = f"python -m tests.bench {next(iter(unknown))}"
        others = f" (then {', '.join([*unknown][1:])})" if len(unknown) > 1 else ""
        told["hours"] = f"not measured yet: run {first}{others}"
    return told


def measured(w: World) -> pd.DataFrame:
    """Rates by benchmark, with columns per_second and device; empty where none ran."""
    if not rates_file(w).exists():
        return pd.DataFrame(columns=["per_second", "device"])
    return pd.read_csv(rates_file(w), index_col="bench")


def rates_file(w: World) -> Path:
    """Where benchmarks leave their rates."""
    return places.figures_root() / w.name / "00_throughput.csv"
