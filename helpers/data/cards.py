"""Cards: what a data set was made from and how. The same inputs give the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.data.tables import Pool
from helpers.engine import artifacts, store
from helpers.worlds import World


def card(path: Path, facts: Mapping[str, Any]) -> None:
    """Write facts (values, lists, mappings) as ``card.json`` and ``README.md`` into a folder."""
    lines = [f"# Card of {facts['artifact']}", "", *_markdown(facts, "##")]
    store.write(path / "card.json", facts)
    store.write(path / "README.md", "\n".join(lines).encode() + b"\n")


def _markdown(facts: Mapping[str, Any], heading: str) -> list[str]:
    """A bullet for each plain fact, then a section for each mapping, or table of mappings."""
    bullets: list[str] = []
    sections: list[str] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            sections += ["", f"{heading} {name}", "", *_markdown(value, f"{heading}#")]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            rows = [list(value[0]), *(row.values() for row in value)]
            lines = [f"| {' | '.join(map(_words, row))} |" for row in rows]
            lines.insert(1, "|---" * len(value[0]) + "|")
            sections += ["", f"{heading} {name}", "", *lines]
        else:
            bullets.append(f"- **{name}**: {_words(value)}")
    return bullets + sections


def _words(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def code_version(name: str, w: World) -> str:
    """A short hash of the sources that an artifact and all it is made from depend on."""
    needs = [code_version(need, w) for need in artifacts.spec(name).needs.split()]
    sources = json.dumps([artifacts.code(name, w), needs], sort_keys=True)
    return hashlib.sha256(sources.encode()).hexdigest()[:12]


def pool_version(pool: Pool) -> dict[str, Any]:
    """The identity of a pool: ``rows``, ``shards``, ``sha256`` of its caption shards, in order.

    Shards that helpers/paper/download/laion.py left also list the sha256 of every image, so their
    hash stands for the images too.
    """
    total = hashlib.sha256()
    for shard in pool.shards:
        total.update(hashlib.sha256(shard.read_bytes()).digest())
    return {"rows": len(pool), "shards": len(pool.shards), "sha256": total.hexdigest()}
