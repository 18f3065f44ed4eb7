"""Language supervision: all sources share their captions."""

import types

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.measure import folds
from helpers.study import pairs

W = worlds.get("smoke")


def test_sources_of_pairs_share_their_captions_and_both_has_two_images_of_each(
    tmp_path, monkeypatch
):
    labels = np.arange(12) % 3
    facts = pd.DataFrame({"caption": [f"text {i}" for i in range(12)], "row": np.arange(12)})
    real, drawn = (tables.Split(np.full((12, 2, 2, 3), v, np.uint8), labels, facts) for v in (1, 2))
    images = {"retrieved": real, "synthetic": drawn}
    monkeypatch.setattr(pairs, "images", lambda w, path: images)
    bench = tables.Benchmark("t", ("a", "b", "c"), "", "", (), (), None, real, real, real)
    monkeypatch.setattr(pairs.tables, "benchmark", lambda w, task: bench)
    monkeypatch.setattr(worlds.backend(W), "shifted", lambda w, task: {"far": drawn})
    trained_on = []

    def train(w, family, images, real, bench, seed, views):
        trained_on.append((images, views))
        return types.SimpleNamespace(image_logits=lambda images: np.eye(3)[labels])

    monkeypatch.setattr(pairs.families, "train", train)
    for source in pairs.SOURCES:
        table = folds.unpacked(pairs.run(W, tmp_path, source, 6, 0)["table"])
        assert set(table["arm"]) == {source} and table["top1"].eq(1).all()
        assert table.set_index("eval_set")["images"].to_dict() == {"test": 12, "far": 12}
        assert (table["calibrated"] < table["loss"]).all()  # right, and too unsure by far
    texts = [split.facts["caption"].tolist() for split, _ in trained_on]
    assert texts[0] == texts[1] and texts[2] == 2 * texts[0] and len(set(texts[0])) == 6
    assert [split.images.mean() for split, _ in trained_on] == [1, 2, 1.5]
    assert [views for _, views in trained_on] == [1, 1, 2]


def test_pairs_are_of_the_first_task_where_the_probed_one_has_none():
    assert pairs.paired_task(W) == "flowers"
    assert pairs.paired_task(worlds.get("smoke", tasks=("cars", "aircraft"))) == "cars"
