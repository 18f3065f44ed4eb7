"""Semantic search on planted neighbours, rules united, filters by hand, cards, errors."""

import json
import types

import numpy as np
import pandas as pd
import pytest

from helpers import pocket, worlds
from helpers.data import copies, tables
from helpers.engine import store, workers
from helpers.errors import StudyError
from helpers.models import clip
from helpers.pocket.train.upstream import WEIGHTS
from helpers.study import embeddings, retrieval

W = worlds.get("pocket", tasks=("flowers",), retrieval={"rules": ("substring", "word")})
CAPTIONS = ["a rose", "primrose path", "a rose by the sea", "a Tulip", "the sea", "ROSE"]


def test_index_finds_planted_neighbours(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(600, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for i in range(2):
        part = vectors[300 * i : 300 * (i + 1)]
        store.write(tmp_path / "img_emb" / f"img_emb_{i}.npy", part)
    index = store.write(
        tmp_path / "image.index", embeddings.build_index(tmp_path / "img_emb")
    ).read_bytes()
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
    assert embeddings.build_index(tmp_path / "img_emb") == index


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


def test_every_dropped_row_has_a_reason(monkeypatch):
    monkeypatch.setattr(retrieval, "CLASS_CAP", 1)
    w = worlds.get("smoke", clip={"top_share": 0.5})
    rest = ["near-duplicate", "not matched"]
    by_share = retrieval.drop_reasons(w, table(), "word", "top")
    assert list(by_share) == ["kept", "NSFW", "cap", "CLIP filter", *rest]
    by_domain = retrieval.drop_reasons(w, table(), "word", "domain")
    assert list(by_domain) == ["kept", "NSFW", "CLIP filter", "cap", *rest]
    with pytest.raises(StudyError, match="top, domain"):
        retrieval.drop_reasons(w, table(), "word", "best")


def test_funnel_adds_up():
    w = worlds.get("smoke", clip={"top_share": 0.5})
    why = retrieval.drop_reasons(w, table(), "word", "top")
    rows = retrieval.funnel(why, 100).set_index("step")["rows"]
    assert rows.tolist() == [100, 5, 4, 3, 3, 2] and rows.iloc[-1] == (why == "kept").sum()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A pool of six pairs and a benchmark, of random images; the pocket world's shipped CLIP."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 64, 64, 3), np.uint8)
    table = pd.DataFrame(
        {"SAMPLE_ID": range(6), "TEXT": CAPTIONS, "NSFW": ["UNLIKELY"] * 5 + ["NSFW"]}
    )
    pool = tables.Pool(
        (store.write(tmp_path / "pool" / "00000.parquet", table),),
        lambda _, rows: images[rows],
        (6,),
    )
    splits = [
        tables.Split(rng.integers(0, 256, (4, 64, 64, 3), np.uint8), np.array([0, 0, 1, 1]))
        for _ in range(3)
    ]
    bench = tables.Benchmark(
        "flowers",
        ("rose", "tulip"),
        "flower",
        "a photo of a flower",
        ("a photo of a {}.",),
        (),
        pd.DataFrame(index=["rose", "tulip"]),
        *splits,
    )
    made = clip.by_name(str(WEIGHTS / "clip"))
    store.write(
        tmp_path / "embeddings" / "img_emb" / "img_emb_0.npy", clip.embed_images(made, images)
    )
    store.write(
        tmp_path / "embeddings" / "val_flowers.npy", clip.embed_images(made, bench.val.images)
    )
    monkeypatch.setattr(
        worlds,
        "backend",
        lambda _: types.SimpleNamespace(
            SEAM=pocket.SEAM,
            open_pool=lambda _: pool,
            benchmark=lambda *_: bench,
            clip_folder=lambda _: WEIGHTS / "clip",
        ),
    )
    monkeypatch.setattr(
        workers, "starmap", lambda fn, jobs, *_, **__: ((i, fn(*job)) for i, job in enumerate(jobs))
    )
    monkeypatch.setattr(tables, "benchmark", lambda *_: bench)
    monkeypatch.setattr(
        store, "load", lambda *_: store.Artifact("embeddings", tmp_path / "embeddings")
    )
    return tmp_path


def test_a_retrieved_set_carries_its_card(tiny, monkeypatch):
    retrieval.make.__wrapped__(tiny / "first", W)
    card = json.loads((tiny / "first" / "card.json").read_text())
    table = store.read_table(tiny / "first" / "flowers.parquet")
    funnel = store.read_table(tiny / "first" / "funnel.parquet")
    task = card["tasks"]["flowers"]
    assert (
        card["pool"]["rows"] == 6
        and card["retrieval"]["class_cap"] == 10_000
        and card["clip"]["top_share"] == 0.7
    )
    assert {r["class"]: r["substring"] for r in task["spellings"]} == {
        "rose": "rose",
        "tulip": "tulip",
    }
    kept = {r["class"]: r["word+top"] for r in task["kept per class"]}
    assert (
        kept == table.groupby("class")["keep:word+top"].sum().to_dict() and sum(kept.values()) > 0
    )
    steps = {r["variant"]: r for r in task["rows after each step"]}
    for variant, part in funnel.groupby("variant"):
        assert {k: v for k, v in steps[variant].items() if k != "variant"} == dict(
            zip(part["step"], part["rows"], strict=True)
        )
    images = np.load(tiny / "first" / "flowers.npy")
    held_out = worlds.backend(W).benchmark().test.images
    near = copies.nearest(copies.descriptor(images), copies.descriptor(held_out))
    assert (table["copy"] == (near > task["thresholds"]["copy"])).all()
    text = (tiny / "first" / "README.md").read_text()
    assert (
        text.startswith("# Card of retrieved")
        and "| substring+top | 6 | 5 |" in text
        and card["code"] in text
    )
    assert str(tiny) not in text + json.dumps(card)
    monkeypatch.setattr(retrieval, "SHARD", 2)  # other parts, the same result
    retrieval.make.__wrapped__(tiny / "second", W)
    for file in (f for f in (tiny / "first").iterdir() if f.is_file()):
        assert file.read_bytes() == (tiny / "second" / file.name).read_bytes(), file.name
