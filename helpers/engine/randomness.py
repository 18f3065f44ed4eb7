"""Random numbers that depend on names, never on what was drawn before."""

from __future__ import annotations

import hashlib

import numpy as np

from helpers.worlds import World


def rng(world: World, *names: object) -> np.random.Generator:
    """A generator that depends on the world's seed and ``names`` only."""
    return np.random.default_rng(entropy(world.seed, *names))


def entropy(*names: object) -> int:
    """A 64-bit integer hashed from ``names``: the seed of one image, caption or run."""
    text = "\x1f".join(map(str, names)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
