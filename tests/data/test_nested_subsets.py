"""Which rows are taken: nested and balanced subsets, the best share of each class."""

import numpy as np
import pytest

from helpers.data.subsets import nested_subset, top_share
from helpers.errors import StudyError


def test_nested_subsets_are_nested_and_balanced():
    labels = np.repeat([0, 1, 2], [50, 10, 30])
    subsets = {n: set(nested_subset(labels, n, np.random.default_rng(3))) for n in (6, 12, 24, 48)}
    assert subsets[6] < subsets[12] < subsets[24] < subsets[48]
    assert np.bincount(labels[list(subsets[24])]).tolist() == [8, 8, 8]
    assert np.bincount(labels[list(subsets[48])]).tolist() == [19, 10, 19]
    with pytest.raises(StudyError, match="only 90"):
        nested_subset(labels, 91, np.random.default_rng(0))


def test_top_share_per_class():
    scores, labels = np.array([0.9, 0.1, 0.5, 0.2, 0.3]), np.array([0, 0, 0, 1, 1])
    assert top_share(scores, labels, 0.3).tolist() == [True, False, False, False, True]
    assert top_share(scores, labels, 0.5).tolist() == [True, False, True, False, True]
