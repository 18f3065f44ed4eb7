"""The sets of images that robustness is probed on, and what shape bias is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from helpers.data.tables import Split
from helpers.errors import StudyError
from helpers.measure.metrics import accuracy

# Five corruptions of ImageNet-C, three of the five of 3DCC, and how strong they are [R].
IMAGE_SPACE = ("shot_noise", "motion_blur", "snow", "pixelate", "jpeg")
DEPTH_AWARE = ("near_focus", "far_focus", "fog_3d")
SEVERITIES = (1, 2, 3, 4, 5)
PUBLISHED = ("training", "prompt", "n", "top1", "loss", "ece", "family")  # columns of a table


@dataclass(frozen=True)
class ProbeSets:
    """Images for the probes of one task, all of one size and made in one way.

    ``sets``: name -> labelled images. ``original`` are test images; ``mixed_same``, ``mixed_rand``,
    ``renditions``, ``context_0`` .. ``context_2`` and ``{corruption}-{severity}`` are the same ones
    changed; ``ood_near`` and ``ood_far`` (label -1) belong to no class; ``cue_conflict`` has the
    columns ``shape`` and ``texture`` in its facts, and is left out where the task's texture says
    nothing about the class. ``groups``: class x {``shape``, ``texture``}, for the cue conflict.
    Published sets also have ``among``, the classes that a model chooses among in a set, and
    ``groupings``, the category of every class where a set's labels are categories; -1 for none,
    which is never right.
    """

    sets: Mapping[str, Split]
    groups: pd.DataFrame
    among: Mapping[str, np.ndarray] = field(default_factory=dict)
    groupings: Mapping[str, np.ndarray] = field(default_factory=dict)

    def chosen(self, name: str, logits: np.ndarray) -> np.ndarray:
        """Logits on a set, those of classes not to be chosen there cut to minus infinity [R]."""
        if name not in self.among:
            return logits
        cut = np.full_like(logits, -np.inf)
        cut[:, self.among[name]] = logits[:, self.among[name]]
        return cut

    def accuracy(self, name: str, logits: np.ndarray) -> float:
        """Top-1 accuracy on a set, 0..1, by class or by category."""
        labels = self.sets[name].labels
        if name not in self.groupings:
            return accuracy(logits, labels)
        return float((self.groupings[name][logits.argmax(1)] == labels).mean())


def shape_bias(answers: np.ndarray, facts: pd.DataFrame, groups: pd.DataFrame) -> dict[str, float]:
    """Which cue the answers follow where shape and texture point to different classes [R].

    ``answers`` (n,) are class positions in ``groups``; ``facts`` holds what each image shows, as
    the groups ``shape`` and ``texture``. Returns the shares ``shape_hits`` and ``texture_hits``,
    and ``shape_bias`` = shape / (shape + texture) where there is a hit. Raises ``StudyError`` on an
    image that a class satisfies in both: there is no conflict in it.
    """
    classes = set(zip(groups["shape"], groups["texture"], strict=True))
    shown = zip(facts["shape"], facts["texture"], strict=True)
    without = [cues for cues in shown if cues in classes]
    if without:
        raise StudyError(
            f"{len(without)} images are no cue conflict, {without[0]} among them: a class has that "
            "shape and that texture. Leave them out."
        )
    shares = {}
    for cue in ("shape", "texture"):
        hits = groups[cue].to_numpy()[answers] == facts[cue].to_numpy()
        shares[f"{cue}_hits"] = float(hits.mean())
    total = sum(shares.values())
    return shares | {"shape_bias": shares["shape_hits"] / total} if total else shares
