"""The example of helpers/paper/README.md: its commands, on its drawings, as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.paper.test_study import one_core

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def commands():
    """The lines of the page's block of commands."""
    page = (TOP / "helpers" / "paper" / "README.md").read_text(encoding="utf-8")
    return re.search(r"```\n(export .*?)```", page, re.S)[1]


def test_the_page_leads_from_a_folder_to_an_answer(commands, tmp_path):
    """The only changes: another folder than ~/drawings, and this interpreter."""
    folder = tmp_path / "drawings"
    script = commands.replace("~/drawings", str(folder)).replace("python ", f"{sys.executable} ")
    with one_core():
        done = subprocess.run(
            ["bash", "-euc", script], cwd=TOP, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr[-3_000:]
    measured = pd.read_csv(folder / "figures" / "paper" / "04_accuracy_vs_size.csv")
    assert set(measured["source"]) == {"clip", "retrieved", "synthetic"}
    assert measured["accuracy"].between(0, 1).all() and measured["n"].max() >= 16
    funnel = pd.read_csv(folder / "figures" / "paper" / "03_funnel.csv")
    assert set(funnel[funnel["step"] == "pool"]["rows"]) == {72}


def test_the_sample_is_small_and_says_where_it_is_from():
    folder = TOP / "helpers" / "paper" / "example"
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 300_000
    listed = pd.read_csv(folder / "pool" / "metadata.csv")["file_name"]
    assert sorted(listed) == sorted(file.name for file in (folder / "pool").glob("*.jpg"))
    page = (folder.parent / "README.md").read_text(encoding="utf-8")
    assert "Open Clip Art Library 0.18 (public domain" in " ".join(page.split())
