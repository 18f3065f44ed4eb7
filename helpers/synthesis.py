"""Notebook 02: one image per caption from the generator ([P] section 3), CLIP-filtered like the retrieved ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers import drawing, pools, store, worlds
from helpers.worlds import StudyError, World


def make(w: World) -> store.Artifact:
    """Draw all captions of notebook 01: webdataset tars, and per task ``{task}.npy`` with ``{task}.parquet``.

    Raises ``MissingArtifact`` when there are no captions yet.
    """
    store.load("captions", w)  # say so before anything is drawn
    return store.make("synthetic", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    worlds.backend(w).draw(w, ["a photo"], [0])  # models are made before workers start
    captions = store.load("captions", w)
    for task in w.tasks:
        table = store.read_table(captions.path / f"{task}.parquet")
        if not len(table):
            raise StudyError(f"there is no caption for task {task}; run notebook 01 again: python -m helpers.run {w.name} 01")
        store.check_disk(path, 4 * len(table) * w.image_size**2 * 3)
        tars = drawing.draw_table(path, w, table[["caption", "label", "class", "kind"]], task)
        drawing.filtered(path, w, worlds.backend(w).benchmark(w, task), tars, task)


def sweep(w: World, captions: list[str], scales: tuple[float, ...]) -> dict[float, np.ndarray]:
    """The same captions and seeds at several guidance scales: scale -> images (n, side, side, 3) uint8."""
    seeds = [worlds.entropy(w.seed, "sweep", i) for i in range(len(captions))]
    return {scale: drawing.sample(worlds.adapt(w, synthesis={"guidance": scale}), captions, seeds) for scale in scales}


def to_image_folder(w: World, task: str, folder: Path, shards: int | None = None) -> Path:
    """Write a task's drawn images, or its first ``shards``, as ``folder/class/number.png``, torchvision's ``ImageFolder``."""
    made = store.load("synthetic", w)
    return pools.to_image_folder(made.files(f"{task}-*.tar")[:shards], worlds.backend(w).benchmark(w, task).classes, folder)
