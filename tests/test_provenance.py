"""Cards: they say what a retrieved set was made from and how, agree with its tables, and repeat byte by byte."""

import json
import types

import numpy as np
import pandas as pd
import pytest

from helpers import pocket, worlds
from helpers.data import copies, tables
from helpers.engine import store, workers
from helpers.models import clip
from helpers.pocket.train.upstream import WEIGHTS
from helpers.study import retrieval

W = worlds.get("pocket", tasks=("flowers",), retrieval={"rules": ("substring", "word")})
CAPTIONS = ["a rose", "primrose path", "a rose by the sea", "a Tulip", "the sea", "ROSE"]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A pool of six pairs and a benchmark of random images, in place of the pocket world's, with its shipped CLIP."""
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
    made = clip.load_folder(WEIGHTS / "clip")
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
    monkeypatch.setattr(
        store, "load", lambda *_: store.Artifact("embeddings", tmp_path / "embeddings")
    )
    return tmp_path


def test_a_retrieved_set_carries_its_card(tiny, monkeypatch):
    retrieval._build(tiny / "first", W)
    card = json.loads((tiny / "first" / "card.json").read_text())
    table, funnel = (
        store.read_table(tiny / "first" / f"{name}.parquet") for name in ("flowers", "funnel")
    )
    task = card["tasks"]["flowers"]
    assert (
        card["pool"]["rows"] == 6
        and card["retrieval"]["class_cap"] == 10_000
        and card["clip"]["top_share"] == 0.5
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
    images, held_out = (
        np.load(tiny / "first" / "flowers.npy"),
        worlds.backend(W).benchmark().test.images,
    )
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
    retrieval._build(tiny / "second", W)
    for file in (f for f in (tiny / "first").iterdir() if f.is_file()):
        assert file.read_bytes() == (tiny / "second" / file.name).read_bytes(), file.name
