"""Tiny models and folders of images in the formats that the published ones come in.

Each takes seconds to make.
"""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers.models import clip as clips

LINES = [
    f"{name}{where} => a photo of {a} {name}{end}"
    for name in ("house", "boat", "A320 aircraft", "rose", "tree", "Audi A4 car")
    for a in ("a", "one small", "an old")
    for where, end in (("", ""), (", sea", " by the sea"), (", in", " in a field"))
]
SIDE = 64  # pixels that the tiny generators are made for


@contextlib.contextmanager
def seeded(seed: int = 0):
    """Weights that are the same in every run, and no trace in the global random state."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def red_and_blue(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Noise in red (label 0) and blue (1) by turns, (n, 32, 32, 3) uint8, and the labels (n,)."""
    labels = np.arange(n) % 2
    images = rng.integers(0, 90, (n, 32, 32, 3), dtype=np.uint8)
    images[labels == 0, :, :, 0] += 120
    images[labels == 1, :, :, 2] += 120
    return images, labels


def language_model(folder: Path, steps: int = 160) -> Path:
    """A two-layer LLaMA, which has learned that captions end in a newline, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = llama_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 1024,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    rng = random.Random(0)
    with seeded():
        model = LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=1, eos_token_id=2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        for _ in range(steps):
            text = "\n".join(rng.sample(LINES, 16)) + "\n"
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def llama_tokenizer():
    """BPE as LLaMA-2's: words with a space mark in front, and bytes for what it does not know.

    A newline is one of these bytes.
    """
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import LlamaTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    # no token reaches into the next word
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[*special, *(f"<0x{b:02X}>" for b in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    parts = json.loads(tokenizer.to_str())
    parts["pre_tokenizer"] = None
    # bytes are tokens like others
    parts["added_tokens"] = [t for t in parts["added_tokens"] if t["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(parts))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return LlamaTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def clip_tokenizer(folder: Path) -> Path:
    """``vocab.json`` and ``merges.txt`` as CLIP has them, for 77 tokens at most.

    Tokens are letters, and letters that end a word; there are no merges.
    """
    from transformers import CLIPTokenizer
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    ).save_pretrained(folder)
    return folder


TEXT = {
    "intermediate_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 32,
}
VAE = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4}
UNET = {
    "sample_size": SIDE // 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "cross_attention_dim": 32,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
TINY = (TEXT, VAE, UNET)
PUBLISHED = (
    {
        "intermediate_size": 3072,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
    {"sample_size": 64, "cross_attention_dim": 768},
)  # Stable Diffusion 1.5; what is not here is diffusers' default


def _parts(folder: Path, text: dict, vae: dict, unet: dict):
    """Autoencoder, text configuration, tokenizer, U-Net and scheduler.

    The autoencoder halves images three times, and the scheduler is as Stable Diffusion 1.5 has it.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(clip_tokenizer(folder / "tokenizer"))
    config = CLIPTextConfig(
        **{"vocab_size": len(tokenizer), **text},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        **vae,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    return autoencoder, config, tokenizer, UNet2DConditionModel(**unet), scheduler


def generator(folder: Path, sizes: tuple[dict, dict, dict] = TINY) -> Path:
    """A Stable Diffusion 1.x in diffusers' layout; tiny, or of the sizes ``PUBLISHED``."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    with seeded():
        autoencoder, config, tokenizer, network, scheduler = _parts(folder, *sizes)
        pipe = StableDiffusionPipeline(
            autoencoder,
            CLIPTextModel(config),
            tokenizer,
            network,
            scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def sdxl(folder: Path) -> Path:
    """A tiny Stable Diffusion XL: two text encoders, and image sizes among the conditions."""
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    conditions = {
        "cross_attention_dim": 64,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
    }
    with seeded():
        vae, text, tokenizer, unet, scheduler = _parts(folder, TEXT, VAE, UNET | conditions)
        pipe = StableDiffusionXLPipeline(
            vae,
            CLIPTextModel(text),
            CLIPTextModelWithProjection(text),
            tokenizer,
            tokenizer,
            unet,
            scheduler,
            add_watermarker=False,
        )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 514, "width": 32, "heads": 2, "layers": 2},
}


def clip(folder: Path, seed: int = 0) -> Path:
    """A tiny open_clip model as ``helpers.models.clip.save`` leaves it.

    That is ``config.json``, tokenizer and safetensors.
    """
    with seeded(seed):
        clips.save(clips.build(CLIP, clip_tokenizer(folder)), folder, CLIP)
    return folder


def judge(folder: Path) -> Path:
    """Another tiny open_clip model as a repository on the hub has it.

    That is ``open_clip_config.json``, tokenizer and safetensors.
    """
    import torch
    from open_clip.push_to_hf_hub import save_for_hf

    with seeded(1):
        model = clips.build(CLIP, clip_tokenizer(folder))
    network = model.model.to(memory_format=torch.contiguous_format)
    save_for_hf(network, model.tokenizer, CLIP, str(folder), safe_serialization=True)
    return folder


def classifier(folder: Path, classes: int = 3, seed: int = 0) -> Path:
    """A tiny timm model as a repository on the hub has it: ``config.json`` and safetensors."""
    import timm

    with seeded(seed):
        model = timm.create_model(
            "test_resnet", num_classes=classes, pretrained_cfg_overlay={"input_size": (3, 32, 32)}
        )
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return folder


WNIDS = {
    "n01": ("cat", "animal"),
    "n02": ("dog", "animal"),
    "n03": ("truck", "car"),
}  # folder -> class, category
KINDS = (
    "shot_noise", "motion_blur", "snow", "pixelate", "jpeg_compression", "near_focus", "fog_3d",
)  # fmt: skip


def probe_folders(base: Path, side: int = 32) -> Path:
    """ImageNet of three classes and the published probe sets in their layouts.

    ``sun`` and one of 3DCC's corruptions are missing.
    """
    rng = np.random.default_rng(0)

    def put(place: str, *names: str) -> None:
        (base / place).mkdir(parents=True, exist_ok=True)
        for name in names:
            pixels = rng.integers(0, 255, (side, side + 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(base / place / name)

    for k, wnid in enumerate(WNIDS):
        put(f"imagenet/train/{wnid}", *(f"{wnid}_{i}.JPEG" for i in range(8)))
        put(f"imagenet/val/{wnid}", *(f"ILSVRC2012_val_{k}{i:07d}.JPEG" for i in range(4)))
        for kind in KINDS:
            for severity in range(1, 6):
                put(f"imagenet-c/{kind}/{severity}/{wnid}", f"ILSVRC2012_val_{k}{0:07d}.JPEG")
    for wnid in ("n01", "n03"):
        put(f"imagenet-r/{wnid}", "art_0.jpg", "tattoo_1.jpg")
        put(f"imagenet-a/{wnid}", "0.001_fox_0.9.jpg")
    for kind in ("original", "mixed_same", "mixed_rand"):
        put(f"imagenet-9/{kind}/val/00_dog", "fg_n01_a.JPEG", "fg_n02_b.JPEG")
        put(f"imagenet-9/{kind}/val/01_vehicle", "fg_n03_a.JPEG")
    (base / "imagenet-9" / "in_to_in9.json").write_text(json.dumps({"0": 0, "1": 0, "2": 1}))
    for uncommon in range(3):
        put(f"focus/{uncommon}/animal", "a.jpg")
        put(f"focus/{uncommon}/car", "b.jpg")
    put("cue-conflict/animal", *(f"animal{i}-car{i}.png" for i in range(3)))
    put("cue-conflict/car", "car1-animal2.png", "car1-car3.png")
    put("inaturalist/images", *(f"{i}.jpg" for i in range(4)))
    table = pd.DataFrame([(wnid, *words) for wnid, words in WNIDS.items()])
    table.columns = ["wnid", "name", "category"]
    for place in ("focus", "cue-conflict"):
        table[["wnid", "category"]].to_csv(base / place / "categories.csv", index=False)
    table[["wnid", "name"]].to_csv(base / "imagenet" / "classes.csv", index=False)
    return base
