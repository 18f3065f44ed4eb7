"""The miniature's Stable Diffusion: the real pipeline class around small parts, and how images are drawn with it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers.engine import gpu
from helpers.errors import StudyError, unknown
from helpers.worlds import SynthesisSettings

BUDGETS = ("short", "middle", "long")  # the paper's SD 1.1 / 1.3 / 1.5
CPU_PASS = 8  # images per forward pass on a CPU; larger is not faster, and another size rounds sums in another order


def scheduler():
    """The noise schedule of training and sampling.

    It is the cosine one: a 16 x 16 latent has so few cells that the schedule made for Stable Diffusion's 64 x 64 drowns
    it early and leaves few steps for small parts such as wheels. The last step is pure noise (zero terminal SNR, trailing
    spacing), so that sampling starts where training ended; this needs v-prediction.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        steps_offset=1,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def assemble(vae, text_encoder, tokenizer, unet):
    """A ``StableDiffusionPipeline`` of these parts with a DDIM scheduler, on the device, without a progress bar."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline(
        vae,
        text_encoder,
        tokenizer,
        unet,
        scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(gpu.device())


@functools.cache
def load(folder: str | Path, budget: str = "long"):
    """The pipeline kept in ``folder``: ``vae/``, ``tokenizer/``, and per training budget ``text_encoder-*/`` and ``unet-*/``.

    Raises ``StudyError`` on an unknown training budget.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizerFast

    folder = Path(folder)
    if not (folder / f"unet-{budget}").exists():
        raise unknown("generator", budget, [b for b in BUDGETS if (folder / f"unet-{b}").exists()])
    vae = AutoencoderKL.from_pretrained(
        folder / "vae", torch_dtype=torch.float32
    )  # kept in float16
    unet = UNet2DConditionModel.from_pretrained(
        folder / f"unet-{budget}", torch_dtype=torch.float32
    )
    text_encoder = CLIPTextModel.from_pretrained(folder / f"text_encoder-{budget}").float()
    pipe = assemble(
        vae, text_encoder, CLIPTokenizerFast.from_pretrained(folder / "tokenizer"), unet
    )
    for part in (pipe.unet, pipe.vae):
        part.eval().to(memory_format=torch.channels_last)
    pipe.text_encoder.eval()
    return pipe


def draw(
    pipe,
    captions: Sequence[str],
    seeds: Sequence[int],
    settings: SynthesisSettings,
    images: np.ndarray | None = None,
    strength: float | None = None,
) -> np.ndarray:
    """One image per caption, (n, side, side, 3) uint8, by DDIM with classifier-free guidance ([P] section 3).

    With ``images`` (n, side, side, 3) uint8 and ``strength`` in (0, 1] the images are noised that far and denoised again
    (SDEdit, [P] section 5). Every image has a ``torch.Generator`` of its own. On a CPU each pass has the same number of
    images (the last is filled up), so that an image is the same bit for bit whatever is drawn beside it; on a GPU it is
    the same up to rounding. Raises ``StudyError`` on a strength outside (0, 1] or an eta outside [0, 1).
    """
    import torch

    if images is not None:
        if strength is None or not 0 < strength <= 1:
            raise StudyError(
                f"strength {strength} was given for image-to-image; it must lie in (0, 1]."
            )
        pipe = _image_to_image(pipe)
    if not 0 <= settings.eta < 1:
        raise StudyError(
            f"eta {settings.eta} was given; from pure noise, DDIM is defined for 0 <= eta < 1 only."
        )
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    made, size = (
        [np.zeros((0, side, side, 3), np.uint8)],
        settings.batch if gpu.device() == "cuda" else CPU_PASS,
    )
    for start in range(0, len(captions), size):
        rows = np.arange(start, min(start + size, len(captions)))
        filled = rows if gpu.device() == "cuda" else np.resize(rows, size)
        generators = [torch.Generator().manual_seed(int(seeds[i]) % 2**63) for i in filled]
        extra = (
            {}
            if images is None
            else {"image": np.asarray(images[filled], np.float32) / 255, "strength": strength}
        )
        steps = (
            settings.steps if images is None else max(settings.steps, math.ceil(1 / strength))
        )  # at least one is taken
        with torch.inference_mode(), gpu.autocast():
            out = pipe(
                [captions[i] for i in filled],
                num_inference_steps=steps,
                guidance_scale=settings.guidance,
                eta=settings.eta,
                generator=generators,
                output_type="np",
                **extra,
            ).images
        made.append((out[: len(rows)] * 255).round().astype(np.uint8))
    return np.concatenate(made)


@functools.cache
def _image_to_image(pipe):
    from diffusers import StableDiffusionImg2ImgPipeline

    edit = StableDiffusionImg2ImgPipeline(
        **pipe.components, requires_safety_checker=False
    )  # from_pipe would cast the parts
    edit.set_progress_bar_config(disable=True)
    return edit
