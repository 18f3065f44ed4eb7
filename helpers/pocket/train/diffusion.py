"""Training the generator: an autoencoder that keeps small dark details, then a text-conditioned UNet in its latents."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from helpers.engine import gpu, store
from helpers.engine.randomness import entropy
from helpers.models import train as training
from helpers.pocket.train.generator import scheduler
from helpers.worlds import UpstreamSettings

BUDGETS = {
    "short": 1 / 8,
    "middle": 3 / 8,
    "long": 1.0,
}  # of the training steps; stand in for SD 1.1, 1.3, 1.5
TEXT_WIDTH, TEXT_HEADS = 128, 4  # of CLIP's text tower
DROP_CAPTION = 0.1  # share of captions left empty in training, for classifier-free guidance
SAVE_EVERY = 250


def train(
    images: Path,
    captions: list[str],
    tokenizer,
    clip: Path,
    u: UpstreamSettings,
    seed: int,
    folder: Path,
) -> None:
    """Train autoencoder, text encoder and UNet on images (an ``.npy`` file, n x side x side x 3 uint8) and their captions.

    ``clip`` is the file of CLIP weights whose text tower the text encoder starts from. Leaves ``vae/``, ``tokenizer/`` and
    per training budget ``text_encoder-*/`` and ``unet-*/`` in ``folder``.
    A killed training goes on where it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder / "tokenizer")
    if not (folder / "vae").exists():
        training.distribute(
            _autoencoder, images, u, seed, folder, passes=u.autoencoder_steps * u.autoencoder_batch
        )
    if not (folder / "latents.npy").exists():
        store.write(folder / "latents.npy", encode(folder / "vae", images))
        store.write(folder / "tokens.npy", tokens(tokenizer, ["", *captions]))
    if not (folder / "unet-long").exists():
        training.distribute(
            _unet, clip, u, seed, folder, passes=u.generator_steps * u.generator_batch
        )
    for leftover in ("latents.npy", "tokens.npy", "state.pt"):
        (folder / leftover).unlink(missing_ok=True)


def tokens(tokenizer, texts: list[str]) -> np.ndarray:
    """Token ids (n, tokenizer.model_max_length), padded and cut as the pipeline does it."""
    return tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="np",
    ).input_ids.astype(np.int32)


def _save(model, path: Path) -> None:
    """Write a model in one piece, in half precision: a folder under another name, then a rename."""
    import copy

    temporary = path.with_name(f"{path.name}.tmp")
    copy.deepcopy(model).half().save_pretrained(temporary, safe_serialization=True)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def eight_bits(file: Path) -> None:
    """Rewrite a safetensors file with its matrices and kernels in 8-bit floats, in place; loaders widen them again.

    Used for the shortest training only, to keep the shipped weights small: it moves a prediction by 3 %, little for a
    network that has barely been trained.
    """
    import torch
    from safetensors.torch import load_file, save

    small = {k: v.to(torch.float8_e4m3fn) if v.ndim > 1 else v for k, v in load_file(file).items()}
    store.write(file, save(small, metadata={"format": "pt"}))


def _autoencoder(
    rank: int, workers: int, images: Path, u: UpstreamSettings, seed: int, folder: Path
) -> None:
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(entropy(seed, "autoencoder") % 2**31)
    levels = len(u.autoencoder_channels)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=u.autoencoder_channels,
        layers_per_block=1,
        latent_channels=u.latent_channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=np.load(images, mmap_mode="r").shape[1],
    )
    vae = vae.to(gpu.device(), memory_format=torch.channels_last)
    schedule = training.Schedule(
        u.autoencoder_steps, u.autoencoder_batch, u.autoencoder_lr, average=0.995, weight_decay=0.0
    )
    pixels = np.load(images, mmap_mode="r")
    order = training.batches(
        len(pixels), schedule.batch, entropy(seed, "autoencoder"), rank, workers
    )
    generator = torch.Generator(gpu.device()).manual_seed(
        entropy(seed, "autoencoder", rank) % 2**63
    )
    log = training.Log("autoencoder", 250, schedule.batch, rank)

    def loss_of(model, step):
        x = to_model(pixels[np.sort(next(order))])
        posterior = model.encode(x).latent_dist
        z = posterior.mean + 0.05 * torch.randn(
            posterior.mean.shape, generator=generator, device=x.device
        )
        y = model.decode(z).sample
        loss = reconstruction_loss(x, y) + 1e-4 * posterior.mean.square().mean()
        log(step, loss.item())
        return loss

    averaged = training.fit(vae, loss_of, schedule, rank, workers)
    if rank == 0:
        averaged.register_to_config(scaling_factor=float(1 / _latent_scale(averaged, pixels)))
        _save(averaged, folder / "vae")


def to_model(images: np.ndarray):
    """uint8 images (n, side, side, 3) as a float tensor (n, 3, side, side) in -1..1, channels last."""
    import torch

    x = torch.tensor(np.asarray(images)).to(gpu.device()).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def reconstruction_loss(x, y):
    """Mean absolute error of pixels, more so where the picture has edges, and of neighbouring differences.

    Wheels are two pixels wide: an error there counts several times as much as one in the sky.
    """
    import torch

    def differences(a):
        return a[..., :, 1:] - a[..., :, :-1], a[..., 1:, :] - a[..., :-1, :]

    across, down = differences(x)
    edges = torch.nn.functional.pad(across.abs(), (0, 1, 0, 0)) + torch.nn.functional.pad(
        down.abs(), (0, 0, 0, 1)
    )
    weight = 1 + 4 * torch.nn.functional.max_pool2d(edges.amax(1, keepdim=True), 3, 1, 1).clamp(
        max=1
    )
    loss = (weight * (x - y).abs()).mean()
    for a, b in zip((across, down), differences(y), strict=True):
        loss = loss + (a - b).abs().mean()
    return loss


def _latent_scale(vae, pixels) -> float:
    import torch

    with torch.no_grad():
        return float(vae.encode(to_model(pixels[: min(len(pixels), 512)])).latent_dist.mean.std())


def encode(vae_folder: Path, images: Path) -> np.ndarray:
    """Scaled latents (n, channels, side / 4, side / 4) float16 of all images in an ``.npy`` file."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(vae_folder).float().to(gpu.device()).eval()
    pixels = np.load(images, mmap_mode="r")
    with torch.no_grad():
        parts = [
            vae.encode(to_model(pixels[i : i + 128])).latent_dist.mean * vae.config.scaling_factor
            for i in range(0, len(pixels), 128)
        ]
    return torch.cat(parts).half().cpu().numpy()


def build_unet(u: UpstreamSettings, side: int):
    """A small conditional UNet: text attention at the second level and in the middle only."""
    from diffusers import UNet2DConditionModel

    levels = len(u.unet_channels)
    down = tuple("CrossAttnDownBlock2D" if i == 1 else "DownBlock2D" for i in range(levels))
    up = tuple(name.replace("Down", "Up") for name in reversed(down))
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=u.latent_channels,
        out_channels=u.latent_channels,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=u.unet_channels,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def text_encoder_of(clip: Path):
    """The text tower in a file of open_clip weights as a transformers ``CLIPTextModel``, float32.

    Stable Diffusion reads its captions with CLIP's text tower; this one goes on learning with the UNet.
    """
    from safetensors.torch import load_file
    from transformers import CLIPTextConfig, CLIPTextModel

    state = {name: value.float() for name, value in load_file(clip).items()}
    vocabulary, width = state["token_embedding.weight"].shape
    layers = 1 + max(
        int(name.split(".")[2]) for name in state if name.startswith("transformer.resblocks.")
    )
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=TEXT_HEADS,
            max_position_embeddings=len(state["positional_embedding"]),
            projection_dim=width,
            hidden_act="gelu",
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )
    model.load_state_dict(
        {"text_model." + name: value for name, value in _renamed(state, layers)}, strict=False
    )
    return model


def _renamed(state: dict, layers: int):
    """open_clip's names of a text tower's weights -> transformers'."""
    yield "embeddings.token_embedding.weight", state["token_embedding.weight"]
    yield "embeddings.position_embedding.weight", state["positional_embedding"]
    pairs = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for kind in ("weight", "bias"):
        yield f"final_layer_norm.{kind}", state[f"ln_final.{kind}"]
        for i in range(layers):
            of = f"transformer.resblocks.{i}."
            for theirs, ours in pairs.items():
                yield f"encoder.layers.{i}.{ours}.{kind}", state[f"{of}{theirs}.{kind}"]
            for name, part in zip("qkv", state[f"{of}attn.in_proj_{kind}"].chunk(3), strict=True):
                yield f"encoder.layers.{i}.self_attn.{name}_proj.{kind}", part


def _unet(
    rank: int, workers: int, clip: Path, u: UpstreamSettings, seed: int, folder: Path
) -> None:
    import torch

    torch.manual_seed(entropy(seed, "unet") % 2**31)
    latents, ids = (
        np.load(folder / "latents.npy"),
        torch.from_numpy(np.load(folder / "tokens.npy")).long().to(gpu.device()),
    )
    both = torch.nn.ModuleDict(
        {"text": text_encoder_of(clip), "unet": build_unet(u, latents.shape[-1])}
    )
    both = both.to(gpu.device(), memory_format=torch.channels_last)
    schedule = training.Schedule(
        u.generator_steps,
        u.generator_batch,
        u.generator_lr,
        warmup=0.01,
        cosine=False,
        cooldown=0.3,
        average=0.9995 if u.generator_steps > 2_000 else 0.98,
    )
    state, start = _resume(both, folder)
    order = training.batches(len(latents), schedule.batch, entropy(seed, "unet"), rank, workers)
    for _ in range(start):
        next(order)
    log, noise_of = training.Log("generator", 100, schedule.batch, rank), scheduler()

    def loss_of(model, step):
        generator = torch.Generator().manual_seed(entropy(seed, "noise", step, rank) % 2**63)
        chosen = next(order)
        loss = diffusion_loss(
            model, torch.from_numpy(latents[chosen]).float(), ids, chosen + 1, noise_of, generator
        )
        log(step, loss.item())
        return loss

    def after(step, averaged, optimiser):
        for budget, share in BUDGETS.items():
            if step + 1 == max(1, round(share * schedule.steps)):
                _save(averaged["unet"], folder / f"unet-{budget}")
                _save(averaged["text"], folder / f"text_encoder-{budget}")
                if budget == "short":
                    eight_bits(folder / "unet-short" / "diffusion_pytorch_model.safetensors")
        if (step + 1) % SAVE_EVERY == 0:
            training.save_state(
                folder / "state.pt",
                {
                    "step": step + 1,
                    "model": both.state_dict(),
                    "average": averaged.state_dict(),
                    "optimiser": optimiser.state_dict(),
                },
            )

    training.fit(both, loss_of, schedule, rank, workers, after, start, state)


def _resume(model, folder: Path) -> tuple[dict | None, int]:
    import torch

    if not (folder / "state.pt").exists():
        return None, 0
    state = torch.load(folder / "state.pt", map_location=gpu.device(), weights_only=True)
    model.load_state_dict(state["model"])
    return state, state["step"]


def diffusion_loss(model, z, ids, chosen: np.ndarray, noise_of, generator):
    """v-prediction loss on a batch of latents ``z``; ``ids`` are all captions' tokens, row 0 the empty caption."""
    import torch

    n = len(z)
    noise, t = (
        torch.randn(z.shape, generator=generator),
        torch.randint(noise_of.config.num_train_timesteps, (n,), generator=generator),
    )
    row = torch.from_numpy(chosen).where(
        torch.rand(n, generator=generator) > DROP_CAPTION, torch.zeros(n, dtype=torch.long)
    )
    z, noise, t, row = (x.to(gpu.device()) for x in (z, noise, t, row))
    noisy, target = noise_of.add_noise(z, noise, t), noise_of.get_velocity(z, noise, t)
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    with gpu.autocast():
        text = model["text"](ids[row]).last_hidden_state
        predicted = model["unet"](noisy, t, text).sample
    return torch.nn.functional.mse_loss(predicted.float(), target)
