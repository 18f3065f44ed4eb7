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
from helpers.pocket.train import autoencoder, clip, judges, unet, upstream
from helpers.pocket.train.calibration import quality
from helpers.worlds import World, replace

CONSTANTS = {  # of the training, beside its settings
    "clip_lr": clip.LR,
    "autoencoder_lr": autoencoder.LR,
    "autoencoder_batch": autoencoder.BATCH,
    "latent_channels": autoencoder.LATENT_CHANNELS,
    "generator_lr": unet.LR,
    "judge_width": judges.WIDTH,
}


def retrain(w: World) -> Path:
    """Train the upstream models anew and put them, with their card, where the shipped weights are.

    Returns that folder. Takes hours on a CPU: ``python -m helpers.run pocket 00 -p retrain=True``.
    Raises ``StudyError`` in a world that does not use them.
    """
    if w.pool.upstream != "committed":
        raise StudyError(
            f"retrain=True was given in world {w.name!r}, which trains its own upstream models on "
            "first use. It is for the shipped ones, of the world pocket; to train these again, "
            f"delete {store.folder('upstream', w)}."
        )
    own = replace(w, pool={"upstream": "train"})
    start = time.monotonic()
    trained = upstream.folder(own)
    shutil.rmtree(upstream.WEIGHTS, ignore_errors=True)
    left_out = shutil.ignore_patterns("manifest.json", ".lock")
    shutil.copytree(trained, upstream.WEIGHTS, ignore=left_out)
    minutes = (time.monotonic() - start) / 60
    # the card: how they were trained, on what, and how good they are
    files = [f for f in sorted(upstream.WEIGHTS.rglob("*")) if f.is_file()]
    digests = {
        str(f.relative_to(upstream.WEIGHTS)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in files
    }
    card = {
        "command": "python -m helpers.run pocket 00 -p retrain=True",
        "seed": w.pool.seed,
        "pool": upstream.pool_hash(w),
        "image_size": w.image_size,
        "training": {**dataclasses.asdict(w.upstream), **CONSTANTS},
        "minutes": round(minutes),
        "machine": gpu.describe(),
        "date": str(datetime.date.today()),
        "quality": quality(own),
        "files": digests,
    }
    store.write(upstream.WEIGHTS / "card.json", card)
    upstream.check_card.cache_clear()
    return upstream.WEIGHTS
