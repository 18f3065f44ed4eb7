"""One number per probe by hand, differences by seed, and notebook 07's claims as cells."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.data import tables
from helpers.engine import figures, places, report, store
from helpers.measure import inference
from helpers.study import decide, plots, robustness, summaries
from helpers.study.robustness import MODEL, WITHOUT
from tests.study import cells

W = worlds.get("smoke")
FINISHED = worlds.get(
    "smoke", robustness={"checkpoints": (("supervised", "retrieved", "timm/any"),)}
)
MODULES = {
    **{"np": np, "pd": pd, "places": places, "decide": decide, "inference": inference},
    **{"robustness": robustness, "summaries": summaries},
}
RNG = np.random.default_rng(0)
NUMBERS = cells.run("07", "numbers = {")["numbers"]
WHOLES = cells.run("07", "wholes = {")["wholes"]
BETTER = cells.run("07", "better = pd.Series(", pd=pd)["better"]


def table_of(rows):
    """Results of ``rows`` (MODEL, probe, setting, value), each a bit different without a fold."""
    table = pd.DataFrame(rows, columns=[*MODEL, "probe", "setting", "value"])
    moves = pd.DataFrame(1 + 0.001 * RNG.normal(size=(len(table), 10)), columns=WITHOUT)
    return table.join(moves.mul(table["value"], axis=0))


def results_with(shift, seeds=3, **levels):
    """The clone's shape bias and ECE are ``shift`` above real's, all else is equal by source."""
    rows = []
    for family in robustness.FAMILIES:
        for seed in range(seeds):
            for source in robustness.SOURCES:
                noise = 0.002 * RNG.normal()
                clone = shift * (source == "synthetic")
                values = {
                    ("shape", "shape_bias"): 0.4 + 0.01 * seed + clone + noise,
                    ("shape", "shape_hits"): 9.0,
                    ("shape", "floor"): 0.1,
                    ("shape", "ceiling"): 0.9,
                    ("calibration", "ece"): 0.3 + clone + noise,
                    ("accuracy", "chance"): 0.1,
                    ("accuracy", "clean"): 0.5,
                    ("accuracy", "test"): 0.5,
                    ("pgd", "0"): 0.4,
                    ("pgd", "1"): 0.1 + 0.01 * seed,
                    ("pgd", "2"): 0.2 + 0.01 * seed + noise,
                }
                values |= {tuple(name.split("__")): level for name, level in levels.items()}
                rows += [(family, source, 10, seed, *key, v) for key, v in values.items()]
    return table_of(rows)


def shares_of(results):
    """All models' numbers as shares."""
    return summaries.shares(summaries.summary(results, NUMBERS), results, WHOLES)


def claimed(results, margin=0.05):
    """Claim -> cells, as the notebook's own lines work them out with one margin for all claims."""
    names = {**MODULES, "everything": results, "numbers": NUMBERS, "wholes": WHOLES}
    names |= {"better": BETTER, "results": results}
    for text in ("asked = pd.read_csv", "def is_mute", "headline = "):
        names = cells.run("07", text, **names)
    names["asked"]["margin"] = margin / names["asked"]["unit"]
    for text in ("pairs = {}", "cells = {}"):
        names = cells.run("07", text, **names)
    return names["estimates"]


def test_summary_averages_settings_and_shares_divide_by_an_accuracy():
    results = results_with(0)
    table = summaries.summary(results, NUMBERS).set_index([*MODEL, "probe"])
    key = ("supervised", "mixed", 10, 1)
    rows = results.set_index([*MODEL, "probe", "setting"])
    mean = rows.loc[[(*key, "pgd", "1"), (*key, "pgd", "2")]].mean()
    assert table.loc[(*key, "pgd")].to_list() == pytest.approx(mean.to_list())
    assert table.loc[(*key, "accuracy"), "value"] == 0.5
    assert set(table.index.get_level_values("probe")) == {"accuracy", "calibration", "pgd", "shape"}
    shares = shares_of(results).set_index([*MODEL, "probe"])
    assert set(shares.index.get_level_values("probe")) == {"pgd"}
    whole = rows.loc[(*key, "pgd", "0")]  # of the attacked images, not of all
    assert shares.loc[(*key, "pgd")].to_list() == pytest.approx((mean / whole).to_list())


def test_no_share_of_an_accuracy_of_zero():
    results = results_with(0)
    nothing = (results["probe"] == "pgd") & (results["setting"] == "0") & (results["seed"] == 1)
    results.loc[nothing, "value"] = 0.0
    assert set(shares_of(results)["seed"]) == {0, 2}
    results = results_with(0, pgd__0=0.4)
    fold = (results["probe"] == "pgd") & (results["setting"] == "0") & (results["seed"] == 1)
    results.loc[fold, "without_3"] = 0.0  # without a fold no share: an interval of no known width
    (cell,) = claimed(results)["RB08"]
    assert np.isinf(cell.estimate.high) and np.isfinite(cell.estimate.value)


def test_relative_probes_stand_in_the_order_of_their_panels():
    panels = ("renditions", "corruption", "corruption_3d", "fgsm", "pgd", "context")
    assert panels == tuple(WHOLES)


def test_settings_that_are_no_headline_do_not_count():
    rows = [
        ("ood", "near-entropy-auroc", 0.6),
        ("ood", "far-entropy-auroc", 0.8),
        ("ood", "near-energy-auroc", 9.0),
        ("ood", "far-entropy-aupr", 9.0),
        ("calibration", "ece", 0.1),
        ("calibration", "ece_scaled", 9.0),
        ("context", "P2", 0.2),
        ("context", "P0", 0.4),
        ("background", "gap", 0.3),
        ("background", "mixed_same", 9.0),
        ("corruption", "snow-1", 0.4),
        ("corruption", "jpeg-5", 0.2),
        ("fgsm", "0", 9.0),
        ("fgsm", "0.25", 0.2),
        ("reliability", "00-share", 9.0),
        ("natural_adversarial", "accuracy", 9.0),
        ("accuracy", "chance", 9.0),
        ("shape", "floor", 9.0),
    ]
    results = table_of([("supervised", "mixed", 1, 0, *row) for row in rows])
    values = summaries.summary(results, NUMBERS).set_index("probe")["value"].to_dict()
    means = {"ood": 0.7, "calibration": 0.1, "context": 0.2, "background": 0.3, "corruption": 0.3}
    assert values == pytest.approx(means | {"fgsm": 0.2})
    shares = shares_of(results).set_index("probe")["value"]
    assert shares.to_dict() == pytest.approx({"context": 0.5, "fgsm": 0.2 / 9})


def test_averages_have_the_interval_of_seeds_and_images():
    table = summaries.summary(results_with(0), NUMBERS)
    means = summaries.averages(table, ["family", "source", "probe"])
    part = table.query("family == 'supervised' and source == 'mixed' and probe == 'shape'")
    one = means.query("family == 'supervised' and source == 'mixed' and probe == 'shape'")
    estimate = inference.jackknifed(part["value"], part[WITHOUT])
    assert one[["mean", "low", "high"]].to_numpy()[0] == pytest.approx(estimate[:3])
    alone = summaries.averages(table[table["seed"] == 0], ["family", "source", "probe"])
    assert np.isinf(alone["high"]).all() and np.isfinite(alone["mean"]).all()


def test_cells_are_the_side_minus_the_other():
    found = claimed(results_with(0.2))
    assert set(found) == {*(f"RB0{i}" for i in (1, 2, 3, 5, 6, 7, 8, 9)), "RB10", "RB18"}
    for claim, sign in {"RB01": 1, "RB02": 1, "RB03": 1, "RB05": -1, "RB07": -1}.items():
        (cell,) = found[claim]
        assert cell.estimate.value == pytest.approx(sign * 0.2, abs=0.01), claim
        assert cell.estimate.low < cell.estimate.value < cell.estimate.high and not cell.floor
        assert cell.estimate.seeds == 3
    assert [found[c][0].name for c in ("RB01", "RB02", "RB03")] == [
        "self-supervised",
        "language-supervised",
        "supervised",
    ]
    assert found["RB18"][0].estimate.value == pytest.approx(0, abs=0.01)  # real minus mixed


@pytest.mark.parametrize(
    "levels, claim, silent",
    [
        ({"shape__floor": 0.37}, "RB01", True),
        ({"shape__ceiling": 0.45}, "RB01", True),
        ({"calibration__ece": 0.04}, "RB05", True),
        ({"pgd__1": 0.01, "pgd__2": 0.0}, "RB08", True),
        ({"pgd__1": 0.39, "pgd__2": 0.4}, "RB08", True),
        ({"corruption__jpeg-1": 0.12}, "RB12", True),  # of 0.5 clean, chance is 0.1
        ({"corruption__jpeg-1": 0.2}, "RB12", False),
        ({"ood__far-entropy-auroc": 0.52}, "RB16", True),
        ({"ood__far-entropy-auroc": 0.6}, "RB16", False),
    ],
)
def test_a_probe_near_chance_or_the_best_decides_nothing(levels, claim, silent):
    assert [cell.floor for cell in claimed(results_with(0, **levels))[claim]] == [silent]


def test_one_side_near_chance_is_no_floor():
    results = results_with(-0.25, shape__floor=0.1)  # the clone is at 0.15, real at 0.4
    assert not claimed(results)["RB01"][0].floor


def test_a_claim_on_several_families_needs_them_all():
    results = results_with(0, context__P0=0.5, context__P2=0.3)
    found = claimed(results)
    assert [cell.name for cell in found["RB17"]] == ["self-supervised", "language-supervised"]
    fewer = claimed(results[results["family"] != "self-supervised"])
    assert "RB17" not in fewer and "RB02" in fewer


def test_one_pair_of_models_decides_nothing():
    assert claimed(results_with(0.1, seeds=1)) == {}


def test_prompts_are_judged_at_the_largest_size_in_points():
    rows = []
    for kind in ("class names", "language model"):
        for n, gain in ((1, -0.2), (2, 0.1)):
            for seed in range(3):
                value = 0.3 + 0.01 * seed + gain * (kind == "language model")
                for setting, level in (("test", value), ("clean", 0.5), ("chance", 0.1)):
                    rows.append(("supervised", kind, n, seed, "accuracy", setting, level))
                rows.append(("supervised", kind, n, seed, "corruption", "snow-1", value))
    found = claimed(table_of(rows))
    assert set(found) == {"RB20", "RB21"}
    assert found["RB20"][0].estimate.value == pytest.approx(10)
    assert found["RB21"][0].estimate.value == pytest.approx(0.1 / 0.5)


def test_the_means_of_the_desk_are_there_once_it_has_committed_them(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "TOP", tmp_path)
    results = results_with(0.1, seeds=2)
    apart = pd.DataFrame({"family": ["supervised"], "probe": ["shape"], "mean": [0.0]})
    names = {**MODULES, "plots": plots, "w": worlds.get("pocket"), "everything": results}
    names |= {"numbers": NUMBERS, "wholes": WHOLES, "better": BETTER, "apart": apart}
    names["abroad"] = "ece_(renditions|natural_adversarial)"
    none = cells.run("07", "desk = plots.desk", **names)
    assert none["apart"]["desk"].isna().all()
    columns = ["family", "source", "seed", "probe", "setting", "value"]
    file = tmp_path / "figures" / "desk" / "07_probes.csv"
    store.write(file, results[columns].to_csv(index=False).encode())
    found = cells.run("07", "desk = plots.desk", **names)
    kept = results.query("family == 'supervised' and setting == 'shape_bias'")
    mean = kept.groupby("source")["value"].mean()
    gap = 100 * BETTER["shape"] * (mean["synthetic"] - mean["retrieved"])
    assert found["apart"]["desk"].tolist() == pytest.approx([gap])


def test_every_testable_claim_has_its_difference_and_margin():
    names = cells.run("07", "asked = pd.read_csv", **MODULES)
    asked = names["asked"]
    assert list(asked.index) == [f"RB{i:02d}" for i in range(1, 23) if i != 4]
    assert set(asked["families"].str.split(" and ").sum()) == set(robustness.FAMILIES)
    prompts = robustness.kinds(worlds.get("pocket"))
    assert set(asked["side"]) | set(asked["other"]) == {*robustness.SOURCES, *prompts}
    assert set(asked["probe"]) <= set(NUMBERS)
    assert asked["margin"]["RB20"] == names["declared"]["margin"]["RB20"] / 100
    assert names["by_probe"]["shape"] == names["declared"]["margin"]["RB01"]


def test_real_images_of_finished_checkpoints_were_not_retrieved(monkeypatch):
    bench = SimpleNamespace(task="toy", classes="ab")
    monkeypatch.setattr(robustness, "probe_sets", lambda w: SimpleNamespace(sets={}))
    monkeypatch.setattr(store, "read_table", lambda path: results_with(0))
    monkeypatch.setattr(tables, "benchmark", lambda w, task: bench)
    names = {"report": report, "robustness": robustness, "store": store, "tables": tables}
    names |= {"pd": pd, "artifact": store.Artifact("robust", Path()), "figures": figures}
    found = []
    for w in (W, FINISHED):
        labels = cells.run("07", "label_of = {", w=w, **names)
        said = cells.run("07", "shown_models = (", **{**labels, "w": w})
        found.append((said["label_of"]["retrieved"], said["shown_models"]))
    assert [label for label, _ in found] == ["retrieved", "real"]
    assert found[0][1].startswith("27 models of toy (2 classes), each trained on 10 images")
    assert found[1][1].endswith("(2 classes). supervised, real: timm/any.")
