"""What notebooks read off results, on tables small enough to work out by hand."""

import types

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.engine import report, store
from helpers.study import captions, plots
from tests.study import cells


def runs(source, accuracies, task="cars", metric="linear_probe"):
    """Two runs per size, 0.02 apart, around the accuracy of each size."""
    rows = [
        (task, source, n, seed, metric, accuracy + shift)
        for n, accuracy in accuracies.items()
        for seed, shift in enumerate((-0.01, 0.01))
    ]
    return pd.DataFrame(rows, columns=["task", "source", "n", "seed", "metric", "accuracy"])


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


def test_copies_that_are_recognized_are_told_from_other_pairs():
    """Two candidates are one pair, found for two classes: it counts once."""
    truth = pd.DataFrame(
        {"test_copy_of": [7, -1, 7, 8, 9], "kind": ["cars", "cars", "flowers", "cars", "cars"]}
    )
    found_rows = [0, 0, 1, 2, 3]
    table = {"row": found_rows, "copy": [True] * 3 + [False] * 2, "kept": [False] * 3 + [True] * 2}
    names = {"tables": {"cars": pd.DataFrame(table)}, "keeps": {"cars": "kept"}, "truth": truth}
    names["shows"] = {"cars": truth.iloc[found_rows].reset_index(drop=True)}
    found = cells.run("03", "others taken for copies", known=True, pd=pd, report=report, **names)
    assert found["copies"].iloc[0].to_dict() == {
        "task": "cars",
        "test copies in the pool": 3,
        "found by any rule": 4,
        "test copies in it": 2,
        "recognized": 1,
        "others taken for copies": 1,
        "kept": 2,
        "test copies left": 1,
    }


def test_a_detail_is_counted_where_it_is_not_the_commonest():
    counts = [("A", "axles", 4, 1), ("B", "axles", 4, 3), ("C", "axles", 4, 4), ("A", "gear", 2, 2)]
    rows = [(source, *count) for source in ("retrieved", "synthetic") for count in counts]
    columns = ["source", "class", "attribute", "images", "correct"]
    fidelity = pd.DataFrame(rows, columns=columns)
    details = pd.DataFrame({"axles": [1, 3, 1], "gear": [0, 1, 1]}, index=["A", "B", "C"])
    names = {"known": True, "np": np, "pd": pd, "report": report, "fidelity": fidelity}
    names["bench"] = types.SimpleNamespace(details=details)
    names = cells.run("05", "usual = bench.details.mode()", **names)
    assert names["share_of"]["synthetic"].to_dict() == {"axles": 0.75, "gear": 1.0}
    found = cells.run("05", "control = rated[", **names)["bars"].loc["synthetic"]
    assert found["share"].to_dict() == {"axles": 0.75, "control": (1 + 4) / 8, "gear": 1.0}
    assert found["half"].to_dict()["gear"] == 0 < found["half"].to_dict()["axles"]


def test_cells_of_two_tables_that_are_far_apart():
    own = pd.concat([runs("retrieved", {4: 0.5, 8: 0.9}), runs("clip", {0: 0.3})])
    other = [own.assign(accuracy=own["accuracy"] + 0.001, seed=own["seed"] + 2 * i) for i in (1, 2)]

    def far(pale):
        known = types.SimpleNamespace(labels=lambda task: np.zeros(10_000))
        found = cells.run("04", "far = ", main=own, pale=pale, runs=known)["far"]
        return found.sum(), len(found)

    assert far(pd.concat(other)) == (0, 3)
    moved = pd.concat(other).assign(accuracy=lambda t: t["accuracy"] - 0.06 * (t["n"] == 8))
    assert far(moved) == (1, 3)
    assert far(other[0]) == (0, 0), "two runs have no known spread"


def test_the_desk_stands_beside_pocket_only(tmp_path, monkeypatch):
    monkeypatch.setattr(plots.places, "TOP", tmp_path)
    pocket = worlds.get("pocket")
    assert not len(plots.desk(pocket, "04_accuracy_vs_size"))
    file = tmp_path / "figures" / "desk" / "04_accuracy_vs_size.csv"
    store.write(file, runs("clip", {0: 0.3}).to_csv(index=False).encode())
    assert len(plots.desk(pocket, "04_accuracy_vs_size")) == 2
    for other in ("desk", "smoke", "paper"):
        assert not len(plots.desk(worlds.WORLDS[other], "04_accuracy_vs_size"))
