"""One number per probe by hand, and claims that hold only where the interval says so."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.data import tables
from helpers.engine import report, store
from helpers.errors import NotKnown
from helpers.study import robustness, summaries
from tests.study import cells

W = worlds.get("smoke")
FINISHED = worlds.get(
    "smoke", robustness={"checkpoints": (("supervised", "retrieved", "timm/any"),)}
)


def results_with(shift):
    """Results of three seeds: the clone's shape bias is ``shift`` above real's, all else equal."""
    rows = []
    for family in robustness.FAMILIES:
        for seed in range(3):
            for source in robustness.SOURCES:
                value = 0.4 + 0.01 * seed + shift * (source == "synthetic")
                rows += [
                    (family, source, 10, seed, *row)
                    for row in (
                        ("shape", "shape_bias", value),
                        ("shape", "shape_hits", 9.0),
                        ("accuracy", "clean", 0.5),
                        ("accuracy", "test", 0.5),
                        ("pgd", "0", 0.5),
                        ("pgd", "1", 0.1 + 0.01 * seed),
                        ("pgd", "2", 0.2 + 0.01 * seed),
                    )
                ]
    return pd.DataFrame(rows, columns=[*robustness.MODEL, "probe", "setting", "value"])


def test_summary_averages_settings_and_divides_by_clean():
    table = summaries.summary(results_with(0))
    one = table.query("family == 'supervised' and source == 'mixed' and seed == 1")
    values = one.set_index("probe")["value"].to_dict()
    assert values == pytest.approx({"accuracy": 0.5, "pgd": 0.16, "shape": 0.41})
    shares = summaries.summary(results_with(0), relative=True)
    assert set(shares["probe"]) == {"pgd"} and shares["value"].max() == pytest.approx(0.17 / 0.5)


def test_relative_probes_stand_in_the_order_of_their_panels():
    panels = ("renditions", "corruption", "corruption_3d", "fgsm", "pgd", "context")
    assert panels == summaries.RELATIVE


def test_settings_that_are_no_headline_do_not_count():
    rows = [
        ("ood", "near-entropy-auroc", 0.6),
        ("ood", "far-entropy-auroc", 0.8),
        ("ood", "near-energy-auroc", 9.0),
        ("ood", "far-entropy-aupr", 9.0),
        ("calibration", "ece", 0.1),
        ("calibration", "ece_scaled", 9.0),
        ("context", "P2", 0.2),
        ("context", "P0", 9.0),
        ("background", "gap", 0.3),
        ("background", "mixed_same", 9.0),
        ("corruption", "snow-1", 0.4),
        ("corruption", "jpeg-5", 0.2),
        ("reliability", "00-share", 9.0),
        ("natural_adversarial", "accuracy", 9.0),
    ]
    results = pd.DataFrame(rows, columns=["probe", "setting", "value"])
    results = results.assign(family="supervised", source="mixed", n=1, seed=0)
    values = summaries.summary(results).set_index("probe")["value"].to_dict()
    assert values == pytest.approx(
        {"ood": 0.7, "calibration": 0.1, "context": 0.2, "background": 0.3, "corruption": 0.3}
    )


@pytest.mark.parametrize(
    "shift, holds, lags",
    [(0.1, "yes", "no"), (-0.1, "no", "yes"), (0, "no difference found", "no difference found")],
)
def test_claims_hold_only_where_the_interval_says_so(shift, holds, lags):
    table = results_with(shift)
    clones = table["source"] == "synthetic"
    table.loc[clones, "value"] += np.resize([0.001, -0.001, 0.0], clones.sum())
    verdicts = summaries.claims(table).set_index("claim")
    assert verdicts.loc["self-supervised clones match or beat real on shape bias", "holds"] == holds
    assert verdicts.loc["supervised clones lag behind real on shape bias", "holds"] == lags
    assert (verdicts["low"] <= verdicts["difference"]).all() and len(verdicts) == 6


def test_one_pair_of_models_decides_nothing():
    verdicts = summaries.claims(results_with(0.1).query("seed == 0"))
    assert len(verdicts) == 6 and set(verdicts["holds"]) == {"one pair decides nothing"}


def test_richer_prompts_are_judged_at_the_largest_size():
    rows = [
        (
            "supervised",
            kind,
            n,
            seed,
            "corruption",
            0.3 + 0.01 * seed + gain * (kind == "language model") + 0.001 * (seed == n),
        )
        for kind in ("class names", "language model")
        for n, gain in ((1, -0.2), (2, 0.1))
        for seed in range(3)
    ]
    by_prompt = pd.DataFrame(rows, columns=[*robustness.MODEL, "probe", "value"])
    verdicts = summaries.claims(results_with(0), by_prompt).set_index("claim")
    verdict = verdicts.loc["captions help more than class names on corruptions (supervised)"]
    assert verdict["difference"] == pytest.approx(0.1) and verdict["holds"] == "yes"


def test_there_are_nineteen_claims_in_other_words_each():
    texts = [claim.text for claim in summaries.listed()]
    assert len(texts) == len(set(texts)) == 19


def test_real_images_of_finished_checkpoints_were_not_retrieved(monkeypatch):
    bench = SimpleNamespace(task="toy", classes="ab")
    monkeypatch.setattr(robustness, "make", lambda w: store.Artifact("robust", Path()))
    monkeypatch.setattr(robustness, "probe_sets", lambda w: SimpleNamespace(sets={}))
    monkeypatch.setattr(store, "read_table", lambda path: results_with(0))
    monkeypatch.setattr(tables, "benchmark", lambda w, task: bench)
    modules = {"report": report, "robustness": robustness, "store": store, "tables": tables}
    found = [cells.run("07", "source_label =", w=w, **modules) for w in (W, FINISHED)]
    assert [names["source_label"]["retrieved"] for names in found] == ["retrieved", "real"]
    assert found[0]["probed"].startswith("27 models of toy (2 classes), each trained on 10 images")
    assert found[1]["probed"].endswith("(2 classes). supervised, real: timm/any.")


def test_finished_checkpoints_have_no_ablations():
    with pytest.raises(NotKnown, match="nothing is trained for an ablation"):
        summaries.ablations(FINISHED, results_with(0))
