"""Low-rank adapters that tune Stable Diffusion 1.x or 2.x on a few images, through peft."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from helpers.engine import gpu, store
from helpers.engine.late import functional, torch
from helpers.engine.randomness import entropy
from helpers.errors import StudyError, equally_many, reading
from helpers.models.clip import shrunk
from helpers.models.train import Batches, Schedule, fit
from helpers.settings import AdapterSettings

FILE = "adapters.safetensors"  # its header has peft's configuration: rank, alpha, layers
UNET = ["to_q", "to_k", "to_v", "to_out.0"]  # the layers that get an adapter [DataDream]
TEXT_ENCODER = ["q_proj", "k_proj", "v_proj", "out_proj"]


def tune(
    pipe: Any, images: Any, captions: Sequence[str], s: AdapterSettings, seed: int, folder: Path
) -> list[float]:
    """Fit adapters to whole images (n, side, side, 3) uint8, write them, return the loss per step.

    ``pipe`` draws on as before. Raises ``StudyError`` without images, on Stable Diffusion XL, and
    when a loss is not a number.
    """
    from peft import LoraConfig, get_peft_model_state_dict
    from safetensors.torch import save

    equally_many(images=images, captions=captions)
    if not len(images) or hasattr(pipe, "text_encoder_2"):
        given = f"{len(images)} images and a {type(pipe).__name__} were given"
        raise StudyError(f"{given}; adapters want an image or more, and Stable Diffusion 1 or 2.")
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    pixels = torch.tensor(shrunk(images, side)).permute(0, 3, 1, 2) / 127.5 - 1
    encode = torch.no_grad()(lambda x: pipe.vae.encode(x.to(pipe.device)).latent_dist.mode())
    latents = torch.cat([encode(x) for x in pixels.split(1)]) * pipe.vae.config.scaling_factor
    generator = torch.Generator().manual_seed(entropy(seed, "tuning") % 2**63)
    order = Batches(s.batch, lambda: torch.randperm(len(images), generator=generator).numpy())
    losses: list[float] = []

    def backward(step: int) -> None:
        rows = next(order)
        loss = denoising_loss(pipe, latents[rows], [captions[i] for i in rows], generator)
        if not loss.isfinite():
            raise StudyError(f"tuning diverged in step {step} at lr {s.lr:g}; lower adapter lr.")
        loss.backward()
        losses.append(loss.item())

    config = LoraConfig(r=s.rank, lora_alpha=s.rank, init_lora_weights="gaussian")
    config.target_modules = UNET + TEXT_ENCODER if s.text_encoder else UNET
    with _adapters(pipe, config, entropy(seed, "adapters") % 2**63) as model:
        learning = [p for p in model.parameters() if p.requires_grad]
        fit(learning, backward, Schedule(s.steps, s.batch, s.lr, s.warmup), weight_decay=1e-2)
        header = {"peft": json.dumps(config.to_dict(), sort_keys=True, default=sorted)}
        store.write(folder / FILE, save(get_peft_model_state_dict(model), header))
    return losses


def denoising_loss(pipe: Any, z: Any, captions: list[str], generator: Any) -> Any:
    """Mean squared error in what the U-Net predicts of latents, noised as ``generator`` has it."""
    plan = pipe.scheduler
    noise = torch.randn(z.shape, generator=generator).to(z.device)
    t = torch.randint(len(plan.betas), z.shape[:1], generator=generator).to(z.device)
    target = noise if plan.config.prediction_type == "epsilon" else plan.get_velocity(z, noise, t)
    with gpu.autocast():
        text = pipe.encode_prompt(captions, z.device, 1, False)[0].to(pipe.unet.dtype)
        predicted = pipe.unet(plan.add_noise(z, noise, t).to(text.dtype), t, text).sample
    return functional.mse_loss(predicted.float(), target)


@contextlib.contextmanager
def adapted(pipe: Any, folder: Path) -> Iterator[None]:
    """Within, ``pipe`` draws with the adapters in ``folder``; afterwards as before, bit by bit."""
    from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    with reading(folder / FILE, SafetensorError), safe_open(folder / FILE, "pt") as opened:
        config = LoraConfig(**json.loads(opened.metadata()["peft"]))
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    with _adapters(pipe, config) as model:
        own = get_peft_model_state_dict(model)
        if {k: x.shape for k, x in own.items()} != {k: x.shape for k, x in weights.items()}:
            raise StudyError(f"{folder / FILE} is of another generator; tune adapters of this one.")
        set_peft_model_state_dict(model, weights)
        yield


@contextlib.contextmanager
def _adapters(pipe: Any, config: Any, seed: int = 0) -> Iterator[Any]:
    """U-Net and text encoder as one module, frozen, and with new adapters until the end."""
    from peft import get_peft_model

    networks = torch.nn.ModuleDict({"unet": pipe.unet, "text_encoder": pipe.text_encoder})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(networks, config)
    try:
        yield model
    finally:
        model.unload()
