"""Semantic search on planted neighbours, rules united, filters by hand, copies found, errors."""

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.data import tables
from helpers.engine import store
from helpers.errors import StudyError
from helpers.study import embeddings, retrieval


def test_index_finds_planted_neighbours(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(600, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for kind in ("img", "text"):
        for i in range(2):
            store.write(
                tmp_path / f"{kind}_emb" / f"{kind}_emb_{i}.npy", vectors[300 * i : 300 * (i + 1)]
            )
    embeddings.index(tmp_path, *worlds.get("pocket").retrieval.index)
    queries = vectors[[5, 310, 599]]
    assert [
        set(row) & {want}
        for row, want in zip(
            embeddings.nearest(tmp_path / "image.index", queries, 5), (5, 310, 599), strict=True
        )
    ] == [{5}, {310}, {599}]
    assert embeddings.recall(store.Artifact("embeddings", tmp_path), queries, 5) > 0.95
    rows = [599, 0, 300, 0]
    assert np.array_equal(
        embeddings.embeddings(store.Artifact("embeddings", tmp_path), "img", rows), vectors[rows]
    )
    first = (tmp_path / "image.index").read_bytes()
    (tmp_path / "image.index").unlink()
    embeddings.index(tmp_path, *worlds.get("pocket").retrieval.index)
    assert (tmp_path / "image.index").read_bytes() == first


def test_candidates_unite_the_rules(tmp_path):
    texts = ["a rose", "a rose flower", "primrose", "flower of a rose-bush", None]
    path = store.write(
        tmp_path / "0.parquet",
        pd.DataFrame({"TEXT": texts, "SAMPLE_ID": range(5), "NSFW": "UNLIKELY"}),
    )
    pool = tables.Pool((path,), lambda shard, rows: np.zeros((len(rows), 8, 8, 3), np.uint8), (5,))
    none = tables.Split(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64))
    bench = tables.Benchmark(
        "flowers",
        ("rose", "lotus"),
        "flower",
        "a flower",
        ("a {}",),
        (),
        pd.DataFrame(),
        none,
        none,
        none,
    )
    w = worlds.get("smoke", retrieval={"rules": ("substring", "word", "tokens")})
    found = retrieval.candidates(w, store.Artifact("embeddings", tmp_path), pool, bench)
    assert found["caption"].tolist() == texts[:4]
    assert found[
        ["substring", "word", "tokens"]
    ].to_numpy().tolist() == [  # tokens: the published code wants a flower, too
        [True, True, False],
        [True, True, True],
        [True, False, False],
        [True, True, True],
    ]
    with pytest.raises(StudyError, match="Did you mean 'tokens'"):
        retrieval.candidates(
            worlds.get("smoke", retrieval={"rules": ("token",)}), None, pool, bench
        )


def table():
    return pd.DataFrame(
        {
            "label": [0, 0, 0, 0, 1, 1],
            "word": [True, True, True, True, True, False],
            "semantic": True,
            "nsfw": ["UNLIKELY", "NSFW", "UNSURE", "UNLIKELY", "UNLIKELY", "UNLIKELY"],
            "score": [0.9, 0.8, 0.3, 0.2, 0.1, 0.5],
            "in_domain": [True, True, False, True, True, True],
            "copy": [False, False, False, False, True, False],
        }
    )


def test_every_dropped_row_has_a_reason():
    w = worlds.get("smoke", clip={"top_share": 0.5}, retrieval={"class_cap": 1})
    assert list(retrieval.dropped(w, table(), "word", "top")) == [
        "kept",
        "NSFW",
        "cap",
        "CLIP filter",
        "near-duplicate",
        "not matched",
    ]
    assert list(retrieval.dropped(w, table(), "word", "domain")) == [
        "kept",
        "NSFW",
        "CLIP filter",
        "cap",
        "near-duplicate",
        "not matched",
    ]
    with pytest.raises(StudyError, match="top, domain"):
        retrieval.dropped(w, table(), "word", "best")


def test_funnel_adds_up():
    w, made = worlds.get("smoke", clip={"top_share": 0.5}), table()
    made["why:word+top"] = retrieval.dropped(w, made, "word", "top")
    rows = retrieval.funnel(w, made, "t", "word", "top", 100).set_index("step")["rows"]
    assert (
        rows.tolist() == [100, 5, 4, 3, 3, 2]
        and rows.iloc[-1] == (made["why:word+top"] == "kept").sum()
    )


def test_missing_classes_are_listed():
    made = pd.DataFrame({"class": ["A320", "A320", "rose"], "keep:word+top": [True, False, False]})
    assert retrieval.missing_classes(made, ["A320", "rose", "Tornado"], "keep:word+top") == [
        "rose",
        "Tornado",
    ]
