"""The generator's UNet in the autoencoder's latents, trained together with its text encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers.engine import gpu, store
from helpers.engine.late import functional, torch
from helpers.engine.randomness import entropy
from helpers.models.clip import WEIGHTS
from helpers.models.train import Schedule, save_state
from helpers.pocket.train import autoencoder, loop
from helpers.pocket.train.generator import BUDGETS, scheduler
from helpers.pocket.train.vocabulary import tokens
from helpers.settings import UpstreamSettings, World

LR = 1e-3
WARMUP = 0.01  # share of the steps
COOLDOWN = 0.3  # share of the steps
TEXT_WIDTH = 128  # of CLIP's text tower
TEXT_HEADS = 4
DROP_CAPTION = 0.1  # share of captions left empty in training, for classifier-free guidance
SAVE_EVERY = 250  # steps


def train(w: World, images: Path, captions: Sequence[str], models: Path, folder: Path) -> None:
    """Train text encoder and UNet on images (``.npy``, n x side x side x 3 uint8) and captions.

    ``models`` has the ``tokenizer/`` and the ``clip/`` whose text tower the text encoder starts
    from; ``folder`` has the autoencoder in ``vae/`` and gets ``tokenizer/`` and, per training
    budget, ``text_encoder-*/`` and ``unet-*/``. A killed training goes on where it was.
    """
    from transformers import CLIPTokenizerFast

    tokenizer = CLIPTokenizerFast.from_pretrained(models / "tokenizer")
    tokenizer.save_pretrained(folder / "tokenizer")
    if not (folder / "latents.npy").exists():
        store.write(folder / "latents.npy", autoencoder.encode(folder / "vae", images))
    if not (folder / "unet-long").exists():
        ids = tokens(tokenizer, ["", *captions])
        passes = w.upstream.generator_steps * w.upstream.generator_batch
        loop.distribute(_train, w, ids, models / "clip" / WEIGHTS, folder, passes=passes)
    for leftover in ("latents.npy", "state.pt"):
        (folder / leftover).unlink(missing_ok=True)


def _train(worker: loop.Worker, w: World, tokens: np.ndarray, clip: Path, folder: Path) -> None:

    u = w.upstream
    seed = w.pool.seed
    torch.manual_seed(entropy(seed, "unet") % 2**31)
    latents = np.load(folder / "latents.npy")
    ids = torch.from_numpy(tokens).long().to(gpu.device())
    parts = {"text": text_encoder_of(clip), "unet": build_unet(u, latents.shape[-1])}
    model = torch.nn.ModuleDict(parts).to(gpu.device(), memory_format=torch.channels_last)
    average = loop.Average(model, 0.9995 if u.generator_steps > 2_000 else 0.98)
    steps = u.generator_steps
    batch = u.generator_batch
    schedule = Schedule(steps, batch, LR, int(WARMUP * steps), COOLDOWN * steps)
    order = loop.batches(len(latents), batch, entropy(seed, "unet"), worker)
    noise_schedule = scheduler()

    # go on where a killed training was
    resumed: dict[str, Any] = {"first": 0}
    if (folder / "state.pt").exists():
        state = torch.load(folder / "state.pt", map_location=gpu.device(), weights_only=True)
        model.load_state_dict(state["model"])
        average.model.load_state_dict(state["average"])
        resumed = {"first": state["step"], "state": state["optimiser"]}
    for _ in range(resumed["first"]):
        next(order)

    def loss_of(step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(entropy(seed, "noise", step, worker.rank) % 2**63)
        chosen = next(order)
        z = torch.from_numpy(latents[chosen]).float()
        return _diffusion_loss(model, z, ids, chosen + 1, noise_schedule, generator)

    def after(step: int, optimiser: torch.optim.Optimizer) -> None:
        average.update(model, step)
        if worker.rank > 0:
            return
        for budget, share in BUDGETS.items():
            if step + 1 == max(1, round(share * steps)):
                _save_budget(average.model, budget, folder)
        if (step + 1) % SAVE_EVERY == 0:
            state = {
                "step": step + 1,
                "model": model.state_dict(),
                "average": average.model.state_dict(),
                "optimiser": optimiser.state_dict(),
            }
            save_state(folder / "state.pt", state)

    loop.train(model, loss_of, schedule, "generator", worker, after=after, **resumed)


def _diffusion_loss(model, z, ids, rows: np.ndarray, noise_schedule, generator):
    """v-prediction loss on a batch of latents ``z`` (n, channels, side, side).

    ``ids`` are all captions' tokens; their row 0 is the empty caption, ``rows`` are those of ``z``.
    """
    n = len(z)
    noise = torch.randn(z.shape, generator=generator)
    t = torch.randint(noise_schedule.config.num_train_timesteps, (n,), generator=generator)
    kept = torch.rand(n, generator=generator) > DROP_CAPTION
    row = torch.from_numpy(rows).where(kept, torch.zeros(n, dtype=torch.long))
    z, noise, t, row = (x.to(gpu.device()) for x in (z, noise, t, row))
    target = noise_schedule.get_velocity(z, noise, t)
    noisy = noise_schedule.add_noise(z, noise, t).contiguous(memory_format=torch.channels_last)
    with gpu.autocast():
        text = model["text"](ids[row]).last_hidden_state
        predicted = model["unet"](noisy, t, text).sample
    return functional.mse_loss(predicted.float(), target)


def _save_budget(model, budget: str, folder: Path) -> None:
    """Write text encoder and UNet; the UNet of the shortest training with 8-bit kernels.

    That keeps the shipped weights small (loaders widen them again) and moves a prediction by 3 %.
    """
    from safetensors.torch import load_file, save

    loop.save(model["text"], folder / f"text_encoder-{budget}")
    loop.save(model["unet"], folder / f"unet-{budget}")
    if budget == "short":
        file = folder / "unet-short" / "diffusion_pytorch_model.safetensors"
        weights = load_file(file)
        small = {k: v.to(torch.float8_e4m3fn) if v.ndim > 1 else v for k, v in weights.items()}
        store.write(file, save(small, metadata={"format": "pt"}))


def build_unet(u: UpstreamSettings, side: int) -> Any:
    """A small conditional UNet with text attention at its second level and in the middle only."""
    from diffusers import UNet2DConditionModel

    levels = len(u.unet_channels)
    down = tuple("CrossAttnDownBlock2D" if i == 1 else "DownBlock2D" for i in range(levels))
    up = tuple(name.replace("Down", "Up") for name in reversed(down))
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=autoencoder.LATENT_CHANNELS,
        out_channels=autoencoder.LATENT_CHANNELS,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=u.unet_channels,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def text_encoder_of(clip: Path) -> Any:
    """The text tower in a file of open_clip weights as a transformers ``CLIPTextModel``, float32.

    As in Stable Diffusion; but this one goes on learning with the UNet.
    """
    from safetensors.torch import load_file
    from transformers import CLIPTextConfig, CLIPTextModel

    state = {name: value.float() for name, value in load_file(clip).items()}
    vocabulary, width = state["token_embedding.weight"].shape
    blocks = [name for name in state if name.startswith("transformer.resblocks.")]
    layers = 1 + max(int(name.split(".")[2]) for name in blocks)
    config = CLIPTextConfig(
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
    model = CLIPTextModel(config)
    renamed = {"text_model." + name: value for name, value in _renamed(state, layers)}
    model.load_state_dict(renamed, strict=False)
    return model


def _renamed(state: dict[str, Any], layers: int) -> Iterator[tuple[str, Any]]:
    """open_clip's weights of a text tower with transformers' names."""
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
            block = f"transformer.resblocks.{i}."
            for theirs, ours in pairs.items():
                yield f"encoder.layers.{i}.{ours}.{kind}", state[f"{block}{theirs}.{kind}"]
            # queries, keys and values are one matrix there
            joined = state[f"{block}attn.in_proj_{kind}"]
            for name, part in zip("qkv", joined.chunk(3), strict=True):
                yield f"encoder.layers.{i}.self_attn.{name}_proj.{kind}", part
