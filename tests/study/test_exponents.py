"""What notebook 06 reads off runs: totals over classes, slopes of classes, the intervention."""

import pandas as pd
import pytest

from helpers import worlds
from helpers.engine import store
from helpers.study import exponents
from tests.study import cells

W = worlds.get("smoke")


def test_per_class_slopes_and_totals_from_runs():
    rows = [
        {
            "arm": "synthetic",
            "n": n,
            "seed": s,
            "eval_set": "test",
            "class": c,
            "images": m,
            "loss": 4 * n**-k,
            "top1": 0.5,
        }
        for n in (24, 48, 96)
        for s in (0, 1)
        for c, k, m in (("A320", 0.5, 10), ("A380", 0.0, 30))
    ]
    table = exponents.per_class(pd.DataFrame(rows), "synthetic", 24, 96).set_index("class")
    assert table.loc["A320", "k"] == pytest.approx(0.5)
    assert table.loc["A380", "k"] == pytest.approx(0, abs=1e-9)
    total = exponents.over_classes(W, pd.DataFrame(rows))
    expected = (10 * 4 * 24**-0.5 + 30 * 4) / 40
    assert len(total) == 6 and total["loss"].iloc[0] == pytest.approx(expected)
    assert set(exponents.RUN) <= set(total) and (total["source"] == "synthetic").all()


def test_every_arm_and_evaluation_set_has_a_law_of_its_own():
    slope = {("train", "test"): 0.5, ("train", "sketch"): 0.2, ("guidance-1", "test"): 0.3}
    results = pd.DataFrame(
        [
            {"arm": arm, "eval_set": eval_set, "n": n, "seed": seed, "loss": 2 * n**-k}
            for (arm, eval_set), k in slope.items()
            for n in (12, 24, 48)
            for seed in (0, 1)
        ]
    )
    laws = exponents.fit(W, results, 12, 48).set_index(["arm", "eval_set"])
    assert laws["k"].to_dict() == pytest.approx(slope) and set(exponents.FIT[:3]) <= set(laws)
    assert laws["floor"].isna().all()  # three sizes cannot tell
    assert laws.loc[("guidance-1", "test"), "guidance"] == 1.0


def test_published_points_stand_below_in_the_same_columns():
    points = pd.DataFrame(
        {"family": ["supervised", "other"], "training": ["real"] * 2, "n": [10, 20], "top1": 0.5}
    )
    table = pd.DataFrame({"source": ["train"], "n": [1], "seed": [3], "eval_set": ["test"]})
    with_published = cells.run("06", "def with_published(", others=points, pd=pd)["with_published"]
    both = with_published(table, "supervised")
    assert list(both) == list(table) and both["source"].tolist() == ["train", "published real"]
    assert with_published(table, "nobody") is table


def test_thinning_is_paired_by_class(tmp_path):
    plan = [(p, c, (p, c) in {("a", "x"), ("b", "y")}) for p in "ab" for c in "xyz"]
    classes = pd.DataFrame(
        [
            {
                "pool": p,
                "class": c,
                "thinned": t,
                "pairs": 9,
                "retrieved": 5 - 4 * t,
                "recognizability": 0.8 - 0.5 * t,
                "hit": 0.5,
            }
            for p, c, t in plan
        ]
    )
    runs = pd.DataFrame(
        [
            {
                "arm": p,
                "n": n,
                "seed": s,
                "eval_set": "test",
                "class": c,
                "images": 1,
                "loss": 3 * n ** (-0.1 if t else -0.4),
                "top1": 0.5,
            }
            for p, c, t in plan
            for n in (3, 6, 12)
            for s in (0, 1)
        ]
    )
    for name, table in (("classes", classes), ("runs", runs)):
        table.to_parquet(tmp_path / f"{name}.parquet")
    table, changes = exponents.intervention(store.Artifact("rarity", tmp_path))
    difference = changes.set_index("quantity")["difference"]
    assert len(table) == 6 and difference["k"] == pytest.approx(-0.3)
    assert difference["retrieved"] == -4 and difference["loss"] > 0
