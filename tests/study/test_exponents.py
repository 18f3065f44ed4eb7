"""What notebook 06 reads off runs: curves without folds, two ranges, slopes, the intervention."""

import zlib

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.engine import store
from helpers.errors import StudyError
from helpers.measure.folds import ALL, FOLDS
from helpers.study import exponents
from tests.study import cells

W = worlds.get("smoke")
SIZES = (24, 48, 96, 192)


def rows(arm, k, eval_set="test", name=ALL, seeds=3, noise=0.02, start=4.0, sizes=SIZES):
    """Runs whose calibrated loss and error fall with the exponent ``k``."""
    rng = np.random.default_rng(zlib.crc32(f"{arm} {eval_set} {name}".encode()))
    table = pd.DataFrame(
        [(n, seed, fold) for n in sizes for seed in range(seeds) for fold in range(FOLDS)],
        columns=["n", "seed", "fold"],
    )
    fall = table["n"] ** -k * np.exp(noise * rng.normal(size=len(table)))
    about = {"arm": arm, "eval_set": eval_set, "class": name, "images": 10}
    values = {"calibrated": start * fall, "loss": 9.0, "top1": 1 - 0.9 * fall, "error": 0.9 * fall}
    return table.assign(**about, **values)


def test_a_fold_left_out_is_out_of_the_mean_and_of_nothing_else():
    part = rows("train", 0.3, noise=0, sizes=(24,), seeds=1)
    part.loc[part["fold"] == 3, ["calibrated", "images"]] = (7.0, 30)
    curve = exponents.curves(part, "calibrated").loc[(0, 24)]
    rest = 4 * 24**-0.3
    assert curve[0] == pytest.approx((9 * 10 * rest + 30 * 7) / 120)
    assert curve[1 + 3] == pytest.approx(rest)
    assert curve[1] == pytest.approx((8 * 10 * rest + 30 * 7) / 110)


def test_the_two_ranges_start_at_one_image_per_class_and_at_the_upper_half():
    assert exponents.halved([24, 48, 96, 192]) == {"full": (24, 192), "upper": (48, 192)}
    assert exponents.halved([1, 2, 4, 8, 16, 32, 64]) == {"full": (1, 64), "upper": (8, 64)}
    assert exponents.halved([14, 28, 56]) == {"full": (14, 56), "upper": (14, 56)}


def test_every_arm_set_measure_and_range_has_a_law_and_points_outside_do_not_count():
    runs = pd.concat([rows("train", 0.5), rows("train", 0.2, "sketch"), rows("guidance-1", 0.3)])
    outside = rows("train", -1.0, sizes=(12,))
    laws = exponents.fit(pd.concat([runs, outside]), exponents.halved(SIZES))
    laws = laws.set_index(["arm", "eval_set", "measure", "range"])
    assert len(laws) == 3 * 2 * 2
    k = laws["k"].xs("calibrated", level="measure")
    assert k["train", "test"].to_numpy() == pytest.approx(0.5, abs=0.02)
    assert k["train", "sketch", "upper"] == pytest.approx(0.2, abs=0.02)
    assert ((laws["k_low"] < laws["k"]) & (laws["k"] < laws["k_high"])).all()
    evidence = laws["evidence"].xs("full", level="range")
    assert evidence.notna().all() and laws["evidence"].xs("upper", level="range").isna().all()
    described = exponents.described(W, laws.reset_index())
    assert set(exponents.FIT) <= set(described)
    with pytest.raises(StudyError, match="every seed"):
        exponents.fit(runs[(runs["seed"] > 0) | (runs["n"] > 24)], exponents.halved(SIZES))


def test_totals_levels_and_classes():
    runs = pd.concat(
        [rows("synthetic", 0.4, noise=0), rows("synthetic", 0.5, name="A320"),
         rows("synthetic", 0.0, name="A380", noise=0)]
    )  # fmt: skip
    total = exponents.over_classes(W, runs)
    assert len(total) == len(SIZES) * 3 and set(exponents.RUN) <= set(total)
    assert total["calibrated"].iloc[0] == pytest.approx(4 * 24**-0.4)
    level = exponents.levels(runs).set_index(["measure", "n"])
    assert level.loc[("error", 48), "mean"] == pytest.approx(0.9 * 48**-0.4)
    of_class = exponents.per_class(runs, "synthetic", (24, 192)).set_index("class")
    assert of_class.loc["A320", "k"] == pytest.approx(0.5, abs=0.02)
    assert of_class.loc["A380", "k"] == pytest.approx(0, abs=1e-9)
    assert of_class.loc["A380", "calibrated"] == pytest.approx(4)


def test_published_points_stand_below_in_the_same_columns():
    points = pd.DataFrame(
        {"family": ["supervised", "other"], "training": ["real"] * 2, "n": [10, 20], "top1": 0.5}
    )
    table = pd.DataFrame({"source": ["train"], "n": [1], "seed": [3], "eval_set": ["test"]})
    with_published = cells.run("06", "def with_published(", others=points, pd=pd)["with_published"]
    both = with_published(table, "supervised")
    assert list(both) == list(table) and both["source"].tolist() == ["train", "published real"]
    assert with_published(table, "nobody") is table


def thinned_runs(tmp_path, fall=0.5, lots=3):
    """An intervention in which thinning lowers recognizability by ``fall`` and k by 0.3."""
    plan = [
        (lot, f"{lot}{side}", name, name == thinned)
        for lot in range(lots)
        for side, thinned in (("a", "x"), ("b", "y"))
        for name in "xyz"
    ]
    classes = pd.DataFrame(plan, columns=["lot", "pool", "class", "thinned"])
    classes = classes.assign(pairs=9, retrieved=5 - 4 * classes["thinned"], hit=0.5)
    lower = fall * classes["thinned"] * (1 + 0.1 * classes["lot"])
    classes["recognizability"] = 0.8 - lower
    runs = [rows(pool, 0.4 - 0.3 * thin, name=name) for _, pool, name, thin in plan]
    classes.to_parquet(tmp_path / "classes.parquet")
    pd.concat(runs).to_parquet(tmp_path / "runs.parquet")
    return store.Artifact("rarity", tmp_path)


def test_thinning_is_paired_by_class_within_its_lot(tmp_path):
    table, changes = exponents.intervention(thinned_runs(tmp_path))
    assert len(table) == 3 * 2 * 3 and len(changes) == 3 * 2
    assert changes["k"].mean() == pytest.approx(-0.3, abs=0.02)
    assert (changes["retrieved"] == -4).all() and (changes["calibrated"] > 0).all()
    assert changes.loc[(0, "x"), "recognizability"] == pytest.approx(-0.5)
