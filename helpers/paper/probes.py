"""The published probe sets from folders under ``$STUDY_PAPER/benchmarks``, cropped and resized in one way, whatever the set.

Everything is laid out as for torchvision's ``ImageFolder``, one folder per class (WordNet id) or category::

    imagenet/{train,val}/WNID/*          all 1,000; for a part of it, with imagenet/classes.csv: wnid,name in order
    imagenet-r/WNID/*  imagenet-a/WNID/*      200 classes each: a model chooses among these [R]
    imagenet-c/KIND/SEVERITY/WNID/*      ImageNet-C's kinds, and 3DCC's under the same root
    imagenet-9/{original,mixed_same,mixed_rand}/val/CATEGORY/*      with imagenet-9/in_to_in9.json: class -> category or -1
    focus/{0,1,2}/CATEGORY/*             sorted by number of uncommon attributes, with focus/categories.csv: wnid,category
    cue-conflict/SHAPE/SHAPE1-TEXTURE2.png       with cue-conflict/categories.csv: wnid,category
    sun/**  inaturalist/**               OOD images, near and far

A set whose folder is not there is left out with a line; ``imagenet`` has to be there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers.data.tables import Split
from helpers.errors import StudyError
from helpers.measure.probes import DEPTH_AWARE, IMAGE_SPACE, SEVERITIES, ProbeSets
from helpers.paper import benchmarks, config
from helpers.worlds import World

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
CORRUPTIONS = {
    kind: {"jpeg": "jpeg_compression"}.get(kind, kind) for kind in (*IMAGE_SPACE, *DEPTH_AWARE)
}
PLAIN = {
    "original": "imagenet/val",
    "renditions": "imagenet-r",
    "natural_adversarial": "imagenet-a",
    **{
        f"{kind}-{s}": f"imagenet-c/{name}/{s}"
        for kind, name in CORRUPTIONS.items()
        for s in SEVERITIES
    },
}
GROUPED = {
    "mixed_same": "imagenet-9/mixed_same/val",
    "mixed_rand": "imagenet-9/mixed_rand/val",
    **{f"context_{k}": f"focus/{k}" for k in range(3)},
}
UNKNOWN = {"ood_near": "sun", "ood_far": "inaturalist"}
PLACES = {**PLAIN, **GROUPED, **UNKNOWN, "cue_conflict": "cue-conflict"}  # probe set -> folder


def read(path: Path, side: int) -> np.ndarray:
    """An image, shorter edge resized and centre cropped to ``side``: (side, side, 3) uint8."""
    from PIL import ImageOps

    return np.asarray(
        ImageOps.fit(Image.open(path).convert("RGB"), (side, side), Image.Resampling.BICUBIC)
    )


def files(path: Path) -> list[Path]:
    """All images below a folder, in order of name."""
    return sorted(f for f in path.rglob("*") if f.suffix.lower() in ENDINGS)


def labelled(path: Path, names: Sequence[str], side: int, most: int) -> Split:
    """At most ``most`` images of class folders, evenly spread; the label is the folder's position in ``names``.

    Raises ``StudyError`` on a folder that is not among them, or where there is no image.
    """
    found = [
        (f, name)
        for name in sorted(d.name for d in path.iterdir() if d.is_dir())
        for f in files(path / name)
    ]
    strange = sorted({name for _, name in found} - set(names))
    if strange or not found:
        raise StudyError(
            f"{path} holds {len(found)} images{f' and folders of no class: {strange[:3]}' if strange else ''}; see "
            "helpers/paper/probes.py for how it has to look."
        )
    chosen = [
        found[i]
        for i in np.unique(
            np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
        )
    ]
    where = {name: i for i, name in enumerate(names)}
    return Split(
        np.stack([read(f, side) for f, _ in chosen]),
        np.array([where[name] for _, name in chosen], np.int64),
        pd.DataFrame({"file": [f.name for f, _ in chosen], "class": [name for _, name in chosen]}),
    )


def present(base: Path) -> list[str]:
    """The names of the probe sets whose folders are under ``base``."""
    return [name for name, place in PLACES.items() if (base / place).is_dir()]


def probe_sets(w: World, task: str) -> ProbeSets:
    """The probe sets that are there; at most ``robustness.probe_images`` evenly spread images of each.

    Raises ``StudyError`` on another task than ``imagenet``.
    """
    if task != "imagenet":
        raise StudyError(
            f"world {w.name!r} has probe sets of 'imagenet' only, not of {task!r}; set robustness={{'task': 'imagenet'}}."
        )
    most, side, base = w.robustness.probe_images, w.image_size, config.settings().benchmarks
    wnids, here = list(benchmarks.imagenet(base / "imagenet")[0]), set(present(base))
    sets = {
        name: labelled(base / place, wnids, side, most)
        for name, place in PLAIN.items()
        if name in here
    }
    among = {
        name: np.array([i for i, wnid in enumerate(wnids) if (base / PLAIN[name] / wnid).is_dir()])
        for name in ("renditions", "natural_adversarial")
        if name in sets
    }
    groupings: dict[str, np.ndarray] = {}
    for name, place in GROUPED.items():
        if name in here:
            categories, groupings[name] = grouping(
                base / place.split("/")[0], wnids, sorted(d.name for d in (base / place).iterdir())
            )
            sets[name] = labelled(base / place, categories, side, most)
    for name, place in UNKNOWN.items():
        if name in here:
            chosen = [
                files(base / place)[i]
                for i in np.unique(
                    np.linspace(0, len(files(base / place)) - 1, most).round().astype(int)
                )
            ]
            sets[name] = Split(np.stack([read(f, side) for f in chosen]), np.full(len(chosen), -1))
    groups = pd.DataFrame(index=wnids)
    if (base / "cue-conflict").is_dir():
        sets["cue_conflict"], groups = cue_conflict(base / "cue-conflict", wnids, side, most)
    missing = dict.fromkeys(
        re.sub(r"/[\d]$", "", place) for name, place in PLACES.items() if name not in sets
    )
    print(
        f"probe sets: {len(sets)} read"
        + (f", left out as their folders are not there: {', '.join(missing)}" if missing else "")
    )
    return ProbeSets(sets, groups, among, groupings)


def grouping(
    place: Path, wnids: Sequence[str], folders: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """The categories of a set, in order, and the category of every class, -1 for none; from the table beside the images."""
    if (place / "in_to_in9.json").exists():
        table = json.loads((place / "in_to_in9.json").read_text())
        return list(folders), np.array([int(table[str(i)]) for i in range(len(wnids))])
    table = pd.read_csv(place / "categories.csv").set_index("wnid")["category"].reindex(wnids)
    return list(folders), np.array([folders.index(c) if c in folders else -1 for c in table])


def cue_conflict(
    place: Path, wnids: Sequence[str], side: int, most: int
) -> tuple[Split, pd.DataFrame]:
    """Images whose names say ``shape1-texture2``, where the two differ, and the category of every class for both cues."""
    table = pd.read_csv(place / "categories.csv").set_index("wnid")["category"].reindex(wnids)
    cues = [(f, *re.sub(r"\d+", "", f.stem).split("-")) for f in files(place)]
    cues = [cue for cue in cues if cue[1] != cue[2]]
    cues = [
        cues[i]
        for i in np.unique(np.linspace(0, len(cues) - 1, min(most, len(cues))).round().astype(int))
    ]
    facts = pd.DataFrame([cue[1:] for cue in cues], columns=["shape", "texture"])
    labels = np.array(
        [int(np.argmax((table == shape).to_numpy())) for shape in facts["shape"]], np.int64
    )
    return Split(np.stack([read(f, side) for f, *_ in cues]), labels, facts), pd.DataFrame(
        {"shape": table, "texture": table}
    )
