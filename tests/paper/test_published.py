"""The published points of notebook 06."""

from helpers import paper, pocket, worlds


def test_published_points_are_complete_and_marked_by_family():
    table = paper.published(worlds.get("paper"))
    assert table.groupby("family").size().to_dict() == {"language-supervised": 12, "supervised": 12}
    one = table[(table["prompt"] == "captions") & (table["n"] == 16_000_000)].iloc[0]
    assert (one["top1"], one["loss"]) == (0.604, 1.81)
    assert table["top1"].between(0, 1).all()
    rendered = pocket.published(worlds.get("smoke"))
    assert not len(rendered)
    assert list(rendered) == list(table)
