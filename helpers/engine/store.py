"""Artifacts on disk: content-addressed, written shard by shard, finished when the manifest is there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.engine import manifest, workers
from helpers.engine.artifacts import MEASURED, key, spec
from helpers.engine.places import root
from helpers.engine.randomness import entropy
from helpers.errors import StudyError, writing
from helpers.worlds import World


class MissingArtifact(StudyError):
    """Something a later notebook reads has not been made yet."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: a folder with the files that its manifest lists."""

    name: str
    path: Path

    def files(self, pattern: str) -> list[Path]:
        """Its files that match a glob pattern, in order of name."""
        return sorted(self.path.glob(pattern))

    def table(self, pattern: str = "*.parquet") -> pd.DataFrame:
        """Its parquet files that match ``pattern``, one below the other in order of name."""
        return pd.concat([read_table(f) for f in self.files(pattern)], ignore_index=True)

    def array(self, file: str) -> np.ndarray:
        """One of its ``.npy`` files, memory-mapped and read-only."""
        return np.load(self.path / file, mmap_mode="r")


def folder(name: str, w: World, **variant) -> Path:
    """Where an artifact is or will be."""
    label = "-".join(
        [name, *(f"{k}={v}" for k, v in sorted(variant.items())), key(name, w, **variant)]
    )
    return root() / w.name / "store" / label


def unfinished(name: str, w: World, *what) -> Path:
    """Where a long job of an artifact keeps its state until it is done; ``what`` says which job."""
    return root() / w.name / "unfinished" / f"{name}-{key(name, w)}-{entropy(*what):016x}.pt"


def make(name: str, w: World, build: Callable[[Path], None], **variant) -> Artifact:
    """Build an artifact, or load it if it is there. ``build(folder)`` writes files; the manifest is written last.

    A killed build goes on in the same folder, so ``build`` should use ``fill`` and skip what exists. ``variant`` names
    one of several artifacts of a kind (``generator="short"``). Raises ``StudyError`` when nothing can be written.
    """
    path, start = folder(name, w, **variant), time.monotonic()
    if (path / manifest.NAME).exists():
        print(f"{name}: found {path.name}")
        return load(name, w, **variant)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        workers.prepare_workers()
        with _alone(path):
            if not (
                path / manifest.NAME
            ).exists():  # another process may have finished it meanwhile
                build(path)
                _write_manifest(path)
    size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6
    print(f"{name}: made {path.name} in {time.monotonic() - start:.0f} s, {size:.1f} MB")
    return load(name, w, **variant)


def get(name: str, w: World, build: Callable[[Path], None], **variant) -> Artifact:
    """Load an artifact without a word where it is finished, ``make`` it where it is not."""
    if (folder(name, w, **variant) / manifest.NAME).exists():
        return load(name, w, **variant)
    return make(name, w, build, **variant)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process builds in this folder; a killed process leaves no lock behind."""
    with open(path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_manifest(path: Path) -> None:
    for leftover in path.rglob("*.tmp"):
        leftover.unlink()
    write(path / manifest.NAME, manifest.listed(path))


def load(name: str, w: World, **variant) -> Artifact:
    """A finished artifact. Raises ``MissingArtifact`` when it was never made, ``StudyError`` when files are damaged.

    Which damage is noticed, and at what cost: helpers/engine/manifest.py.
    """
    about, path = spec(name), folder(name, w, **variant)
    command = f"python -m helpers.run {w.name} {about.notebook}" + (
        f" --seed {w.seed}" if w.seed else ""
    )
    if not (path / manifest.NAME).exists():
        cost = f"   ({about.cost})" if w.name == MEASURED else ""
        raise MissingArtifact(
            f"{name} for world {w.name!r} not found (looked in {path}). Run: {command}{cost}"
        )
    try:
        manifest.verify(path)
    except StudyError as e:
        raise StudyError(f"{name} is damaged: {e} Delete {path} and run: {command}") from e
    return Artifact(name, path)


def fill(
    path: Path,
    jobs: Mapping[str, tuple],
    fn: Callable,
    label: str,
    parallel: bool = True,
    uses_gpu: bool = True,
) -> list[Path]:
    """Write ``fn(*args)`` to each file of ``jobs`` (file name -> arguments) that is not there yet.

    Tables go to ``.parquet``, arrays to ``.npy``, mappings to ``.json``, bytes to anything. With ``parallel`` the work is
    spread over processes (``fn`` must be importable); what is written does not depend on their number or order.
    """
    missing = {file: args for file, args in jobs.items() if not (path / file).exists()}
    results = workers.starmap(fn, list(missing.values()), parallel, uses_gpu)
    files = list(missing)
    for i, value in progress(results, label, total=len(files)):
        write(path / files[i], value)
    return [path / file for file in jobs]


def write(path: Path, value) -> Path:
    """Write a table, array, mapping or bytes, chosen by the file's ending: temporary file, fsync, rename."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as f:
            if hasattr(value, "write_parquet"):  # a polars frame
                value.write_parquet(f)
            elif path.suffix == ".parquet":
                value.to_parquet(f, index=False)
            elif path.suffix == ".npy":
                value.save(f) if hasattr(value, "save") else np.save(f, value, allow_pickle=False)
            elif path.suffix == ".json":
                f.write(json.dumps(value, indent=1, sort_keys=True).encode())
            else:
                f.write(value)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    return path


def read_table(path: Path) -> pd.DataFrame:
    """A parquet file as a table. Raises ``StudyError`` when it is truncated or not parquet."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as e:
        raise StudyError(
            f"cannot read {path}: {e}. It is truncated or not a parquet file; delete it and run again."
        ) from e


def free(path: Path) -> int:
    """Bytes that are free where ``path`` is going to be."""
    return shutil.disk_usage(
        next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    ).free


def check_disk(path: Path, need: int) -> None:
    """Raise ``StudyError`` when fewer than ``need`` bytes are free where ``path`` is going to be."""
    if free(path) < need:
        raise StudyError(
            f"{path} needs about {need / 1e9:.1f} GB, but only {free(path) / 1e9:.1f} GB are free. "
            "Free some space or set STUDY_RUNS to a folder on a larger disk."
        )


def progress(items: Iterable, label: str, total: int | None = None) -> Iterator:
    """Go through ``items`` with a bar in JupyterLab, or with one line at the end when ``STUDY_HEADLESS=1``."""
    if os.environ.get("STUDY_HEADLESS") != "1":
        from tqdm.auto import tqdm

        yield from tqdm(items, desc=label, total=total)
        return
    start, n = time.monotonic(), 0
    for item in items:
        yield item
        n += 1
    if n:
        print(f"{label}: {n} in {time.monotonic() - start:.1f} s")
