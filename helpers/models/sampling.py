"""Nucleus sampling in which every text has random numbers of its own."""

from __future__ import annotations

from collections.abc import Callable

from helpers.engine.late import torch
from helpers.settings import CaptionSettings


def nucleus(uniform: torch.Tensor, prompt_length: int, s: CaptionSettings) -> Callable:
    """Temperature and top-p sampling as a logits processor of transformers, for greedy search.

    A row's token is where its cumulative probability, largest first, passes ``uniform[row, step]``
    (float64 in [0, 1)), so that no text depends on its neighbours.
    """

    def process(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        probability = (scores.double() / s.temperature).softmax(-1)
        probability, token = probability.sort(dim=-1, descending=True, stable=True)
        before = probability.cumsum(-1) - probability
        kept = (before < s.top_p) * probability
        step = input_ids.shape[1] - prompt_length
        threshold = uniform[:, step, None] * kept.sum(-1, keepdim=True)
        rank = (kept.cumsum(-1) <= threshold).sum(-1, keepdim=True)
        chosen = token.gather(1, rank.clamp(max=scores.shape[1] - 1))
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)

    return process
