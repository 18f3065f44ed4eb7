"""The miniature's LLaMA: a small language model that has read few-shot documents of captions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers.engine import gpu
from helpers.engine.late import torch
from helpers.models import sampling
from helpers.models.train import Schedule, fit
from helpers.settings import CaptionSettings

PAD = "<pad>"
START = "<s>"
NEWLINE = "\n"
VOCABULARY = 1_536
LENGTH = 128  # tokens per training row
BATCH = 16  # rows per step
LR = 3e-3
WARMUP = 50  # steps
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
PASSES = 4  # times that every row is seen, about
CONFIG = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}

Row = tuple[str, str | None, str]  # class, background or relation, caption


def line(subject: str, extra: str | None, caption: str = "") -> str:
    """One line of a few-shot document: ``subject => caption``, or ``subject, extra => caption``."""
    return f"{subject}, {extra} => {caption}" if extra else f"{subject} => {caption}"


def train(corpus: Sequence[Row], steps: int, seed: int, folder: Path) -> None:
    """Train tokenizer and model on ``(class, background or relation, caption)``, and save both.

    ``folder`` gets a ``transformers`` model in float16 safetensors, and its fast tokenizer.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    rng = np.random.default_rng(seed)
    tokenizer = _train_tokenizer([line(*row) for row in corpus])
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **CONFIG, **ids))
    model = model.to(gpu.device())
    rows = _packed(corpus, tokenizer, max(steps * BATCH // PASSES, BATCH), rng)

    def backward(step: int) -> None:
        batch = torch.from_numpy(rows[rng.integers(len(rows), size=BATCH)]).to(model.device)
        model(input_ids=batch, labels=batch).loss.backward()

    model.train()
    schedule = Schedule(steps, BATCH, LR, WARMUP)
    parameters = list(model.parameters())
    fit(parameters, backward, schedule, betas=BETAS, weight_decay=WEIGHT_DECAY)
    model.half().save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def _train_tokenizer(lines: Sequence[str]):
    """Byte-pair encoding without normalisation; a text gets a start token, and lines end in one."""
    import tokenizers
    from tokenizers import pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    names = (PAD, START, NEWLINE)
    special = [tokenizers.AddedToken(name, special=True, normalized=False) for name in names]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(lines, trainer)
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


def _packed(corpus: Sequence[Row], tokenizer, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, LENGTH) token ids: documents of 3 to 6 lines of one form, laid end to end."""
    # the lines of each form, without and with a background or relation, as tokens
    forms: list[list[list[int]]] = []
    for with_extra in (False, True):
        lines = [line(*row) for row in corpus if bool(row[1]) == with_extra]
        encoded = tokenizer(lines)["input_ids"] if lines else []
        forms.append([[*ids[1:], tokenizer.eos_token_id] for ids in encoded])
    weights = np.array([len(lines) > 0 for lines in forms], float)
    stream: list[int] = []
    while len(stream) < n * LENGTH:
        lines = forms[rng.choice(2, p=weights / weights.sum())]
        stream.append(tokenizer.bos_token_id)
        for i in rng.integers(len(lines), size=rng.integers(3, 7)):
            stream.extend(lines[i])
    return np.array(stream[: n * LENGTH]).reshape(n, LENGTH)


def write(
    folder: str | Path, prompts: Sequence[str], seeds: Sequence[int], settings: CaptionSettings
) -> list[str]:
    """The continuation of each prompt up to the end of its line, by nucleus sampling.

    A caption depends on its prompt and seed only, up to the last bit of the logits.
    """
    from transformers import LogitsProcessorList

    if not prompts:
        return []
    model, tokenizer = _load(str(folder))
    # prompts of similar length together need little padding
    lengths = [len(ids) for ids in tokenizer(list(prompts))["input_ids"]]
    order = sorted(range(len(prompts)), key=lambda i: (lengths[i], i))
    captions = [""] * len(prompts)
    for start in range(0, len(order), settings.batch):
        rows = order[start : start + settings.batch]
        texts = [prompts[i] for i in rows]
        batch = tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
        length = batch["input_ids"].shape[1]
        numbers = [np.random.default_rng(seeds[i]).random(settings.max_new_tokens) for i in rows]
        uniform = torch.from_numpy(np.stack(numbers)).to(model.device)
        sampler = sampling.nucleus(uniform, length, settings)
        with torch.inference_mode():
            ids = model.generate(
                **batch,
                max_new_tokens=settings.max_new_tokens,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                logits_processor=LogitsProcessorList([sampler]),
            )
        written = tokenizer.batch_decode(ids[:, length:], skip_special_tokens=True)
        for i, text in zip(rows, written, strict=True):
            captions[i] = text
    return captions


@functools.cache
def _load(folder: str):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).float().to(gpu.device()).eval(), tokenizer
