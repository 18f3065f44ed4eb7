"""The worlds as frozen dataclasses: every setting of the study, readable as a diff between them.

[P], which decides, is the NeurIPS text of *The Unmet Promise of Synthetic Training Images* (arXiv
2406.05184), [W] its workshop version, [C] its code; [R] is *Is Synthetic Data all We Need?*.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field

from helpers.errors import replaced, unknown

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
Numbers = tuple[Number, ...]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
PerTask = tuple[tuple[str, Count], ...]  # another number for some tasks


@dataclass(frozen=True)
class PoolSettings:
    """The image-text pool, LAION's stand-in, and the benchmarks beside it."""

    seed: Whole = 0  # its own: another seed of the study leaves pool and shipped models as they are
    rows: Count = 16_000
    shard_rows: Count = 2_000
    benchmark_per_class: Count = 100  # images per class in each of train, val and test
    test_per_class_of: PerTask = ()  # another number in the test split
    upstream: str = "committed"  # the shipped weights; "train": tiny models from scratch


@dataclass(frozen=True)
class UpstreamSettings:
    """How the models of the miniature are trained on exactly the pool (pocket/train)."""

    clip_epochs: Count = 30
    clip_batch: Count = 256
    autoencoder_steps: Count = 4_000
    autoencoder_channels: Counts = (16, 32, 64)
    unet_channels: Counts = (48, 96, 112)
    generator_steps: Count = 10_000  # the longest of the three training budgets
    generator_batch: Count = 64
    language_steps: Count = 1_500
    judge_images: Count = 16_000
    judge_epochs: Count = 7


@dataclass(frozen=True)
class CaptionSettings:
    """Captions by a language model, SynCLR style ([P] section 3, [C] synthesize_text.py)."""

    per_class: Count = 115  # captions wanted, images drawn: twice what finetuning needs passes
    per_class_of: PerTask = (("flowers", 196), ("cars", 196))
    temperature: Number = 0.8  # [C]
    top_p: Number = 0.9  # [C]
    max_new_tokens: Count = 32  # [C] has 100
    batch: Count = 256


@dataclass(frozen=True)
class SynthesisSettings:
    """Images of captions from a latent diffusion model ([P] section 3)."""

    generator: str = "long"  # training budget: short, middle, long; [P] has SD 1.1, 1.3, 1.5
    steps: Count = 6  # of DDIM; [P] 50
    guidance: Number = 2.0  # [P]; [W] has 2.5
    batch: Count = 64
    shard: Count = 60  # images per file: small enough to keep all cores busy to the end


@dataclass(frozen=True)
class ClipSettings:
    """The CLIP that is finetuned, and that filters both sources ([P] section 4)."""

    model: str = "upstream"  # the world's own; otherwise a name that open_clip knows
    pretrained: str = ""
    top_share: Number = 0.7  # best share per class kept by the filter, of both sources; [P] 0.3


@dataclass(frozen=True)
class RetrievalSettings:
    """Real pairs from the generator's own training pool ([P] sections 3 and C)."""

    rules: Names = ("substring", "word", "semantic")  # or "tokens" [C]; validation chooses one
    k: Count = 60  # semantic search: neighbours per query and index [P] 2,000
    k_of: PerTask = ()  # [P] ImageNet 500
    filters: Names = ("top", "domain")  # best share per class [P]; similarity to one text [W]


@dataclass(frozen=True)
class FinetuneSettings:
    """Full finetuning with cross-entropy from the text-initialised head ([P] section 4)."""

    sizes: Counts = (30, 120, 480)  # nested subsets
    largest_of: PerTask = ()  # another largest size, where the pool has less
    synthetic_beyond: Whole = 1  # further doublings of the synthetic arm: the figure's grey zone
    seeds: Count = 3  # [P] at least 3
    selection_seeds: Whole = 0  # runs per learning rate tried; 0: rates of helpers/study/rates.csv
    lrs: Annotated[Numbers, Field(min_length=1)] = (1e-3, 3e-4, 1e-4)  # tried; more at the edges
    batch: Count = 32  # [P] 512
    epochs: Count = 6  # [P] 30
    epochs_of: PerTask = ()  # [P] ImageNet 10
    min_steps: Count = 40  # so that the smallest sets leave the warm-up, for every source
    warmup: Number = 0.1  # share of the steps, or from 1 on their number; [P] 500
    probe_images: Count = 800  # of train, and of validation, that the linear probe is fitted on
    few_labels: tuple[Whole, ...] = (5, 20)  # labelled images per class of further probes
    probe_penalties: Numbers = (1e-5, 1e-4, 1e-3, 1e-2)  # of its weights; chosen on validation
    probe_on: str = "both"  # the final probe is fitted on train and validation [C]; "train" [P]
    precision: str = "bf16"  # where the device computes it fast; "fp32" throughout [C]


@dataclass(frozen=True)
class AnalysisSettings:
    """Why the difference? ([P] section 5 and appendix B)"""

    tasks: Names = ("aircraft",)  # that ablations are made on
    size: Count = 120  # images per arm of every ablation
    generators: Names = ("short", "middle", "long")  # at equal size; [P] SD 1.1, 1.3, 1.5
    strengths: Numbers = (0.1, 0.5, 0.8)  # of SDEdit; [P] 0.1 ... 1.0
    mixes: tuple[tuple[Count, Count], ...] = ((480, 480),)  # retrieved, and synthetic ones added
    judged: Count = 40  # images per class and source given to the detail judge


@dataclass(frozen=True)
class ScalingSettings:
    """How does each source scale? (*Scaling Laws of Synthetic Images*, arXiv 2312.04567)"""

    sizes: Counts = (12, 24, 48, 96, 192)  # nested; of the last, twice are drawn per arm
    beyond: Whole = 2  # further doublings, for arms that need no drawing
    guidances: Numbers = (1.0, 2.0, 7.5)  # 7.5: the usual default; 1: no guidance
    prompts: tuple[str, ...] = ("templates", "training captions")
    generators: Names = ("short", "long")
    seeds: Count = 5
    steps: Count = 300  # updates, the same at every size
    batch: Count = 64
    hidden: Count = 256  # width of the classifier's hidden layer
    shifted_per_class: Count = 50  # images per class in each shifted test set
    pairs: Counts = (48, 96, 192)  # captions of the language-supervised models
    pair_seeds: Count = 3
    lots: Count = 1  # of the intervention: draws of classes made rare, two generators each


@dataclass(frozen=True)
class RobustnessSettings:
    """What else differs between models trained on real and on synthetic images ([R])."""

    task: str = "flowers"  # shape and colour both tell its classes apart: cues can conflict
    images: Count = 480  # per model, whatever family and source; less where a source has less
    steps: Count = 200  # updates, likewise
    batch: Count = 64
    lr: Number = 2e-3
    image_size: Count = 48  # what the towers see; attacks and corruptions see the full picture
    context: Count = 20  # tokens that the text towers see; captions have up to 19
    seeds: Count = 3  # [R] has one
    mixed: tuple[str, ...] = ("language-supervised",)  # families trained on mixtures, too [R]
    prompts: tuple[str, ...] = ("class names",)  # beside the language model's; [R] also templates
    prompted: Counts = (240,)  # images per model of the prompt ablation, nested; twice are drawn
    probe_images: Count = 280  # per probe set
    validation: Count = 420  # images for the temperature and the head's penalty
    attacked: Count = 98  # images given to FGSM and PGD
    epsilons: Numbers = (0.25, 0.5, 1, 2)  # L-inf radius in 255ths; [R] has 1
    pgd_steps: Count = 10  # [R] 20
    checkpoints: tuple[tuple[str, str, str], ...] = ()  # family, source, name: probed, not trained


@dataclass(frozen=True)
class World:
    """One setting of the whole study; ``backend`` is the package with its pool and models."""

    name: str
    backend: Literal["pocket", "paper"] = "pocket"
    keeps_runs: bool = False  # beside its figures, to be committed: another machine goes on there
    seed: Whole = 0
    image_size: Count = 64
    tasks: Names = ("aircraft", "flowers", "cars")
    pool: PoolSettings = PoolSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    captions: CaptionSettings = CaptionSettings()
    clip: ClipSettings = ClipSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    scaling: ScalingSettings = ScalingSettings()
    robustness: RobustnessSettings = RobustnessSettings()


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
)
DESK = replace(
    World("desk"), keeps_runs=True,
    pool={"test_per_class_of": (("aircraft", 417), ("flowers", 715), ("cars", 715))},
    captions={"per_class": 915, "per_class_of": (("flowers", 392), ("cars", 392))},
    finetune={
        "sizes": (30, 60, 120, 240, 480, 960, 1_920, 3_840), "seeds": 20, "selection_seeds": 5,
        "largest_of": (("flowers", 960), ("cars", 960))},
    analysis={
        "tasks": ("aircraft", "cars"), "size": 480, "strengths": (0.1, 0.2, 0.4, 0.5, 0.6, 0.8),
        "mixes": ((480, 480), (480, 960), (960, 960), (3_840, 3_840)), "judged": 400},
    scaling={
        "sizes": (12, 24, 48, 96, 192, 384, 768), "guidances": (1.0, 1.5, 2.0, 4.0, 7.5),
        "prompts": ("class names", "class and parent", "class and description", "templates",
                    "alt text", "training captions"),
        "seeds": 20, "pairs": (48, 96, 192, 384), "pair_seeds": 8, "lots": 4},
    robustness={  # seeds by the spread between runs (inference), four times the images
        "seeds": 24, "prompts": ("class names", "templates"), "prompted": (480,),
        "probe_images": 1_120, "attacked": 392},
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
    return world


def backend(world: World) -> ModuleType:
    """The package that supplies pool, benchmarks and models: its functions are in its ``SEAM``."""
    return importlib.import_module(f"helpers.{world.backend}")
