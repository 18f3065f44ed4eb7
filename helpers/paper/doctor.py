"""What the paper world needs and whether it is here, looked at without loading, drawing or downloading anything; and its cost."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from helpers.engine import gpu, places, store
from helpers.errors import Need, StudyError
from helpers.models import weights
from helpers.paper import benchmarks, config, probes
from helpers.worlds import World

PUBLISHED = {
    "meta-llama/Llama-2-7b-hf": 13.5,
    **dict.fromkeys(config.GENERATORS.values(), 5.5),
}  # GB of safetensors
CLASSES = {"aircraft": 100, "cars": 196, "flowers": 102, "dtd": 47, "imagenet": 1_000}
IMAGENET_TEST = 50_000  # images of its validation split, on which models are tested
EVERY = "00 01 02 03 04 05 06 07"
PIXEL = (
    3 + 2
)  # bytes that an image takes per pixel: in the array that is trained on, and as PNG in its shard
OVERHEAD = 1.5  # memory for a model in use, as a multiple of its weights


def check(w: World) -> tuple[list[Need], dict[str, str]]:
    """What is needed and found, and what each notebook costs; without ``$STUDY_PAPER``, what an empty folder would lack.

    Raises ``StudyError`` on a ``paper.toml`` that cannot be read.
    """
    given = os.environ.get("STUDY_PAPER", "")
    if given and Path(given).is_dir():
        return needs(w), costs(w)
    first = Need(
        "$STUDY_PAPER",
        EVERY,
        False,
        given or "not set",
        f"Make a folder for {config.FILE}, weights and data, and name it: "
        "export STUDY_PAPER=FOLDER. The default places below are in it.",
    )
    with tempfile.TemporaryDirectory() as empty:
        os.environ["STUDY_PAPER"] = empty
        try:
            rows, cost = needs(w), costs(w)
        finally:
            os.environ["STUDY_PAPER"] = given
    place, shown = str(Path(empty).resolve()), "$STUDY_PAPER"
    return [
        first,
        *(
            n._replace(where=n.where.replace(place, shown), get=n.get.replace(place, shown))
            for n in rows
        ),
    ], cost


def needs(w: World) -> list[Need]:
    """Everything that notebooks 00 to 07 look for: weights, benchmarks, pool, index, memory of the device, disk."""
    s = config.settings()
    compared = {
        g: "00 05" if g in w.analysis.generators else ""
        for g in (*w.analysis.generators, *w.scaling.generators)
        if g != w.synthesis.generator
    }
    models = [
        ("language model", s.language_model, "01"),
        (f"generator {w.synthesis.generator}", _generator(s, w.synthesis.generator), "00 02 05 06"),
        *(
            (
                f"generator {g}",
                _generator(s, g),
                f"{used} 06" if g in w.scaling.generators else used,
            )
            for g, used in compared.items()
        ),
    ]
    rows = [
        _found(what, numbers, name, lambda what=what, name=name: str(weights.folder(what, name)))
        for what, name, numbers in models
    ]
    rows.append(_found("CLIP", "00 02 03 04 05 06 07", s.clip, lambda: _clip(w, s.clip)))
    rows += [
        _found(
            f"benchmark {t}",
            "00 01 02 03 04 05 06",
            str(s.benchmarks),
            lambda t=t: _benchmark(w, t),
        )
        for t in w.tasks
    ]
    rows.append(
        _found(
            "pool",
            "00 01 03",
            str(s.laion),
            lambda: f"{len(benchmarks.open_pool(w)):,} pairs in {s.laion}",
        )
    )
    if s.index:
        rows.append(_index(s.index))
    rows.append(
        _found("CLIP that judges", "06", s.judge, lambda: str(weights.clip_file(s.judge)), "judge")
    )
    rows.append(
        _found(
            "probed benchmark", "07", str(s.benchmarks), lambda: _benchmark(w, w.robustness.task)
        )
    )
    rows += [
        _found(
            "probed checkpoint",
            "07",
            f"{name}, {family} on {source}",
            lambda name=name: _checkpoint(w, name),
            "checkpoints",
        )
        for family, source, name in w.robustness.checkpoints
    ]
    return [*rows, _probe_sets(s.benchmarks), _memory([name for _, name, _ in models]), _disk(w)]


def _found(what: str, numbers: str, looked: str, find: Callable[[], str], key: str = "") -> Need:
    try:
        return Need(what, numbers, True, find())
    except StudyError as e:
        other = f" Or name another folder or file as {key} in {config.FILE}." if key else ""
        return Need(what, numbers, False, f"looked for {looked}", f"{e}{other}")


def _checkpoint(w: World, name: str) -> str:
    return str(weights.checkpoint_file(config.checkpoint(w, name)))


def _probe_sets(base: Path) -> Need:
    here, every = (
        probes.present(base),
        dict.fromkeys(place.split("/")[0] for place in probes.PLACES.values()),
    )
    lacking = [
        top for top in every if not any(probes.PLACES[name].split("/")[0] == top for name in here)
    ]
    without = (
        f"; without {', '.join(lacking)} (layouts: helpers/paper/probes.py)" if lacking else ""
    )
    return Need("probe sets", "07", True, f"{len(here)} of {len(probes.PLACES)} in {base}{without}")


def _generator(s: config.Config, name: str) -> str:
    return s.generators.get(name, f"(no generator {name!r} in {config.FILE})")


def _clip(w: World, name: str) -> str:
    return str(weights.clip_file(name if Path(name).is_dir() else f"{w.clip.model}/{name}"))


def _benchmark(w: World, task: str) -> str:
    bench = benchmarks.benchmark(w, task)
    first = {name: getattr(bench, name).images for name in ("train", "val", "test")}
    for images in first.values():
        images[:1]  # one image of each split is decoded, as lists can be there without the images
    return (
        ", ".join(f"{name} {len(images):,}" for name, images in first.items())
        + f", {len(bench.classes):,} classes"
    )


def _index(name: str) -> Need:
    service = name.startswith(("http://", "https://"))
    return Need(
        "index",
        "03",
        service or (Path(name) / "image.index").exists(),
        name,
        "clip-retrieval's folder has image.index, text.index and metadata/. Leave index out of "
        f"{config.FILE}, and notebook 03 builds one over the pool.",
    )


def _size(name: str) -> float:
    """Bytes of the weights: of the files where they are here, else as published."""
    try:
        files = list(weights.folder("weights", name).rglob("*.safetensors"))
    except StudyError:
        return 1e9 * PUBLISHED.get(name, 0)
    return sum(f.stat().st_size for f in files)


def _memory(names: list[str]) -> Need:
    need, have = OVERHEAD * max(map(_size, names)), gpu.memory()
    where = f"{have / 1e9:.0f} GB on {gpu.describe()}, {need / 1e9:.1f} GB wanted" + (
        "" if gpu.device() == "cuda" else "; no GPU here"
    )
    return Need(
        "memory of the device", "00 01 02 05", have >= need, where, "Take a GPU with more memory."
    )


def _classes(w: World, task: str) -> int:
    try:
        return len(benchmarks.benchmark(w, task).classes)
    except StudyError:
        return CLASSES.get(task, 0)


def _captions(w: World) -> int:
    return sum(
        dict(w.captions.per_class_of).get(t, w.captions.per_class) * _classes(w, t) for t in w.tasks
    )


def _drawn(w: World) -> int:
    """Images drawn by notebook 05: the arms that are filtered, and every strength of SDEdit."""
    arms = len(w.analysis.generators) - 1 + 2
    return (
        math.ceil(arms * w.analysis.size / w.clip.top_share)
        + len(w.analysis.strengths) * w.analysis.size
    )


def _drawn_arms(w: World) -> int:
    """Arms of notebook 06 that are drawn: every guidance, prompt and generator but those of notebook 02."""
    other_guidances = [g for g in w.scaling.guidances if g != w.synthesis.guidance]
    other_generators = [g for g in w.scaling.generators if g != w.synthesis.generator]
    return len(other_guidances) + len(w.scaling.prompts) + len(other_generators)


def _arms(w: World) -> int:
    """Images drawn by notebook 06: every arm at its largest size, and the pairs."""
    return _drawn_arms(w) * w.scaling.sizes[-1] + w.scaling.pairs[-1]


def _disk(w: World) -> Need:
    need, have = (
        (_captions(w) + _drawn(w) + _arms(w)) * config.settings().kept ** 2 * PIXEL,
        store.free(places.root()),
    )
    where = f"{have / 1e9:,.0f} GB free for {places.root()}, {need / 1e9:,.1f} wanted"
    return Need(
        "disk for what is drawn",
        "02 05 06",
        have >= need,
        where,
        "Set STUDY_RUNS to a larger disk, or lower captions per_class under [world] in paper.toml.",
    )


def _trained(w: World) -> tuple[int, int]:
    """Images that pass through training in notebooks 04 and 05, epochs counted."""
    s, sweep = w.finetune, 0
    for task in w.tasks:
        epochs = dict(s.epochs_of).get(task, s.epochs)
        middle = s.sizes[len(s.sizes) // 2]
        sweep += epochs * (
            2 * s.seeds * sum(s.sizes)
            + middle * (len(w.retrieval.rules) * len(w.retrieval.filters) + 2 * len(s.lrs))
        )
    runs = len(w.analysis.generators) + 4 + len(w.analysis.strengths)
    arms = (
        s.epochs
        * s.seeds
        * (
            runs * w.analysis.size
            + sum(w.analysis.mix_synthetic)
            + len(w.analysis.mix_synthetic) * s.sizes[-1]
        )
    )
    return sweep, arms


def _scaled(w: World) -> tuple[int, int]:
    """Images that notebook 06 embeds, mirrored and judged ones counted, and images that its CLIPs on pairs are trained on."""
    s = w.scaling
    return 3 * (_drawn_arms(w) + 3) * s.sizes[-1], len(
        s.pairs
    ) * 3 * w.robustness.seeds * w.robustness.steps * w.robustness.batch


def _probed(w: World) -> tuple[int, int]:
    """Images that notebook 07 passes through its checkpoints, and those on which attacks take a gradient."""
    s, sets, n = (
        w.robustness,
        len(probes.present(config.settings().benchmarks)),
        len(w.robustness.checkpoints),
    )
    try:
        tested = len(benchmarks.benchmark(w, s.task).test)
    except StudyError:
        tested = IMAGENET_TEST
    return n * (s.probe_images * sets + s.validation + tested), n * s.attacked * len(s.epsilons) * (
        s.pgd_steps + 2
    )


def costs(w: World) -> dict[str, str]:
    """Notebook -> device-hours, from the rates in ``00_throughput.csv`` (``bench, per_second, device``), which benchmarks write."""
    try:
        pool = len(benchmarks.open_pool(w))
    except StudyError:
        pool = 0
    (sweep, ablated), drawn, (seen, paired), (probed, attacked) = (
        _trained(w),
        _drawn(w),
        _scaled(w),
        _probed(w),
    )
    work = {
        "01": [("caption", _captions(w) * 4 / 3)],
        "02": [("synthesis", _captions(w))],
        "03": [("embed", 2 * pool)],
        "04": [("finetune", sweep)],
        "05": [("synthesis", drawn), ("finetune", ablated)],
        "06": [("synthesis", _arms(w)), ("embed", seen), ("finetune", paired)],
        "07": [("embed", probed), ("finetune", attacked)],
    }
    rates = measured(w)
    return {
        "00": "minutes",
        **{
            number: "; ".join(_cost(rates, name, items) for name, items in parts)
            for number, parts in work.items()
        },
    }


def _cost(rates: pd.DataFrame, name: str, items: float) -> str:
    if not items:
        return f"{name}: not known before the data are there"
    if name not in rates.index:
        return f"{items:,.0f} x {name}, not measured: python -m tests.bench {name}"
    rate, device = rates.loc[name, ["per_second", "device"]]
    return f"{items / rate / 3600:,.1f} device-hours ({items:,.0f} x {name} at {rate:,.1f} a second on {device})"


def measured(w: World) -> pd.DataFrame:
    """The rates that benchmarks left on this machine, by name; empty where none ran."""
    file = rates_file(w)
    return (
        pd.read_csv(file).set_index("bench")
        if file.exists()
        else pd.DataFrame(columns=["per_second", "device"])
    )


def rates_file(w: World) -> Path:
    """Where benchmarks leave their rates."""
    return (
        Path(os.environ.get("STUDY_FIGURES") or places.PACKAGE.parent / "figures")
        / w.name
        / "00_throughput.csv"
    )
