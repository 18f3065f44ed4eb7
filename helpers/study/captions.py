"""Notebook 01: captions of class names by a language model ([P] section 3, [C] synthesize_text.py).

A few-shot prompt, as in SynCLR, has three example lines of one form and an open last line for the
class: ``class => caption``, ``class, relation => caption`` or ``class, background => caption``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.tables import Benchmark
from helpers.engine import randomness, store
from helpers.errors import StudyError
from helpers.worlds import World

KINDS = ("class", "relation", "background")
MIX = (0.44, 0.11, 0.45)  # shares of these kinds among the prompts [C]
RELATIONS = (  # [C]
    *("in", "on", "next to", "behind", "in front of"),
    *("over", "under", "above", "below", "besides"),
)
ROUNDS = 4  # how often a class is asked for again when exact duplicates leave it short
SHOTS = 3  # example lines per prompt [P]
# Written for this study: everyday things, so that no example names a class of a task.
EXAMPLES = pd.read_csv(Path(__file__).with_name("examples.csv")).groupby("kind")["line"].agg(tuple)


@store.builds("captions")
def make(path: Path, w: World) -> None:
    """Write ``{task}.parquet``: ``caption, class, label, kind, extra, mentions_class``.

    ``extra``: the prompt's relation or background. Raises ``StudyError`` when a task gets none.
    """
    worlds.backend(w).prepare(w)
    for task in w.tasks:
        bench = tables.benchmark(w, task)
        table = _write_task(path, w, bench)
        if not len(table):
            raise StudyError(f"no caption for any class of {task} is left; see {path / 'raw'}.")
        store.write(path / f"{task}.parquet", table.assign(mentions_class=mentions_class(table)))


def _write_task(path: Path, w: World, bench: Benchmark) -> pd.DataFrame:
    """The clean captions of a task; of classes that are short of them more are asked for."""
    wanted = dict(w.captions.per_class_of).get(bench.task, w.captions.per_class)
    table = pd.DataFrame()
    for attempt in range(ROUNDS):
        written = Counter(table.get("label", ()))
        jobs = {}
        for label in range(len(bench.classes)):
            if written[label] < wanted:
                count = int(np.ceil((wanted - written[label]) * 4 / 3))  # some will repeat others
                file = f"raw/{bench.task}-{attempt}-{label:04d}.parquet"
                jobs[file] = (w, bench.task, label, attempt, count)
        if not jobs:
            break
        files = store.fill(path, jobs, write_class, f"classes of {bench.task} captioned")
        table = clean(pd.concat([table, *map(store.read_table, files)], ignore_index=True), wanted)
    return table


def write_class(w: World, task: str, label: int, attempt: int, count: int) -> pd.DataFrame:
    """Captions for ``count`` prompts of a class, some empty: ``caption`` and ``prompt_row``'s."""
    bench = tables.benchmark(w, task)
    first = 1_000_000 * attempt
    prompts = pd.DataFrame([prompt_row(w, bench, label, first + i) for i in range(count)])
    rng = randomness.rng(w, "captions", task, label, attempt)
    texts = worlds.backend(w).write_captions(w, list(prompts["prompt"]), rng)
    return prompts.drop(columns="prompt").assign(caption=[first_line(text) for text in texts])


def prompt_row(w: World, bench: Benchmark, label: int, number: int) -> dict:
    """The ``number``-th prompt of a class: ``class, label, kind, extra, prompt``."""
    rng = randomness.rng(w, "prompt", bench.task, label, number)
    kind = KINDS[rng.choice(len(KINDS), p=MIX)]
    relation = RELATIONS[rng.integers(len(RELATIONS))]
    background = bench.backgrounds[rng.integers(len(bench.backgrounds))]
    extra = {"class": "", "relation": relation, "background": background}[kind]
    name = bench.classes[label]
    subject = f"{name} {bench.noun}" if bench.noun in ("aircraft", "car") else name  # [C]
    prompt = few_shot_prompt(subject, kind, extra, rng)
    return {"class": name, "label": label, "kind": kind, "extra": extra, "prompt": prompt}


def few_shot_prompt(subject: str, kind: str, extra: str, rng: np.random.Generator) -> str:
    """``SHOTS`` example lines of a kind, then the line of ``subject`` and ``extra``, left open."""
    examples = EXAMPLES[kind]
    chosen = [examples[i] for i in rng.choice(len(examples), SHOTS, replace=False)]
    open_line = f"{subject}, {extra} =>" if extra else f"{subject} =>"
    return "\n".join([*chosen, open_line])


def first_line(text: str) -> str:
    """What the model wrote up to the first newline, without surrounding space [C]."""
    return text.split("\n", 1)[0].strip()


def clean(table: pd.DataFrame, per_class: int) -> pd.DataFrame:
    """At most ``per_class`` captions of each class, none empty, repeated or with an arrow [C]."""
    valid = (table["caption"] != "") & ~table["caption"].str.contains("=>")
    table = table[valid].drop_duplicates("caption")
    table = table[table.groupby("label").cumcount() < per_class]
    return table.sort_values("label", kind="stable", ignore_index=True)


def mentions_class(table: pd.DataFrame) -> np.ndarray:
    """Which captions have all words and numbers of their class name, in any order: (n,) bool."""
    texts = (table[c].str.lower().str.normalize("NFC") for c in ("class", "caption"))
    words = (text.str.findall(r"[^\W\d_]+|\d+").map(set) for text in texts)
    return np.array([name <= text for name, text in zip(*words, strict=True)], bool)


def missing_classes(table: pd.DataFrame, bench: Benchmark) -> list[str]:
    """Classes without any row in ``table``."""
    return [name for name in bench.classes if name not in set(table["class"])]
