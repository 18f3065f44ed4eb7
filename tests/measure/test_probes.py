"""Shape bias and probe sets by hand."""

import numpy as np
import pandas as pd
import pytest

from helpers.errors import StudyError
from helpers.measure import metrics

GROUPS = pd.DataFrame(
    {"shape": ["5", "5", "6"], "texture": ["red", "white", "red"]}, index=["a", "b", "c"]
)


def test_shape_bias_by_hand():
    facts = pd.DataFrame({"shape": ["6"] * 4, "texture": ["white"] * 4})
    assert metrics.shape_bias(np.array([2, 2, 2, 1]), facts, GROUPS) == {
        "shape_hits": 0.75,
        "texture_hits": 0.25,
        "shape_bias": 0.75,
    }
    assert "shape_bias" not in metrics.shape_bias(np.array([0, 0, 0, 0]), facts, GROUPS)
    with pytest.raises(StudyError, match="no cue conflict"):
        metrics.shape_bias(
            np.array([0]), pd.DataFrame({"shape": ["5"], "texture": ["red"]}), GROUPS
        )
