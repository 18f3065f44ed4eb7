"""Random draws of the miniature: generators that follow from names, choices among things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from helpers.engine.randomness import entropy

T = TypeVar("T")


def stream(*names: object) -> np.random.Generator:
    """A generator that depends on ``names`` only, not on what was drawn before."""
    return np.random.default_rng(entropy(*names))


def pick(values: Sequence[T], rng: np.random.Generator) -> T:
    """One of ``values``, each as likely as any other."""
    return values[rng.integers(len(values))]


def weighted(shares: Mapping[str, float], rng: np.random.Generator) -> str:
    """One of the keys of ``shares``, as often as its share says; shares sum to 1."""
    return str(rng.choice(list(shares), p=list(shares.values())))
