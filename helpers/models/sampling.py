"""Nucleus sampling in which every text has random numbers of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from helpers.worlds import CaptionSettings

if TYPE_CHECKING:
    import torch
    from transformers import LogitsProcessor


def nucleus(
    uniform: torch.Tensor, prompt_length: int, settings: CaptionSettings
) -> LogitsProcessor:
    """Temperature and top-p sampling as a logits processor for greedy search.

    Row r takes the number ``uniform[r, step]`` at each step, of a float64 tensor (rows, steps) in
    [0, 1): its token is where the cumulative probability, largest first, passes that number.
    ``generate`` with ``do_sample`` draws from the global state for the whole batch, so that a text
    would depend on its neighbours.
    """
    import torch
    from transformers import LogitsProcessor

    class Nucleus(LogitsProcessor):
        def __call__(self, input_ids, scores):
            probability = (scores.double() / settings.temperature).softmax(-1)
            probability, token = probability.sort(dim=-1, descending=True, stable=True)
            before = probability.cumsum(-1) - probability
            kept = (before < settings.top_p) * probability
            step = input_ids.shape[1] - prompt_length
            threshold = uniform[:, step, None] * kept.sum(-1, keepdim=True)
            rank = (kept.cumsum(-1) <= threshold).sum(-1, keepdim=True)
            chosen = token.gather(1, rank.clamp(max=scores.shape[1] - 1))
            return torch.full_like(scores, -math.inf).scatter(1, chosen, 0.0)

    return Nucleus()
