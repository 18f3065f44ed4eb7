"""Language supervision: all sources share their captions."""

import types

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.study import pairs

W = worlds.get("smoke")


def test_sources_of_pairs_share_their_captions(tmp_path, monkeypatch):
    labels = np.arange(12) % 3
    facts = pd.DataFrame({"caption": [f"text {i}" for i in range(12)], "row": np.arange(12)})
    real, drawn = (tables.Split(np.full((12, 2, 2, 3), v, np.uint8), labels, facts) for v in (1, 2))
    monkeypatch.setattr(pairs, "both", lambda w, path: (real, drawn))
    bench = tables.Benchmark("t", ("a", "b", "c"), "", "", (), (), None, real, real, real)
    monkeypatch.setattr(pairs.tables, "benchmark", lambda w, task: bench)
    monkeypatch.setattr(worlds.backend(W), "shifted", lambda w, task: {"far": drawn})
    trained_on = []

    def train(w, family, images, *_):
        trained_on.append(images)
        return types.SimpleNamespace(image_logits=lambda images: np.eye(3)[labels])

    monkeypatch.setattr(pairs.families, "train", train)
    for source in pairs.SOURCES:
        assert pairs.run(W, tmp_path, source, 6, 0)[
            ["source", "n", "top1", "shifted"]
        ].to_numpy().tolist() == [[source, 6, 1.0, 1.0]]
    texts = [split.facts["caption"].tolist() for split in trained_on]
    assert texts[0] == texts[1] == texts[2] and len(set(texts[0])) == 6
    assert [split.images.mean() for split in trained_on] == [1, 2, 1.5]


def test_pairs_are_of_the_first_task_where_the_probed_one_has_none():
    assert pairs.paired_task(W) == "flowers"
    assert pairs.paired_task(worlds.get("smoke", tasks=("cars", "aircraft"))) == "cars"
