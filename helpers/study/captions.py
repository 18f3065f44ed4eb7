"""Notebook 01: class names to captions by a language model, SynCLR style ([P] section 3, [C] synthesize_text.py).

A few-shot prompt has three example lines of one form and an open last line for the class:
``class => caption`` (class only), or ``class, background => caption`` and ``class, relation => caption``.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data.tables import Benchmark
from helpers.engine import randomness, store
from helpers.errors import StudyError
from helpers.worlds import World

KINDS = ("class", "relation", "background")
RELATIONS = (
    "in",
    "on",
    "next to",
    "behind",
    "in front of",
    "over",
    "under",
    "above",
    "below",
    "besides",
)  # [C]
ROUNDS = 4  # how often a class is asked again when exact duplicates leave it short
EXAMPLES = {  # written for this study; everyday things, so that an example never names a class of a task
    "class": (
        ("house", "a photo of a small house"),
        ("boat", "a sailing boat, side view"),
        ("tree", "an old tree in fog"),
        ("ball", "picture of a striped ball"),
        ("dog", "a good dog at noon"),
        ("mug", "a mug of coffee - stock photo"),
        ("house", "a house on a cloudy day"),
        ("boat", "photo of a boat at dusk"),
        ("shirt", "a shirt"),
    ),
    "relation": (
        ("house", "next to", "a house next to a tree"),
        ("boat", "over", "a boat over the water"),
        ("dog", "in front of", "photo of a dog in front of a building"),
        ("ball", "on", "a ball on the grass"),
        ("tree", "behind", "a tree behind some flowers"),
        ("mug", "besides", "a mug besides a lamp"),
        ("dog", "in", "a good dog in a field"),
        ("house", "below", "a small house below a mountain"),
    ),
    "background": (
        ("house", "meadow", "a house in a green meadow"),
        ("boat", "sea", "a sailing boat by the sea at dusk"),
        ("tree", "mountains", "an old tree near the mountains"),
        ("ball", "city", "a striped ball in the city"),
        ("dog", "sunset", "a photo of a dog at sunset"),
        ("mug", "hangar", "a mug in a hangar"),
        ("house", "mountains", "house with mountains behind in fog"),
        ("boat", "sunset", "sailboat in front of a sunset"),
        ("dog", "runway", "a good dog on the runway, side view"),
    ),
}


def line(words: tuple[str, ...]) -> str:
    """``class => caption`` or ``class, extra => caption``; an empty caption leaves the line open."""
    *subject, caption = words
    return (
        f"{', '.join(subject)} => {caption}".rstrip()
        if caption == ""
        else f"{', '.join(subject)} => {caption}"
    )


def prompt(subject: str, kind: str, extra: str, rng: np.random.Generator, examples: int = 3) -> str:
    """A few-shot prompt: ``examples`` lines of the kind drawn without replacement, then the open line of ``subject``."""
    table = EXAMPLES[kind]
    chosen = [
        line(table[i]) for i in rng.choice(len(table), min(examples, len(table)), replace=False)
    ]
    return "\n".join([*chosen, line((subject, extra, "") if extra else (subject, ""))])


def subject(bench: Benchmark, name: str) -> str:
    """The class as it stands in a prompt: cars and aircraft with their noun appended [C]."""
    return f"{name} {bench.noun}" if bench.noun in ("aircraft", "car") else name


def ask(w: World, bench: Benchmark, label: int, number: int) -> dict:
    """The ``number``-th prompt of a class: kind by the 44 / 11 / 45 mix [C], relation or background, prompt text."""
    rng = randomness.rng(w, "prompt", bench.task, label, number)
    kind = KINDS[rng.choice(3, p=w.captions.mix)]
    extra = {
        "class": "",
        "relation": RELATIONS[rng.integers(len(RELATIONS))],
        "background": bench.backgrounds[rng.integers(len(bench.backgrounds))],
    }[kind]
    name = bench.classes[label]
    text = prompt(subject(bench, name), kind, extra, rng, w.captions.examples)
    return {"class": name, "label": label, "kind": kind, "extra": extra, "prompt": text}


def cut(text: str) -> str:
    """What the model wrote up to the first newline, without surrounding space ([C])."""
    return text.split("\n", 1)[0].strip()


def write_class(w: World, task: str, label: int, attempt: int, count: int) -> pd.DataFrame:
    """Captions for ``count`` prompts of one class, empty ones included: columns of ``ask`` without the prompt, and ``caption``."""
    bench = worlds.backend(w).benchmark(w, task)
    rows = [ask(w, bench, label, 1_000_000 * attempt + i) for i in range(count)]
    texts = worlds.backend(w).write_captions(
        w, [r["prompt"] for r in rows], randomness.rng(w, "captions", task, label, attempt)
    )
    return pd.DataFrame(rows).drop(columns="prompt").assign(caption=[cut(t) for t in texts])


def make(w: World) -> store.Artifact:
    """Write the captions of every task: ``{task}.parquet`` with ``caption, class, label, kind, extra, mentions_class``."""
    return store.make("captions", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    worlds.backend(w).write_captions(
        w, ["house => a house\ntree =>"], randomness.rng(w, "first")
    )  # models are made before workers start
    for task in w.tasks:
        bench, kept = worlds.backend(w).benchmark(w, task), pd.DataFrame()
        wanted = dict(w.captions.per_class_of).get(task, w.captions.per_class)
        for attempt in range(ROUNDS):
            jobs = {
                f"raw/{task}-{attempt}-{label:04d}.parquet": (w, task, label, attempt, count)
                for label, count in _short(bench, kept, wanted).items()
            }
            if jobs:
                made = [
                    store.read_table(f)
                    for f in store.fill(path, jobs, write_class, f"classes of {task} captioned")
                ]
                kept = clean(pd.concat([kept, *made], ignore_index=True), wanted)
        if not len(kept):
            raise StudyError(
                f"the language model wrote no caption for any class of {task}; see {path / 'raw'}."
            )
        lost = missing_classes(kept, bench)
        if lost:
            print(f"captions: none for {', '.join(lost)}; the study goes on without them")
        store.write(path / f"{task}.parquet", kept.assign(mentions_class=mentions(kept)))


def _short(bench: Benchmark, kept: pd.DataFrame, wanted: int) -> dict[int, int]:
    """Label -> how many captions to ask for: a third more than are missing."""
    have = kept["label"].value_counts() if len(kept) else {}
    missing = {label: wanted - int(have.get(label, 0)) for label in range(len(bench.classes))}
    return {label: int(np.ceil(m * 4 / 3)) for label, m in missing.items() if m > 0}


def clean(table: pd.DataFrame, per_class: int) -> pd.DataFrame:
    """Without empty captions, lines with a second arrow, and exact duplicates [C]; at most ``per_class`` of each class."""
    table = table[(table["caption"] != "") & ~table["caption"].str.contains("=>")].drop_duplicates(
        "caption"
    )
    return table[table.groupby("label").cumcount() < per_class].sort_values(
        "label", kind="stable", ignore_index=True
    )


def mentions(table: pd.DataFrame) -> np.ndarray:
    """Whether each caption names its class: all words and numbers of the name occur in it, in any order and case."""
    words = [set(re.findall(r"[a-z]+|\d+", text.lower())) for text in table["caption"]]
    names = [set(re.findall(r"[a-z]+|\d+", name.lower())) for name in table["class"]]
    return np.array([name <= text for name, text in zip(names, words, strict=True)], bool)


def missing_classes(table: pd.DataFrame, bench: Benchmark) -> list[str]:
    """Classes for which no caption was written; the study goes on without them."""
    return [name for name in bench.classes if name not in set(table["class"])]


def diversity(texts: list[str]) -> dict[str, float]:
    """Distinct-1 and distinct-2 (share of distinct words and word pairs, 0..1) and mean length in words."""
    words = [t.lower().split() for t in texts]
    ones = [x for t in words for x in t]
    twos = [p for t in words for p in pairwise(t)]
    return {
        "distinct_1": len(set(ones)) / max(len(ones), 1),
        "distinct_2": len(set(twos)) / max(len(twos), 1),
        "words": len(ones) / max(len(words), 1),
    }
