"""Shared by all tests: a smoke run of the whole study in a folder of its own, made once."""

import os

import pytest

from helpers import run

os.environ.setdefault("STUDY_HEADLESS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """All notebooks executed on the smoke world: a folder with ``runs/`` and ``figures/``.

    Beside it the seconds that each notebook took.
    """
    top = tmp_path_factory.mktemp("smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_RUNS", str(top / "runs"))
        patch.setenv("STUDY_FIGURES", str(top / "figures"))
        times = run.execute("smoke", parameters={"intervention": True})
        yield top, dict(times)
