"""Captions by LLaMA-2 7B or another causal language model, each with random numbers of its own."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers.engine import gpu
from helpers.engine.late import torch
from helpers.errors import StudyError
from helpers.models import sampling, weights
from helpers.paper import config
from helpers.settings import CaptionSettings, World

WINDOWS = ("max_position_embeddings", "max_seq_len", "context_length")  # of configurations
UNPADDED = ("ctrl", "openai-gpt", "recurrent_gemma")  # are told positions, and read padding, too
SHORTEST = "dog => a good dog at noon\n" * 3 + "cat =>"  # about as long as the shortest prompts
ROUND = 32  # tokens that a batch writes before finished texts leave it; most lines are shorter


def write_captions(w: World, prompts: list[str], rng: np.random.Generator) -> list[str]:
    """Continuations of ``prompts`` to the end of their line; ``StudyError`` without the model."""
    seeds = rng.integers(2**62, size=len(prompts)).tolist()
    return continued(*load(config.settings().language_model), prompts, seeds, w.captions)


@functools.lru_cache(maxsize=1)
def load(name: str) -> tuple[Any, Any]:
    """Model and tokenizer on the device, bfloat16 on a GPU; ``StudyError`` as ``weights.load``."""
    model, tokenizer = _opened(name)
    return model.to(gpu.device()).eval(), tokenizer


def checked(name: str, new: int = 0) -> Path:
    """The model's folder. Raises what ``load`` would, and ``continued`` of the shortest prompts and
    ``new`` tokens, but reads no more than headers of weights.
    """
    model, tokenizer = _opened(name, device_map="meta")
    _check_room(model, len(tokenizer(SHORTEST)["input_ids"]), new)
    return weights.folder("language model", name)


def _check_room(model: Any, longest: int, new: int) -> None:
    window = max(getattr(model.config, name, None) or 0 for name in WINDOWS)
    if 0 < window < longest + new:
        room = f"a prompt of {longest} tokens and {new} new ones do not fit"
        advice = "take a model that reads more, or a smaller captions.max_new_tokens"
        raise StudyError(f"{room} into the {window} that the language model reads; {advice}.")


def _opened(name: str, **options: Any) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    def open_folder(folder: Path) -> tuple[Any, Any]:
        about = AutoConfig.from_pretrained(folder, **weights.NO_CODE)
        if about.is_encoder_decoder or "MaskedLM" in str(about.architectures):
            raise ValueError(f"a model of type {about.model_type} does not continue texts")
        try:
            here = {"local_files_only": True, **weights.NO_CODE}
            tokenizer = AutoTokenizer.from_pretrained(folder, **here)
        except Exception as e:
            raise ValueError(f"it has no tokenizer that transformers reads ({e})") from e
        types = {"dtype": gpu.precision(), **weights.NO_CODE}
        model = weights.complete(AutoModelForCausalLM, folder, **types, **options)
        if not line_ends(tokenizer):
            raise ValueError("its tokenizer has no newline and no end of text")
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            raise ValueError("its tokenizer has more tokens than the model; it is another's")
        return model, tokenizer

    logging.set_verbosity_error()  # what matters of its warnings is an error here
    model, tokenizer = weights.load("language model", name, open_folder)
    model.generation_config = GenerationConfig()  # its own may hold other sampling settings
    return model, tokenizer


def continued(
    model: Any, tokenizer: Any, prompts: list[str], seeds: Sequence[int], settings: CaptionSettings
) -> list[str]:
    """What the model writes after each prompt, through the first newline or the end of text.

    A text is a function of prompt and seed, up to rounding. Raises ``StudyError`` on a prompt that
    leaves no room for a caption in the model's window.
    """
    ends = line_ends(tokenizer)
    tokens = tokenizer(prompts)["input_ids"] if prompts else []
    _check_room(model, max(map(len, tokens), default=0), settings.max_new_tokens)
    written: list[list[int]] = [[] for _ in prompts]

    def write(rows: Sequence[int]) -> list[list[int]]:
        """The next tokens of texts; those behind the first of ``ends`` mean nothing."""
        # Pad on the left, so that every row goes on in the same column.
        texts = [tokens[i] + written[i] for i in rows]
        length = max(map(len, texts))
        ids = [[0] * (length - len(text)) + text for text in texts]
        mask = [[0] * (length - len(text)) + [1] * len(text) for text in texts]
        # One stream of random numbers per text, so that it does not depend on its neighbours.
        start = len(written[rows[0]])
        stop = min(start + ROUND, settings.max_new_tokens)
        streams = [np.random.default_rng(seeds[i]).random(stop)[start:] for i in rows]
        uniform = torch.tensor(np.stack(streams), device=model.device)
        try:
            with torch.inference_mode():
                out = model.generate(
                    torch.tensor(ids, device=model.device),
                    attention_mask=torch.tensor(mask, device=model.device),
                    max_new_tokens=stop - start,
                    do_sample=False,
                    eos_token_id=sorted(ends),
                    pad_token_id=min(ends),
                    logits_processor=[sampling.nucleus(uniform, length, settings)],
                )
        except torch.OutOfMemoryError:
            raise
        except Exception as e:  # of kinds that continue texts in another way
            kind = f"the language model, of type {model.config.model_type}"
            raise StudyError(f"{kind}, writes no texts here ({e}). Take another.") from e
        return out[:, length:].tolist()

    # A model that is not told positions, with ALiBi or a state, would read what it is padded with.
    told = "position_ids" in inspect.signature(model.forward).parameters
    padded = told and model.config.model_type not in UNPADDED
    left = sorted(range(len(prompts)), key=lambda i: len(tokens[i]))  # little is padded
    for _ in range(0, settings.max_new_tokens, ROUND):
        unfinished = []
        parts = itertools.groupby(left, key=lambda i: padded or len(tokens[i]))
        batches = (gpu.fitting_batches(write, [*p], settings.batch, "captions") for _, p in parts)
        for rows, new in itertools.chain.from_iterable(batches):
            for i, line in zip(rows, new, strict=True):
                last = next((k for k, token in enumerate(line) if token in ends), None)
                written[i] += line if last is None else line[: last + 1]
                if last is None:
                    unfinished.append(i)
        left = unfinished
    return tokenizer.batch_decode(written, skip_special_tokens=True)


@functools.lru_cache(maxsize=4)
def line_ends(tokenizer: Any) -> frozenset[int]:
    """The tokens after which a line is over: all that hold a newline [C], and the end of text."""
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    ends = {i for i, text in enumerate(texts) if "\n" in text} | {tokenizer.eos_token_id}
    return frozenset(ends - {None})
