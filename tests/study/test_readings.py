"""What notebooks read off results, on tables small enough to work out by hand."""

import types

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.engine import report, store
from helpers.study import captions, exponents, finetune, readings
from tests.study import cells
from tests.study.test_exponents import rows


def runs(source, accuracies, task="cars", metric="linear_probe"):
    """Two runs per size, 0.02 apart, around the accuracy of each size."""
    rows = [
        (task, source, n, seed, metric, accuracy + shift)
        for n, accuracy in accuracies.items()
        for seed, shift in enumerate((-0.01, 0.01))
    ]
    return pd.DataFrame(rows, columns=["task", "source", "n", "seed", "metric", "accuracy"])


@pytest.fixture
def results():
    tables = [
        runs(source, accuracies, metric=metric)
        for metric in ("zero_shot", "linear_probe")
        for source, accuracies in (
            ("retrieved", {4: 0.5, 8: 0.9}),
            ("synthetic", {4: 0.4, 8: 0.5, 16: 0.6}),
        )
    ]
    return pd.concat([*tables, runs("clip", {0: 0.3})])


def test_mean_and_interval_per_key():
    table = readings.over_seeds(runs("clip", {0: 0.3}), ["task", "source"], "accuracy")
    assert list(table) == ["task", "source", "mean", "low", "high"]
    assert table["mean"].tolist() == [pytest.approx(0.3)]
    assert table["low"].iloc[0] < 0.29 < 0.31 < table["high"].iloc[0]


def test_repeats_are_shares_per_form(tmp_path):
    (tmp_path / "raw").mkdir()
    for number, texts in enumerate((["a", "a", "b"], ["b"])):
        table = pd.DataFrame({"caption": texts, "kind": "class"})
        store.write(tmp_path / f"raw/cars-{number}-0.parquet", table)
    shares = cells.run(
        "01",
        "again.reindex",
        w=types.SimpleNamespace(tasks=["cars"]),
        artifact=store.Artifact("captions", tmp_path),
        **{"pd": pd, "store": store, "captions": captions, "report": report},
    )["repeats"]
    assert shares.loc[0, "class"] == 0.5 and shares.loc[0, "rounds"] == 2
    assert np.isnan(shares.loc[0, "background"])


def test_dropped_copies_are_told_from_other_candidates():
    truth = pd.DataFrame({"test_copy_of": [7, -1, 7], "kind": ["cars", "cars", "flowers"]})
    tables = {"cars": pd.DataFrame({"row": [0, 1, 2], "copy": [True, False, False]})}
    names = {"tables": tables, "truth": truth, "known": True, "display": print}
    found = cells.run("03", "planted near-copies", **names, np=np, pd=pd, report=report)
    assert found["planted"].tolist() == [True] and found["others"].tolist() == [False, False]


def test_gaps_at_common_sizes_only(results):
    pairs = [("retrieved", "synthetic")]
    gaps = readings.differences(results, "source", pairs, ["task", "n"])
    assert gaps["metric"].tolist() == ["zero shot"] * 2 + ["linear probe"] * 2
    assert gaps["n"].tolist() == [4, 8, 4, 8] and set(gaps["task"]) == {"cars"}
    assert gaps["mean"].tolist() == [pytest.approx(g) for g in (10, 40, 10, 40)]


def test_matching_sizes_of_both_ends(results):
    matches = readings.matches(results, ["cars"], "linear_probe")
    assert matches["n"].tolist() == [4, 8]
    assert matches["match"].tolist() == [pytest.approx(8), np.inf]


def test_axles_are_counted_together_and_apart():
    rows = [
        ("drawn", "A", "axles", 4, 1),
        ("drawn", "B", "axles", 4, 3),
        ("drawn", "A", "gear", 2, 2),
    ]
    columns = ["source", "class", "attribute", "images", "correct"]
    axles = pd.Series({"A": 1, "B": 3})
    table = readings.details(pd.DataFrame(rows, columns=columns), axles).set_index("attribute")
    shares = table["share"].to_dict()
    assert shares == {"axles": 0.5, "gear": 1.0, "one axle": 0.25, "two or more axles": 0.75}
    assert (table["low"] <= table["share"]).all() and (table["share"] <= table["high"]).all()


def test_changes_against_the_first_value(results):
    drawn = results[results["source"] == "synthetic"]
    changes = readings.differences(drawn, "n", [(8, 4), (16, 4)])
    assert changes[["n", "other"]].values.tolist() == [[8, 4], [8, 4], [16, 4], [16, 4]]
    assert changes["metric"].tolist() == ["zero shot", "linear probe"] * 2
    assert changes["mean"].tolist() == [pytest.approx(change) for change in (10, 10, 20, 20)]


def test_differences_between_arms_and_which_are_decided():
    table = pd.DataFrame(
        [("a", 0, 0.5, 0.5), ("a", 1, 0.5, 0.7), ("b", 0, 0.4, 0.6), ("b", 1, 0.4, 0.6)],
        columns=["arm", "seed", "zero_shot", "linear_probe"],
    )
    differences = readings.differences(finetune.tidy(table), "arm", [("a", "b")])
    assert differences["mean"].tolist() == [pytest.approx(10), pytest.approx(0)]
    said = readings.decided(differences, 16, 2)
    assert "1 of 2 differences" in said and "16 images and 2 seeds" in said
    assert "a against b, zero shot: +10.0 points (+10.0 to +10.0)" in said
    assert "linear probe" not in said


@pytest.mark.parametrize(("keep", "said"), [("word+top", "Both are"), ("word+domain", "`domain`")])
def test_similarity_names_the_filters(keep, said):
    scores = pd.DataFrame({"source": ["synthetic", "retrieved"], "score": [0.3, 0.2]})
    sentences = []
    stub = types.SimpleNamespace(text=sentences.append)
    w = worlds.get("smoke")
    names = cells.run("05", "These are two filters", keep=keep, w=w)
    cells.run("05", "Median similarity", **names, scores=scores, report=stub)
    assert said in sentences[0] and "drawn images, whatever their details" in sentences[0]


def test_exponents_of_the_last_three_sizes():
    flat = rows("synthetic", 0.0, sizes=(4, 8))
    table = pd.concat([flat, rows("synthetic", 0.5, sizes=(16, 32, 64))])
    law = {"arm": "synthetic", "eval_set": "test", "measure": "calibrated", "range": "full"}
    laws = pd.DataFrame([{**law, "k": 0.1}]).set_index(list(law))
    found = cells.run(
        "06",
        "its last three sizes",
        **{"pd": pd, "report": report, "exponents": exponents, "runs": table, "results": table},
        **{"colours": ["synthetic"], "low_high": (4, 32), "law_of": laws},
    )
    assert [row["k"] for row in found["ends"]] == [0.1]
    assert found["ends"][0]["last"] == pytest.approx(0.5, abs=0.02)


def test_matching_size_interpolates_in_log_size():
    curve = pd.Series({100: 0.2, 200: 0.4, 400: 0.5})
    assert readings.matching_size(curve, 0.3) == pytest.approx(100 * 2**0.5)
    assert readings.matching_size(curve, 0.6) == float("inf")
