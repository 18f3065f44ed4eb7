"""How many images of one source reach the accuracy of another."""

import pandas as pd
import pytest

from helpers.study import finetune


def test_matching_size_interpolates_in_log_size():
    accuracies = ((100, 0.2), (200, 0.4), (400, 0.5))
    rows = [("t", "synthetic", n, 0, "zero_shot", a) for n, a in accuracies]
    table = pd.DataFrame(rows, columns=["task", "source", "n", "seed", "metric", "accuracy"])
    assert finetune.matching_size(table, "t", "zero_shot", 0.3) == pytest.approx(100 * 2**0.5)
    assert finetune.matching_size(table, "t", "zero_shot", 0.6) == float("inf")
