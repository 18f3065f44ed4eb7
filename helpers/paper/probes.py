"""The published probe sets from folders under ``$STUDY_PAPER/benchmarks``, all read in one way.

helpers/paper/README.md has their layouts. A set whose folder is not there is left out with a line;
``imagenet`` has to be there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Sequence
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
    return [name for name, place in PLACES.items() if os.access(f"{base / place}/", os.R_OK)]


def probe_sets(w: World, task: str) -> ProbeSets:
    """The sets of ``listed``, with at most ``robustness.probe_images`` images of each."""
    found, *tables = listed(task)
    sets = {name: _read(w, *about) for name, about in found.items()}
    missing = [re.sub(r"/\d$", "", place) for name, place in PLACES.items() if name not in sets]
    note = f", left out as their folders are not there: {', '.join(dict.fromkeys(missing))}"
    progress.say(f"probe sets: {len(sets)} read{note if missing else ''}")
    return ProbeSets(sets, *tables)


def listed(task: str) -> tuple[dict[str, tuple], pd.DataFrame, dict, dict]:
    """Files, labels and facts of every set that is there, and the tables of ``ProbeSets``; no image
    is opened. Raises ``StudyError`` on another task than ``imagenet``, or another layout.
    """
    if task != "imagenet":
        raise StudyError(f"probe sets of 'imagenet' only, not {task!r}: set robustness.task to it.")
    base = config.settings().benchmarks
    wnids = list(benchmarks.imagenet(base / "imagenet")[0])
    groups = pd.DataFrame(index=wnids)
    sets, among, groupings = {}, {}, {}
    for name in present(base):
        path = base / PLACES[name]
        files = image_files([path])
        if not files:
            raise _wrong(path, "holds no images")
        if name in GROUPED:
            categories = [config.identifier(d) for d in benchmarks._subfolders(path)]
            groupings[name] = _grouping(base / Path(PLACES[name]).parts[0], wnids, categories)
            sets[name] = _labelled(path, files, categories)
        elif name in OUTSIDE:
            sets[name] = files, np.full(len(files), -1), pd.DataFrame()
        elif name in CUES:
            *sets[name], groups = _cue_conflict(path, files, wnids)
        else:
            sets[name] = _labelled(path, files, wnids)
        if name in AMONG:
            among[name] = np.unique(sets[name][1])
    return sets, groups, among, groupings


def _wrong(place: Path, problem: str) -> StudyError:
    return StudyError(f"{place} {problem}; see helpers/paper/README.md for its layout.")


def _read(w: World, files: Sequence[Path], labels: np.ndarray, facts: pd.DataFrame) -> Split:
    """At most ``robustness.probe_images`` of the images, evenly spread, in memory."""
    split = Split(Decoded(files, w.image_size, reduced=False), labels, facts)
    split = thinned(split, w.robustness.probe_images)
    return dataclasses.replace(split, images=split.images[:])


def _labelled(path: Path, files: Sequence[Path], names: Sequence[str]) -> tuple:
    """Images of class folders; the label is the folder's position in ``names``."""
    folders = [file.relative_to(path).parts[0] for file in files]
    labels = pd.Index(map(config.identifier, names)).get_indexer(map(config.identifier, folders))
    if strange := sorted({folders[i] for i in np.flatnonzero(labels < 0)}):
        raise _wrong(path, f"has images of no class: {', '.join(strange[:3])}")
    facts = pd.DataFrame({"file": [file.name for file in files], "class": folders})
    return files, labels.astype(np.int64), facts


def _grouping(place: Path, wnids: Sequence[str], categories: list[str]) -> np.ndarray:
    """The position in ``categories`` of every class, -1 for none."""
    file = place / "in_to_in9.json"
    if not file.exists():
        table = _categories(place, wnids, categories)
        return pd.Index(categories).get_indexer(table)
    try:
        table = json.loads(config.text_of(file))
        positions = [int(str(table[str(i)])) for i in range(len(table))]  # no fractions
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise _wrong(file, f"is no table from every class to a category ({e!r})") from e
    if len(table) != len(wnids):
        raise _wrong(file, f"has {len(table)} classes, and ImageNet here {len(wnids)}")
    if not -1 <= min(positions) <= max(positions) < len(categories) or max(positions) < 0:
        raise _wrong(file, f"gives {place.name}'s {len(categories)} folders no classes, or others")
    return np.array(positions)


def _categories(place: Path, wnids: Sequence[str], used: Iterable[str]) -> pd.Series:
    """The category of every class, "" for none; ``StudyError`` on a used one without a class."""
    file = place / "categories.csv"
    table = config.table_of(file, "wnid", "category").set_index("wnid")["category"]
    if not table.index.is_unique:
        raise _wrong(file, f"lists {table.index[table.index.duplicated()][0]} twice")
    table = table.map(config.identifier).reindex(wnids, fill_value="")
    if unknown := sorted({*used} - {*table}):
        raise _wrong(file, f"has no class of ImageNet here for {', '.join(unknown[:5])}")
    return table


def _cue_conflict(place: Path, files: Sequence[Path], wnids: Sequence[str]) -> tuple:
    """Images whose cues differ, labelled by the first class of that shape; the classes' cues."""
    cues = [re.fullmatch(r"([^-]*?)\d*-([^-]*?)\d*", file.stem) for file in files]
    if None in cues:
        raise _wrong(files[cues.index(None)], "is not named SHAPE1-TEXTURE2")
    facts = pd.DataFrame([cue.groups() for cue in cues], columns=["shape", "texture"])
    facts = facts.map(config.identifier)
    table = _categories(place, wnids, {*facts["shape"], *facts["texture"]})
    differ = np.flatnonzero(facts["shape"] != facts["texture"])
    if not len(differ):
        raise _wrong(place, "has no image whose shape and texture differ")
    facts = facts.iloc[differ].reset_index(drop=True)
    labels = [int(np.argmax((table == shape).to_numpy())) for shape in facts["shape"]]
    groups = pd.DataFrame({"shape": table, "texture": table})
    return [files[i] for i in differ], np.array(labels, np.int64), facts, groups
