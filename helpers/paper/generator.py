"""Images by Stable Diffusion 1.x, or XL, through diffusers: DDIM with classifier-free guidance ([P] section 3, [C] txt2img.py).

The parts are diffusers'; the loop over steps is written out, because it keeps the image in float32 while the network computes
in bfloat16, gives every image its own noise, and takes text embeddings that are computed once per different caption.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from helpers.engine import gpu
from helpers.errors import StudyError, equally_many, unknown
from helpers.models import weights
from helpers.paper import config
from helpers.worlds import SynthesisSettings, World

COMPILED_FROM = 500  # images asked for at once; for fewer, compiling takes longer than it saves
DECODED = (
    16  # images that the decoder, which is small but needs much memory, turns into pixels at a time
)
SAMPLER = {
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}  # [C]


def draw(
    w: World,
    captions: list[str],
    seeds: list[int],
    images: np.ndarray | None = None,
    strength: float | None = None,
) -> np.ndarray:
    """One image per caption and seed by the world's generator, (n, kept, kept, 3) uint8; see ``sample``.

    Raises ``StudyError`` on an unknown generator, and on weights that are missing, damaged or pickled.
    """
    equally_many(captions=captions, seeds=seeds, images=images)
    given = config.settings()
    if w.synthesis.generator not in given.generators:
        raise unknown("generator", w.synthesis.generator, given.generators)
    return sample(
        load(given.generators[w.synthesis.generator]),
        captions,
        seeds,
        w.synthesis,
        given.drawn,
        given.kept,
        images,
        strength,
    )


@functools.lru_cache(maxsize=1)  # two do not fit on every device
def load(name: str):
    """The pipeline on the device, with the published sampler; networks in bfloat16 on a GPU, text encoders in float32."""
    import torch
    from diffusers import DDIMScheduler, DiffusionPipeline
    from diffusers.utils import logging

    def open_folder(folder):
        parts = json.loads((folder / "model_index.json").read_text())
        unused = {k: None for k in ("safety_checker", "feature_extractor") if k in parts}
        types = {"default": torch.float32, "unet": gpu.precision(), "vae": gpu.precision()}
        return DiffusionPipeline.from_pretrained(
            folder, use_safetensors=True, torch_dtype=types, **unused
        )

    logging.disable_progress_bar()
    pipe = weights.load("generator", name, open_folder)
    if not hasattr(pipe, "unet") or not hasattr(pipe, "encode_prompt"):
        raise StudyError(
            f"generator {name!r} is a {type(pipe).__name__}; the study draws with Stable Diffusion 1.x, 2.x and XL."
        )
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **SAMPLER)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last).eval()
    return pipe.to(gpu.device())


def effective_steps(steps: int, strength: float) -> int:
    """How many of the DDIM steps SDEdit takes: ``steps`` x ``strength``, rounded down, as diffusers does and so [C] did.

    Raises ``StudyError`` when that is none, or ``strength`` is outside (0, 1].
    """
    taken = int(steps * strength) if strength is not None and 0 < strength <= 1 else 0
    if not taken:
        raise StudyError(
            f"strength {strength} was given for image-to-image with {steps} steps; it must lie between {1 / steps:g} and 1."
        )
    return taken


def sample(
    pipe,
    captions: Sequence[str],
    seeds: Sequence[int],
    settings: SynthesisSettings,
    drawn: int,
    kept: int,
    images: np.ndarray | None = None,
    strength: float | None = None,
) -> np.ndarray:
    """Draw at ``drawn`` pixels and reduce to ``kept``: (n, kept, kept, 3) uint8, a function of caption and seed up to rounding.

    With ``images`` (n, side, side, 3) uint8 and ``strength`` the last ``effective_steps`` are taken from the noised images
    (SDEdit, [P] section 5). An image that is not a number is drawn again in float32. Raises ``StudyError`` when it is not one
    then, on a size or strength that cannot be, and when not even one image fits into memory.
    """
    import torch

    if drawn % pipe.vae_scale_factor or not 0 < kept <= drawn:
        raise StudyError(
            f"drawn = {drawn}, kept = {kept} in paper.toml: drawn must be a multiple of {pipe.vae_scale_factor} pixels, "
            "and kept at most as many."
        )
    skipped = 0 if images is None else settings.steps - effective_steps(settings.steps, strength)
    made = np.zeros((len(captions), kept, kept, 3), np.uint8)
    if not len(captions):
        return made
    with torch.inference_mode():
        job = _Job(
            pipe,
            tuple(captions),
            tuple(seeds),
            settings,
            drawn,
            images,
            skipped,
            *_read(pipe, captions),
        )
        broken = _fill(
            made,
            job,
            range(len(captions)),
            gpu.compiled(pipe.unet) if len(captions) >= COMPILED_FROM else pipe.unet,
        )
        if broken:
            print(
                "drawn again in float32, as they were not numbers: "
                + ", ".join(f"{captions[i]!r} (seed {seeds[i]})" for i in broken)
            )
            with _float32(pipe):
                broken = _fill(made, job, broken, pipe.unet)
    if broken:
        i = broken[0]
        raise StudyError(
            f"{len(broken)} images are not numbers, even in float32; the first is {captions[i]!r} with seed {seeds[i]}. "
            "The generator's weights are damaged or those of another architecture; fetch them again."
        )
    return made


@dataclass(frozen=True, eq=False)
class _Job:
    pipe: object
    captions: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: SynthesisSettings
    drawn: int
    images: np.ndarray | None
    skipped: int  # steps that SDEdit leaves out
    texts: tuple  # embeddings of the different captions, and pooled ones for XL
    empty: tuple  # the same of the empty caption
    which: dict[str, int]  # caption -> row of texts


def _read(pipe, captions: Sequence[str]) -> tuple[tuple, tuple, dict[str, int]]:
    """Embeddings of every different caption, once each, and of the empty one."""
    import torch

    which = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
    fixed = {"device": gpu.device(), "num_images_per_prompt": 1}
    parts = [
        pipe.encode_prompt(
            prompt=list(which)[i : i + 64], do_classifier_free_guidance=False, **fixed
        )[::2]
        for i in range(0, len(which), 64)
    ]
    empty = pipe.encode_prompt(prompt=[""], do_classifier_free_guidance=True, **fixed)[1::2]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True)), empty, which


def _fill(made: np.ndarray, job: _Job, rows: Sequence[int], unet) -> list[int]:
    """Draw ``rows`` into ``made``; the rows that are not numbers. Reducing one batch goes on while the next is drawn."""
    what = f"drawing at {job.drawn} pixels with {job.pipe.unet.dtype}"
    with ThreadPoolExecutor(1) as aside:
        parts = [
            (part, aside.submit(_reduced, *pixels, made.shape[1]))
            for part, pixels in gpu.fitting_batches(
                lambda part: _decoded(job.pipe, _denoised(job, part, unet)),
                rows,
                job.settings.batch,
                what,
            )
        ]
    broken = []
    for part, reduced in parts:
        images, finite = reduced.result()
        made[list(part)] = images
        broken += [i for i, fine in zip(part, finite, strict=True) if not fine]
    return broken


def _denoised(job: _Job, rows: Sequence[int], unet):
    """The latents of some rows after DDIM from noise, or from their noised images; float32."""
    import torch

    pipe, s = job.pipe, job.settings
    generators = [torch.Generator().manual_seed(int(job.seeds[i]) % 2**63) for i in rows]
    pipe.scheduler.set_timesteps(s.steps)
    steps = pipe.scheduler.timesteps[job.skipped :]
    latents, conditions = _start(job, rows, generators, steps[:1]), _conditions(job, rows)
    for step, on_device in zip(
        steps.tolist(), steps.to(latents.device), strict=True
    ):  # numbers, so that the loop never waits
        twice = torch.cat(
            [latents] * (len(conditions["encoder_hidden_states"]) // len(latents))
        ).to(pipe.unet.dtype)
        noise = unet(twice, on_device, return_dict=False, **conditions)[0].float()
        if s.guidance > 1:
            without, noise = noise.chunk(2)
            noise = without + s.guidance * (noise - without)
        latents = pipe.scheduler.step(
            noise, step, latents, generator=generators, return_dict=False
        )[0]
    return latents


def _start(job: _Job, rows: Sequence[int], generators: list, first):
    """Noise of every row's own generator, or the encoded images with so much noise as there is at the timestep ``first``."""
    import torch
    from PIL import Image

    vae, side = job.pipe.vae, job.drawn // job.pipe.vae_scale_factor
    shape = (1, job.pipe.unet.config.in_channels, side, side)

    def noise():
        return torch.cat([torch.randn(shape, generator=g) for g in generators]).to(gpu.device())

    if job.images is None:
        return noise()
    given = [
        Image.fromarray(image).resize((job.drawn, job.drawn)) for image in job.images[list(rows)]
    ]  # squashed [C]
    x = (
        torch.from_numpy(np.stack(given)).to(gpu.device()).permute(0, 3, 1, 2).to(vae.dtype) / 127.5
        - 1
    )
    found = [vae.encode(x[i : i + DECODED]).latent_dist for i in range(0, len(x), DECODED)]
    mean, std = (torch.cat([getattr(f, name).float() for f in found]) for name in ("mean", "std"))
    latents = (mean + std * noise()) * vae.config.scaling_factor
    return job.pipe.scheduler.add_noise(latents, noise(), first)


def _conditions(job: _Job, rows: Sequence[int]) -> dict:
    """What the U-Net is told beside image and time: with guidance, first the empty caption's rows, then the captions'."""
    import torch

    places = [job.which[job.captions[i]] for i in rows]
    guided = job.settings.guidance > 1
    texts = [t[places] for t in job.texts]
    if guided:
        texts = [torch.cat([e.expand_as(t), t]) for e, t in zip(job.empty, texts, strict=True)]
    (text, *pooled), dtype = texts, job.pipe.unet.dtype
    told = {"encoder_hidden_states": text.to(dtype)}
    if (
        pooled
    ):  # XL: also the size of the picture before and after cropping, and where it was cropped
        sizes = torch.tensor(
            [[job.drawn, job.drawn, 0, 0, job.drawn, job.drawn]], dtype=dtype, device=text.device
        )
        told["added_cond_kwargs"] = {
            "text_embeds": pooled[0].to(dtype),
            "time_ids": sizes.expand(len(text), -1),
        }
    return told


def _decoded(pipe, latents):
    """Pixels (n, side, side, 3) uint8 and whether all of an image's values are numbers, both still on the device."""
    import torch

    pixels, finite = [], []
    for part in (latents / pipe.vae.config.scaling_factor).to(pipe.vae.dtype).split(DECODED):
        x = pipe.vae.decode(part, return_dict=False)[0].float()
        finite.append(x.isfinite().flatten(1).all(1))
        pixels.append(
            ((x / 2 + 0.5).nan_to_num().clamp(0, 1) * 255)
            .round()
            .to(torch.uint8)
            .permute(0, 2, 3, 1)
        )
    return torch.cat(pixels), torch.cat(finite)


def _reduced(pixels, finite, side: int) -> tuple[np.ndarray, list[bool]]:
    from PIL import Image

    images = pixels.cpu().numpy()
    return np.stack(
        [
            np.asarray(Image.fromarray(i).resize((side, side), Image.Resampling.BICUBIC))
            for i in images
        ]
    ), finite.tolist()


@contextlib.contextmanager
def _float32(pipe):
    """U-Net and autoencoder in float32 for a while."""
    import torch

    before = pipe.unet.dtype
    try:
        for part in (pipe.unet, pipe.vae):
            torch.nn.Module.to(part, torch.float32)  # diffusers' own warns
        yield
    finally:
        for part in (pipe.unet, pipe.vae):
            torch.nn.Module.to(part, before)
