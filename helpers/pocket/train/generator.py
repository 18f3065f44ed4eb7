"""The miniature's Stable Diffusion: the real pipeline class around small parts."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers.engine import gpu
from helpers.engine.late import torch
from helpers.errors import StudyError, unknown
from helpers.settings import SynthesisSettings

# shares of the training steps; they stand in for SD 1.1, 1.3, 1.5
BUDGETS = {"short": 1 / 8, "middle": 3 / 8, "long": 1.0}
# images per forward pass on a CPU; more are not faster, and round sums in another order
CPU_PASS = 8


def scheduler() -> Any:
    """The noise schedule of training and sampling.

    The cosine one: Stable Diffusion's, made for 64 x 64 latents, drowns one of 16 x 16 early. The
    last step is pure noise, so that sampling starts where training ended, with v-prediction.
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


@functools.cache
def load(folder: str | Path, budget: str = "long") -> Any:
    """The ``StableDiffusionPipeline`` kept in ``folder``, on the device, without a progress bar.

    ``folder`` has ``vae/``, ``tokenizer/``, and per training budget ``text_encoder-*/`` and
    ``unet-*/``. Raises ``StudyError`` on an unknown training budget.
    """
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizerFast

    folder = Path(folder)
    if not (folder / f"unet-{budget}").exists():
        trained = [name for name in BUDGETS if (folder / f"unet-{name}").exists()]
        raise unknown("generator", budget, trained)
    # the files have half precision
    full = {"torch_dtype": torch.float32}
    pipe = StableDiffusionPipeline(
        AutoencoderKL.from_pretrained(folder / "vae", **full),
        CLIPTextModel.from_pretrained(folder / f"text_encoder-{budget}").float(),
        CLIPTokenizerFast.from_pretrained(folder / "tokenizer"),
        UNet2DConditionModel.from_pretrained(folder / f"unet-{budget}", **full),
        scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(gpu.device())
    pipe.set_progress_bar_config(disable=True)
    certain(pipe.vae)
    for part in (pipe.unet, pipe.vae):
        part.eval().to(memory_format=torch.channels_last)
    pipe.text_encoder.eval()
    return pipe


def certain(vae: Any) -> None:
    """Lets an encoder answer with the mean of its latents, on which alone it was trained.

    Image-to-image draws from their variance, too, which training left as it was: about the noise
    of a strength of 0.4, of which the generator is not told and which it leaves in the picture.
    """
    variance = slice(vae.config.latent_channels, None)
    with torch.no_grad():
        vae.quant_conv.weight[variance] = 0
        vae.quant_conv.bias[variance] = -30  # a logarithm; diffusers knows no smaller one


def edit_steps(strength: float, fewest: int) -> tuple[int, int]:
    """Steps of a drawing, ``fewest`` or more, and how many of the last ones SDEdit takes.

    Their ratio is ``strength`` (0..1], as nearly as 20 numbers of steps allow.
    """
    fewest = max(fewest, math.ceil(1 / strength))
    numbers = range(fewest, fewest + 20)
    steps = min(numbers, key=lambda n: (round(abs(round(n * strength) / n - strength), 9), n))
    return steps, round(steps * strength)


def draw(
    pipe: Any,
    captions: Sequence[str],
    seeds: Sequence[int],
    settings: SynthesisSettings,
    images: np.ndarray | None = None,
    strength: float | None = None,
) -> np.ndarray:
    """One image per caption, (n, side, side, 3) uint8, by guided DDIM ([P] section 3).

    With ``images`` (n, side, side, 3) uint8 and ``strength`` in (0, 1] the images are noised that
    far and denoised again (SDEdit, [P] section 5). Every image has a ``torch.Generator`` of its
    own, and on a CPU each pass as many images, so that what is drawn beside an image does not
    change a bit of it (on a GPU, but for rounding). Raises ``StudyError`` on another strength.
    """
    steps = settings.steps
    if images is not None:
        if strength is None or not 0 < strength <= 1:
            raise StudyError(
                f"strength {strength} was given for image-to-image; it must lie in (0, 1]."
            )
        pipe = _image_to_image(pipe)
        steps, taken = edit_steps(strength, steps)
    on_gpu = gpu.device() == "cuda"
    size = settings.batch if on_gpu else CPU_PASS
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    drawn = np.zeros((len(captions), side, side, 3), np.uint8)
    for start in range(0, len(captions), size):
        rows = np.arange(start, min(start + size, len(captions)))
        filled = rows if on_gpu else np.resize(rows, size)
        options: dict[str, Any] = {}
        if images is not None:
            options["image"] = np.asarray(images[filled], np.float32) / 255
            options["strength"] = min((taken + 0.5) / steps, 1.0)  # diffusers rounds down
        with torch.inference_mode(), gpu.autocast():
            pixels = pipe(
                [captions[i] for i in filled],
                num_inference_steps=steps,
                guidance_scale=settings.guidance,
                generator=[torch.Generator().manual_seed(int(seeds[i]) % 2**63) for i in filled],
                output_type="np",
                **options,
            ).images
        drawn[rows] = (pixels[: len(rows)] * 255).round().astype(np.uint8)
    return drawn


@functools.cache
def _image_to_image(pipe):
    from diffusers import StableDiffusionImg2ImgPipeline

    # made by hand: from_pipe would cast the parts
    edit = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    edit.set_progress_bar_config(disable=True)
    return edit
