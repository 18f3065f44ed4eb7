"""What a run shows: the package's own lines, no cell's prints, a live line on terminals only."""

import os
import re
import sys
import time

import nbformat
import pytest

from helpers import run
from helpers.engine import catalogue, places, progress
from tests.terminal import in_terminal, left_on_screen

CELLS = """
import subprocess, sys, time
from helpers import worlds
from helpers.engine import gpu, progress, store

gpu.cores = lambda: 1  # no other processes are prepared
print("accuracy: 0.5")
print("things done: 3 of 4\\nloss: 2")
for i in progress.over(range(4), "things done", 4):
    print(f"thing {i}: 100 %")
    time.sleep(0.25)
worker = "from helpers.engine import progress; progress.say('worker: step 100')"
print(subprocess.run([sys.executable, "-c", worker], capture_output=True, text=True).stdout)
w = worlds.get("smoke", seed=seed)
store.make("captions", w, lambda folder: store.write(folder / "a.json", {}))
42
"""
RUN = """
import sys
from pathlib import Path
from helpers import run
from helpers.engine import places

places.NOTEBOOKS = Path(sys.argv[1])
raise SystemExit(run.main(["smoke"]))
"""
LAST = [
    r"   things done: 4 in \d\.\d s",
    r"   worker: step 100",
    r"   captions: made captions-\w{12} in \d+ s, 0\.0 MB",
    r"00_tiny: \d+ s",
    r"1 notebooks in \d+ s; figures in .*, executed copies in .*",
]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder in which 00_tiny is the only notebook; its runs and figures are there as well."""
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(places, "NOTEBOOKS", tmp_path)
    parameters = "world = 'smoke'\nseed = 0\npause = 0.0"
    cells = [
        nbformat.v4.new_markdown_cell("# 00 - Tiny: does it run?"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(f"import time; time.sleep(pause)\n{CELLS}"),
    ]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec})
    nbformat.write(book, tmp_path / "00_tiny.ipynb")
    return tmp_path


def matched(lines, patterns):
    return len(lines) == len(patterns) and all(map(re.fullmatch, patterns, lines))


def test_only_the_packages_own_lines_get_through(tiny, capsys):
    assert run.main(["smoke"]) == 0
    printed = capsys.readouterr()
    assert matched(printed.out.splitlines(), LAST)
    assert "\r" not in printed.out
    assert "\x1b" not in printed.out
    assert not printed.err
    copy = (tiny / "runs" / "smoke" / "00_tiny.ipynb").read_text()
    for kept in ("accuracy: 0.5", "thing 3: 100 %", "things done: 4 in", "worker: step 100"):
        assert kept in copy


def test_a_terminal_has_a_live_line_that_is_gone_in_the_end(tiny):
    written = in_terminal([sys.executable, "-c", RUN, str(tiny)])
    assert matched(left_on_screen(written), LAST)
    shown = re.findall(r"\r\x1b\[K([^\r\n]*)", written)
    assert shown[0] == "   00_tiny is running"
    steps = [line for line in shown if line.startswith("   00 tiny · things done: ")]
    assert steps[0] == "   00 tiny · things done: 0 of 4"
    assert len(steps) >= 3
    assert all(re.fullmatch(r".*: [1-4] of 4, [01] min left", line) for line in steps[1:])


def test_a_live_line_fits_its_terminal(monkeypatch):
    told = []
    monkeypatch.setattr(progress, "tell", lambda text, end: told.append(text + end))
    monkeypatch.setenv("STUDY_COLUMNS", "20")
    progress.live("x" * 50)
    monkeypatch.setenv("STUDY_COLUMNS", "0")
    progress.live("no terminal")
    assert told == ["   " + "x" * 16]


def test_without_a_runner_nothing_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("STUDY_PIPE", raising=False)
    progress.say("one")
    monkeypatch.setenv("STUDY_PIPE", str(tmp_path / "of a runner that was killed"))
    progress.say("two")
    os.mkfifo(tmp_path / "unread")
    monkeypatch.setenv("STUDY_PIPE", str(tmp_path / "unread"))
    start = time.monotonic()
    progress.say("three")
    assert time.monotonic() - start < 5
    assert capsys.readouterr().out == "one\ntwo\nthree\n"
    assert [file.name for file in tmp_path.iterdir()] == ["unread"]


def test_times_are_those_of_the_last_run_that_built_something(tiny):
    first = run.execute("smoke", parameters={"pause": "2.5"})["00_tiny"]
    assert catalogue.times("smoke")["00_tiny"] == pytest.approx(first, abs=0.1)
    assert run.execute("smoke")["00_tiny"] < first - 1
    assert catalogue.times("smoke")["00_tiny"] == pytest.approx(first, abs=0.1)
    built = run.execute("smoke", seed=1)["00_tiny"]
    copies = places.root() / "smoke"
    assert (copies / "00_tiny.ipynb").exists() and (copies / "seed-1" / "00_tiny.html").exists()
    assert catalogue.times("smoke")["00_tiny"] == pytest.approx(built, abs=0.1)
    (places.figures_root() / "smoke" / catalogue.TIMES).unlink()
    found = run.execute("smoke")["00_tiny"]
    assert catalogue.times("smoke")["00_tiny"] == pytest.approx(found, abs=0.1)
