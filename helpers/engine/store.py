"""Artifacts on disk: named by content, written shard by shard, finished with their manifest."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.engine import artifacts, manifest, places, progress, workers
from helpers.engine.randomness import entropy
from helpers.errors import StudyError, reading, writing
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


def folder(name: str, w: World, **variant: str) -> Path:
    """Where an artifact is or will be."""
    variants = [f"{k}={v}" for k, v in sorted(variant.items())]
    label = "-".join([name, *variants, artifacts.key(name, w, **variant)])
    return places.root() / w.name / "store" / label


def finished(name: str, w: World, **variant: str) -> bool:
    """Whether an artifact is there: its manifest is written last."""
    return (folder(name, w, **variant) / manifest.NAME).exists()


def unfinished(name: str, w: World, *what: object) -> Path:
    """Where a long job of an artifact keeps its state until it is done; ``what`` says which job."""
    file = f"{name}-{artifacts.key(name, w)}-{entropy(*what):016x}.pt"
    return places.root() / w.name / "unfinished" / file


def make(name: str, w: World, build: Callable[[Path], Any], **variant: str) -> Artifact:
    """Build an artifact, or load it if it is there; prints one line.

    ``build(folder)`` writes files. A killed build goes on in the same folder, so it should use
    ``fill`` and skip what exists. ``variant`` names one of several artifacts of a kind. Raises
    ``StudyError`` when nothing can be written.
    """
    path = folder(name, w, **variant)
    if finished(name, w, **variant):
        progress.say(f"{name}: found {path.name}")
        return load(name, w, **variant)
    with writing(path):
        workers.prepare()
        with alone(path):
            start = time.monotonic()
            if not finished(name, w, **variant):  # another process may have finished it meanwhile
                build(path)
                for leftover in path.rglob("*.tmp"):
                    leftover.unlink()
                write(path / manifest.NAME, manifest.listed(path))
    seconds = time.monotonic() - start
    progress.say(f"{name}: made {path.name} in {seconds:.0f} s, {size(path) / 1e6:.1f} MB")
    return load(name, w, **variant)


def builds(name: str) -> Callable[[Callable[[Path, World], Any]], Callable[[World], Artifact]]:
    """Turns a function that writes an artifact's files into a folder into ``make`` for a world."""

    def decorated(build: Callable[[Path, World], Any]) -> Callable[[World], Artifact]:
        return functools.wraps(build)(lambda w: make(name, w, lambda path: build(path, w)))

    return decorated


def get(name: str, w: World, build: Callable[[Path], Any], **variant: str) -> Artifact:
    """The artifact, without a word where it is finished; else as ``make`` builds it."""
    known = finished(name, w, **variant)
    return load(name, w, **variant) if known else make(name, w, build, **variant)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made; wait as long as another process holds it.

    A killed process leaves no lock behind. Where a file system has none, go on with a warning.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        file = (path / ".lock").open("w")
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"waiting: another process works on {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as e:
            progress.say(f"no lock on {path} ({e.strerror}): let no other run work on it now")
        yield


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(p.stat().st_size for p in (path, *path.rglob("*")) if p.is_file())


def load(name: str, w: World, **variant: str) -> Artifact:
    """A finished artifact; ``MissingArtifact`` if there is none, ``StudyError`` on damage."""
    spec = artifacts.spec(name)
    path = folder(name, w, **variant)
    seed = f" --seed {w.seed}" if w.seed else ""
    command = f"python -m helpers.run {w.name} {spec.notebook}{seed}"
    if not finished(name, w, **variant):
        cost = f"   ({spec.cost})" if w.name == artifacts.MEASURED else ""
        raise MissingArtifact(
            f"{name} for world {w.name!r} not found (looked in {path}). Run: {command}{cost}"
        )
    try:
        manifest.verify(path)
    except StudyError as e:
        raise StudyError(f"{name} is damaged: {e} Delete {path} and run: {command}") from e
    return Artifact(name, path)


def fill(
    path: Path, jobs: Mapping, fn: Callable, what: str, parallel: bool = True, uses_gpu: bool = True
) -> list[Path]:
    """Write ``fn(*args)`` to each file of ``jobs`` (file name -> arguments) that is not there yet.

    Tables go to ``.parquet``, arrays to ``.npy``, mappings to ``.json``, bytes to anything. With
    ``parallel`` the work is spread over processes (``fn`` must be importable); what is written does
    not depend on their number or order. Returns the files of all jobs.
    """
    missing = {file: args for file, args in jobs.items() if not (path / file).exists()}
    results = workers.starmap(fn, list(missing.values()), parallel, uses_gpu)
    files = list(missing)
    for i, value in progress.over(results, what, total=len(files)):
        write(path / files[i], value)
    return [path / file for file in jobs]


def write(path: Path, value: Any) -> Path:
    """Write a table, array, mapping or bytes, chosen by the file's ending; all of it or nothing."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            if hasattr(value, "write_parquet"):  # a polars frame
                value.write_parquet(file)
            elif path.suffix == ".parquet":
                value.to_parquet(file, index=False)
            elif hasattr(value, "save"):  # images that are still on disk
                value.save(file)
            elif path.suffix == ".npy":
                np.save(file, value, allow_pickle=False)
            elif path.suffix == ".json":
                file.write(json.dumps(value, indent=1, sort_keys=True).encode())
            else:
                file.write(value)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    return path


def read_table(path: Path) -> pd.DataFrame:
    """A parquet file as a table. Raises ``StudyError`` when it is truncated or not parquet."""
    with reading(path):
        return pd.read_parquet(path)


def free(path: Path) -> int:
    """Bytes that are free where ``path`` is going to be."""
    return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free


def check_disk(path: Path, need: int) -> None:
    """Raise ``StudyError`` when fewer than ``need`` bytes are free where ``path`` will be."""
    if free(path) < need:
        lack = f"{path} needs about {need / 1e9:.1f} GB, but {free(path) / 1e9:.1f} GB are free"
        raise StudyError(f"{lack}. Free some space or set STUDY_RUNS to a folder on a larger disk.")
