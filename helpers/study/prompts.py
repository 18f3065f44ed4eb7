"""Kinds of prompts that images are drawn from, and the drawings of the ablation in notebook 07."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.data.subsets import repeated
from helpers.data.tables import Split
from helpers.engine import randomness, store
from helpers.errors import StudyError, unknown
from helpers.study import synthesis
from helpers.worlds import World

DEFAULT = "language model"  # the captions of notebook 01
LEAKS = ("alt text", "training captions")  # written for real images, so they tell what those show
KINDS = ("class names", "class and parent", "templates", *LEAKS, "class and description")


def prompts(w: World, task: str, kind: str) -> pd.DataFrame:
    """The prompts of one of ``KINDS`` for a task: ``caption, label, class``.

    ``alt text`` are the captions of retrieved images. Raises ``StudyError`` on an unknown kind, or
    where the benchmark has no descriptions or captions.
    """
    if kind not in KINDS:
        raise unknown("kind of prompt", kind, KINDS)
    benchmark = tables.benchmark(w, task)
    missing = {
        "training captions": "caption" not in benchmark.train.facts,
        "class and description": not benchmark.descriptions,
    }
    if missing.get(kind):
        raise StudyError(
            f"{benchmark.task} comes without what {kind!r} prompts are made of in world {w.name!r};"
            " take it out of scaling prompts."
        )
    if kind in LEAKS:
        real = tables.source_set(w, task, "retrieved") if kind == "alt text" else benchmark.train
        labels = real.facts["class"].map(benchmark.classes.index)
        return real.facts[["caption", "class"]].assign(label=labels)
    names = pd.DataFrame({"class": benchmark.classes, "label": range(len(benchmark.classes))})
    if kind == "class and description":
        described = zip(benchmark.classes, benchmark.descriptions, strict=True)
        return names.assign(caption=[f"{name}, {text}" for name, text in described])
    patterns = {
        "class names": ("{}",),
        "class and parent": (f"{{}} {benchmark.noun}",),
        "templates": benchmark.templates,
    }
    filled = [names.assign(caption=names["class"].map(p.format)) for p in patterns[kind]]
    return pd.concat(filled, ignore_index=True)


def unfiltered(w: World, task: str) -> Split:
    """All images that notebook 02 drew for a task, with those that its filter drops."""
    synthetic = store.load("synthetic", w)
    table = store.read_table(synthetic.path / f"{task}.parquet")
    return Split(synthetic.array(f"{task}.npy"), table["label"].to_numpy(np.int64), table)


def draw(w: World) -> store.Artifact:
    """Draw the prompt ablation, ``{kind}-*.tar``: of each kind its largest number of images."""
    return store.make("prompted", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    for kind in w.robustness.prompts:
        table = prompts(w, w.robustness.task, kind)
        rng = randomness.rng(w, "prompted", kind)
        synthesis.draw_table(path, w, repeated(table, max(w.robustness.prompted), rng), kind)


@functools.lru_cache(maxsize=4)
def drawn_from(w: World, kind: str) -> Split:
    """The ablation's images of one kind of prompt, or of notebook 01's captions; unfiltered."""
    if kind == DEFAULT:
        return unfiltered(w, w.robustness.task)
    return tables.read_tars(store.load("prompted", w).files(f"{kind}-*.tar"))
