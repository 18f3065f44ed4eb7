"""The shipped weights and the card that says how they came about."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import shutil
import time
from pathlib import Path

from helpers.engine import gpu, store
from helpers.errors import StudyError
from helpers.pocket.train.calibration import quality
from helpers.pocket.train.upstream import WEIGHTS, _check_card, folder, pool_hash
from helpers.worlds import World, replace


def retrain(w: World) -> Path:
    """Train the upstream models anew and put them, with their card, where the shipped weights are.

    Returns that folder. Takes hours on a CPU: ``python -m helpers.run pocket 00 -p retrain=True``.
    Raises ``StudyError`` in a world that does not use them.
    """
    if w.pool.upstream != "committed":
        raise StudyError(
            f"retrain=True was given in world {w.name!r}, which trains its own upstream models on first use. It is for "
            f"the shipped ones, of the world pocket; to train these again, delete {store.folder('upstream', w)}."
        )

    own, start = replace(w, pool={"upstream": "train"}), time.monotonic()
    made = folder(own)
    shutil.rmtree(WEIGHTS, ignore_errors=True)
    shutil.copytree(made, WEIGHTS, ignore=shutil.ignore_patterns("manifest.json", ".lock"))
    return write_card(w, (time.monotonic() - start) / 60, quality(own))


def write_card(w: World, minutes: float, quality: dict) -> Path:
    """Write ``card.json`` beside the weights: how they were made, on what, and how good they are."""
    files = sorted(
        f for f in WEIGHTS.rglob("*") if f.is_file() and f.name not in ("card.json", "README.md")
    )
    store.write(
        WEIGHTS / "card.json",
        {
            "command": "python -m helpers.run pocket 00 -p retrain=True",
            "seed": w.pool.seed,
            "pool": pool_hash(w),
            "image_size": w.image_size,
            "training": dataclasses.asdict(w.upstream),
            "minutes": round(minutes),
            "machine": gpu.describe(),
            "date": str(datetime.date.today()),
            "quality": quality,
            "files": {
                str(f.relative_to(WEIGHTS)): hashlib.sha256(f.read_bytes()).hexdigest()
                for f in files
            },
        },
    )
    _check_card.cache_clear()
    return WEIGHTS
