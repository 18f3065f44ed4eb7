"""Calibration, OOD detection and Frechet distance against answers known by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from helpers.errors import StudyError
from helpers.measure import metrics


@pytest.fixture(scope="module")
def guesses():
    """Logits of a calibrated guesser, (n, 5), and labels drawn from its own probabilities."""
    rng = np.random.default_rng(0)
    logits = 1.5 * rng.normal(size=(20_000, 5))
    drawn = (metrics.probabilities(logits).cumsum(1) > rng.random((len(logits), 1))).argmax(1)
    return logits, drawn


def test_ece_by_hand():
    logits = np.log([[0.92, 0.08], [0.92, 0.08], [0.62, 0.38], [0.38, 0.62]])
    assert metrics.ece(logits, np.array([0, 1, 0, 0])) == pytest.approx(
        0.5 * (0.92 - 0.5) + 0.5 * (0.62 - 0.5)
    )
    assert metrics.ece(logits, np.array([0, 0, 0, 1])) == pytest.approx(0.5 * 0.08 + 0.5 * 0.38)


def test_adaptive_ece_by_hand():
    logits, labels = (
        np.log([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]]),
        np.array([0, 1, 0, 0]),
    )
    pairs = abs(0.9 + 0.8 - 1) + abs(0.7 + 0.6 - 1)  # the two most and the two least confident
    assert metrics.adaptive_ece(logits, labels, bins=2) == pytest.approx(pairs / 4)


def test_ece_agrees_with_torchmetrics_and_with_a_loop(guesses):
    logits, labels = guesses[0][:500], guesses[1][:500]
    p = metrics.probabilities(logits)
    other = MulticlassCalibrationError(5, n_bins=20, norm="l1")(
        torch.from_numpy(p), torch.from_numpy(labels)
    )
    confidence, right, total = p.max(1), p.argmax(1) == labels, 0.0
    for low in np.arange(20) / 20:
        inside = (confidence > low) & (confidence <= low + 0.05)
        total += abs(confidence[inside].sum() - right[inside].sum()) / len(p)
    assert (
        metrics.ece(logits, labels)
        == pytest.approx(float(other), abs=1e-6)
        == pytest.approx(total, abs=1e-6)
    )


def test_a_calibrated_guesser_has_no_calibration_error(guesses):
    for measure in (metrics.ece, metrics.adaptive_ece):
        assert measure(*guesses) < 0.015 < measure(4 * guesses[0], guesses[1])


def test_temperature_undoes_a_wrong_scale(guesses):
    logits, labels = guesses
    assert metrics.temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    made = metrics.calibration(
        3 * logits[:5_000], labels[:5_000], 3 * logits[5_000:], labels[5_000:]
    )
    assert made["ece_scaled"] < 0.03 < made["ece"] and made["nll_scaled"] < made["nll"]
    assert made["error"] == pytest.approx(1 - metrics.accuracy(logits[:5_000], labels[:5_000]))


def test_reliability_diagram_sums_to_the_ece(guesses):
    table = metrics.reliability(*guesses)
    assert table["share"].sum() == pytest.approx(1)
    assert (
        (table["confidence"] - table["accuracy"]).abs() * table["share"]
    ).sum() == pytest.approx(metrics.ece(*guesses), abs=1e-6)


def test_ood_metrics_by_hand_and_against_torchmetrics():
    rng = np.random.default_rng(1)
    known, unknown = rng.normal(1, 1, 300), rng.normal(0, 1, 200)
    made = metrics.ood_metrics(known, unknown)
    score, truth = torch.from_numpy(np.r_[known, unknown]), torch.tensor([1] * 300 + [0] * 200)
    assert made["auroc"] == pytest.approx(float(binary_auroc(score.sigmoid(), truth)), abs=1e-6)
    assert made["aupr"] == pytest.approx(
        float(binary_average_precision(score.sigmoid(), truth)), abs=1e-6
    )
    assert made["fpr95"] == pytest.approx(
        (unknown >= np.sort(known)[15]).mean()
    )  # 285 of 300 are at or above it
    assert metrics.ood_metrics(np.ones(4), np.zeros(4)) == {"auroc": 1, "aupr": 1, "fpr95": 0}
    same = metrics.ood_metrics(known, known)
    assert same["auroc"] == pytest.approx(0.5) and same["fpr95"] >= 0.95


def test_all_ood_scores_are_higher_for_the_sure():
    for scores in metrics.ood_scores(np.array([[8.0, 0, 0], [1, 1, 1]])).values():
        assert scores[0] > scores[1]
    assert metrics.ood_scores(np.zeros((1, 4)))["entropy"][0] == pytest.approx(-np.log(4))


def test_frechet_of_shifted_gaussians():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(4_000, 4)).astype(np.float32)
    second = rng.normal(size=(4_000, 4)).astype(np.float32)
    assert metrics.frechet(first, second) < 0.05
    second[:, 0] += 2
    assert metrics.frechet(first, second) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: metrics.ece(np.zeros((3, 2)), np.array([0, 1, -1])),
            "labels -1 .. 1 were given for 2 classes",
        ),
        (lambda: metrics.accuracy(np.zeros((3, 2)), np.array([0, 1])), r"wants \(n, classes\)"),
        (lambda: metrics.ood_metrics(np.zeros(3), np.zeros(0)), "0 unknown images"),
    ],
)
def test_messages_say_what_is_valid(call, message):
    with pytest.raises(StudyError, match=message):
        call()
