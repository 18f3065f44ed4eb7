"""The kernel that the runner's notebooks share.

Nothing of one notebook is left for the next, and a killed kernel is told in one line.
"""

import os

import nbformat
import pytest

from helpers.engine import kernel, notebooks, places
from helpers.errors import StudyError


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    with kernel.started(str(places.TOP)) as manager:
        yield manager


def asked(manager, code):
    """What the code prints in the kernel."""
    client = manager.blocking_client()
    printed = []

    def keep(message):
        printed.append(message["content"].get("text", ""))

    client.start_channels()
    client.execute_interactive(code, timeout=300, output_hook=keep)
    client.stop_channels()
    return "".join(printed)


def alive(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


FIRST = """
import os
import numpy
from helpers import worlds
from helpers.engine import gpu, workers

left = 1
worlds.WORLDS["mine"] = left
gpu.cores = lambda: 2
print(*{pid for _, pid in workers.starmap(os.getpid, [()] * 4)})
"""
NEXT = """
import multiprocessing.spawn
import sys
print("numpy" in sys.modules, "helpers.worlds" in sys.modules)
from helpers import worlds
print("mine" in worlds.WORLDS, "name" in multiprocessing.spawn.get_preparation_data("one"))
"""


def test_a_notebook_finds_nothing_of_the_one_before(manager):
    workers = asked(manager, FIRST).split()
    assert "left" in asked(manager, "print(dir())")
    assert workers
    assert all(alive(pid) for pid in workers)
    kernel.empty(manager)
    assert not any(alive(pid) for pid in workers)
    assert "left" not in asked(manager, "print(dir())")
    assert asked(manager, NEXT).split() == ["True", "False", "False", "True"]


def test_a_killed_kernel_is_told_in_one_line(manager, tmp_path):
    path = tmp_path / "00_killed.ipynb"
    cells = [
        nbformat.v4.new_code_cell("world = 'smoke'"),
        nbformat.v4.new_code_cell("import os; os.kill(os.getpid(), 9)"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(StudyError, match=r"00_killed: the kernel was killed.*same command"):
        notebooks.execute(path, tmp_path / "copy.ipynb", {}, manager)
    with pytest.raises(StudyError, match="does not answer"):
        kernel.empty(manager)
