"""Numbers computed from predictions: calibration, OOD detection, shape bias, Frechet distance.

[R] is *Is Synthetic Data all We Need?* (arXiv 2405.20469); the flaws of its released code are not
kept. ``logits`` are (n, classes), ``labels`` (n,); classes that do not fit raise ``StudyError``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from helpers.data.tables import Split
from helpers.engine.late import scipy, sklearn, torch
from helpers.errors import StudyError

BINS = 20  # [R]
# Five corruptions of ImageNet-C, three of the five of 3DCC, and how strong they are [R].
IMAGE_SPACE = ("shot_noise", "motion_blur", "snow", "pixelate", "jpeg")
DEPTH_AWARE = ("near_focus", "far_focus", "fog_3d")
SEVERITIES = (1, 2, 3, 4, 5)
PUBLISHED = ("training", "prompt", "n", "top1", "loss", "ece", "family")  # columns of a table


def frechet(real: np.ndarray, drawn: np.ndarray) -> float:
    """Frechet distance of two sets of features (n, d), by torchmetrics' FID."""
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
    if logits.ndim != 2 or labels.shape != (len(logits),) or not len(labels):
        shapes = f"logits {logits.shape} and labels {labels.shape} were given"
        raise StudyError(f"{shapes}; a metric wants (n, classes) and (n,), n > 0.")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        given = f"labels {labels.min()} .. {labels.max()} were given for {logits.shape[1]} classes"
        raise StudyError(f"{given}; leave images of no class to OOD detection.")
    return logits


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64."""
    return scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy, 0..1."""
    return float((_checked(logits, labels).argmax(1) == labels).mean())


def nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    logs = scipy.special.log_softmax(_checked(logits, labels), axis=1)
    return float(-logs[np.arange(len(labels)), labels].mean())


def ece(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error of the top-1 confidence, 0..1, in bins of equal width [R]."""
    table = reliability(logits, labels, bins)
    return float((table["share"] * (table["confidence"] - table["accuracy"]).abs()).sum())


def adaptive_ece(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """The same in bins of equal mass: equally many images in each, in order of confidence."""
    p = probabilities(_checked(logits, labels))
    gap = (p.max(1) - (p.argmax(1) == labels))[p.max(1).argsort(kind="stable")]
    return float(sum(abs(part.sum()) for part in np.array_split(gap, bins)) / len(gap))


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T > 0 that minimises the negative log-likelihood of softmax(logits / T)."""

    def loss(log_t: float) -> float:
        return nll(np.asarray(logits, np.float64) / np.exp(log_t), labels)

    best = scipy.optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded")
    return float(np.exp(best.x))


def calibration(
    logits: np.ndarray, labels: np.ndarray, val_logits: np.ndarray, val_labels: np.ndarray
) -> dict[str, float]:
    """Every calibration measure, and again (``_scaled``) at the validation images' temperature."""
    t = temperature(val_logits, val_labels)
    values = {"error": 1 - accuracy(logits, labels), "temperature": t}
    for name, measure in {"nll": nll, "ece": ece, "ece_adaptive": adaptive_ece}.items():
        values[name] = measure(logits, labels)
        values[f"{name}_scaled"] = measure(np.asarray(logits) / t, labels)
    return values


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Mean ``confidence``, ``accuracy`` and ``share`` of images, 0..1, per ``bin`` that has any."""
    p = probabilities(_checked(logits, labels))
    table = pd.DataFrame({"confidence": p.max(1), "accuracy": p.argmax(1) == labels})
    number = np.ceil(table["confidence"] * bins).astype(int) - 1  # closed on the right [R]
    share = number.value_counts(normalize=True)
    return table.groupby(number.rename("bin")).mean().assign(share=share).reset_index()


def ood_scores(logits: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (n,), high for what a model knows: minus entropy [R], softmax, minus energy."""
    p = probabilities(logits)
    energy = scipy.special.logsumexp(np.asarray(logits, np.float64), axis=1)
    return {"entropy": -scipy.special.entr(p).sum(1), "max_softmax": p.max(1), "energy": energy}


def ood_metrics(known: np.ndarray, unknown: np.ndarray) -> dict[str, float]:
    """How well a score tells known images, the positive class, from unknown ones, 0..1 [R]."""
    if not len(known) or not len(unknown):
        given = f"{len(known)} known and {len(unknown)} unknown images"
        raise StudyError(f"OOD metrics need both kinds of images; {given} were given.")
    truth = np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    score = np.r_[known, unknown]
    false, true, _ = sklearn.metrics.roc_curve(truth, score, drop_intermediate=False)
    return {
        "auroc": float(sklearn.metrics.roc_auc_score(truth, score)),
        "aupr": float(sklearn.metrics.average_precision_score(truth, score)),
        "fpr95": float(false[np.argmax(true >= 0.95)]),
    }


@dataclass(frozen=True)
class ProbeSets:
    """Images for the probes of one task, all of one size and made in one way.

    Of ``sets``, ``original`` are test images; ``mixed_same``, ``mixed_rand``, ``renditions``,
    ``context_0`` .. ``context_2`` and ``{corruption}-{severity}`` are the same ones changed;
    ``ood_near`` and ``ood_far`` (label -1) belong to no class; ``cue_conflict`` has ``shape`` and
    ``texture`` in its facts, and is left out where texture says nothing about the class.
    """

    sets: Mapping[str, Split]
    groups: pd.DataFrame  # class x {``shape``, ``texture``}, for the cue conflict
    among: Mapping[str, np.ndarray] = field(default_factory=dict)  # classes to choose from in a set
    groupings: Mapping[str, np.ndarray] = field(default_factory=dict)  # category of classes, or -1

    def chosen(self, name: str, logits: np.ndarray) -> np.ndarray:
        """Logits on a set, those of classes not to be chosen there cut to minus infinity [R]."""
        classes = np.arange(logits.shape[1])
        return np.where(np.isin(classes, self.among.get(name, classes)), logits, -np.inf)

    def accuracy(self, name: str, logits: np.ndarray, labels: np.ndarray) -> float:
        """Top-1 accuracy on images of a set, 0..1, by class or by category."""
        if name not in self.groupings:
            return accuracy(logits, labels)
        return float((self.groupings[name][logits.argmax(1)] == labels).mean())


def shape_bias(answers: np.ndarray, facts: pd.DataFrame, groups: pd.DataFrame) -> dict[str, float]:
    """Which cue the answers follow where shape and texture point to different classes [R].

    ``answers`` (n,) are class positions in ``groups``; ``facts`` holds what each image shows, as
    the groups ``shape`` and ``texture``. Returns the shares ``shape_hits`` and ``texture_hits``
    and, where there is a hit, ``shape_bias`` = shape / (shape + texture), with the ``floor`` and
    the ``ceiling`` of that: what is left of it if the hits of shape, or those of texture, are as
    many as guesses among the other classes give. Raises ``StudyError`` on an image that a class
    satisfies in both.
    """
    cues = ["shape", "texture"]
    without = facts[cues].merge(groups.drop_duplicates(), on=cues)
    if len(without):
        raise StudyError(f"{len(without)} images are no cue conflict: a class has both. Drop them.")
    shape, texture = (groups[cues].to_numpy()[answers] == facts[cues].to_numpy()).mean(0)
    values = {"shape_hits": shape, "texture_hits": texture}
    if shape + texture == 0:
        return values
    shares = [facts[cue].map(groups[cue].value_counts(normalize=True)).mean() for cue in cues]
    shapes_guessed = (1 - texture) * shares[0] / (1 - shares[1])
    textures_guessed = (1 - shape) * shares[1] / (1 - shares[0])
    return values | {
        "shape_bias": shape / (shape + texture),
        "floor": shapes_guessed / (shapes_guessed + texture),
        "ceiling": shape / (shape + textures_guessed),
    }
