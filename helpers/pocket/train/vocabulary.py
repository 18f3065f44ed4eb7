"""The tokenizer of the miniature: as CLIP's, with a vocabulary as small as the pool's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY = 1_500
START, END = "<|startoftext|>", "<|endoftext|>"  # CLIP's special tokens
CONTEXT = 32  # tokens of a caption; the longest of the pool has 28
WORDS = r"[\p{L}\p{N}]+(?:-[\p{L}\p{N}]+)*|[^\s\p{L}\p{N}]"


def train(texts: Sequence[str], folder: Path) -> None:
    """Train a tokenizer (byte-pair encoding with word ends, lower case) on texts, into ``folder``.

    A name with its digits and hyphens is one word, which a text tower of two layers can read.
    """
    import tokenizers
    from tokenizers import models, pre_tokenizers
    from transformers import CLIPTokenizerFast
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    words = pre_tokenizers.Split(tokenizers.Regex(WORDS), "removed", invert=True)
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = pre_tokenizers.Sequence([words, bytes_of])
    # learn which pairs to merge; ties go to the symbols that come first, and those of word ends
    # would come in another order in every run if they were not listed
    ends = {word[-1] for text in texts for word, _ in cut.pre_tokenize_str(text.lower())}
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols += [f"{end}</w>" for end in sorted(ends, reverse=True)]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=symbols,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = tokenizers.normalizers.Lowercase()
    learner.pre_tokenizer = cut
    learner.train_from_iterator(texts, trainer)
    # the same merges with CLIP's vocabulary: bytes with and without a word end, specials last
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = list(bytes_to_unicode().values())
    ends = [letter + "</w>" for letter in letters]
    names = dict.fromkeys([*letters, *ends, *("".join(m) for m in merges), START, END])
    vocabulary = {name: i for i, name in enumerate(names)}
    model = models.BPE(vocabulary, merges, unk_token=END, end_of_word_suffix="</w>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = cut
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), False, False
    )
    CLIPTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT).save_pretrained(folder)


def tokens(tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """Token ids (n, tokenizer.model_max_length) int32, padded and cut as the pipeline does it."""
    return tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="np",
    ).input_ids.astype(np.int32)
