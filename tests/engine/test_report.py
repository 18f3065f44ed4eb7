"""Sentences computed from results say what the numbers say."""

import pandas as pd
import pytest

from helpers.engine import report

GAPS = pd.DataFrame(
    {"task": ["aircraft", "cars"], "mean": [1.25, -2.0], "low": [-0.3, -3.0], "high": [2.8, -1.0]}
)


def test_text_leaves_out_empty_paragraphs():
    assert report.text("One.", "", "Two.").data == "One.\n\nTwo."


def test_bullets_stand_below_their_title():
    assert report.bullets(["a", "b"], "Two:").data == "Two:\n\n- a\n- b"
    assert report.bullets(line for line in ("a",)).data == "- a"
    assert report.bullets([]).data == ""


def test_a_table_has_a_header_a_rule_and_a_line_per_row():
    shown = report.table(pd.DataFrame({"claim": ["it holds"], "holds here?": ["yes"]})).data
    assert shown == "| claim | holds here? |\n| --- | --- |\n| it holds | yes |"
    assert report.table(pd.DataFrame(columns=["claim"])).data == "| claim |\n| --- |"


def test_every_row_fills_the_template():
    assert report.rows(GAPS, "{task}: {mean:+.1f}") == ["aircraft: +1.2", "cars: -2.0"]
    assert report.rows(GAPS.iloc[:0], "{task}") == []
    with pytest.raises(KeyError, match="tsk"):
        report.rows(GAPS, "{tsk}")


def test_rows_keep_whole_numbers_whole():
    mixed = pd.DataFrame({"n": [1024], "accuracy": [0.5]})
    assert report.rows(mixed, "{n:,} images: {accuracy:.0%}") == ["1,024 images: 50%"]


def test_names_with_their_values():
    assert report.each({"class": 0.25, "relation": 0.5}) == "class 25%, relation 50%"
    counts = pd.Series({("cars", "Audi"): 3})
    assert report.each(counts, "{0[1]}: {1}", "; ") == "Audi: 3"


def test_absence_has_a_word():
    assert report.listed([1, "b"]) == "1, b"
    assert report.listed([]) == "none"
    assert report.listed([], "no family") == "no family"


def test_words_of_a_name():
    assert report.words("zero_shot") == "zero-shot"
    assert report.words("linear_probe") == "linear probe"


def test_points_carry_signs_and_an_interval():
    assert report.rows(GAPS[:1], report.POINTS) == ["+1.2 points (-0.3 to +2.8)"]


def test_a_prediction_is_kept_until_it_is_settled():
    control = report.predict("grows", "shrinks")
    assert report.settle(control, "grows").data == "This world found *grows*."
    control.value = "shrinks"
    assert "You predicted *shrinks*; this world" in report.settle(control, "grows").data


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 2, "real"), (-2, -0.1, "drawn"), (-1, 1, "includes"), (0, 1, "includes")],
)
def test_a_verdict_follows_from_the_interval(low, high, said):
    assert said in report.verdict(low, high, "real", "drawn")
