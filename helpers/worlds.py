"""The four worlds as frozen dataclasses: every setting of the study, readable as a diff between the worlds.

Values marked [P] follow the NeurIPS text of *The Unmet Promise of Synthetic Training Images* (arXiv 2406.05184),
[W] its workshop version, [C] the authors' code. Where they disagree the choice is a named field and follows [P].
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from helpers.errors import unknown
from helpers.settings import override


@dataclass(frozen=True)
class PoolSettings:
    """The image-text pool, LAION's stand-in, and the benchmarks beside it."""

    seed: int = 0  # its own: another seed of the study draws, filters and trains anew, but the world stays the same
    rows: int = 16_000
    shard_rows: int = 2_000
    benchmark_per_class: int = 100  # images per class in each of train, val and test
    upstream: str = "committed"  # "committed": the weights in helpers/pocket/weights; "train": tiny ones from scratch


@dataclass(frozen=True)
class UpstreamSettings:
    """How the models of the miniature are trained on exactly the pool (helpers/pocket/train/upstream.py)."""

    clip_epochs: int = 30
    clip_batch: int = 256
    autoencoder_steps: int = 4_000
    autoencoder_channels: tuple[int, ...] = (16, 32, 64)
    unet_channels: tuple[int, ...] = (48, 96, 112)
    generator_steps: int = (
        10_000  # of `generator_batch` images: the longest of the three training budgets
    )
    generator_batch: int = 64
    language_steps: int = 1_500
    judge_images: int = 16_000
    judge_epochs: int = 7


@dataclass(frozen=True)
class CaptionSettings:
    """Captions by a language model, SynCLR style ([P] section 3, [C] synthesize_text.py)."""

    per_class: int = 80  # captions wanted per class, after exact duplicates are dropped
    per_class_of: tuple[
        tuple[str, int], ...
    ] = ()  # another number for some tasks, so that all get as many captions
    temperature: float = 0.8  # [C]
    top_p: float = 0.9  # [C]
    max_new_tokens: int = 32  # [C] has 100
    batch: int = 256


@dataclass(frozen=True)
class SynthesisSettings:
    """One image per caption from a latent diffusion model ([P] section 3)."""

    generator: str = (
        "long"  # training budget: "short", "middle", "long" (the paper's SD 1.1 / 1.3 / 1.5)
    )
    steps: int = 12  # DDIM steps; [P] 50
    guidance: float = 2.0  # [P]; [W] has 2.5
    batch: int = 64
    shard: int = 60  # images per file: small enough to keep all cores busy to the end


@dataclass(frozen=True)
class ClipSettings:
    """The CLIP that is adapted, and that filters both sources ([P] section 4)."""

    model: str = (
        "upstream"  # "upstream": the miniature's own; otherwise a name that open_clip knows
    )
    pretrained: str = ""
    top_share: float = 0.5  # best share per class kept by the filter, for both sources; [P] 0.3


@dataclass(frozen=True)
class RetrievalSettings:
    """Real pairs from the generator's own training pool ([P] sections 3 and C)."""

    rules: tuple[str, ...] = (
        "substring",
        "word",
        "semantic",
    )  # or "tokens" [C]; the one used is chosen on validation
    k: int = 60  # semantic search: neighbours per query and index [P] 2,000
    k_of: tuple[tuple[str, int], ...] = ()  # another k for some tasks; [P] ImageNet 500
    filters: tuple[str, ...] = (
        "top",
        "domain",
    )  # "top": best share per class [P]; "domain": one text, threshold [W]


@dataclass(frozen=True)
class FinetuneSettings:
    """Full finetuning with cross-entropy from the text-initialised head ([P] section 4 and appendix)."""

    sizes: tuple[int, ...] = (30, 60, 120, 240, 480)  # nested subsets
    synthetic_beyond: int = (
        1  # further doublings for the synthetic arm (the grey zone of the figure)
    )
    seeds: int = 3  # [P] at least 3
    lrs: tuple[float, ...] = (1e-3, 3e-4, 1e-4)  # grid, chosen on validation
    batch: int = 32  # [P] 512
    epochs: int = 6  # [P] 30
    epochs_of: tuple[tuple[str, int], ...] = ()  # other epochs for some tasks; [P] ImageNet 10
    min_steps: int = 40  # so that the smallest sets leave the warm-up; the same for every source
    warmup: float = 0.1  # share of the steps, or from 1 on their number; [P] 500, more than the smallest sets ever train
    evaluations: int = (
        2  # times validation accuracy is taken; the best state is kept [P: every epoch]
    )
    validation: int = 500  # validation images looked at during training
    probe_images: int = 800  # of train, and of validation, that the linear probe is fitted on
    probe_penalties: tuple[float, ...] = (
        1e-5,
        1e-4,
        1e-3,
        1e-2,
    )  # strengths of its l2 penalty, chosen on validation
    probe_on: str = (
        "both"  # the probe for test: fitted on train and validation [C], or on "train" [P]
    )
    precision: str = (
        "bf16"  # where the device computes it fast, weights in fp32; "fp32" throughout [C]
    )


@dataclass(frozen=True)
class AnalysisSettings:
    """Why the difference? ([P] section 5 and appendix B)"""

    size: int = 120  # images per arm of every ablation
    generators: tuple[str, ...] = (
        "short",
        "middle",
        "long",
    )  # compared at equal size; [P] SD 1.1, 1.3, 1.5 (figure 6)
    strengths: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)  # SDEdit; [P] 0.1 ... 1.0
    mix_synthetic: tuple[int, ...] = (0, 120, 240, 480)  # added to the full retrieved set
    judged: int = 40  # images per class and source given to the detail judge


@dataclass(frozen=True)
class ScalingSettings:
    """How does each source scale? (*Scaling Laws of Synthetic Images*, arXiv 2312.04567)"""

    sizes: tuple[int, ...] = (
        12,
        24,
        48,
        96,
        192,
        384,
    )  # nested subsets of every arm; the last is what is drawn per arm
    beyond: int = 2  # further doublings, for arms that need no drawing
    guidances: tuple[float, ...] = (
        1.0,
        1.5,
        2.0,
        4.0,
        7.5,
    )  # 7.5: the usual default; 1: no guidance
    prompts: tuple[str, ...] = (
        "class names",
        "class and description",
        "class and parent",
        "templates",
        "alt text",
        "training captions",
    )
    generators: tuple[str, ...] = ("short", "middle", "long")
    seeds: int = 5
    steps: int = 300  # updates, the same at every size
    batch: int = 64
    hidden: int = 256  # width of the classifier's hidden layer
    shifted_per_class: int = 50  # images per class in each shifted test set
    pairs: tuple[int, ...] = (
        48,
        96,
        192,
        384,
    )  # image-caption pairs of the language-supervised models (recipe: RobustnessSettings)


@dataclass(frozen=True)
class RobustnessSettings:
    """What else differs between models trained on real and on synthetic images ([R] *Is Synthetic Data all We Need?*)"""

    task: str = "flowers"  # shape and colour both tell its classes apart, so that these cues can be put in conflict
    images: int = 480  # per model, whatever family and source; less where a source offers less
    steps: int = 200  # updates, likewise
    batch: int = 64
    lr: float = 2e-3
    image_size: int = 32  # what the towers see; attacks and corruptions work on the full picture
    context: int = 20  # tokens that the text towers see; captions have up to 19
    seeds: int = 3  # [R] has one
    mixing_sizes: tuple[int, ...] = (
        120,
        240,
    )  # further sizes of the mixing ablation, beside `images`
    prompts: tuple[str, ...] = (
        "class names",
        "templates",
    )  # of the prompt ablation, beside the language model's captions [R]
    prompted: tuple[int, ...] = (
        60,
        120,
        240,
    )  # images per model of the prompt ablation, nested subsets
    probe_images: int = 280  # per probe set
    validation: int = 420  # images for the temperature and the head's penalty
    attacked: int = 98  # images given to FGSM and PGD
    epsilons: tuple[float, ...] = (0.5, 1, 2, 4)  # L-inf radius in 255ths; [R] has 1
    pgd_steps: int = 10  # [R] 20
    checkpoints: tuple[
        tuple[str, str, str], ...
    ] = ()  # family, source, name (helpers/models/families.py): probed instead of training any


@dataclass(frozen=True)
class World:
    """One setting of the whole study. ``backend`` is the package that supplies pool, language model and generator."""

    name: str
    backend: str = "pocket"
    seed: int = 0
    image_size: int = 64
    tasks: tuple[str, ...] = ("aircraft", "flowers", "cars")
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


POCKET = World("pocket")
SMOKE = World(
    "smoke",
    image_size=32,
    pool=PoolSettings(rows=1_500, shard_rows=500, benchmark_per_class=8, upstream="train"),
    upstream=UpstreamSettings(
        clip_epochs=2,
        clip_batch=64,
        autoencoder_steps=40,
        autoencoder_channels=(8, 16, 16),
        unet_channels=(16, 32, 32),
        generator_steps=30,
        generator_batch=16,
        language_steps=60,
        judge_images=800,
        judge_epochs=2,
    ),
    captions=CaptionSettings(per_class=5, max_new_tokens=24, batch=32),
    synthesis=SynthesisSettings(steps=4, shard=40),
    retrieval=RetrievalSettings(k=20),
    finetune=FinetuneSettings(
        sizes=(4, 8, 16, 32, 48),
        batch=32,
        epochs=1,
        min_steps=2,
        lrs=(1e-3, 1e-4),
        seeds=2,
        evaluations=1,
        validation=50,
        probe_images=100,
    ),
    analysis=AnalysisSettings(size=16, strengths=(0.3, 0.7), mix_synthetic=(0, 16), judged=2),
    scaling=ScalingSettings(
        sizes=(12, 24, 48, 96),
        beyond=1,
        guidances=(1.0, 2.0, 7.5),
        seeds=3,
        steps=40,
        prompts=("class and description", "training captions", "alt text"),
        generators=("short", "long"),
        batch=16,
        hidden=64,
        shifted_per_class=4,
        pairs=(14, 28),
    ),
    robustness=RobustnessSettings(
        images=32,
        steps=4,
        batch=16,
        seeds=2,
        mixing_sizes=(8,),
        prompted=(7, 14),
        probe_images=28,
        validation=40,
        attacked=14,
        epsilons=(1, 4),
        pgd_steps=3,
    ),
)
WORKSTATION = World(
    "workstation",
    pool=PoolSettings(rows=100_000, shard_rows=10_000, upstream="train"),
    upstream=UpstreamSettings(
        autoencoder_steps=10_000,
        generator_steps=30_000,
        generator_batch=256,
        unet_channels=(96, 192, 256),
    ),
    captions=CaptionSettings(per_class=1_000),
    synthesis=SynthesisSettings(steps=50, batch=512, shard=2_048),
    retrieval=RetrievalSettings(k=1_000),
    finetune=FinetuneSettings(
        sizes=(250, 500, 1_000, 2_000, 4_000, 8_000),
        seeds=5,
        batch=128,
        epochs=30,
        evaluations=6,
        validation=2_400,
        probe_images=2_400,
    ),
    analysis=AnalysisSettings(
        size=2_000,
        strengths=tuple(i / 10 for i in range(1, 11)),
        mix_synthetic=(0, 1_000, 2_000, 4_000, 8_000),
        judged=100,
    ),
    scaling=ScalingSettings(
        sizes=tuple(12 * 2**i for i in range(8)),
        beyond=3,
        steps=1_000,
        batch=128,
        shifted_per_class=100,
        pairs=(500, 1_000, 2_000, 4_000),
    ),
    robustness=RobustnessSettings(
        images=4_000,
        steps=3_000,
        batch=256,
        image_size=64,
        seeds=5,
        mixing_sizes=(1_000, 2_000),
        prompted=(500, 1_000, 2_000),
        probe_images=1_400,
        validation=1_400,
        attacked=700,
        pgd_steps=20,
    ),
)
PAPER = World(
    "paper",
    backend="paper",
    image_size=224,
    clip=ClipSettings("ViT-B-16", "laion2b_s34b_b88k", top_share=0.3),  # [P]
    tasks=("aircraft", "cars", "flowers", "dtd", "imagenet"),  # [P] section 4
    captions=CaptionSettings(
        per_class=17_000,
        per_class_of=(("cars", 8_500), ("dtd", 36_000), ("imagenet", 1_700)),
        max_new_tokens=100,
        batch=256,
    ),  # [C], batch 64; 1.7 million a task, so that top_share leaves 500,000 [P]
    synthesis=SynthesisSettings(
        generator="1.5", steps=50, batch=64, shard=1_024
    ),  # [P]; a shard takes minutes, of full batches
    retrieval=RetrievalSettings(
        rules=("substring", "semantic"), k=2_000, k_of=(("imagenet", 500),)
    ),  # [P]
    finetune=FinetuneSettings(
        sizes=(15_625, 31_250, 62_500, 125_000, 250_000),
        seeds=3,
        lrs=(5e-4, 1e-5, 1e-6),
        batch=512,
        epochs=30,
        epochs_of=(("imagenet", 10),),
        min_steps=1,
        warmup=500,
        evaluations=30,
        validation=50_000,
        probe_images=1_300_000,
        probe_on="train",  # [P]
        probe_penalties=(1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
    ),  # more images want less of it
    analysis=AnalysisSettings(
        size=100_000,
        generators=("1.1", "1.3", "1.5"),
        strengths=tuple(i / 10 for i in range(1, 11)),
        mix_synthetic=(0, 62_500, 125_000, 250_000),
    ),  # [P] figures 5, 6, 7
    scaling=ScalingSettings(
        sizes=tuple(500 * 2**i for i in range(7)),
        beyond=3,
        prompts=(
            "class names",
            "class and parent",
            "templates",
            "alt text",
        ),  # nobody wrote the others down
        generators=("1.1", "1.3", "1.5"),
        steps=10_000,
        batch=512,
        hidden=2_048,
        pairs=(31_250, 62_500, 125_000, 250_000),
    ),  # our own sizes: the published ones start at 64 million
    robustness=RobustnessSettings(
        task="imagenet",
        image_size=224,
        context=77,
        steps=10_000,
        batch=512,
        lr=5e-4,
        pgd_steps=20,
        validation=2_000,
        probe_images=2_000,
        attacked=512,
        checkpoints=(
            ("supervised", "retrieved", "timm/vit_base_patch16_224.augreg_in1k"),
            ("supervised", "retrieved", "timm/resnet50.a1_in1k"),  # [R]
            ("language-supervised", "retrieved", "open_clip/ViT-B-16-quickgelu/openai"),
        ),
    ),  # clones: files of weights, given by name
)
WORLDS = {w.name: w for w in (SMOKE, POCKET, WORKSTATION, PAPER)}


def get(name: str, **overrides) -> World:
    """The world called ``name``, with settings replaced: ``get("pocket", seed=1, finetune={"epochs": 5})``.

    What the user configured beside this file (paper.toml) counts as the world's own.
    Raises ``StudyError`` on an unknown world, setting or task, naming the valid ones, and on a value that a setting cannot have.
    """
    if name not in WORLDS:
        raise unknown("world", name, WORLDS)
    base = backend(WORLDS[name]).configured(WORLDS[name])
    world, tasks = (
        override(base, overrides, f"world {name!r}"),
        dict.fromkeys((*WORLDS[name].tasks, *base.tasks)),
    )
    for task in world.tasks:
        if task not in tasks:
            raise unknown(f"task in world {name!r}", task, tasks)
    if world.backend not in {w.backend for w in WORLDS.values()}:
        raise unknown("backend", world.backend, sorted({w.backend for w in WORLDS.values()}))
    return world


def replace(world: World, **overrides) -> World:
    """``world`` with settings replaced, by the rules of ``get``: ``adapt(w, synthesis={"generator": "short"})``."""
    return override(world, overrides, f"world {world.name!r}")


def backend(world: World):
    """The package that supplies ``write_captions``, ``draw``, ``open_pool`` and ``benchmark`` in this world."""
    return importlib.import_module(f"helpers.{world.backend}")


def behind(seam: dict[str, str], name: str, package: str):
    """The function that a table of a backend, name -> "module:function", has for ``name``; its module is imported now.

    Raises ``AttributeError`` on a name that is not in the table.
    """
    if name not in seam:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, _, function = seam[name].partition(":")
    return getattr(importlib.import_module(module), function)
