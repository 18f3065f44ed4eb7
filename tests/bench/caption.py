"""Captions per second of the paper world's language model, against the published way.

The baselines write one prompt at a time, and 64 as [C] does. The model has LLaMA-2 7B's shape (on a
CPU: a tiny one) and random weights, which never end a line. So the newline is given a chance of 1
in 20 per token, before top-p: captions then have about 18 tokens, and seldom more than 100.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from helpers import worlds
from helpers.data.tables import Benchmark
from helpers.engine import gpu
from helpers.paper import language
from helpers.study.captions import prompt_row
from tests import tiny
from tests.bench._models import Method, compare

SMALL = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 1_000,
}
NEWLINE = 13  # the token
CHANCE = 0.05  # of a newline at every token
S = worlds.get("paper").captions


def models():
    """A LLaMA with random weights, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny.llama_tokenizer()
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.eos_token
    sizes = {} if gpu.device() == "cuda" else SMALL
    with tiny.seeded(), torch.device(gpu.device()):
        before = torch.get_default_dtype()
        torch.set_default_dtype(gpu.precision())
        model = LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=1, eos_token_id=2)).eval()
        torch.set_default_dtype(before)

    def ends(module, args, logits):
        logits[..., NEWLINE] = -math.inf
        rest = (logits.float() / S.temperature).logsumexp(-1) * S.temperature
        logits[..., NEWLINE] = rest + S.temperature * math.log(CHANCE / (1 - CHANCE))
        return logits

    model.lm_head.register_forward_hook(ends)
    return model, tokenizer


def prompts(n: int) -> list[str]:
    """Some of the few-shot prompts that the study asks for one class, in alphabetical order."""
    bench = Benchmark(
        task="aircraft",
        classes=("A320",),
        noun="aircraft",
        domain="",
        templates=(),
        backgrounds=tuple(f"place {i}" for i in range(80)),
        details=pd.DataFrame(),
        train=None,
        val=None,
        test=None,
    )
    w = worlds.get("paper")
    count = max(n, S.per_class * 4 // 3)
    return sorted(prompt_row(w, bench, 0, i)["prompt"] for i in range(count))[:n]


def main(rows: int | None, rounds: int) -> None:
    """Compare the ways to write captions; ``rows`` is how many the fast ones write per round."""
    import torch

    model, tokenizer = models()
    fast = gpu.device() == "cuda"
    n = rows or (2_048 if fast else 128)
    few = 8 if fast else 4  # the plain ways are slow
    asked = prompts(n)
    settings = S if fast else replace(S, batch=64)

    def generate(n: int, batch: int, end: list[int]):
        texts = []
        for i in range(0, n, batch):
            part = asked[i : min(i + batch, n)]
            given = tokenizer(part, padding=True, return_tensors="pt").to(model.device)
            with torch.inference_mode(), tiny.seeded(i):
                ids = model.generate(
                    **given,
                    do_sample=True,
                    temperature=S.temperature,
                    top_p=S.top_p,
                    top_k=0,
                    eos_token_id=end,
                    max_new_tokens=S.max_new_tokens,
                    pad_token_id=2,
                )
            new = ids[:, given["input_ids"].shape[1] :]
            texts += tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts

    def study(n: int):
        return language.continued(model, tokenizer, asked[:n], range(n), settings)

    def to_the_newline(n: int):
        return generate(n, 1, [NEWLINE, 2])

    length = f"{S.max_new_tokens} tokens"
    methods = {
        "one prompt at a time, to the newline": Method(to_the_newline, 3 * few, 3 * few),
        f"one prompt at a time, {length}": Method(lambda n: generate(n, 1, [2]), few),
        f"64 at a time, {length} [C]": Method(lambda n: generate(n, 64, [2]), 64, 64),
        f"the study's, {settings.batch} at a time": Method(study, n, min(n, settings.batch)),
    }
    compare("caption", methods, rounds, "captions")
