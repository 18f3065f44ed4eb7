"""Image-text pools, benchmarks and training sets as small table types, and cards of them."""

import functools
import hashlib
import html
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data.shards import Lazy, Tar, gathered, located
from helpers.engine import store
from helpers.errors import NotKnown, unknown
from helpers.worlds import World

IN_MEMORY = 2**30  # bytes; training sets that are larger stay on disk


@dataclass(frozen=True)
class Split:
    """Images (n, side, side, 3) uint8, their labels (n,) int64, and a row of facts for each."""

    images: np.ndarray | Lazy
    labels: np.ndarray
    facts: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Any) -> "Split":
        """The images at the positions ``index``, in that order."""
        index = np.asarray(index) if len(index) else np.zeros(0, np.int64)
        facts = self.facts.iloc[index].reset_index(drop=True) if len(self.facts) else self.facts
        images = self.images.take(index) if isinstance(self.images, Lazy) else self.images[index]
        return Split(images, self.labels[index], facts)

    def plus(self, other: "Split") -> "Split":
        """These images followed by those of ``other``."""
        both = (self.images, other.images)
        in_memory = all(isinstance(images, np.ndarray) for images in both)
        images = np.concatenate(both) if in_memory else Lazy(*both)
        facts = pd.concat([self.facts, other.facts], ignore_index=True)
        return Split(images, np.concatenate([self.labels, other.labels]), facts)


@dataclass(frozen=True)
class Benchmark:
    """One classification task: its classes, how to talk about them, and its three splits."""

    task: str
    classes: tuple[str, ...]
    noun: str  # "aircraft"
    domain: str  # one text for the whole task, "a photo of an aircraft" (filter of [W])
    templates: tuple[str, ...]  # "a photo of a {}, a type of aircraft."
    backgrounds: tuple[str, ...]  # background words for class + background prompts
    details: pd.DataFrame  # class x countable attribute; no columns where nobody knows
    train: Split
    val: Split
    test: Split
    descriptions: tuple[str, ...] = ()  # how each class looks; () where nobody wrote it down

    def texts(self, name: str) -> list[str]:
        """The templates filled with a class name."""
        return [t.format(name) for t in self.templates]

    def filled(self, patterns: Iterable[str]) -> pd.DataFrame:
        """All class names in a pattern like "a {}", then in the next: class, label, caption."""
        names = pd.DataFrame({"class": self.classes, "label": range(len(self.classes))})
        parts = [names.assign(caption=names["class"].map(p.format)) for p in patterns]
        return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True)
class Pool:
    """The pairs that generator and CLIP were trained on; rows are positions, from 0 on."""

    shards: tuple[Path, ...]  # parquet with LAION's columns, in order
    fetch_rows: Callable[[Path, np.ndarray], np.ndarray]  # (shard, rows in it) -> images
    sizes: tuple[int, ...]
    truth_shards: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return sum(self.sizes)

    def fetch(self, rows: Any) -> np.ndarray:
        """The images at positions ``rows``: (n, side, side, 3) uint8."""
        return gathered(self.sizes, rows, lambda i, inside: self.fetch_rows(self.shards[i], inside))

    __getitem__ = fetch

    def captions(self, rows: Any = None) -> pd.DataFrame:
        """LAION's columns of the pairs at positions ``rows``, in that order; without, of all."""
        if rows is None:
            return pd.concat(map(store.read_table, self.shards), ignore_index=True)
        parts = []
        for i, inside, at in located(self.sizes, rows):
            parts.append(store.read_table(self.shards[i]).iloc[inside].set_axis(at))
        return pd.concat(parts or [store.read_table(self.shards[0]).iloc[:0]]).sort_index()

    def truth(self) -> pd.DataFrame:
        """What the images show, for evaluation only. Raises ``NotKnown`` where nobody knows."""
        if not self.truth_shards:
            only = "It is known in the rendered worlds only: python -m helpers.run pocket"
            raise NotKnown(f"nobody knows what the pictures of this pool really show. {only}")
        return pd.concat(map(store.read_table, self.truth_shards), ignore_index=True)


@functools.lru_cache(maxsize=4)
def benchmark(w: World, task: str) -> Benchmark:
    """The benchmark of a task, kept in memory."""
    return worlds.backend(w).benchmark(w, task)


def training_set(artifact: store.Artifact, task: str, keep: str = "keep") -> Split:
    """A task's images for which the column ``keep`` holds; ``StudyError`` if either is unknown."""
    files = {file.stem: file.with_suffix(".parquet") for file in artifact.files("*.npy")}
    if task not in files:
        raise unknown(f"task in {artifact.name}", task, files)
    table = store.read_table(files[task])
    if keep not in table:
        raise unknown(f"selection of {artifact.name}", keep, table.filter(regex="^keep"))
    rows = np.flatnonzero(table[keep].to_numpy(bool))
    facts = table.iloc[rows].reset_index(drop=True)
    stored = artifact.array(f"{task}.npy")
    small = len(rows) * stored[:1].nbytes < IN_MEMORY
    images = stored[rows] if small else Lazy(stored, rows=rows)
    return Split(images, facts["label"].to_numpy(np.int64), facts)


@functools.lru_cache(maxsize=12)
def source_set(w: World, task: str, source: str, keep: str = "") -> Split:
    """What a source, "retrieved" or "synthetic", offers for a task after filtering.

    Without ``keep``: the retrieval variant that notebook 04 chose, the filter of drawn images.
    """
    if not keep and source == "retrieved":
        variants = store.load("finetuned", w).table("variants.parquet")
        keep = variants[variants["chosen"]].set_index("task")["keep"][task]
    return training_set(store.load(source, w), task, keep or "keep")


def on_disk(files: Iterable[Path], rows: Any = None) -> Lazy:
    """Arrays in ``.npy`` files one below the other, or some rows of that, still on disk."""
    return Lazy(*(np.load(f, mmap_mode="r") for f in files), rows=rows)


def read_tars(paths: Iterable[Path]) -> Split:
    """The labelled images of webdataset shards, in order, in memory."""
    tars = [Tar(path) for path in paths]
    facts = pd.DataFrame([row for tar in tars for row in tar.rows()])
    return Split(Lazy(*tars)[:], facts["label"].to_numpy(np.int64), facts)


def card(path: Path, facts: Mapping[str, Any]) -> None:
    """Write facts (values, lists, mappings) as ``card.json`` and ``README.md`` into a folder."""
    lines = [f"# Card of {_words(facts['artifact'])}", "", *_markdown(facts, "##")]
    store.write(path / "card.json", facts)
    store.write(path / "README.md", "\n".join(lines).encode() + b"\n")


def _markdown(facts: Mapping[str, Any], heading: str) -> list[str]:
    """A bullet for each plain fact, then a section for each mapping, or table of mappings."""
    bullets: list[str] = []
    sections: list[str] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            sections += ["", f"{heading} {_words(name)}", "", *_markdown(value, f"{heading}#")]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            rows = [list(value[0]), *(row.values() for row in value)]
            lines = [f"| {' | '.join(map(_words, row))} |" for row in rows]
            lines.insert(1, "|---" * len(value[0]) + "|")
            sections += ["", f"{heading} {_words(name)}", "", *lines]
        else:
            bullets.append(f"- **{_words(name)}**: {_words(value)}")
    return bullets + sections


def _words(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def quoted(text: str) -> str:
    """What a stranger wrote, for Markdown that shows it letter by letter: no tags, no links."""
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in " ".join(text.split()))


def pool_version(pool: Pool) -> dict[str, Any]:
    """What identifies a pool: its ``rows``, ``shards``, and ``sha256`` of all caption shards."""
    digests = b"".join(hashlib.sha256(shard.read_bytes()).digest() for shard in pool.shards)
    total = hashlib.sha256(digests).hexdigest()
    return {"rows": len(pool), "shards": len(pool.shards), "sha256": total}
