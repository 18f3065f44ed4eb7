"""The published probe sets from folders under ``$STUDY_PAPER/benchmarks``, all read in one way.

Laid out as for torchvision's ``ImageFolder``, one folder per class (WordNet id) or category::

    imagenet/{train,val}/WNID/*     1,000; for a part, with imagenet/classes.csv: wnid,name in order
    imagenet-r/WNID/*  imagenet-a/WNID/*     200 classes each: a model chooses among these [R]
    imagenet-c/KIND/SEVERITY/WNID/*          ImageNet-C's kinds, and 3DCC's under the same root
    imagenet-9/{original,mixed_same,mixed_rand}/val/CATEGORY/*
                                    with imagenet-9/in_to_in9.json: class -> category or -1
    focus/{0,1,2}/CATEGORY/*        by number of uncommon attributes, with focus/categories.csv:
                                    wnid,category
    cue-conflict/SHAPE/SHAPE1-TEXTURE2.png   with cue-conflict/categories.csv: wnid,category
    sun/**  inaturalist/**          OOD images, near and far

A set whose folder is not there is left out with a line; ``imagenet`` has to be there.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.subsets import thinned
from helpers.data.tables import Split
from helpers.engine import progress
from helpers.errors import StudyError
from helpers.measure.metrics import DEPTH_AWARE, IMAGE_SPACE, SEVERITIES, ProbeSets
from helpers.paper import benchmarks, config
from helpers.paper.benchmarks import Decoded, image_files
from helpers.worlds import World

AMONG = {"renditions": "imagenet-r", "natural_adversarial": "imagenet-a"}
CORRUPTIONS = {
    f"{kind}-{severity}": f"imagenet-c/{'jpeg_compression' if kind == 'jpeg' else kind}/{severity}"
    for kind in (*IMAGE_SPACE, *DEPTH_AWARE)
    for severity in SEVERITIES
}
GROUPED = {
    **{f"mixed_{kind}": f"imagenet-9/mixed_{kind}/val" for kind in ("same", "rand")},
    **{f"context_{k}": f"focus/{k}" for k in range(3)},
}
OUTSIDE = {"ood_near": "sun", "ood_far": "inaturalist"}
CUES = {"cue_conflict": "cue-conflict"}
PLACES = {"original": "imagenet/val", **AMONG, **CORRUPTIONS, **GROUPED, **OUTSIDE, **CUES}


def present(base: Path) -> list[str]:
    """The names of the probe sets whose folders are under ``base``."""
    return [name for name, place in PLACES.items() if (base / place).is_dir()]


def probe_sets(w: World, task: str) -> ProbeSets:
    """The probe sets that are there; at most ``robustness.probe_images`` images of each.

    Raises ``StudyError`` on another task than ``imagenet``, and on folders of another layout.
    """
    if task != "imagenet":
        problem = f"world {w.name!r} has probe sets of 'imagenet' only, not of {task!r}"
        raise StudyError(f"{problem}; set robustness={{'task': 'imagenet'}}.")
    base = config.settings().benchmarks
    wnids = list(benchmarks.imagenet(base / "imagenet")[0])
    groups = pd.DataFrame(index=wnids)
    sets, among, groupings = {}, {}, {}
    for name in present(base):
        path = base / PLACES[name]
        if name in GROUPED:
            categories = sorted(d.name for d in path.iterdir())
            groupings[name] = _grouping(base / Path(PLACES[name]).parts[0], wnids, categories)
            sets[name] = _labelled(w, path, categories)
        elif name in OUTSIDE:
            files = image_files(path.rglob("*"))
            sets[name] = _read(w, files, np.full(len(files), -1))
        elif name in CUES:
            sets[name], groups = _cue_conflict(w, path, wnids)
        else:
            sets[name] = _labelled(w, path, wnids)
        if name in AMONG:
            among[name] = np.flatnonzero([(path / wnid).is_dir() for wnid in wnids])
    missing = [re.sub(r"/\d$", "", place) for name, place in PLACES.items() if name not in sets]
    note = f", left out as their folders are not there: {', '.join(dict.fromkeys(missing))}"
    progress.say(f"probe sets: {len(sets)} read{note if missing else ''}")
    return ProbeSets(sets, groups, among, groupings)


def _read(w: World, files: Sequence[Path], labels: np.ndarray, *facts: pd.DataFrame) -> Split:
    """At most ``robustness.probe_images`` of the images, evenly spread, in memory."""
    split = Split(Decoded(files, w.image_size, reduced=False), labels, *facts)
    split = thinned(split, w.robustness.probe_images)
    return dataclasses.replace(split, images=split.images[:])


def _labelled(w: World, path: Path, names: Sequence[str]) -> Split:
    """Images of class folders; the label is the folder's position in ``names``."""
    files = image_files(path.glob("*/**/*"))
    folders = [file.relative_to(path).parts[0] for file in files]
    strange = sorted(set(folders) - set(names))
    if strange or not files:
        problem = f" and folders of no class: {strange[:3]}" if strange else ""
        raise StudyError(f"{path} holds {len(files)} images{problem}; see helpers/paper/probes.py.")
    facts = pd.DataFrame({"file": [file.name for file in files], "class": folders})
    return _read(w, files, pd.Index(names).get_indexer(folders).astype(np.int64), facts)


def _grouping(place: Path, wnids: Sequence[str], categories: list[str]) -> np.ndarray:
    """The position in ``categories`` of every class, -1 for none."""
    if (place / "in_to_in9.json").exists():
        table = json.loads((place / "in_to_in9.json").read_text())
        return np.array([int(table[str(i)]) for i in range(len(wnids))])
    return pd.Index(categories).get_indexer(_categories(place, wnids))


def _categories(place: Path, wnids: Sequence[str]) -> pd.Series:
    return pd.read_csv(place / "categories.csv", index_col="wnid")["category"].reindex(wnids)


def _cue_conflict(w: World, place: Path, wnids: Sequence[str]) -> tuple[Split, pd.DataFrame]:
    """Images whose cues differ, labelled by the first class of that shape; the classes' cues."""
    table = _categories(place, wnids)
    files, cues = [], []
    for file in image_files(place.rglob("*")):
        shape, texture = re.sub(r"\d+", "", file.stem).split("-")
        if shape != texture:
            files.append(file)
            cues.append((shape, texture))
    facts = pd.DataFrame(cues, columns=["shape", "texture"])
    labels = [int(np.argmax((table == shape).to_numpy())) for shape in facts["shape"]]
    groups = pd.DataFrame({"shape": table, "texture": table})
    return _read(w, files, np.array(labels, np.int64), facts), groups
