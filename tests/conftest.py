"""Shared by all tests: a smoke run of the whole study in a folder of its own, made once."""

import os

from helpers import run

os.environ.setdefault("STUDY_HEADLESS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """Folder with ``runs/`` and ``figures/`` of all notebooks executed on the smoke world, and the times they took."""
    top = tmp_path_factory.mktemp("smoke")
    os.environ["STUDY_RUNS"], os.environ["STUDY_FIGURES"] = str(top / "runs"), str(top / "figures")
    times = run.execute("smoke", parameters={"intervention": True})
    yield top, dict(times)
    del os.environ["STUDY_RUNS"], os.environ["STUDY_FIGURES"]
