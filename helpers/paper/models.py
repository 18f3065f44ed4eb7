"""LLaMA-2 and Stable Diffusion through transformers and diffusers, from weights that are already on this machine."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from helpers import clip, gpu
from helpers.pools import Benchmark
from helpers.worlds import StudyError, World, unknown

LANGUAGE_MODEL = "meta-llama/Llama-2-7b-hf"  # base weights [C]
GENERATORS = {"1.1": "CompVis/stable-diffusion-v1-1", "1.3": "CompVis/stable-diffusion-v1-3",
              "1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}  # the original 1.5 repository was withdrawn
JUDGE = ("ViT-L-14", "openai")  # not the CLIP that is adapted and that filters
DRAWN, KEPT = 512, 256  # pixels [C]


def _load(what: str, name: str, load):
    try:
        return load()
    except (OSError, ValueError) as e:
        raise StudyError(f"{what} {name!r} is not on this machine ({type(e).__name__}). Accept its licence and run: "
                         f"huggingface-cli download {name}   Or take a world that needs nothing: pocket.") from e


@functools.cache
def _language_model():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = _load("language model", LANGUAGE_MODEL, lambda: AutoTokenizer.from_pretrained(
        LANGUAGE_MODEL, local_files_only=True, padding_side="left"))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = _load("language model", LANGUAGE_MODEL, lambda: AutoModelForCausalLM.from_pretrained(
        LANGUAGE_MODEL, local_files_only=True, torch_dtype=torch.bfloat16, use_safetensors=True))
    return model.to(gpu.device()).eval(), tokenizer


def write(w: World, prompts: list[str], rng: np.random.Generator) -> list[str]:
    """Continuations of the prompts, ``w.captions.batch`` at a time, cut by the caller at the newline."""
    import torch

    (model, tokenizer), s, out = _language_model(), w.captions, []
    for start in range(0, len(prompts), s.batch):
        batch = tokenizer(prompts[start : start + s.batch], padding=True, return_tensors="pt").to(gpu.device())
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(int(rng.integers(2**62)))
            ids = model.generate(**batch, do_sample=True, temperature=s.temperature, top_p=s.top_p,
                                 max_new_tokens=s.max_new_tokens, pad_token_id=tokenizer.pad_token_id)
        out += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return out


@functools.cache
def _pipeline(generator: str):
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    if generator not in GENERATORS:
        raise unknown("generator", generator, GENERATORS)
    name = GENERATORS[generator]
    pipe = _load("generator", name, lambda: StableDiffusionPipeline.from_pretrained(
        name, local_files_only=True, use_safetensors=True, safety_checker=None, torch_dtype=torch.bfloat16))
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(gpu.device())


def judge_features(images: np.ndarray) -> np.ndarray:
    """Unit embeddings of images by ``JUDGE``. Raises ``StudyError`` when its weights are not on this machine."""
    return clip.embed_images(clip.named(*JUDGE), images)


def judge(bench: Benchmark, images: np.ndarray) -> pd.DataFrame:
    """Zero-shot class names of images by ``JUDGE``, as column ``variant``."""
    scores = judge_features(images) @ clip.head(clip.named(*JUDGE), bench.classes, bench.templates).T
    return pd.DataFrame({"variant": np.array(bench.classes, object)[scores.argmax(1)]})


def draw(w: World, captions: list[str], seeds: list[int], images=None, strength=None) -> np.ndarray:
    """Images (n, 256, 256, 3) uint8; every image has a generator of its own."""
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline
    from PIL import Image

    pipe, s, out = _pipeline(w.synthesis.generator), w.synthesis, []
    if images is not None:
        pipe = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    for start in range(0, len(captions), s.batch):
        part = slice(start, start + s.batch)
        generators = [torch.Generator().manual_seed(int(seed) % 2**63) for seed in seeds[part]]
        extra = {"height": DRAWN, "width": DRAWN} if images is None else {
            "image": [Image.fromarray(i).resize((DRAWN, DRAWN)) for i in images[part]], "strength": strength}
        made = pipe(captions[part], num_inference_steps=s.steps, guidance_scale=s.guidance, eta=s.eta, generator=generators,
                    **extra).images
        out += [np.asarray(i.resize((KEPT, KEPT), Image.Resampling.BICUBIC)) for i in made]
    return np.stack(out)
