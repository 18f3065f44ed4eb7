"""Cards: what a data set was made from and how, so that it can be rebuilt and audited. Same inputs, same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from helpers.data.tables import Pool
from helpers.engine import artifacts, store
from helpers.worlds import World


def card(path: Path, facts: Mapping) -> None:
    """Write ``facts`` (plain values, lists, mappings; nothing of clock or machine) as ``card.json`` and ``README.md`` in ``path``."""
    store.write(path / "card.json", facts)
    store.write(path / "README.md", "\n".join(readable(facts)).encode() + b"\n")


def readable(facts: Mapping, level: int = 1) -> list[str]:
    """The same facts as lines of Markdown: mappings become sections, lists of mappings tables, the rest a bullet each."""
    plain = {k: v for k, v in facts.items() if not isinstance(v, Mapping) and not _is_table(v)}
    lines = [f"- **{k}**: {_words(v)}" for k, v in plain.items()]
    for name, value in facts.items():
        if name not in plain:
            lines += ["", f"{'#' * min(level + 1, 6)} {name}", ""]
            lines += _rows(value) if _is_table(value) else readable(value, level + 1)
    return (
        [f"# Card of {facts['artifact']}", "", *lines]
        if level == 1 and "artifact" in facts
        else lines
    )


def _is_table(value) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)
    )


def _rows(table: list[Mapping]) -> list[str]:
    head = list(table[0])
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(_words(row[name]) for name in head)} |" for row in table]


def _words(value) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def code_version(name: str, w: World) -> str:
    """A short hash of the sources that an artifact and all it is made from depend on; comments and layout do not count.

    Not the git commit: that changes with every word of a notebook, and the files would no longer be named by their content.
    """
    needed, waiting = {}, [name]
    while waiting:
        part = waiting.pop()
        if part not in needed:
            needed[part] = artifacts.code(part, w)
            waiting += artifacts.ARTIFACTS[part].needs.split()
    return hashlib.sha256(json.dumps(needed, sort_keys=True).encode()).hexdigest()[:12]


def pool_version(pool: Pool) -> dict:
    """The identity of a pool: ``rows``, ``shards``, and a hash over the bytes of its caption shards, in order.

    Shards that helpers/paper/download/laion.py left also list the sha256 of every image, so their hash stands for the images too.
    """
    total = hashlib.sha256()
    for shard in pool.shards:
        with open(shard, "rb") as f:
            total.update(hashlib.file_digest(f, "sha256").digest())
    return {"rows": len(pool), "shards": len(pool.shards), "sha256": total.hexdigest()}
