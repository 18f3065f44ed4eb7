"""Nucleus sampling in which every text has random numbers of its own, for the language models of all worlds."""

from __future__ import annotations

import math

from helpers.worlds import CaptionSettings


def nucleus(uniform, prompt_length: int, settings: CaptionSettings):
    """Temperature and top-p sampling as a logits processor for greedy search: row r takes its own number per step.

    ``uniform`` (rows, steps) is a float64 tensor in [0, 1). ``generate`` with ``do_sample`` draws from the global state for
    the whole batch, so that a text would depend on its neighbours. Here the token is where the cumulative probability,
    largest first, passes ``uniform[r, step]``.
    """
    import torch
    from transformers import LogitsProcessor

    class Nucleus(LogitsProcessor):
        def __call__(self, input_ids, scores):
            probability = (scores.double() / settings.temperature).softmax(-1)
            probability, token = probability.sort(dim=-1, descending=True, stable=True)
            total = probability.cumsum(-1)
            nucleus = (total - probability < settings.top_p) * probability
            threshold = uniform[:, input_ids.shape[1] - prompt_length, None] * nucleus.sum(
                -1, keepdim=True
            )
            rank = (
                (nucleus.cumsum(-1) <= threshold)
                .sum(-1, keepdim=True)
                .clamp(max=scores.shape[1] - 1)
            )
            return torch.full_like(scores, -math.inf).scatter(1, token.gather(1, rank), 0.0)

    return Nucleus()
