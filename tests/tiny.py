"""Tiny language models, generators and CLIPs in the formats that the published ones come in; each takes seconds to make."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

LINES = [f"{name}{where} => a photo of {a} {name}{end}" for name in ("house", "boat", "A320 aircraft", "rose", "tree", "Audi A4 car")
         for a in ("a", "one small", "an old") for where, end in (("", ""), (", sea", " by the sea"), (", in", " in a field"))]
SIDE = 64  # pixels that the tiny generators are made for


@contextlib.contextmanager
def seeded(seed: int = 0):
    """Weights that are the same in every run, and no trace in the global random state."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def language_model(folder: Path, steps: int = 160) -> Path:
    """A two-layer LLaMA and its tokenizer (BPE with byte fallback, as LLaMA-2's), which has learned that captions end in a newline."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = llama_tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    rng = random.Random(0)
    with seeded():
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=1024, bos_token_id=1, eos_token_id=2,
                                             **sizes))
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
    """BPE over words with a space mark in front and single bytes for what it does not know, newline among them, as LLaMA-2's."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import LlamaTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # no token reaches into the next word
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(
        vocab_size=420, special_tokens=[*special, *(f"<0x{b:02X}>" for b in range(256))], show_progress=False))
    made = json.loads(tokenizer.to_str())
    made["pre_tokenizer"] = None
    made["added_tokens"] = [t for t in made["added_tokens"] if t["content"] in special]  # bytes are tokens like others
    tokenizer = Tokenizer.from_str(json.dumps(made))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return LlamaTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def clip_tokenizer(folder: Path) -> Path:
    """``vocab.json`` and ``merges.txt`` as CLIP has them: letters, letters that end a word, no merges, 77 tokens at most."""
    from transformers import CLIPTokenizer
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77).save_pretrained(folder)
    return folder


TEXT = {"intermediate_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32}
VAE = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4}
UNET = {"sample_size": SIDE // 8, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
        "cross_attention_dim": 32, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
TINY = (TEXT, VAE, UNET)
PUBLISHED = ({"intermediate_size": 3072, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768},
             {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
             {"sample_size": 64, "cross_attention_dim": 768})  # Stable Diffusion 1.5; what is not here is diffusers' default


def _parts(folder: Path, text: dict, vae: dict, unet: dict):
    """Autoencoder (8 x smaller), text configuration, tokenizer, U-Net and scheduler, the latter as Stable Diffusion 1.5 has it."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(clip_tokenizer(folder / "tokenizer"))
    config = CLIPTextConfig(**{"vocab_size": len(tokenizer), **text}, bos_token_id=tokenizer.bos_token_id,
                            eos_token_id=tokenizer.eos_token_id)
    autoencoder = AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                                latent_channels=4, **vae)
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False,
                              skip_prk_steps=True, steps_offset=1)
    return autoencoder, config, tokenizer, UNet2DConditionModel(**unet), scheduler


def generator(folder: Path, sizes: tuple[dict, dict, dict] = TINY) -> Path:
    """A Stable Diffusion 1.x in diffusers' layout, safetensors; tiny, or of the sizes ``PUBLISHED``."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    with seeded():
        autoencoder, config, tokenizer, network, scheduler = _parts(folder, *sizes)
        pipe = StableDiffusionPipeline(autoencoder, CLIPTextModel(config), tokenizer, network, scheduler, safety_checker=None,
                                       feature_extractor=None, requires_safety_checker=False)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def sdxl(folder: Path) -> Path:
    """A tiny Stable Diffusion XL: two text encoders, and image sizes among the conditions."""
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with seeded():
        vae, text, tokenizer, unet, scheduler = _parts(folder, TEXT, VAE, {
            **UNET, "cross_attention_dim": 64, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 32})
        pipe = StableDiffusionXLPipeline(vae, CLIPTextModel(text), CLIPTextModelWithProjection(text), tokenizer, tokenizer, unet,
                                         scheduler, add_watermarker=False)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


CLIP = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 514, "width": 32, "heads": 2, "layers": 2}}


def clip(folder: Path) -> Path:
    """A tiny open_clip model as ``helpers.clip.save`` leaves it: ``config.json``, tokenizer, safetensors."""
    from helpers import clip as clips

    with seeded():
        clips.save(clips.build(CLIP, clip_tokenizer(folder)), folder, CLIP)
    return folder
