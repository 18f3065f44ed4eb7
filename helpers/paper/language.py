"""Captions by LLaMA-2 7B or any other causal language model of transformers: many at once, each with its own random numbers.

Three things make it fast, and none of them changes what is written, up to rounding. Texts end at their first newline [C], so
that most need 20 tokens and few 100: a batch is written ``ROUND`` tokens at a time, and what has not ended goes on in a batch
with its like. The example lines are the same in many prompts, so they are read once per batch. And the batch is large.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from helpers.engine import gpu
from helpers.errors import StudyError, unknown
from helpers.models import sampling, weights
from helpers.paper import config
from helpers.worlds import CaptionSettings, World

ENGINES = ("transformers", "vllm")
ROUND = 32  # tokens written before finished texts leave the batch


def write_captions(w: World, prompts: list[str], rng: np.random.Generator) -> list[str]:
    """Continuations of ``prompts`` up to the end of their line, by the language model and the engine that paper.toml names.

    Raises ``StudyError`` when one of them is not on this machine.
    """
    s, seeds = config.settings(), rng.integers(2**62, size=len(prompts)).tolist()
    return continued(*load(s.language_model), prompts, seeds, w.captions)


def continued_by_vllm(
    name: str, prompts: Sequence[str], seeds: Sequence[int], settings: CaptionSettings
) -> list[str]:
    """The same by vLLM, an extra: its own sampling, a seed per text, and rounding that depends on what else is in its batch."""
    engine = vllm(name)
    from vllm import SamplingParams

    wanted = [SamplingParams(**vllm_sampling(seed, settings)) for seed in seeds]
    return [
        answer.outputs[0].text for answer in engine.generate(list(prompts), wanted, use_tqdm=False)
    ]


def vllm_sampling(seed: int, settings: CaptionSettings) -> dict:
    """What vLLM's ``SamplingParams`` are told for one text."""
    return {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_new_tokens,
        "stop": ["\n"],
        "seed": seed,
    }


@functools.lru_cache(maxsize=1)
def vllm(name: str):
    """vLLM's engine with the model. Raises ``StudyError`` when one of them is missing, saying how to get it."""
    try:
        from vllm import LLM
    except ImportError as e:
        raise StudyError(
            f'{config.FILE} asks for language_engine = "vllm", which is not installed ({e}). pip install vllm   It brings a '
            'torch of its own: where that does not go with requirements.txt, take language_engine = "transformers".'
        ) from e
    return weights.load(
        "language model",
        name,
        lambda folder: LLM(str(folder), load_format="safetensors", generation_config="vllm"),
    )


@functools.lru_cache(maxsize=1)
def load(name: str):
    """Model and tokenizer on the device, bfloat16 on a GPU. Raises ``StudyError`` when they are missing or damaged."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = weights.load("language model", name, AutoTokenizer.from_pretrained)
    model = weights.load(
        "language model",
        name,
        lambda folder: AutoModelForCausalLM.from_pretrained(
            folder, dtype=gpu.precision(), use_safetensors=True
        ),
    )
    model.generation_config = (
        GenerationConfig()
    )  # the one it comes with may hold sampling settings of its own
    return model.to(gpu.device()).eval(), tokenizer


def continued(
    model, tokenizer, prompts: Sequence[str], seeds: Sequence[int], settings: CaptionSettings
) -> list[str]:
    """What the model writes after each prompt, through the first newline: a function of prompt and seed, up to rounding."""
    ends, written = line_ends(tokenizer), [[] for _ in prompts]
    parts = [_split(ids, ends) for ids in tokenizer(list(prompts))["input_ids"]] if prompts else []
    uniform = [np.random.default_rng(seed).random(settings.max_new_tokens) for seed in seeds]
    open_ = sorted(range(len(prompts)), key=lambda i: (parts[i], i))
    for done in range(0, settings.max_new_tokens, ROUND):
        steps = min(ROUND, settings.max_new_tokens - done)

        def go_on(rows, done=done, steps=steps):
            numbers = np.stack([uniform[i][done : done + steps] for i in rows])
            return _generate(
                model,
                [parts[i][0] for i in rows],
                [parts[i][1] + written[i] for i in rows],
                numbers,
                ends,
                settings,
            )

        for rows, new in gpu.fitting_batches(go_on, open_, settings.batch, "captions"):
            for i, tokens in zip(rows, new, strict=True):
                last = next((k for k, token in enumerate(tokens) if token in ends), len(tokens) - 1)
                written[i] = written[i] + tokens[: last + 1]
        open_ = [i for i in open_ if written[i][-1] not in ends]
    return tokenizer.batch_decode(written, skip_special_tokens=True)


@functools.lru_cache(maxsize=4)
def line_ends(tokenizer) -> frozenset[int]:
    """The tokens after which a line is over: all that hold a newline, and the end of text."""
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    return frozenset(i for i, text in enumerate(texts) if "\n" in text) | {tokenizer.eos_token_id}


def _split(ids: list[int], ends: frozenset[int]) -> tuple[list[int], list[int]]:
    """The whole lines of a prompt, or its first token, and the open line that follows."""
    cut = max((k + 1 for k, token in enumerate(ids[:-1]) if token in ends), default=1)
    return ids[:cut], ids[cut:]


def _generate(
    model,
    shown: list[list[int]],
    opened: list[list[int]],
    uniform: np.ndarray,
    ends: frozenset[int],
    settings: CaptionSettings,
) -> list[list[int]]:
    """``uniform.shape[1]`` tokens after ``shown`` + ``opened``, fewer when all rows are over; ``shown`` is read once per value."""
    import torch
    from transformers import LogitsProcessorList

    places = {tuple(ids): k for k, ids in enumerate(dict.fromkeys(map(tuple, shown)))}
    which = torch.tensor([places[tuple(ids)] for ids in shown], device=model.device)
    first, first_mask = _left_padded(list(places), model.device)
    ids, mask = _left_padded(opened, model.device)
    with torch.inference_mode():
        cache = model.base_model(
            input_ids=first,
            attention_mask=first_mask,
            position_ids=(first_mask.cumsum(1) - 1).clamp(min=0),
            use_cache=True,
        ).past_key_values
        cache.batch_select_indices(which)
        ids, mask = torch.cat([first[which], ids], 1), torch.cat([first_mask[which], mask], 1)
        sampler = sampling.nucleus(
            torch.from_numpy(uniform).to(model.device), ids.shape[1], settings
        )
        out = model.generate(
            ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=uniform.shape[1],
            do_sample=False,
            eos_token_id=sorted(ends),
            pad_token_id=min(ends),
            logits_processor=LogitsProcessorList([sampler]),
        )
    return out[:, ids.shape[1] :].tolist()


def _left_padded(rows: Sequence[Sequence[int]], device):
    import torch

    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask
