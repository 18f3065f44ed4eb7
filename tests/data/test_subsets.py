"""Subsets: nested, balanced, evenly spread, best of a class."""

import numpy as np
import pandas as pd
import pytest

from helpers.data.subsets import (
    balanced,
    evenly_spread,
    nested_subset,
    repeated,
    thinned,
    top_share,
)
from helpers.data.tables import Split
from helpers.errors import StudyError


def test_nested_subsets_are_nested_and_balanced():
    labels = np.repeat([0, 1, 2], [50, 10, 30])
    subsets = {n: set(nested_subset(labels, n, np.random.default_rng(3))) for n in (6, 12, 24, 48)}
    assert subsets[6] < subsets[12] < subsets[24] < subsets[48]
    assert np.bincount(labels[list(subsets[24])]).tolist() == [8, 8, 8]
    assert np.bincount(labels[list(subsets[48])]).tolist() == [19, 10, 19]
    with pytest.raises(StudyError, match="only 90"):
        nested_subset(labels, 91, np.random.default_rng(0))


def test_a_balanced_part_has_every_class_even_if_they_stand_in_turns():
    labels = np.arange(1_400) % 14
    split = Split(np.arange(1_400).reshape(-1, 1, 1, 1), labels)
    assert np.bincount(thinned(split, 800).labels, minlength=14).min() == 0, "these positions alias"
    part = balanced(split, 800)
    counts = np.bincount(part.labels, minlength=14)
    assert counts.sum() == 800 and counts.min() == 57 and counts.max() == 58
    assert (np.diff(part.images.ravel()) > 0).all() and len(balanced(split, 5)) == 5
    assert (balanced(split, 800).images == part.images).all() and balanced(split, 1_400) is split


def test_top_share_per_class():
    scores, labels = np.array([0.9, 0.1, 0.5, 0.2, 0.3]), np.array([0, 0, 0, 1, 1])
    assert top_share(scores, labels, 0.3).tolist() == [True, False, False, False, True]
    assert top_share(scores, labels, 0.5).tolist() == [True, False, True, False, True]


@pytest.mark.parametrize("n, most", [(0, 3), (1, 1), (7, 3), (3, 7), (1_000, 17)])
def test_evenly_spread_positions_reach_from_end_to_end(n, most):
    positions = evenly_spread(n, most)
    assert len(positions) == min(n, most)
    if len(positions) > 1:
        gaps = np.diff(positions)
        assert positions[0] == 0
        assert positions[-1] == n - 1
        assert gaps.max() - gaps.min() <= 1


def test_a_split_is_thinned_only_where_it_is_longer():
    split = Split(np.arange(9 * 3).reshape(9, 1, 1, 3), np.arange(9))
    assert thinned(split, 9) is split
    assert thinned(split, 3).labels.tolist() == [0, 4, 8]


def test_repeated_rows_are_equally_many_of_each_class_and_of_each_row_within_one():
    labels = [0] * 3 + [1] * 5
    table = pd.DataFrame({"label": labels, "caption": list("abcdefgh")})
    rows = repeated(table, 24, np.random.default_rng(0))
    assert rows["label"].value_counts().to_dict() == {0: 12, 1: 12}
    counts = rows["caption"].value_counts()
    assert counts[list("abc")].tolist() == [4, 4, 4]
    assert sorted(counts[list("defgh")]) == [2, 2, 2, 3, 3]
    assert sorted(repeated(table, 6, np.random.default_rng(1))["label"]) == [0, 0, 0, 1, 1, 1]
    with pytest.raises(StudyError, match="no captions"):
        repeated(table[:0], 1, np.random.default_rng(0))
