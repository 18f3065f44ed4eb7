"""Nucleus sampling in which every text has random numbers of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from helpers.worlds import CaptionSettings

if TYPE_CHECKING:
    import torch


def nucleus(uniform: torch.Tensor, prompt_length: int, s: CaptionSettings) -> Callable:
    """Temperature and top-p sampling as a logits processor of transformers, for greedy search.

    Row r takes the number ``uniform[r, step]`` at each step, of a float64 tensor (rows, steps) in
    [0, 1): its token is where the cumulative probability, largest first, passes that number. So a
    text does not depend on its neighbours, as it would with ``generate(do_sample=True)``.
    """
    import torch

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
