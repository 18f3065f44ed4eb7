"""A world and the settings of every notebook: frozen dataclasses.

[P], which decides, is the NeurIPS text of *The Unmet Promise of Synthetic Training Images* (arXiv
2406.05184), [W] its workshop version, [C] its code; [R] is *Is Synthetic Data all We Need?*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Predicate
from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
Numbers = tuple[Number, ...]
ONCE = Field(min_length=1, description="a tuple of str, each once")
Names = Annotated[tuple[str, ...], ONCE, Predicate(lambda names: len({*names}) == len(names))]
RISING = Field(description="a tuple of int, each larger than the one before")
Sizes = Annotated[Counts, RISING, Predicate(lambda sizes: list(sizes) == sorted({*sizes}))]
Share = Annotated[float, Field(gt=0, le=1, description="a float above 0, at most 1")]
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
    top_share: Share = 0.7  # best share per class kept by the filter, of both sources; [P] 0.3


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

    sizes: Sizes = (30, 120, 480)  # nested subsets
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
    generators: Names = ("short", "long")  # at equal size; [P] SD 1.1, 1.3, 1.5
    strengths: Numbers = (0.1, 0.5, 0.8)  # of SDEdit; [P] 0.1 ... 1.0
    mixes: tuple[tuple[Count, Count], ...] = ((480, 480),)  # retrieved, and synthetic ones added
    judged: Count = 40  # images per class and source given to the detail judge


@dataclass(frozen=True)
class ScalingSettings:
    """How does each source scale? (*Scaling Laws of Synthetic Images*, arXiv 2312.04567)"""

    sizes: Sizes = (12, 24, 48, 96, 192)  # nested; of the last, twice are drawn per arm
    beyond: Whole = 2  # further doublings, for arms that need no drawing
    guidances: Numbers = (1.0, 2.0, 7.5)  # 7.5: the usual default; 1: no guidance
    prompts: tuple[str, ...] = ("templates", "training captions")
    generators: Names = ("short", "long")
    seeds: Count = 5
    steps: Count = 300  # updates, the same at every size
    batch: Count = 64
    hidden: Count = 256  # width of the classifier's hidden layer
    shifted_per_class: Count = 50  # images per class in each shifted test set
    pairs: Sizes = (48, 96, 192)  # captions of the language-supervised models
    pair_seeds: Count = 3
    lots: Count = 1  # of the intervention: draws of classes made rare, two generators each


@dataclass(frozen=True)
class RobustnessSettings:
    """What else differs between models trained on real and on synthetic images ([R])."""

    task: str = "flowers"  # shape and colour both tell its classes apart: cues can conflict
    images: Count = 480  # per model, whatever family and source; less where a source has less
    steps: Count = 144  # updates, likewise
    batch: Count = 64
    lr: Number = 2e-3
    image_size: Count = 48  # what the towers see; attacks and corruptions see the full picture
    context: Count = 20  # tokens that the text towers see; captions have up to 19
    seeds: Count = 3  # [R] has one
    mixed: tuple[str, ...] = ("language-supervised",)  # families trained on mixtures, too [R]
    prompts: tuple[str, ...] = ("class names",)  # beside the language model's; [R] also templates
    prompted: Sizes = (240,)  # images per model of the prompt ablation, nested; twice are drawn
    probe_images: Count = 280  # per probe set
    validation: Count = 420  # images for the temperature and the head's penalty
    attacked: Count = 98  # images given to FGSM and PGD
    epsilons: Numbers = (0.25, 0.5, 1, 2)  # L-inf radius in 255ths; [R] has 1
    pgd_steps: Count = 10  # [R] 20
    checkpoints: tuple[tuple[str, str, str], ...] = ()  # family, source, name: probed, not trained


@dataclass(frozen=True)
class MixSettings:
    """When to generate: training sets mixed from all sources (notebook 08)."""

    tasks: Names = ("aircraft",)
    counts: Counts = (120, 480)  # retrieved, and synthetic, images of the map, beside none
    steps: Count = 90  # updates of all runs that are compared at equal ones
    seeds: Count = 3
    selection_seeds: Whole = 0  # runs per rate of a mix at equal updates; 0: its sources' rates
    size: Count = 120  # images of a source where a cause is moved, or a generator tuned
    access: Numbers = (0.02,)  # shares of the pool that a retriever sees
    noise: Numbers = (0.3,)  # shares of retrieved images with a wrong label
    shots: Counts = (5,)  # real images of every class
    guides: Names = ("plain", "data set")  # what the generator is tuned on


@dataclass(frozen=True)
class AdapterSettings:
    """Low-rank adapters that tune a generator on a few real images, as DataDream's (ECCV 2024)."""

    rank: Count = 16  # of every adapter, and its scale alpha [DataDream]
    steps: Count = 120  # updates; DataDream has 200 epochs: 25 an image
    batch: Count = 8  # [DataDream]
    lr: Number = 3e-4  # DataDream has 1e-4, which hardly lowers the miniature's held-out loss
    class_steps: Count = 100  # updates at least of an adapter for one class
    warmup: Count = 12  # updates; [DataDream] 100
    text_encoder: bool = True  # adapted, too [DataDream]


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
    mixes: MixSettings = MixSettings()
    adapter: AdapterSettings = AdapterSettings()
