"""The README's answer is what the table of claims says, and nothing else in it changes."""

import shutil

import pandas as pd
import pytest

from helpers import answers
from helpers.engine import places
from helpers.errors import StudyError
from helpers.study import decide

COMMITTED = places.TOP / "figures"
PART = "the answer"


def write(top, figures):
    """Write the answer into a README as the runner does."""
    answers.write(top / "README.md", PART, answers.answer(figures, "figures/"))


@pytest.fixture
def top(tmp_path):
    """A README with markers, and pocket's committed claims."""
    readme = tmp_path / "README.md"
    start, end = (
        f"<!-- {words} -->" for words in (f"{PART}: written by helpers.run", f"end of {PART}")
    )
    readme.write_text(f"# Title\n\n{start}\noutdated\n{end}\n\nThe rest.\n")
    (tmp_path / "figures" / "pocket").mkdir(parents=True)
    shutil.copy(COMMITTED / "pocket" / "claims.csv", tmp_path / "figures" / "pocket")
    return tmp_path


def test_the_answer_says_what_the_table_says(top):
    claims = pd.read_csv(top / "figures/pocket/claims.csv", dtype={"sign": str}).set_index("id")
    write(top, top / "figures")
    text = (top / "README.md").read_text()
    assert (
        text.startswith("# Title\n\n") and text.endswith("The rest.\n") and "outdated" not in text
    )
    row = claims.loc["UP01"]
    assert f" each | **{row['value']:+.1f}** ({row['low']:+.1f} to {row['high']:+.1f})" in text
    words = " ".join(text.split())
    for word, count in claims["verdict"].value_counts().items():
        assert f"{count} {word} ({(claims['corrected'] == word).sum()})" in words
    (of_paper,) = (line for line in answers.by_paper(top / "figures") if "Unmet" in line)
    holding = claims.query("paper == 'Unmet Promise' and verdict == 'holds'")
    assert f"{len(holding)} holds (" in of_paper
    turned = claims.loc[claims["corrected"] == "reversed", "claim"].str.removesuffix(".")
    assert f"*{turned.iloc[0]}* (" in words
    assert (f"; {len(turned) - 1} more in the report" in words) == (len(turned) > 1)
    report = answers.against(top / "figures")
    for word, head in answers.HEADS.items():
        rows = claims.loc[claims["corrected"] == word, "claim"].str.removesuffix(".")
        start = report.index(f"| {word.capitalize()} | {head} |") + 2
        listed = [line.split(" | ")[0] for line in report[start : start + len(rows)]]
        assert listed == [f"| {claim}" for claim in rows]
    write(top, top / "figures")
    assert (top / "README.md").read_text() == text


def test_the_world_that_decides_comes_first_where_it_has_run(top):
    table = pd.read_csv(top / "figures/pocket/claims.csv", dtype={"sign": str})
    (top / "figures" / "desk").mkdir()
    table["value"] = table["value"].where(table["id"] != "UP01", 99.0)
    table["reason"] = table["reason"].where(table["id"].isin(["UP01", "UP02"]), decide.NOT_RUN)
    table.to_csv(top / "figures/desk/claims.csv", index=False)
    claims = answers.decided(top / "figures")
    assert [i for i, row in claims.items() if row["world"] == "desk"] == ["UP01", "UP02"]
    write(top, top / "figures")
    text = " ".join((top / "README.md").read_text().split())
    assert "**+99.0**" in text
    assert f"{len(table) - 2} of [pocket]" in text and "2 of [desk]" in text


def test_a_readme_without_markers_is_named(top):
    (top / "README.md").write_text("# Title\n")
    with pytest.raises(StudyError, match="lacks the line"):
        write(top, top / "figures")


def test_the_committed_answer_is_that_of_the_committed_claims(tmp_path):
    shutil.copy(places.TOP / "README.md", tmp_path)
    write(tmp_path, COMMITTED)
    assert (tmp_path / "README.md").read_text() == (places.TOP / "README.md").read_text()
