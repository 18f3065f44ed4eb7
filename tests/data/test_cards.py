"""Cards: they keep every fact, and name the code and the pool that a data set was made from."""

import html
import json

import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.engine import artifacts, sources, store

W = worlds.get("pocket", tasks=("flowers",), retrieval={"rules": ("substring", "word")})


def test_an_edition_follows_the_sources_that_count(monkeypatch):
    before = {name: artifacts.edition(name, W) for name in ("pool", "retrieved", "captions")}
    assert len(set(before.values())) == 3
    real = sources.digest
    monkeypatch.setattr(
        sources,
        "digest",
        lambda module: real(module) + "x" * (module == "helpers.study.embeddings"),
    )
    after = {name: artifacts.edition(name, W) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"retrieved"}


def test_pool_version_is_that_of_the_captions(tmp_path):
    def version(texts):
        shards = tuple(
            store.write(tmp_path / f"{i}.parquet", pd.DataFrame({"TEXT": [t]}))
            for i, t in enumerate(texts)
        )
        return tables.pool_version(tables.Pool(shards, None, (1,) * len(shards)))

    first = version(["a", "b"])
    assert first["rows"] == first["shards"] == 2 and first == version(["a", "b"])
    assert (
        len(
            {v["sha256"] for v in (first, version(["b", "a"]), version(["a", "c"]), version(["a"]))}
        )
        == 4
    )


def test_readable_card_keeps_every_fact(tmp_path):
    tables.card(
        tmp_path,
        {
            "artifact": "made up",
            "n": 3,
            "parts": {"deep": {"share": 0.3}, "rows": [{"a": "x|y", "b": [1, 2]}]},
            "said": "<img src=x onerror=alert(1)>",
            "<b>key|\n": 1,
            "<i>part|": {"<u>": [{"<s>|": 2}]},
        },
    )
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert (
        lines[0] == "# Card of made up"
        and "- **n**: 3" in lines
        and "- **share**: 0.3" in lines
        and "| x\\|y | 1, 2 |" in lines
    )
    assert "- **said**: &lt;img src=x onerror=alert(1)&gt;" in lines
    assert "- **&lt;b&gt;key\\| **: 1" in lines and "## &lt;i&gt;part\\|" in lines
    assert "### &lt;u&gt;" in lines and "| &lt;s&gt;\\| |" in lines
    assert json.loads((tmp_path / "card.json").read_text())["parts"]["deep"] == {"share": 0.3}


def test_captions_are_quoted_letter_by_letter():
    wild = "<b onclick='x'>*bold*</b> [link](javascript:alert(1))\n# `code` $x$ |"
    shown = tables.quoted(wild)
    assert not set(shown) & set("<>*[]()`$|'\n") and html.unescape(shown) == " ".join(wild.split())
