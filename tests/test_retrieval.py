"""Semantic search on planted neighbours, rules united, filters by hand, copies found, errors."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import worlds
from helpers.data import copies, tables
from helpers.engine import store
from helpers.errors import StudyError
from helpers.pocket.render.blueprints import AIRCRAFT
from helpers.pocket.render.pictures import render
from helpers.pocket.render.scenes import sample_scene
from helpers.pocket.world.pool import near_copy
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


def test_of_near_copies_the_best_scoring_pair_of_the_class_stays():
    w = worlds.get("smoke", clip={"top_share": 1.0}, retrieval={"deduplicate": True})
    made = pd.DataFrame(
        {
            "label": [0, 0, 0, 0, 0, 1, 0],
            "word": True,
            "nsfw": "UNLIKELY",
            "score": [0.1, 0.9, 0.5, 0.5, 0.4, 0.3, 0.95],
            "in_domain": True,
            "copy": [False] * 6 + [True],
            "id": [6, 5, 9, 3, 4, 1, 2],
        }
    )
    picture = np.eye(3, dtype=np.int16)[[0, 0, 1, 1, 2, 0, 0]] * copies.SCALE
    made["why:word+top"] = retrieval.dropped(w, made, "word", "top", picture, 0.9)
    assert list(made["why:word+top"]) == [
        "duplicate",
        "kept",
        "duplicate",
        "kept",
        "kept",
        "kept",
        "near-duplicate",
    ]
    rows = retrieval.funnel(w, made, "t", "word", "top", 100)
    assert rows["step"].iloc[-1] == "after duplicate" and rows["rows"].tolist() == [
        100,
        7,
        7,
        7,
        7,
        6,
        4,
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 12))
def test_every_duplicate_repeats_one_that_stays_and_blocks_leave_no_trace(seed, n, block):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)) + 2 * rng.normal(size=(5, 6))[rng.integers(0, 5, n)]
    x = np.rint(copies.SCALE * x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.int16)
    again, near = (
        copies.duplicates(x, 0.95, block),
        x.astype(int) @ x.T.astype(int) > 0.95 * copies.SCALE**2,
    )
    for i in range(n):
        assert again[i] == (near[i, :i] & ~again[:i]).any()


def test_copies_are_found_and_strangers_are_not():
    def pictures(n, start):
        made = []
        for i in range(start, start + n):
            scene = sample_scene(np.random.default_rng(i), "benchmark")
            made.append(render(list(AIRCRAFT.values())[i % 24], scene, i).pixels)
        return np.stack(made)

    held_out, others = pictures(40, 0), pictures(40, 1_000)
    stolen = np.stack([near_copy(p, np.random.default_rng(i)) for i, p in enumerate(held_out)])
    held_out, stolen, others = map(copies.descriptor, (held_out, stolen, others))
    assert np.median(copies.nearest(stolen, held_out)) > np.quantile(
        copies.nearest(others, held_out), 0.95
    )
    for made in (held_out, stolen, others):  # products stay exact in float32
        assert np.square(made.astype(int)).sum(1).max() < 2**24


def test_missing_classes_are_listed():
    made = pd.DataFrame({"class": ["A320", "A320", "rose"], "keep:word+top": [True, False, False]})
    assert retrieval.missing_classes(made, ["A320", "rose", "Tornado"], "keep:word+top") == [
        "rose",
        "Tornado",
    ]
