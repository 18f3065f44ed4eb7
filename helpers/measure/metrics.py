"""Numbers computed from logits or features alone: calibration, OOD detection, Frechet distance.

[R] is *Is Synthetic Data all We Need?* (arXiv 2405.20469); the flaws of its released code are not
kept. ``logits`` are (n, classes), ``labels`` (n,); classes that do not fit raise ``StudyError``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.errors import StudyError

BINS = 20  # [R]


def frechet(real: np.ndarray, drawn: np.ndarray) -> float:
    """Frechet distance of two sets of features (n, d), by torchmetrics' FID."""
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    network = torch.nn.Identity()
    network.num_features = real.shape[1]  # type: ignore[assignment]  # read by torchmetrics
    metric = FrechetInceptionDistance(feature=network, normalize=False)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(drawn), real=False)
    return float(metric.compute())


def _checked(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The logits as float64. Raises ``StudyError`` where labels do not fit."""
    logits = np.asarray(logits, np.float64)
    labels = np.asarray(labels)
    if logits.ndim != 2 or labels.shape != (len(logits),) or not len(labels):
        raise StudyError(
            f"logits {logits.shape} and labels {labels.shape} were given; a probe wants "
            "(n, classes) and (n,), n > 0."
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise StudyError(
            f"labels {labels.min()} .. {labels.max()} were given for {logits.shape[1]} classes. "
            "Leave images of no class to the OOD probe, and map classes before a probe that has "
            "fewer."
        )
    return logits


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64."""
    from scipy.special import softmax

    return softmax(np.asarray(logits, np.float64), axis=-1)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy, 0..1."""
    return float((_checked(logits, labels).argmax(1) == labels).mean())


def nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    from scipy.special import log_softmax

    logs = log_softmax(_checked(logits, labels), axis=1)
    return float(-logs[np.arange(len(labels)), labels].mean())


def ece(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error of the top-1 confidence, 0..1, in bins of equal width [R]."""
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    p = torch.from_numpy(probabilities(_checked(logits, labels)))
    y = torch.from_numpy(np.asarray(labels, np.int64))
    return float(multiclass_calibration_error(p, y, p.shape[1], n_bins=bins, norm="l1"))


def adaptive_ece(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """The same in bins of equal mass: equally many images in each, in order of confidence."""
    p = probabilities(_checked(logits, labels))
    order = np.argsort(p.max(1), kind="stable")
    gap = (p.max(1) - (p.argmax(1) == labels))[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gap, bins)) / len(gap))


def classwise_ece(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Mean over classes of the calibration error of their probability, in bins of equal width."""
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    p = torch.from_numpy(probabilities(_checked(logits, labels)))
    y = torch.from_numpy(np.asarray(labels, np.int64))
    errors = [
        binary_calibration_error(column.contiguous(), (y == k).long(), n_bins=bins, norm="l1")
        for k, column in enumerate(p.T)
    ]
    return float(torch.stack(errors).mean())


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T > 0 that minimises the negative log-likelihood of softmax(logits / T)."""
    from scipy.optimize import minimize_scalar

    logits = _checked(logits, labels)
    best = minimize_scalar(
        lambda log_t: nll(logits / np.exp(log_t), labels), bounds=(-5, 5), method="bounded"
    )
    return float(np.exp(best.x))


def calibration(
    logits: np.ndarray, labels: np.ndarray, val_logits: np.ndarray, val_labels: np.ndarray
) -> dict[str, float]:
    """Every calibration measure, and again (``_scaled``) at the validation images' temperature."""
    t = temperature(val_logits, val_labels)
    values = {"error": 1 - accuracy(logits, labels), "temperature": t}
    ways = {"nll": nll, "ece": ece, "ece_adaptive": adaptive_ece, "ece_classwise": classwise_ece}
    for name, measure in ways.items():
        values[name] = measure(logits, labels)
        values[f"{name}_scaled"] = measure(np.asarray(logits) / t, labels)
    return values


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """A reliability diagram: a row per ``bin`` that has images.

    Columns mean ``confidence``, ``accuracy``, and ``share`` of the images, all 0..1.
    """
    p = probabilities(_checked(logits, labels))
    columns = {"confidence": p.max(1), "accuracy": p.argmax(1) == labels, "share": 1 / len(p)}
    table = pd.DataFrame(columns)
    table["bin"] = np.ceil(table["confidence"] * bins).astype(int) - 1  # closed on the right [R]
    ways = {"confidence": "mean", "accuracy": "mean", "share": "sum"}
    return table.groupby("bin").agg(ways).reset_index()


def ood_scores(logits: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (n,), high for what a model knows: minus entropy [R], softmax, minus energy."""
    from scipy.special import entr, logsumexp

    p = probabilities(logits)
    energy = logsumexp(np.asarray(logits, np.float64), axis=1)
    return {"entropy": -entr(p).sum(1), "max_softmax": p.max(1), "energy": energy}


def ood_metrics(known: np.ndarray, unknown: np.ndarray) -> dict[str, float]:
    """How well a score tells known images, the positive class, from unknown ones, 0..1 [R]."""
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    if not len(known) or not len(unknown):
        raise StudyError(
            f"{len(known)} known and {len(unknown)} unknown images were given; OOD metrics need "
            "both."
        )
    truth = np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    score = np.r_[known, unknown]
    false, true, _ = roc_curve(truth, score, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(truth, score)),
        "aupr": float(average_precision_score(truth, score)),
        "fpr95": float(false[np.argmax(true >= 0.95)]),
    }
