"""Linear probes find the optimum that scikit-learn finds."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from helpers.models import linear


@pytest.mark.parametrize("penalty", [1e-3, 1e-2])
def test_linear_probe_agrees_with_scikit_learn(penalty):
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=150)
    x = (np.eye(3)[labels] @ rng.normal(size=(3, 8)) + rng.normal(size=(150, 8))).astype(np.float32)
    weight, bias = next(linear.linear_probes((x, labels), 3, [penalty]))
    other = LogisticRegression(C=1 / (150 * penalty), max_iter=2_000, tol=1e-8).fit(x, labels)
    centred = weight - weight.mean(0)
    assert np.allclose(centred, other.coef_ - other.coef_.mean(0), atol=5e-3)
    assert np.allclose(bias - bias.mean(), other.intercept_ - other.intercept_.mean(), atol=5e-3)
    accuracy = linear.accuracy_of(x, weight, bias, labels)
    assert accuracy == pytest.approx(other.score(x, labels), abs=0.01)


@pytest.mark.parametrize("far", [0, 30])
def test_the_whole_path_is_optimal_however_badly_scaled_the_features_are(far):
    rng = np.random.default_rng(1)
    labels = rng.integers(4, size=200)
    clusters = rng.normal(size=(4, 12))[labels] + rng.normal(size=(200, 12))
    x = far + clusters * np.logspace(0, -1.5, 12)

    def objective(weight, bias, penalty):
        logits = x @ weight.T + bias
        loss = np.logaddexp.reduce(logits, 1) - logits[np.arange(200), labels]
        return loss.mean() + penalty / 2 * np.square(weight).sum()

    penalties = (1e-2, 1e-3, 1e-4, 1e-5)
    solutions = linear.linear_probes((x.astype(np.float32), labels), 4, penalties)
    for penalty, solution in zip(penalties, solutions, strict=True):
        other = LogisticRegression(
            C=1 / (200 * penalty), max_iter=20_000, tol=1e-9, solver="newton-cg"
        ).fit(x, labels)
        best = objective(other.coef_, other.intercept_, penalty)
        assert objective(*solution, penalty) < best + 1e-5
