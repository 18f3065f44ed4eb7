"""What one downloads in the published setting, trained on exactly the miniature's own pool.

CLIP, generator (three training budgets), caption model and judges: shipped in ``weights/`` with a
card, made again by ``card.retrain``, or trained on first use.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.engine import store
from helpers.engine.randomness import entropy
from helpers.errors import StudyError
from helpers.pocket.train import autoencoder, clip, judges, language, unet, vocabulary
from helpers.pocket.world.pool import open_pool
from helpers.worlds import World

WEIGHTS = Path(__file__).parents[1] / "weights"
NOUN = {"aircraft": " aircraft", "cars": " car"}  # appended to class names in prompts [C]


def folder(w: World) -> Path:
    """Where this world's upstream models are; trained first where the world trains its own.

    Raises ``StudyError`` when the shipped weights are missing, damaged, or were trained on another
    pool than this world's.
    """
    if w.pool.upstream == "committed":
        check_card(pool_hash(w), w.name)
        return WEIGHTS
    if not store.finished("upstream", w):
        store.make("upstream", w, lambda path: train(w, path))
    return store.folder("upstream", w)


@functools.cache
def check_card(pool: str, world: str) -> None:
    """Raise ``StudyError`` unless the shipped weights are whole and were trained on this pool."""
    file = WEIGHTS / "card.json"
    retrain = f"python -m helpers.run {world} 00 -p retrain=True"
    if not file.exists():
        raise StudyError(
            f"the upstream weights are missing: {file} not found. Restore them from git, or train "
            f"them (hours): {retrain}"
        )
    card = json.loads(file.read_text())
    if card["pool"] != pool:
        raise StudyError(
            f"the shipped upstream weights were trained on pool {card['pool']}, this world's pool "
            f"is {pool}. Take the pool's settings back, or train: {retrain}"
        )
    for name, digest in card["files"].items():
        file = WEIGHTS / name
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise StudyError(
                f"{file} is missing or damaged; restore it from git: "
                "git checkout -- helpers/pocket/weights"
            )


@functools.cache
def pool_hash(w: World) -> str:
    """The pool's captions as a short hash: which data upstream models were trained on."""
    texts = "\n".join(open_pool(w).captions()["TEXT"])
    return hashlib.sha256(texts.encode()).hexdigest()[:12]


def train(w: World, path: Path) -> None:
    """Train every upstream model of a world into ``path``, skipping what is there."""
    pool = open_pool(w)
    texts = list(pool.captions()["TEXT"])
    images = path / "images.npy"
    if not images.exists():
        store.write(images, pool.fetch(np.arange(len(pool))))
    if not (path / "tokenizer").exists():
        vocabulary.train(texts, path / "tokenizer")
    clip.train(w, texts, path)
    if not (path / "language").exists():
        seed = entropy(w.pool.seed, "language") % 2**31
        steps = w.upstream.language_steps
        language.train(corpus(pool.truth()), steps, seed, path / "language.tmp")
        (path / "language.tmp").rename(path / "language")
    for which in judges.JUDGES:
        judges.train(w, which, path)
    autoencoder.train(w, images, path / "generator" / "vae")
    unet.train(w, images, texts, path, path / "generator")
    images.unlink()


def corpus(truth: pd.DataFrame) -> list[language.Row]:
    """What the language model reads of the pairs: class, background or relation, caption."""
    named = truth[truth["said"] != ""]
    subjects = named["said"] + named["kind"].map(NOUN).fillna("")
    extras = named["extra"].where(named["extra"] != "", None)
    return list(zip(subjects, extras, named["caption"], strict=True))
