"""A ``$STUDY_PAPER`` with tiny weights, two tasks and a pool, made once."""

import pytest

from helpers import worlds
from tests import tiny
from tests.paper.folders import SETTINGS, fgvc_aircraft, folders, laion


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A ``$STUDY_PAPER`` with tiny weights, two tasks and a pool."""
    top = tmp_path_factory.mktemp("paper")
    for name in ("clip", "judge", "generator"):
        getattr(tiny, name)(top / "weights" / name)
    tiny.classifier(top / "weights" / "resnet")
    tiny.classifier(top / "weights" / "clone", seed=1)
    tiny.language_model(top / "weights" / "llama")
    tiny.probe_folders(top / "benchmarks")
    fgvc_aircraft(top / "benchmarks")
    folders(top / "flora")
    laion(top / "laion")
    (top / "paper.toml").write_text(SETTINGS)
    return top


@pytest.fixture
def paper(published, monkeypatch):
    monkeypatch.setenv("STUDY_PAPER", str(published))
    return worlds.get("paper")
