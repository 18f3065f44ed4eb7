"""The miniature's LLaMA: a small causal language model that has read few-shot documents made of the pool's captions."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers.engine import gpu
from helpers.models import sampling
from helpers.worlds import CaptionSettings

NEWLINE, START, PAD = "\n", "<s>", "<pad>"
VOCABULARY = 1_536
LENGTH, BATCH = 128, 16  # tokens per training row, rows per step
CONFIG = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def line(subject: str, extra: str | None, caption: str = "") -> str:
    """One line of a few-shot document: ``subject => caption``, or ``subject, extra => caption``."""
    return f"{subject}, {extra} => {caption}" if extra else f"{subject} => {caption}"


def train(
    corpus: Sequence[tuple[str, str | None, str]],
    steps: int,
    seed: int,
    folder: Path,
    half: bool = True,
) -> float:
    """Train tokenizer and model on ``(class, background or relation, caption)`` and save both; the last training loss.

    What the model learns is the *form*: lines that name a subject, an arrow, a caption. As [C] asks LLaMA for
    "A320 aircraft", aircraft and cars should come with their noun in the class (``captions.class_with_noun``). ``folder`` gets
    a ``transformers`` model in float16 (``half``) safetensors, about 2 MB, and its fast tokenizer.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    rng = np.random.default_rng(seed)
    tokenizer = _train_tokenizer([line(*row) for row in corpus])
    ids = {
        name: tokenizer.convert_tokens_to_ids(token)
        for name, token in (
            ("bos_token_id", START),
            ("eos_token_id", NEWLINE),
            ("pad_token_id", PAD),
        )
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **CONFIG, **ids)).to(
            gpu.device()
        )
    rows = _packed(
        corpus, tokenizer, max(steps * BATCH // 4, BATCH), rng
    )  # every row is seen about four times
    loss = _fit(model, torch.from_numpy(rows), steps, rng)
    model = model.half() if half else model
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return loss


def write(
    folder: str | Path, prompts: Sequence[str], seeds: Sequence[int], settings: CaptionSettings
) -> list[str]:
    """The continuation of each prompt up to the end of its line, by nucleus sampling with one seed per prompt.

    ``settings`` has temperature, top_p, max_new_tokens and batch. A caption depends on its prompt and seed only, whatever
    it is batched with, up to the last bit of the logits.
    """
    import torch
    from transformers import LogitsProcessorList

    if not prompts:
        return []
    model, tokenizer = _load(str(folder))
    newline = tokenizer.convert_tokens_to_ids(NEWLINE)
    lengths = [len(ids) for ids in tokenizer(list(prompts))["input_ids"]]
    order = sorted(range(len(prompts)), key=lambda i: (lengths[i], i))  # little padding
    captions = [""] * len(prompts)
    for start in range(0, len(order), settings.batch):
        rows = order[start : start + settings.batch]
        batch = tokenizer([prompts[i] for i in rows], padding=True, return_tensors="pt").to(
            model.device
        )
        uniform = np.stack(
            [np.random.default_rng(seeds[i]).random(settings.max_new_tokens) for i in rows]
        )
        sampler = sampling.nucleus(
            torch.from_numpy(uniform).to(model.device), batch["input_ids"].shape[1], settings
        )
        with torch.inference_mode():
            out = model.generate(
                **batch,
                max_new_tokens=settings.max_new_tokens,
                do_sample=False,
                eos_token_id=newline,
                pad_token_id=tokenizer.pad_token_id,
                logits_processor=LogitsProcessorList([sampler]),
            )
        texts = tokenizer.batch_decode(
            out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for i, text in zip(rows, texts, strict=True):
            captions[i] = text
    return captions


@functools.cache
def _load(folder: str):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).float().to(gpu.device()).eval(), tokenizer


def _train_tokenizer(lines: Sequence[str]):
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(t, special=True, normalized=False) for t in (PAD, START, NEWLINE)]
    tokenizer.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=special,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.token_to_id(START))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=NEWLINE,
        pad_token=PAD,
        padding_side="left",
        model_max_length=CONFIG["max_position_embeddings"],
        model_input_names=["input_ids", "attention_mask"],
    )


def _packed(
    corpus: Sequence[tuple[str, str | None, str]], tokenizer, n: int, rng: np.random.Generator
) -> np.ndarray:
    """(n, LENGTH) token ids: documents of 3 to 6 lines of one form, one after the other without padding."""
    forms = [
        [line(*row) for row in corpus if bool(row[1]) == with_extra] for with_extra in (False, True)
    ]
    tokens = [
        [ids[1:] + [tokenizer.eos_token_id] for ids in tokenizer(lines)["input_ids"]]
        if lines
        else []
        for lines in forms
    ]
    weights = np.array([len(lines) > 0 for lines in tokens], float)
    stream: list[int] = []
    while len(stream) < n * LENGTH:
        lines = tokens[rng.choice(2, p=weights / weights.sum())]
        stream.append(tokenizer.bos_token_id)
        for i in rng.integers(len(lines), size=rng.integers(3, 7)):
            stream.extend(lines[i])
    return np.array(stream[: n * LENGTH]).reshape(n, LENGTH)


def _fit(model, rows, steps: int, rng: np.random.Generator) -> float:
    """AdamW with a cosine schedule; the mean loss of the last steps."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(
            (step + 1) / 50, 0.01 + 0.495 * (1 + math.cos(math.pi * step / max(steps, 1)))
        ),
    )
    losses = []
    for _ in range(steps):
        batch = rows[rng.integers(len(rows), size=BATCH)].to(model.device)
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return float(np.mean(losses[-20:])) if losses else math.nan
