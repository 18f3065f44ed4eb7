"""Claims: declared as drafted, decided from estimates, corrected over families, kept by world."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from helpers import worlds
from helpers.errors import StudyError
from helpers.measure.inference import Cell, around, holm
from helpers.study import decide, plots

mpl.use("Agg")
CLAIMS = decide.declared()
TESTABLE = CLAIMS[CLAIMS["testable"] == "yes"]


def cells(value, se, name="aircraft", floor=False, seeds=9):
    """One cell whose interval is that of many degrees of freedom."""
    return [Cell(name, around(value, se, 1e6, seeds), floor)]


def row(table, name):
    """The row of a claim."""
    return table.set_index("id").loc[name]


@pytest.fixture
def world(monkeypatch, tmp_path):
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path))
    return worlds.get("smoke")


def test_the_declarations_are_those_that_were_drafted():
    counts = CLAIMS.groupby("paper", sort=False).size()
    assert counts.tolist() == [27, 12, 22, 5]
    assert sorted(set(CLAIMS["id"]) - set(TESTABLE["id"])) == ["RB04", "SL05", "UP25", "UP27"]
    families = TESTABLE.groupby("holm").size().to_dict()
    assert families == {
        "UP01-17": 17, "UP18-26": 8, "SL01-12": 11, "RB01-17": 16, "RB18-22": 5, "OW1-5": 5,
    }  # fmt: skip
    for name, claim in CLAIMS.iterrows():
        text = f"{claim['contrast']} {claim['note']}".lower()
        several = "must hold)" in text or "all within the margin" in text
        assert (claim["combine"] == "all") == several, name
    assert CLAIMS.index[CLAIMS["combine"] == "either"].tolist() == ["UP15"]
    assert CLAIMS["margin"]["UP01"] == pytest.approx(10.6 / 4)


@pytest.mark.parametrize(
    "column, value, message",
    [
        ("expected_sign", "plus", "sign of claim UP02.*noninferior"),
        ("combine", "some", "combine of claim UP02.*either"),
        ("testable", "no", "testable of claim UP02"),
        ("margin", "0", "UP02 needs a margin"),
        ("holm", "", "UP02 needs .* family"),
        ("id", "UP01", "UP01 twice"),
        ("margin", "wide", "cannot read"),
    ],
)
def test_declarations_that_make_no_sense(tmp_path, column, value, message):
    table = pd.read_csv(decide.DECLARATIONS, dtype=str, keep_default_na=False)
    table.loc[1, column] = value
    table.to_csv(tmp_path / "claims.csv", index=False)
    with pytest.raises(StudyError, match=message):
        decide.declared(tmp_path / "claims.csv")


def test_without_estimates_nothing_is_decided():
    table = decide.decide({})
    assert table["id"].tolist() == CLAIMS.index.tolist() and list(table) == decide.COLUMNS
    testable = table["id"].isin(TESTABLE["id"])
    assert set(table["verdict"][testable]) == {"undecided"} == set(table["corrected"][testable])
    assert set(table["reason"][testable]) == {"not run in this world"}
    assert set(table["verdict"][~testable]) == {"not testable here"}
    assert "class-bound backgrounds" in row(table, "RB04")["reason"]
    assert table["p_holm"][~testable].isna().all() and (table["p_holm"][testable] == 1).all()


def test_a_family_counts_what_was_not_run():
    """p = 0.004 of one claim of seventeen, alone: 0.068 by Holm, and undecided once corrected."""
    alone = decide.decide({"UP01": cells(2.878, 1)})
    found = row(alone, "UP01")
    assert found["verdict"] == "holds" and found["p"] == pytest.approx(0.004, rel=0.01)
    assert found["corrected"] == "undecided" and found["p_holm"] == pytest.approx(17 * found["p"])
    assert found["seeds"] == 9 and (found["low"], found["high"]) == pytest.approx(
        (2.878 - 1.96, 2.878 + 1.96), abs=1e-3
    )
    # In the family of eight the same p is 0.032.
    assert row(decide.decide({"UP24": cells(2 + 2.878, 1)}), "UP24")["corrected"] == "reversed"
    assert row(decide.decide({"UP23": cells(2.878, 1)}), "UP23")["corrected"] == "holds"


def test_holm_steps_down_within_a_family():
    values = {"OW1": 4.0, "OW2": 3.0, "OW3": -2.5, "OW4": 2.1}
    table = decide.decide({name: cells(value, 1) for name, value in values.items()})
    of = table.set_index("id").loc[["OW1", "OW2", "OW3", "OW4", "OW5"]]
    assert of["p_holm"].to_numpy() == pytest.approx(holm(of["p"]))
    assert of["verdict"].tolist() == [*["holds"] * 4, "undecided"]
    assert of["corrected"].tolist() == [*["holds"] * 3, "undecided", "undecided"]


def test_an_equivalent_claim_is_corrected_against_its_margin():
    clear = row(decide.decide({"UP01": cells(0.5, 0.1)}), "UP01")
    assert clear["verdict"] == clear["corrected"] == "equivalent" and clear["p"] < 1e-5
    narrow = row(decide.decide({"UP01": cells(0.0, 1.2)}), "UP01")  # 2.2 errors from the margin
    assert narrow["verdict"] == "equivalent" and narrow["corrected"] == "undecided"
    assert narrow["p_inside_holm"] == pytest.approx(17 * narrow["p_inside"])


def test_reasons():
    table = decide.decide(
        {
            "UP01": cells(1, 1),
            "UP02": [Cell("aircraft", around(1, 3, 1e6, 9, images=9.0))],
            "UP03": [Cell("flowers", around(1, np.inf, 0, 1))],
            "UP04": cells(1, 1, "flowers", floor=True),
            "UP12": "the probes' curves do not overlap",
            "UP11": [*cells(9, 1), *cells(8, 1, "flowers"), *cells(0, 1, "cars", floor=True)],
        }
    )
    first = row(table, "UP01")
    assert first["reason"] == f"about {first['needed']:.0f} seeds" and 9 < first["needed"] < 99
    assert (
        row(table, "UP02")["reason"] == "more test images"
        and row(table, "UP02")["needed"] == np.inf
    )
    assert row(table, "UP03")["reason"] == "spread not known"
    assert (
        row(table, "UP04")["reason"] == "near chance, the ceiling or the unadapted model: flowers"
    )
    for name in ("UP04", "UP12"):
        assert row(table, name)["verdict"] == row(table, name)["corrected"] == "not testable here"
    assert row(table, "UP12")["reason"] == "the probes' curves do not overlap"
    assert row(table, "UP11")["verdict"] == "holds" and row(table, "UP11")["cell"] == "flowers"
    assert "model: cars" in row(table, "UP11")["reason"]


def test_errors():
    with pytest.raises(StudyError, match="UP01"):
        decide.decide({"UP1": cells(1, 1)})
    with pytest.raises(StudyError, match="claim UP01: 2 cells"):
        decide.decide({"UP01": cells(1, 1) * 2})


def test_notebooks_add_their_rows(world, tmp_path):
    decide.record(world, {"UP01": cells(9, 1), "UP02": cells(2.9, 1), "UP15": cells(-9, 1) * 2})
    table = decide.record(world, {"RB01": cells(0.2, 0.01), "UP03": cells(2.878, 1)})
    kept = pd.read_csv(tmp_path / "smoke" / "claims.csv", dtype={"sign": str})
    assert len(kept) == len(CLAIMS) and list(kept) == decide.COLUMNS
    assert kept["verdict"].tolist() == table["verdict"].tolist()
    assert [row(kept, name)["verdict"] for name in ("UP01", "UP15", "RB01")] == ["holds"] * 3
    # Holm is over all that any notebook found: two smaller p lie before the third.
    assert row(table, "UP03")["p_holm"] > row(table, "UP02")["p_holm"]
    assert row(table, "UP03")["p_holm"] == pytest.approx(14 * row(table, "UP03")["p"], rel=1e-4)
    # A second run of a notebook replaces what it said before.
    again = decide.record(world, {"UP01": cells(-9, 1)})
    assert row(again, "UP01")["verdict"] == "reversed"
    assert row(again, "RB01")["verdict"] == "holds"


def test_rows_of_another_declaration_do_not_stay(world, tmp_path):
    decide.record(world, {"UP01": cells(9, 1), "UP02": cells(9, 1)})
    path = tmp_path / "smoke" / "claims.csv"
    kept = pd.read_csv(path, dtype={"sign": str})
    kept.loc[0, "margin"] = 99
    kept.to_csv(path, index=False)
    table = decide.record(world, {})
    assert row(table, "UP01")["verdict"] == "undecided" and row(table, "UP02")["verdict"] == "holds"
    path.write_text("id\nUP01\n")
    with pytest.raises(StudyError, match="cannot read"):
        decide.record(world, {})


def test_the_claims_figure():
    estimates = {"UP01": cells(5.3, 1), "UP19": cells(-6, 1), "UP02": cells(0, np.inf, seeds=1)}
    table = decide.decide(estimates)
    fig, left_out = plots.claims(table, "Unmet Promise")
    ax = fig.axes[0]
    texts = [text.get_text() for text in ax.texts]
    assert sum(text.startswith("UP") for text in texts) == 25
    assert "UP25: the pool plants" in left_out and "UP27" in left_out and "UP01" not in left_out
    marked = {round(line.get_ydata()[0]): line for line in ax.lines if line.get_marker() != "None"}
    assert marked[0].get_xdata()[0] == pytest.approx(2)  # 5.3 points at a margin of 2.65
    assert marked[18].get_xdata()[0] == pytest.approx(3)  # a fall, as claimed, is to the right
    assert marked[0].get_markerfacecolor() != "white" == marked[1].get_markerfacecolor()
    assert all(np.isfinite(line.get_xdata()).all() for line in ax.lines)
    assert set(marked) == {0, 1, 18}  # what was not run has a name and no mark
    plt.close(fig)
    fig, left_out = plots.claims(table, "This study")
    assert not left_out and len(fig.axes[0].patches) == 6
    plt.close(fig)


def fields(values, generator="long"):
    """Fields of a map: (retrieved, synthetic) -> (gain, standard error)."""
    rows = []
    for (retrieved, synthetic), (value, se) in values.items():
        found = around(value, se, 20, 10)._asdict()
        about = {"task": "cars", "generator": generator, "retrieved": retrieved}
        rows.append({**about, "synthetic": synthetic, **found})
    return pd.DataFrame(rows)


def test_advice_is_the_largest_gain_of_the_nearest_row():
    map_of = fields(
        {(0, 60): (9, 1), (0, 240): (12, 1), (240, 60): (0.1, 0.2), (240, 240): (-5, 1)}
    )
    none = decide.recommend(map_of, "cars", 0, "long", 2)
    expected = {"task": "cars", "yours": 0, "retrieved": 0, "synthetic": 240, "so": "add them"}
    assert expected.items() <= none.items() and none["sure"] > 0.99 and none["gain"] == 12
    some = decide.recommend(map_of, "cars", 200, "long", 2)
    expected = {"yours": 200, "retrieved": 240, "synthetic": 0, "so": "no need"}
    assert expected.items() <= some.items() and 0.3 < some["sure"] < 0.5, "picked among two"
    worse = decide.recommend(fields({(240, 60): (-5, 1)}), "cars", 240, "long", 2)
    assert worse["so"] == "do not" and worse["sure"] < 0.01
    unsure = decide.recommend(fields({(240, 60): (2, 3)}), "cars", 240, "long", 2)
    assert unsure["so"] == "test it" and unsure["low"] < 0 < unsure["high"]
    little = decide.recommend(fields({(240, 60): (-1, 0.9)}), "cars", 240, "long", 2)
    assert little["so"] == "no need" and little["low"] < -2 < 0 < little["high"] < 2
    one_may = decide.recommend(
        fields({(240, 60): (0.1, 0.2), (240, 240): (2, 3)}), "cars", 240, "long", 2
    )
    assert one_may["so"] == "test it", "another field of the row may yet matter"
    assert one_may["synthetic"] == 240, "the one to try"
    two = {(240, 60): (1.9, 0.2), (240, 240): (9, 6)}
    sure = decide.recommend(fields(two), "cars", 240, "long", 2)
    assert sure["so"] == "add them" and sure["synthetic"] == 60, "rather than a lucky field"
    mixed = decide.recommend(
        fields({(240, 60): (-5, 1), (240, 240): (-9, 1)}), "cars", 240, "long", 2
    )
    assert mixed["so"] == "do not" and mixed["synthetic"] == 0 and mixed["gain"] == -5
    corrected = {(240, n): (2.2, 1) for n in (60, 120, 240, 480)}
    assert decide.recommend(fields(corrected), "cars", 240, "long", 2)["so"] == "test it"


def test_advice_counts_real_images_apart():
    both = pd.concat([fields({(0, 60): (9, 1)}), fields({(0, 60): (-9, 1)}).assign(real=5)])
    both = both.fillna({"real": 0})
    assert decide.recommend(both, "cars", 0, "long", 2)["so"] == "add them"
    assert decide.recommend(both, "cars", 0, "long", 2, real=5)["so"] == "do not"
    with pytest.raises(StudyError, match=r"real of the map.*2.*Valid: "):
        decide.recommend(both, "cars", 0, "long", 2, real=2)


def test_what_only_a_correction_opens_says_what_it_would_take():
    family = TESTABLE[TESTABLE["holm"] == "OW1-5"]["id"]
    estimates = {name: cells(0.0, 1.0, seeds=9) for name in family}
    name = "OW4"
    estimates[name] = [Cell("aircraft", around(4.4, 2.0, 60, 20))]
    found = row(decide.decide(estimates), name)
    assert found["verdict"] == "holds" and found["corrected"] == "undecided"
    assert found["needed"] > 20 and found["reason"].startswith("about ")
    alone = row(decide.decide({name: [Cell("aircraft", around(9.0, 2.0, 60, 20))]}), name)
    assert alone["corrected"] == "holds" and np.isnan(alone["needed"]) and not alone["reason"]


def test_verdicts_are_counted_plain_and_corrected():
    table = pd.DataFrame({"verdict": ["holds", "holds", "reversed"]})
    table["corrected"] = ["holds", "undecided", "reversed"]
    assert decide.counted(table) == "2 holds (1), 1 reversed (1), 0 undecided (1)"


@pytest.mark.parametrize("task, generator", [("boats", "long"), ("cars", "longest")])
def test_advice_without_a_map_is_refused(task, generator):
    with pytest.raises(StudyError, match=r"of the map '(boats|longest)'.* Valid: (cars|long)"):
        decide.recommend(fields({(0, 60): (9, 1)}), task, 10, generator, 2)
