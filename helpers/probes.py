"""Robustness probes as pure functions on logits or pixels, and the sets of images that they look at.

[R] is *Is Synthetic Data all We Need?* (arXiv 2405.20469); metrics are its metrics, the flaws of its released code are not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from helpers.pools import Split
from helpers.worlds import StudyError

BINS = 20  # [R]
IMAGE_SPACE = ("shot_noise", "motion_blur", "snow", "pixelate", "jpeg")  # the five of ImageNet-C in [R]
DEPTH_AWARE = ("near_focus", "far_focus", "fog_3d")  # three of the five of 3DCC in [R]
SEVERITIES = (1, 2, 3, 4, 5)
PUBLISHED = ("training", "prompt", "n", "top1", "loss", "ece", "family")  # columns of published numbers


@dataclass(frozen=True)
class ProbeSets:
    """Images for the probes of one task, all of one size and made in one way.

    ``sets``: name -> labelled images. ``original`` are test images; ``mixed_same``, ``mixed_rand``, ``renditions``,
    ``context_0`` .. ``context_2`` and ``{corruption}-{severity}`` are the same ones changed; ``ood_near`` and ``ood_far`` (label
    -1) belong to no class; ``cue_conflict`` has the columns ``shape`` and ``texture`` in its facts, and is left out where
    the task's texture says nothing about the class. ``groups``: class x {``shape``, ``texture``}, for the cue conflict.
    Published sets also have ``among``, the classes that a model chooses among in a set, and ``groupings``, the category of
    every class where a set's labels are categories; -1 for none, which is never right.
    """

    sets: Mapping[str, Split]
    groups: pd.DataFrame
    among: Mapping[str, np.ndarray] = field(default_factory=dict)
    groupings: Mapping[str, np.ndarray] = field(default_factory=dict)

    def chosen(self, name: str, logits: np.ndarray) -> np.ndarray:
        """Logits on a set without the classes that are not to be chosen there: cut before the softmax [R]."""
        if name not in self.among:
            return logits
        cut = np.full_like(logits, -np.inf)
        cut[:, self.among[name]] = logits[:, self.among[name]]
        return cut

    def accuracy(self, name: str, logits: np.ndarray) -> float:
        """Top-1 accuracy on a set, 0..1, by class or by category."""
        labels = self.sets[name].labels
        return float((self.groupings[name][logits.argmax(1)] == labels).mean()) if name in self.groupings else accuracy(logits, labels)


def _checked(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != (len(logits),) or not len(labels):
        raise StudyError(f"logits {logits.shape} and labels {labels.shape} were given; a probe wants (n, classes) and (n,), n > 0.")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise StudyError(f"labels {labels.min()} .. {labels.max()} were given for {logits.shape[1]} classes. Leave images of no "
                         "class to the OOD probe, and map classes before a probe that has fewer.")
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

    return float(-log_softmax(_checked(logits, labels), axis=1)[np.arange(len(labels)), labels].mean())


def ece(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error of the top-1 confidence, 0..1, in bins of equal width [R]."""
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, y = torch.from_numpy(probabilities(_checked(logits, labels))), torch.from_numpy(np.asarray(labels, np.int64))
    return float(multiclass_calibration_error(p, y, p.shape[1], n_bins=bins, norm="l1"))


def adaptive_ece(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """The same in bins of equal mass: as many images in each as can be, in order of confidence."""
    p = probabilities(_checked(logits, labels))
    order = np.argsort(p.max(1), kind="stable")
    gap = (p.max(1) - (p.argmax(1) == labels))[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gap, bins)) / len(gap))


def classwise_ece(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Mean over classes of the calibration error of that class's probability, 0..1, in bins of equal width."""
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    p, y = torch.from_numpy(probabilities(_checked(logits, labels))), torch.from_numpy(np.asarray(labels, np.int64))
    errors = [binary_calibration_error(p[:, k].contiguous(), (y == k).long(), n_bins=bins, norm="l1") for k in range(p.shape[1])]
    return float(torch.stack(errors).mean())


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T > 0 for which softmax(logits / T) has the smallest negative log-likelihood; fitted on validation images."""
    from scipy.optimize import minimize_scalar

    logits = _checked(logits, labels)
    found = minimize_scalar(lambda log_t: nll(logits / np.exp(log_t), labels), bounds=(-5, 5), method="bounded")
    return float(np.exp(found.x))


def calibration(logits: np.ndarray, labels: np.ndarray, val_logits: np.ndarray, val_labels: np.ndarray) -> dict[str, float]:
    """Every calibration measure, and again (``_scaled``) after temperature scaling fitted on the validation images."""
    t = temperature(val_logits, val_labels)
    rows = {"error": 1 - accuracy(logits, labels), "temperature": t}
    measures = {"nll": nll, "ece": ece, "ece_adaptive": adaptive_ece, "ece_classwise": classwise_ece}
    for name, measure in measures.items():
        rows |= {name: measure(logits, labels), f"{name}_scaled": measure(np.asarray(logits) / t, labels)}
    return rows


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """A reliability diagram: per bin with images ``bin``, mean ``confidence``, ``accuracy`` and ``share`` of the images, 0..1."""
    p = probabilities(_checked(logits, labels))
    table = pd.DataFrame({"confidence": p.max(1), "accuracy": p.argmax(1) == labels, "share": 1 / len(p)})
    table["bin"] = np.ceil(table["confidence"] * bins).astype(int) - 1  # closed on the right [R]
    return table.groupby("bin").agg(confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), share=("share", "sum")).reset_index()


def ood_scores(logits: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (n,) that are high for what a model knows: minus entropy [R], largest softmax, minus energy."""
    from scipy.special import entr, logsumexp

    p = probabilities(logits)
    return {"entropy": -entr(p).sum(1), "max_softmax": p.max(1), "energy": logsumexp(np.asarray(logits, np.float64), axis=1)}


def ood_metrics(known: np.ndarray, unknown: np.ndarray) -> dict[str, float]:
    """How well a score tells known images (positive class) from unknown ones: ``auroc``, ``aupr``, ``fpr95``, all 0..1 [R]."""
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    if not len(known) or not len(unknown):
        raise StudyError(f"{len(known)} known and {len(unknown)} unknown images were given; OOD metrics need both.")
    truth, score = np.r_[np.ones(len(known)), np.zeros(len(unknown))], np.r_[known, unknown]
    false, true, _ = roc_curve(truth, score, drop_intermediate=False)
    return {"auroc": float(roc_auc_score(truth, score)), "aupr": float(average_precision_score(truth, score)),
            "fpr95": float(false[np.argmax(true >= 0.95)])}


def fgsm(logits_of: Callable, x, y, radii: Sequence[float]) -> list:
    """One step along the sign of the gradient, for each size in ``radii``; pixels ``x`` (n, 3, s, s) and the results in 0..1."""
    direction = _gradient(logits_of, x, y)[0].sign()
    return [(x + eps * direction).clamp(0, 1) for eps in radii]


def pgd(logits_of: Callable, x, y, eps: float, steps: int, generator):
    """Projected gradient descent in the L-inf ball: random start, step 2.5 ``eps`` / ``steps``; per image the worst point met."""
    import torch

    if steps < 1 or eps < 0:
        raise StudyError(f"PGD was given {steps} steps and eps {eps}; it wants at least one step and eps >= 0.")
    noise = 2 * torch.rand(x.shape, generator=generator).to(x.device) - 1
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    at = (x + eps * noise).clamp(0, 1)
    worst, highest = at, torch.full((len(x),), -torch.inf, device=x.device)
    for step in range(steps + 1):
        gradient, loss = _gradient(logits_of, at, y, step < steps)
        worst = torch.where((loss >= highest)[:, None, None, None], at, worst)
        highest = torch.maximum(loss, highest)
        if step < steps:
            at = (at + 2.5 * eps / steps * gradient.sign()).clamp(low, high)
    return worst


def _gradient(logits_of: Callable, x, y, wanted: bool = True):
    """Gradient at ``x``, where it is wanted, and each image's loss."""
    import torch

    with torch.set_grad_enabled(wanted):
        x = x.detach().requires_grad_(wanted)
        loss = torch.nn.functional.cross_entropy(logits_of(x).float(), y, reduction="none")
        return torch.autograd.grad(loss.sum(), x)[0] if wanted else None, loss.detach()


def shape_bias(answers: np.ndarray, facts: pd.DataFrame, groups: pd.DataFrame) -> dict[str, float]:
    """Which cue the answers follow in images whose shape and texture point to different classes [R].

    ``answers`` (n,) are class positions in ``groups``; ``facts`` holds what each image shows, as the groups ``shape`` and
    ``texture``. Returns the shares ``shape_hits`` and ``texture_hits``, and ``shape_bias`` = shape / (shape + texture) where
    there is a hit. Raises ``StudyError`` on an image that a class satisfies in both: there is no conflict in it.
    """
    both = set(zip(groups["shape"], groups["texture"], strict=True))
    without = [pair for pair in zip(facts["shape"], facts["texture"], strict=True) if pair in both]
    if without:
        raise StudyError(f"{len(without)} images are no cue conflict, {without[0]} among them: a class has that shape and that texture. "
                         "Leave them out.")
    shape, texture = ((groups[cue].to_numpy()[answers] == facts[cue].to_numpy()) for cue in ("shape", "texture"))
    hits = {"shape_hits": float(shape.mean()), "texture_hits": float(texture.mean())}
    total = hits["shape_hits"] + hits["texture_hits"]
    return {**hits, **({"shape_bias": hits["shape_hits"] / total} if total else {})}
