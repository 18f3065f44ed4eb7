"""Claims of notebook 06 from runs with known exponents: signs, agreement, floors."""

import types

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.measure import inference
from helpers.study import exponents, laws, pairs
from tests.study.test_exponents import SIZES, rows, thinned_runs

W = worlds.get("smoke")
ARMS = {  # exponents on the test set and on the shifted sets
    "train": (0.5, 0.1),
    laws.CAPTIONS: (0.25, 0.1),
    laws.TEMPLATES: (0.2, 0.3),
    "synthetic": (0.3, 0.1),
    "guidance-7.5": (0.1, 0.1),
    laws.FEW_REAL: (0.6, 0.1),
}
MARGINS = dict.fromkeys(("SL03", "SL04", "SL07", "SL10"), 2.0)


@pytest.fixture
def classes(monkeypatch):
    """A task of two classes whose sizes are ``SIZES``."""
    bench = types.SimpleNamespace(classes=("a", "b"))
    monkeypatch.setattr(laws.tables, "benchmark", lambda w, task: bench)
    monkeypatch.setattr(exponents.tables, "benchmark", lambda w, task: bench)
    return worlds.get("smoke", scaling={"sizes": SIZES})


def runs_of(arms):
    parts = []
    for arm, (near, far) in arms.items():
        parts += [rows(arm, near), rows(arm, far, "sketch"), rows(arm, far, "unseen")]
    return pd.concat(parts)


def judged(rng, noise=0.05):
    """Arms whose diversity falls as their recognizability grows, 12 classes, 20 bootstraps."""
    table = []
    for i, arm in enumerate(("synthetic", "guidance-1", "guidance-7.5", laws.TEMPLATES)):
        for draw in range(21):
            x, y = noise * rng.normal(size=(2, 12))
            about = {"arm": arm, "draw": draw, "class": [f"c{j:02d}" for j in range(12)]}
            steps = np.arange(12) / 50
            values = {"recognizability": 0.05 * i + steps + x, "diversity": 1 - 0.05 * i + y}
            table.append(pd.DataFrame(about | values))
    return pd.concat(table)


def test_claims_have_the_signs_that_were_put_in(classes, tmp_path):
    by_class = [rows("synthetic", 0.1 + 0.03 * j, name=f"c{j:02d}") for j in range(12)]
    runs = pd.concat([runs_of(ARMS), *by_class])
    few = [(source, k) for source, k in zip(pairs.SOURCES, (0.4, 0.39, 0.5), strict=True)]
    paired = pd.concat([rows(source, k, sizes=(24, 48, 96)) for source, k in few])
    found = laws.cells(
        classes, runs, judged(np.random.default_rng(0)), paired, thinned_runs(tmp_path), MARGINS
    )
    sign = {"SL02": "noninferior", "SL06": "-", "SL12": "-"}
    verdicts = {
        claim: inference.combined(of_claim, sign.get(claim, "+"), 0.09).verdict
        for claim, of_claim in found.items()
    }
    assert set(verdicts) == {f"SL{i:02d}" for i in range(1, 13) if i != 5}
    wrong = {claim: v for claim, v in verdicts.items() if v != inference.HOLDS}
    assert not wrong
    assert [cell.name for cell in found["SL01"]] == ["both ranges"]
    assert found["SL01"][0].estimate.value == pytest.approx(0.25, abs=0.02)
    assert found["SL08"][0].estimate.value == pytest.approx(0.3 + 0.2, abs=0.03)
    assert found["SL03"][0].name == "192 images" and found["SL07"][0].name == "24 images"


def test_arms_that_are_not_here_leave_their_claims_out(classes):
    runs = runs_of({"train": (0.5, 0.1), "synthetic": (0.3, 0.1)})
    by_class = pd.concat([rows("synthetic", 0.1 + 0.03 * j, name=f"c{j:02d}") for j in range(12)])
    paired = pd.concat([rows(source, 0.4, sizes=(24, 48)) for source in pairs.SOURCES])
    found = laws.cells(
        classes,
        pd.concat([runs, by_class]),
        judged(np.random.default_rng(0)),
        paired,
        None,
        MARGINS,
    )
    assert set(found) == {"SL06", "SL10", "SL11"}


def test_an_interval_over_all_is_given_where_measures_differ_in_sign():
    both = {("error", "full"): 0.2, ("calibrated", "full"): -0.1, ("calibrated", "upper"): -0.2}
    found = {key: inference.around(value, 0.05, 9, 5) for key, value in both.items()}
    (cell,) = laws.agreed(found, False)
    assert "disagree" in cell.name and cell.estimate.low < 0 < cell.estimate.high
    assert cell.estimate.low == pytest.approx(found["calibrated", "upper"].low)
    assert cell.estimate.high == pytest.approx(found["error", "full"].high)
    del found["error", "full"]
    (cell,) = laws.agreed(found, False)
    assert cell.name == "both ranges" and not cell.floor
    assert cell.estimate.low == pytest.approx(found["calibrated", "upper"].low)
    assert cell.estimate.high == pytest.approx(found["calibrated", "full"].high)
    assert inference.combined([cell], "-", 0.05).verdict == inference.UNDECIDED  # full has zero


def test_sets_at_chance_fall_under_the_floor_rule(classes):
    weights = laws.SLOPES["SL09"]
    runs = runs_of(ARMS)
    spans = exponents.halved(SIZES)
    assert not laws.contrast(runs, weights, spans, 50)[0].floor
    blind = runs.assign(top1=np.where(runs["eval_set"] == "sketch", 0.5, runs["top1"]))
    assert not laws.contrast(blind, weights, spans, 50)[0].floor  # the other set remains
    assert laws.contrast(runs.assign(top1=0.5), weights, spans, 50)[0].floor
    low = laws.level(runs.assign(top1=0.51), "train", laws.CAPTIONS, 24, 50, 2.0)
    assert low[0].floor and not laws.level(runs, "train", laws.CAPTIONS, 24, 50, 2.0)[0].floor


def test_nothing_follows_from_thinning_that_did_not_lower_recognizability(tmp_path):
    (tmp_path / "failed").mkdir()
    assert not laws.thinning(thinned_runs(tmp_path))[0].floor
    assert laws.thinning(thinned_runs(tmp_path / "failed", fall=0.0))[0].floor
