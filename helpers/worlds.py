"""The four worlds, readable as a diff between them.

What the settings mean, and the tags [P], [W], [C] and [R], stand in ``helpers/settings.py``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from helpers.errors import replaced, unknown
from helpers.settings import World


def replace(world: World, **changes: Any) -> World:
    """``world`` with settings replaced: ``replace(w, seed=1, synthesis={"generator": "short"})``.

    Raises ``StudyError`` on a name that is no setting, and on a value that it cannot have.
    """
    return replaced(world, changes, f"world {world.name!r}")


# fmt: off
POCKET = World("pocket")
SMOKE = replace(
    World("smoke"), image_size=32,
    pool={"rows": 1_500, "shard_rows": 500, "benchmark_per_class": 8, "upstream": "train"},
    upstream={"clip_epochs": 2, "clip_batch": 64, "language_steps": 60, "autoencoder_steps": 40,
        "autoencoder_channels": (8, 16, 16), "unet_channels": (16, 32, 32), "generator_steps": 30,
        "generator_batch": 16, "judge_images": 800, "judge_epochs": 2},
    captions={"per_class": 8, "per_class_of": (), "max_new_tokens": 24, "batch": 32},
    synthesis={"steps": 4, "shard": 40}, retrieval={"k": 20},
    finetune={
        "sizes": (8, 16, 32), "seeds": 2, "selection_seeds": 1, "lrs": (1e-3, 1e-4), "epochs": 1,
        "min_steps": 2, "probe_images": 100, "few_labels": (2,)},
    analysis={"size": 16, "strengths": (0.3, 0.7), "mixes": ((16, 16),), "judged": 2},
    scaling={"sizes": (12, 24, 32, 40, 48), "beyond": 1, "seeds": 3, "steps": 40, "batch": 16,
        "prompts": ("class and description", "templates", "training captions", "alt text"),
        "hidden": 64, "shifted_per_class": 4, "pairs": (14, 21, 28), "pair_seeds": 2},
    robustness={
        "images": 32, "image_size": 32, "steps": 4, "batch": 16, "seeds": 2, "epsilons": (1, 4),
        "mixed": ("supervised", "self-supervised", "language-supervised"), "pgd_steps": 3,
        "prompts": ("class names", "templates"), "prompted": (7, 14), "probe_images": 28,
        "validation": 40, "attacked": 14},
    mixes={
        "counts": (8, 16), "steps": 2, "seeds": 2, "size": 16, "access": (0.5,), "shots": (2,),
        "guides": ("plain", "class", "data set", "words", "context", "retrieved")},
    adapter={"rank": 2, "steps": 24, "class_steps": 8, "warmup": 2},
)
DESK = replace(
    World("desk"), keeps_runs=True,
    pool={"test_per_class_of": (("aircraft", 417), ("flowers", 715), ("cars", 715))},
    captions={"per_class": 915, "per_class_of": (("flowers", 392), ("cars", 392))},
    finetune={
        "sizes": (30, 60, 120, 240, 480, 960, 1_920, 3_840), "seeds": 20, "selection_seeds": 5,
        "largest_of": (("flowers", 960), ("cars", 960))},
    analysis={
        "tasks": ("aircraft", "cars"), "size": 480, "generators": ("short", "middle", "long"),
        "strengths": (0.1, 0.2, 0.4, 0.5, 0.6, 0.8),
        "mixes": ((480, 480), (480, 960), (960, 960), (3_840, 3_840)), "judged": 400},
    scaling={
        "sizes": (12, 24, 48, 96, 192, 384, 768), "guidances": (1.0, 1.5, 2.0, 4.0, 7.5),
        "prompts": ("class names", "class and parent", "class and description", "templates",
                    "alt text", "training captions"),
        "seeds": 20, "pairs": (48, 96, 192, 384), "pair_seeds": 8, "lots": 4},
    robustness={  # seeds by the spread between runs (inference), four times the images
        "seeds": 24, "steps": 200, "prompts": ("class names", "templates"), "prompted": (480,),
        "probe_images": 1_120, "attacked": 392},
    mixes={
        "tasks": ("aircraft", "cars"), "counts": (60, 240, 960, 3_840), "steps": 180, "seeds": 10,
        "selection_seeds": 2, "size": 480, "access": (1 / 32, 1 / 8), "noise": (0.2, 0.5),
        "shots": (1, 5, 16),
        "guides": ("plain", "class", "data set", "words", "context", "retrieved")},
    adapter={"steps": 700, "lr": 1e-3, "warmup": 70},  # lowest held-out loss tried
)
PAPER = replace(
    World("paper", backend="paper"), image_size=224,
    tasks=("aircraft", "cars", "flowers", "dtd", "imagenet"),  # [P] section 4
    clip={"model": "ViT-B-16", "pretrained": "laion2b_s34b_b88k", "top_share": 0.3},  # [P]
    captions={"per_class": 17_000, "max_new_tokens": 100,  # 1.7 million a task [P], [C]
        "per_class_of": (("cars", 8_500), ("dtd", 36_000), ("imagenet", 1_700))},
    synthesis={"generator": "1.5", "steps": 50, "shard": 1_024},  # [P]
    retrieval={"rules": ("substring", "semantic"), "k": 2_000, "k_of": (("imagenet", 500),)},
    finetune={  # [P], but the penalties: more images want less
        "sizes": (15_625, 31_250, 62_500, 125_000, 250_000), "selection_seeds": 1,
        "lrs": (5e-4, 1e-5, 1e-6), "batch": 512, "epochs": 30, "epochs_of": (("imagenet", 10),),
        "min_steps": 1, "warmup": 500, "probe_images": 1_300_000, "probe_on": "train",
        "probe_penalties": (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)},
    analysis={  # [P] figures 5, 6, 7
        "size": 125_000, "generators": ("1.1", "1.3", "1.5"),
        "strengths": tuple(i / 10 for i in range(1, 11)),
        "mixes": ((250_000, 62_500), (250_000, 125_000), (250_000, 250_000))},
    scaling={  # the published pairs start at 64 million
        "sizes": tuple(500 * 2**i for i in range(7)), "beyond": 3,
        "guidances": (1.0, 1.5, 2.0, 4.0, 7.5),
        "prompts": ("class names", "class and parent", "templates", "alt text"),
        "generators": ("1.1", "1.3", "1.5"), "steps": 10_000, "batch": 512, "hidden": 2_048,
        "pairs": (31_250, 62_500, 125_000, 250_000)},
    robustness={
        "task": "imagenet", "image_size": 224, "context": 77, "steps": 10_000, "batch": 512,
        "lr": 5e-4, "pgd_steps": 20, "validation": 2_000, "probe_images": 2_000, "attacked": 512,
        "checkpoints": (  # [R]; clones are files of weights, which a user names
            ("supervised", "retrieved", "timm/vit_base_patch16_224.augreg_in1k"),
            ("supervised", "retrieved", "timm/resnet50.a1_in1k"),
            ("language-supervised", "retrieved", "open_clip/ViT-B-16-quickgelu/openai"),
        )},
    mixes={  # 16 real images of a class, as in DataDream's main table
        "counts": (15_625, 62_500, 250_000), "steps": 3_000, "size": 50_000, "shots": (16,),
        "guides": ("plain", "class", "data set", "retrieved")},  # benchmarks have no captions
    adapter={"steps": 200 * 100 * 16 // 8, "lr": 1e-4, "warmup": 100},  # epochs, classes, images
)
# fmt: on
WORLDS = {w.name: w for w in (SMOKE, POCKET, DESK, PAPER)}


def get(name: str, **changes: Any) -> World:
    """The world called ``name``, with settings replaced as by ``replace``.

    What the user configured beside this file (paper.toml) counts as the world's own. Raises
    ``StudyError`` on an unknown world or task as well.
    """
    if name not in WORLDS:
        raise unknown("world", name, WORLDS)
    configured = backend(WORLDS[name]).configured(WORLDS[name])
    world = replace(configured, **changes)
    tasks = list(dict.fromkeys((*WORLDS[name].tasks, *configured.tasks)))
    for task in world.tasks:
        if task not in tasks:
            raise unknown(f"task in world {name!r}", task, tasks)
    for part in ("analysis", "mixes"):
        wanted, usual = (getattr(w, part).tasks for w in (world, WORLDS[name]))
        missing = [task for task in wanted if task not in world.tasks]
        if missing and wanted != usual:
            raise unknown(f"task of {part}", missing[0], world.tasks)
        if missing:  # the world's own, which is not among the user's
            world = replace(world, **{part: {"tasks": world.tasks[:1]}})
    return world


def backend(world: World) -> ModuleType:
    """The package that supplies pool, benchmarks and models: its functions are in its ``SEAM``."""
    return importlib.import_module(f"helpers.{world.backend}")


def lazy(package: str, seam: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of such a package: its functions are imported when first asked for.

    ``seam``: name -> "module:function".
    """

    def answer(name: str) -> Any:
        if name not in seam:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return pkgutil.resolve_name(seam[name])

    return answer
