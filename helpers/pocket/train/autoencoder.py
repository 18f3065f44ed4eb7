"""The generator's autoencoder, trained to keep small dark details."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from helpers.engine import gpu
from helpers.engine.late import functional, torch
from helpers.engine.randomness import entropy
from helpers.models.train import Schedule
from helpers.pocket.train import loop
from helpers.worlds import World

LATENT_CHANNELS = 8
LR = 2e-3
BATCH = 16  # small: many updates count for more than many images
WARMUP = 0.05  # share of the steps
AVERAGE = 0.995  # decay of the moving average of the weights, which is what is kept
NOISE = 0.05  # added to latents in training, so that decoding forgives small errors
AT_ONCE = 128  # images encoded together


def train(w: World, images: Path, folder: Path) -> None:
    """Train on images, an ``.npy`` file (n, side, side, 3) uint8; leaves diffusers' ``folder``."""
    if not folder.exists():
        loop.distribute(_train, w, images, folder, passes=w.upstream.autoencoder_steps * BATCH)


def _train(worker: loop.Worker, w: World, images: Path, folder: Path) -> None:
    from diffusers import AutoencoderKL

    u = w.upstream
    seed = w.pool.seed
    torch.manual_seed(entropy(seed, "autoencoder") % 2**31)
    pixels = np.load(images, mmap_mode="r")
    levels = len(u.autoencoder_channels)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=u.autoencoder_channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=pixels.shape[1],
    )
    vae = vae.to(gpu.device(), memory_format=torch.channels_last)
    average = loop.Average(vae, AVERAGE)
    schedule = Schedule(u.autoencoder_steps, BATCH, LR, int(WARMUP * u.autoencoder_steps))
    order = loop.batches(len(pixels), BATCH, entropy(seed, "autoencoder"), worker)
    generator = torch.Generator(gpu.device())
    generator.manual_seed(entropy(seed, "autoencoder", worker.rank) % 2**63)

    def loss_of(step: int) -> torch.Tensor:
        x = to_model(pixels[np.sort(next(order))])
        mean = vae.encode(x).latent_dist.mean
        noise = torch.randn(mean.shape, generator=generator, device=x.device)
        y = vae.decode(mean + NOISE * noise).sample
        return reconstruction_loss(x, y) + 1e-4 * mean.square().mean()

    options = {"weight_decay": 0.0, "after": lambda step, _: average.update(vae, step)}
    loop.train(vae, loss_of, schedule, "autoencoder", worker, **options)
    if worker.rank == 0:
        with torch.no_grad():
            scale = float(average.model.encode(to_model(pixels[:512])).latent_dist.mean.std())
        average.model.register_to_config(scaling_factor=float(1 / scale))
        loop.save(average.model, folder)


def to_model(images: np.ndarray) -> torch.Tensor:
    """uint8 images (n, side, side, 3) as floats (n, 3, side, side) in -1..1, channels last."""
    x = torch.tensor(np.asarray(images)).to(gpu.device()).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def batches(images: np.ndarray) -> Iterator[torch.Tensor]:
    """The images, ``AT_ONCE`` at a time, as ``to_model`` gives them."""
    for start in range(0, len(images), AT_ONCE):
        yield to_model(images[start : start + AT_ONCE])


def reconstruction_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels, more so at edges of ``x``, and of neighbouring differences.

    Wheels are two pixels wide: an error there counts several times as much as one in the sky.
    """
    across, down = _differences(x)
    edges = functional.pad(across.abs(), (0, 1, 0, 0)) + functional.pad(down.abs(), (0, 0, 0, 1))
    near_edges = functional.max_pool2d(edges.amax(1, keepdim=True), 3, 1, 1)
    weight = 1 + 4 * near_edges.clamp(max=1)
    loss = (weight * (x - y).abs()).mean()
    for a, b in zip((across, down), _differences(y), strict=True):
        loss = loss + (a - b).abs().mean()
    return loss


def _differences(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of pixels and their right neighbours, and of pixels and those below."""
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def encode(vae_folder: Path, images: Path) -> np.ndarray:
    """Scaled latents (n, channels, side / 4, side / 4) float16 of an ``.npy`` file of images."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(vae_folder).float().to(gpu.device()).eval()
    with torch.no_grad():
        parts = [vae.encode(x).latent_dist.mean for x in batches(np.load(images, mmap_mode="r"))]
    return (torch.cat(parts) * vae.config.scaling_factor).half().cpu().numpy()
