"""Images by Stable Diffusion 1.x, or XL: diffusers' pipelines, DDIM, guidance ([P] section 3, [C]).

What is added: every different caption is read once, every image has noise of its own and stays in
float32 between the steps of a network in bfloat16, and one that is not a number is drawn again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers.engine import gpu, progress
from helpers.engine.late import torch
from helpers.errors import StudyError, equally_many, unknown
from helpers.models import weights
from helpers.paper import config
from helpers.worlds import World

COMPILED_FROM = 500  # images asked for at once; for fewer, compiling takes longer than it saves
READ = 64  # captions that the text encoders read at a time
UNCLIPPED = {"clip_sample": False, "set_alpha_to_one": False}
SAMPLER = {**UNCLIPPED, "steps_offset": 1, "timestep_spacing": "leading"}  # [C]


def draw(
    w: World,
    captions: list[str],
    seeds: list[int],
    images: np.ndarray | None = None,
    strength: float | None = None,
) -> np.ndarray:
    """One image per caption and seed by the world's generator, as ``sample``.

    Raises ``StudyError`` on an unknown generator, a strength that cannot be, and bad weights, too.
    """
    equally_many(captions=captions, seeds=seeds, images=images)
    if images is not None:
        effective_steps(w.synthesis.steps, strength)
    s = config.settings()
    return sample(pipeline(w), captions, seeds, w.synthesis, s.drawn, s.kept, images, strength)


def pipeline(w: World) -> Any:
    """The pipeline that ``draw`` uses, as ``load`` has it; ``StudyError`` if it is unknown."""
    return load(named(w.synthesis.generator))


def named(name: str) -> str:
    """The folder or hub name of a generator. Raises ``StudyError`` on one that is unknown."""
    generators = config.settings().generators
    if name not in generators:
        raise unknown("generator", name, generators)
    return generators[name]


@functools.lru_cache(maxsize=1)  # two do not fit on every device
def load(name: str) -> Any:
    """The pipeline on the device, with the published sampler; the U-Net in bfloat16 on a GPU."""
    from diffusers import DDIMScheduler

    pipe = _opened(name)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **SAMPLER)
    for network in (pipe.unet, pipe.vae):
        network.to(memory_format=torch.channels_last).eval()
    pipe.vae.register_to_config(force_upcast=False)  # it computes in float32 anyway
    pipe.vae.enable_slicing()  # one image at a time, as it needs much memory
    return pipe.to(gpu.device())


def checked(what: str, name: str, *sides: int) -> Path:
    """A generator's folder. Raises what ``load`` would, and ``sample`` at ``sides`` (drawn, kept),
    but reads no more than headers.
    """
    pipe = _opened(name, what, device_map="meta")
    _check_sides(pipe, *sides or (pipe.vae_scale_factor, 1))
    return weights.folder(what, name)


def _check_sides(pipe: Any, drawn: int, kept: int) -> None:
    if drawn % pipe.vae_scale_factor or not 0 < kept <= drawn:
        rule = f"drawn must be a multiple of {pipe.vae_scale_factor} pixels, and kept no more"
        raise StudyError(f"drawn = {drawn}, kept = {kept} in paper.toml: {rule}.")


def _opened(name: str, what: str = "generator", **options: Any) -> Any:
    """The pipeline as it was saved, each of its networks complete."""
    import diffusers
    import transformers

    def open_folder(folder: Path) -> Any:
        listed = json.loads(config.text_of(folder / "model_index.json"))
        parts = {k: None for k in ("safety_checker", "feature_extractor") if k in listed}
        for part in sorted(listed.keys() - parts.keys()):
            named = isinstance(listed[part], list) and listed[part][0] and part[0] != "_"
            if named and not (folder / part).is_dir():
                raise ValueError(f"it has no folder {part}")
            if (folder / part / "config.json").exists():
                library = {"diffusers": diffusers, "transformers": transformers}[listed[part][0]]
                dtype = gpu.precision() if part == "unet" else torch.float32
                dtype = {"torch_dtype" if library is diffusers else "dtype": dtype}
                kind = getattr(library, listed[part][1])
                parts[part] = weights.complete(kind, folder / part, **dtype, **options)
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder, **parts)
        if not hasattr(pipe, "unet") or not hasattr(pipe, "encode_prompt"):
            advice = "the study draws with Stable Diffusion 1.x, 2.x and XL"
            raise ValueError(f"it is a {type(pipe).__name__}; {advice}")
        channels, latents = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
        if channels != latents:
            reads = f"its U-Net reads {channels} channels, not {latents}"
            raise ValueError(f"{reads}, so it is one for inpainting or editing")
        return pipe

    for library in (diffusers, transformers):  # what matters of their warnings is an error here
        library.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    return weights.load(what, name, open_folder)


def effective_steps(steps: int, strength: float | None) -> int:
    """How many DDIM steps SDEdit takes [C]; ``StudyError`` on none or a strength not in (0, 1]."""
    taken = int(steps * strength) if strength is not None and 0 < strength <= 1 else 0
    if not taken:
        problem = f"strength {strength} was given for image-to-image with {steps} steps"
        raise StudyError(f"{problem}; it must lie between {1 / steps:g} and 1.")
    return taken


def sample(pipe, captions, seeds, settings, drawn, kept, images=None, strength=None) -> np.ndarray:
    """Images by a pipeline, drawn at ``drawn`` pixels: (n, kept, kept, 3) uint8.

    ``settings`` are ``SynthesisSettings``. An image is a function of caption and seed, up to
    rounding. With ``images`` (n, side, side, 3) uint8 and ``strength`` the last ``effective_steps``
    are taken from the noised images (SDEdit, [P] section 5). Raises ``StudyError`` on sides that
    cannot be, on images that are no numbers even in float32, and where not one fits into memory.
    """
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image
    from PIL import Image

    _check_sides(pipe, drawn, kept)
    result = np.zeros((len(captions), kept, kept, 3), np.uint8)
    if not len(captions):
        return result
    row_of = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
    texts = _embeddings(pipe, list(row_of))
    kind = AutoPipelineForText2Image if images is None else AutoPipelineForImage2Image
    unused = {"requires_safety_checker": False, "add_watermarker": False}

    def paint(rows: Sequence[int], pipeline: Callable) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, drawn, drawn, 3) uint8, and which of them are not numbers."""
        start: dict[str, Any] = {"height": drawn, "width": drawn}
        if images is not None:
            squashed = [Image.fromarray(images[i]).resize((drawn, drawn)) for i in rows]  # [C]
            start = {"image": squashed, "strength": strength}
        painted = pipeline(
            **{name: x[[row_of[captions[i]] for i in rows]] for name, x in texts.items()},
            **start,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(int(seeds[i]) % 2**63) for i in rows],
            output_type="pt",
        ).images
        levels = (painted.nan_to_num() * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return levels.cpu().numpy(), ~painted.isfinite().flatten(1).all(1).cpu().numpy()

    def fill(rows: Sequence[int], compute: Callable) -> list[int]:
        """Draw ``rows`` into ``result`` with ``compute`` as U-Net; the rows that are no numbers."""
        pipeline = kind.from_pipe(pipe, unet=_Network(pipe.unet, compute), **unused)
        pipeline.set_progress_bar_config(disable=True)
        work = functools.partial(paint, pipeline=pipeline)
        what = f"drawing at {drawn} pixels with {pipe.unet.dtype}"
        failed = []
        for part, (painted, broken) in gpu.fitting_batches(work, rows, settings.batch, what):
            for i, image in zip(part, map(Image.fromarray, painted), strict=True):
                result[i] = np.asarray(image.resize((kept, kept), Image.Resampling.BICUBIC))
            failed += np.array(part)[broken].tolist()
        return failed

    compiled = len(captions) >= COMPILED_FROM
    failed = fill(range(len(captions)), gpu.compiled(pipe.unet) if compiled else pipe.unet)
    if failed:
        named = ", ".join(f"{captions[i]!r} (seed {seeds[i]})" for i in failed)
        progress.say(f"drawn again in float32, as they were not numbers: {named}")
        before = pipe.unet.dtype
        torch.nn.Module.to(pipe.unet, torch.float32)  # diffusers' own ``to`` warns
        try:
            failed = fill(failed, pipe.unet)
        finally:
            torch.nn.Module.to(pipe.unet, before)
    if failed:
        first = f"{captions[failed[0]]!r} with seed {seeds[failed[0]]}"
        problem = f"{len(failed)} images are not numbers, even in float32; the first is {first}"
        advice = "The weights are damaged or those of another architecture; fetch them again."
        raise StudyError(f"{problem}. {advice}")
    return result


class _Network:
    """A U-Net for diffusers' pipelines that takes and gives float32, whatever it computes in."""

    def __init__(self, unet: torch.nn.Module, compute: Callable):
        self.unet = unet
        self.compute = compute

    def __getattr__(self, name: str):
        return getattr(self.unet, name)

    def __call__(self, latents, step, encoder_hidden_states, added_cond_kwargs=None, **options):
        dtype = self.unet.dtype
        options["encoder_hidden_states"] = encoder_hidden_states.to(dtype)
        if added_cond_kwargs:  # XL's
            options["added_cond_kwargs"] = {k: x.to(dtype) for k, x in added_cond_kwargs.items()}
        return (self.compute(latents.to(dtype), step, **options)[0].float(),)


def _embeddings(pipe: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """The pipelines' text arguments, a row per caption: its own, and those of the empty caption."""

    @torch.no_grad()
    def read(texts: list[str], negative: bool) -> list[torch.Tensor]:
        options = {"num_images_per_prompt": 1, "do_classifier_free_guidance": negative}
        return pipe.encode_prompt(prompt=texts, device=gpu.device(), **options)[int(negative) :: 2]

    parts = [read(captions[i : i + READ], False) for i in range(0, len(captions), READ)]
    names = ("prompt_embeds", "pooled_prompt_embeds")  # pooled ones for XL
    texts = {}
    for name, own, empty in zip(names, zip(*parts, strict=True), read([""], True), strict=False):
        texts[name] = torch.cat(own)
        texts[f"negative_{name}"] = empty.expand_as(texts[name])
    return texts
