"""Tiny language models, generators and CLIPs in the formats that the published ones come in; each takes seconds to make."""

from __future__ import annotations

import contextlib
import json
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


def language_model(folder: Path, steps: int = 80) -> Path:
    """A two-layer LLaMA and its tokenizer (BPE with byte fallback, as LLaMA-2's), which has learned that captions end in a newline."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _llama_tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    with seeded():
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=1024, bos_token_id=1, eos_token_id=2,
                                             **sizes))
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        for step in range(steps):
            text = "\n".join(LINES[(7 * step + 5 * i) % len(LINES)] for i in range(12)) + "\n"
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def _llama_tokenizer():
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import LlamaTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(
        vocab_size=420, special_tokens=[*special, *(f"<0x{b:02X}>" for b in range(256))], show_progress=False))
    made = json.loads(tokenizer.to_str())  # bytes are tokens like others, not special ones
    made["added_tokens"] = [t for t in made["added_tokens"] if t["content"] in special]
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


def _parts(folder: Path, width: int, **unet):
    """Autoencoder (8 x smaller), text configuration, tokenizer, U-Net and scheduler, the latter as Stable Diffusion 1.5 has it."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(clip_tokenizer(folder / "tokenizer"))
    text = CLIPTextConfig(vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
                          num_attention_heads=4, projection_dim=width, bos_token_id=tokenizer.bos_token_id,
                          eos_token_id=tokenizer.eos_token_id)
    vae = AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                        block_out_channels=(8, 8, 16, 16), norm_num_groups=4, latent_channels=4, sample_size=SIDE)
    made = UNet2DConditionModel(sample_size=SIDE // 8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
                                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=4,
                                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **unet)
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False,
                              skip_prk_steps=True, steps_offset=1)
    return vae, text, tokenizer, made, scheduler


def generator(folder: Path) -> Path:
    """A tiny Stable Diffusion 1.x in diffusers' layout, safetensors."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    with seeded():
        vae, text, tokenizer, unet, scheduler = _parts(folder, 32, cross_attention_dim=32)
        pipe = StableDiffusionPipeline(vae, CLIPTextModel(text), tokenizer, unet, scheduler, safety_checker=None,
                                       feature_extractor=None, requires_safety_checker=False)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def sdxl(folder: Path) -> Path:
    """A tiny Stable Diffusion XL: two text encoders, and image sizes among the conditions."""
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with seeded():
        vae, text, tokenizer, unet, scheduler = _parts(folder, 32, cross_attention_dim=64, addition_embed_type="text_time",
                                                       addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 32)
        pipe = StableDiffusionXLPipeline(vae, CLIPTextModel(text), CLIPTextModelWithProjection(text), tokenizer, tokenizer, unet,
                                         scheduler, add_watermarker=False)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def clip(folder: Path) -> Path:
    """A tiny open_clip model as ``helpers.clip.save`` leaves it: ``config.json``, tokenizer, safetensors."""
    from helpers import clip as clips

    config = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
              "text_cfg": {"context_length": 77, "vocab_size": 514, "width": 32, "heads": 2, "layers": 2}}
    with seeded():
        clips.save(clips.build(config, clip_tokenizer(folder)), folder, config)
    return folder
