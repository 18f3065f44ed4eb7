"""The runner's ``--ray``.

What needs a Ray that runs is in ray_checks.py, for a process that Ray may take down with it.
"""

import importlib.util
import re
import subprocess
import sys

import pytest

from helpers import run
from helpers.engine import places, workers
from helpers.errors import StudyError


def test_without_ray_the_message_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    for address in ("local", "head:6379"):
        assert run.main(["pocket", "03", "--ray", address]) == 2
        message = capsys.readouterr().err.strip()
        assert "pip install ray" in message
        assert repr(address) in message
        assert len(message.splitlines()) == 1
    monkeypatch.setenv("STUDY_RAY", "local")
    with pytest.raises(StudyError, match="pip install ray"):
        list(workers.starmap(abs, [(1,)]))


def test_help_names_the_option(capsys):
    with pytest.raises(SystemExit):
        run.main(["--help"])
    assert "--ray ADDRESS|local" in capsys.readouterr().out


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray, an extra, is not installed: pip install ray",
)
def test_shards_on_a_local_ray():
    """The checks pass wherever Ray stays up until their end.

    A process that loses its Ray is ended by it at once, without a word.
    """
    words = ""
    for _ in range(2):
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "tests/engine/ray_checks.py"],
                cwd=places.TOP,
                capture_output=True,
                text=True,
                timeout=240,
            )
        except subprocess.TimeoutExpired as e:
            words = f"{e}"
            continue
        if re.search(r"\d+ (passed|failed|error|skipped)", done.stdout):
            assert done.returncode == 0, done.stdout[-5_000:]
            return
        words = f"{done.stdout[-300:]} {done.stderr[-300:]}"
    pytest.skip(f"Ray does not stay up on this machine: {words}")
