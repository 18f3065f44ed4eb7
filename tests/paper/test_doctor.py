"""What is missing is said before anything starts, with the way to get it; and what a run costs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pytest

from helpers import run
from helpers.engine import places
from helpers.paper import config, doctor, probes
from tests import tiny
from tests.paper.folders import SETTINGS


@pytest.mark.parametrize(
    "change, missing, start",
    [
        (("weights/llama", "weights/lama"), "language model", "00 03"),
        (("drawn = 64", 'benchmarks = "elsewhere"'), "benchmark aircraft", ""),
        (("drawn = 64", 'index = "elsewhere"'), "index", "00 01 02"),
        (("drawn = 64", 'laion = "elsewhere"'), "pool", ""),
        (("weights/clip", "laion2b_s34b_b88k"), "CLIP", "01"),
        (('folder = "flora"', 'folder = "fauna"'), "benchmark flora", ""),
    ],
)
def test_nothing_starts_while_something_is_missing(
    published, tmp_path, monkeypatch, capsys, change, missing, start
):
    """What can start is what has its needs here, and what it reads made by one before it."""
    for part in ("weights", "benchmarks", "flora", "laion"):
        (tmp_path / part).symlink_to(published / part)
    assert change[0] in SETTINGS
    (tmp_path / "paper.toml").write_text(SETTINGS.replace(*change))
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    assert run.main(["paper", "00", "01", "02", "03", "04", "05"]) == 2
    printed = capsys.readouterr().err
    assert (
        re.findall(r"^MISSING (.+?)  ", printed, re.M) == [missing]
        and not (tmp_path / "runs").exists()
    )
    told = f"can start: python -m helpers.run paper {start}" if start else "nothing can start yet"
    assert printed.splitlines()[-2] == told
    assert printed.endswith("look again: python -m helpers.run paper 00 01 02 03 04 05 --check\n")


@pytest.mark.parametrize(
    "change, missing, words",
    [
        (
            ("weights/judge", "ViT-L-14/openai", 1),
            "CLIP that judges",
            (
                "looked for ViT-L-14/openai",
                "open_clip.create_model('ViT-L-14', 'openai')",
                "as judge in paper.toml",
            ),
        ),
        (
            ("timm/weights/resnet", "timm/resnet50.a1_in1k"),
            "probed checkpoint",
            (
                "timm.create_model('resnet50.a1_in1k', pretrained=True)",
                "as checkpoints in paper.toml",
            ),
        ),
        (
            ("clone/model.safetensors", "clone/gone.safetensors"),
            "probed checkpoint",
            ("weights/clone/gone.safetensors, supervised on synthetic",),
        ),
        (
            ("open_clip/weights/clip", "open_clip/weights/llama"),
            "probed checkpoint",
            ("open_clip_model.safetensors is missing",),
        ),
        (
            ("timm/weights/resnet", "timm/weights/clip"),
            "probed checkpoint",
            ("a folder is complete when it has model.safetensors and config.json",),
        ),
        (
            ("timm/weights/resnet", "timm/resnett50"),
            "probed checkpoint",
            ("timm knows no model 'resnett50'",),
        ),
        (
            ("open_clip/weights/clip", "openclip/weights/clip"),
            "probed checkpoint",
            ("valid: 'timm/NAME'",),
        ),
        (
            ("timm/weights/resnet", "timm/weights/listed"),
            "probed checkpoint",
            ("timm could not load", "weights/listed/model.safetensors"),
        ),
        (
            ("timm/weights/resnet", "timm/weights/two"),
            "probed checkpoint",
            ("tells 2 classes apart, the probed benchmark has 3",),
        ),
        (
            ("clone/model.safetensors", "pickle.pth"),
            "probed checkpoint",
            ("pickle.pth is a pickle", "save_file"),
        ),
    ],
)
def test_judge_and_checkpoints_are_looked_for_before_anything_starts(
    published, tmp_path, monkeypatch, capsys, change, missing, words
):
    for part in ("benchmarks", "flora", "laion"):
        (tmp_path / part).symlink_to(published / part)
    (tmp_path / "weights").mkdir()
    for part in (published / "weights").iterdir():
        (tmp_path / "weights" / part.name).symlink_to(part)
    (tmp_path / "weights" / "pickle.pth").write_bytes(b"nobody opens this")
    for name, classes in (("listed", 3), ("two", 2)):
        tiny.classifier(tmp_path / "weights" / name, classes)
    (tmp_path / "weights" / "listed" / "config.json").write_text("[]")
    assert change[0] in SETTINGS
    (tmp_path / "paper.toml").write_text(SETTINGS.replace(*change))
    for name, place in (("STUDY_PAPER", ""), ("HF_HUB_CACHE", "cache"), ("STUDY_RUNS", "runs")):
        monkeypatch.setenv(name, str(tmp_path / place))
    assert run.main(["paper"]) == 2
    printed = capsys.readouterr().err
    assert re.findall(r"^MISSING (.+?)  ", printed, re.M) == [missing]
    unfolded = " ".join(printed.split())
    assert all(word in unfolded for word in words), printed


@pytest.mark.parametrize("damage", ["cut", "empty", "page", "gone"])
def test_damaged_pictures_of_a_task_are_found_before_anything_starts(
    published, tmp_path, monkeypatch, capsys, damage
):
    for part in ("weights", "benchmarks", "laion"):
        (tmp_path / part).symlink_to(published / part)
    shutil.copytree(published / "flora", tmp_path / "flora")
    file = tmp_path / "flora" / "test" / "tree" / "7.jpg"
    cut = {"cut": file.read_bytes()[:300], "empty": b"", "page": b"<html>"}.get(damage)
    file.unlink()
    file.symlink_to("nowhere") if cut is None else file.write_bytes(cut)
    (tmp_path / "paper.toml").write_text(SETTINGS)
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    assert run.main(["paper", "--check"]) == 2
    unfolded = " ".join("".join(capsys.readouterr()).split())
    assert "MISSING benchmark flora" in unfolded
    assert "cannot read the image" in unfolded and "flora/test/tree/7.jpg" in unfolded


def test_what_a_notebook_would_refuse_later_is_found_at_once(
    published, tmp_path, monkeypatch, capsys
):
    """Sides that cannot be drawn, a language model that reads too little, another index, a task
    without probe sets.
    """
    for part in ("benchmarks", "flora", "laion"):
        (tmp_path / part).symlink_to(published / part)
    shutil.copytree(published / "weights", tmp_path / "weights")
    about = tmp_path / "weights" / "llama" / "config.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"max_position_embeddings": 8}))
    index = faiss.IndexFlatIP(7)
    index.add(np.ones((2, 7), np.float32))
    (tmp_path / "index" / "metadata").mkdir(parents=True)
    faiss.write_index(index, str(tmp_path / "index" / "image.index"))
    pd.DataFrame({"caption": ["x", "y"]}).to_parquet(tmp_path / "index" / "metadata" / "0.parquet")
    text = SETTINGS.replace("drawn = 64", 'drawn = 60\nindex = "index"')
    text = re.sub(r".*\"timm/.*\n", "", text)  # CLIP can be probed on any task
    (tmp_path / "paper.toml").write_text(f'{text}\ntask = "flora"\n')
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    assert run.main(["paper", "--check"]) == 2
    out = capsys.readouterr().out
    missing = re.findall(r"^MISSING (.+?)  ", out, re.M)
    unfolded = " ".join(out.split())
    assert {*missing} == {
        "language model", "generator 1.1", "generator 1.5", "index", "probe sets"
    }  # fmt: skip
    assert "drawn = 60, kept = 32 in paper.toml: drawn must be a multiple of 8 pixels" in unfolded
    assert re.search("a prompt of [0-9]+ tokens and 12 new ones do not fit into the 8", unfolded)
    assert "image.index has vectors of 7 numbers, clip makes 32" in unfolded
    assert "probe sets of 'imagenet' only, not 'flora'" in unfolded
    (tmp_path / "paper.toml").write_text(SETTINGS.replace("kept = 32", "kept = 128"))
    assert run.main(["paper", "--check", "02"]) == 2
    assert "kept no more" in " ".join(capsys.readouterr().out.split())


def test_from_another_folder_with_names_that_are_no_utf_8(published, tmp_path):
    """A relative ``$STUDY_PAPER`` is seen from the clone, as a run does; the table is printed."""
    for part in ("weights", "benchmarks", "laion"):
        (tmp_path / part).symlink_to(published / part)
    shutil.copytree(published / "flora", tmp_path / "flora")
    (tmp_path / "flora" / "test" / "tree" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"cut")
    (tmp_path / "paper.toml").write_text(SETTINGS)
    (tmp_path / "else where").mkdir()
    given = {"PYTHONIOENCODING": "utf-8:strict", "STUDY_RUNS": str(tmp_path / "runs")}
    given["STUDY_PAPER"] = os.path.relpath(tmp_path, places.TOP)
    done = subprocess.run(
        [sys.executable, places.PACKAGE / "run.py", "paper", "--check", "01", "--seed", "3"],
        cwd=tmp_path / "else where",
        env=os.environ | given,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr and done.returncode == 2, done.stderr
    assert re.findall(r"^MISSING (.+?)  ", done.stdout, re.M) == ["benchmark flora"]
    assert r"flora/test/tree/caf\udce9.jpg" in "".join(done.stdout.split())
    assert done.stderr.endswith("python -m helpers.run paper 01 --seed 3 --check\n")


def test_check_names_cost_and_what_to_start(published, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STUDY_PAPER", str(published))
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path))
    assert run.main(["paper", "--check"]) == 0
    printed = capsys.readouterr().out
    assert "MISSING" not in printed and printed.count("not measured yet") == 1
    assert "not measured yet: run python -m tests.bench caption (then synthesis, " in printed
    assert re.search(
        r"found +CLIP that judges +for 06 .*weights/judge/open_clip_model.safetensors", printed
    )
    assert re.search(r"found +probe sets +for 07 +45 of 51 in benchmarks; without sun", printed)
    assert "cost    07: " in printed
    assert printed.count("probed checkpoint") == 4
    assert printed.rstrip().endswith(
        "can start: python -m helpers.run paper 00 01 02 03 04 05 06 07 08"
    )
    assert run.main(["paper", "--check", "03", "01", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "can start: python -m helpers.run paper 01 03 --seed 3"
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "00_throughput.csv").write_text(
        "bench,per_second,device\nsynthesis,0.5,a GPU\n"
    )
    run.main(["paper", "--check"])
    assert "cost    02: 0.0 hours on a GPU (64 x synthesis at 0.5 a" in capsys.readouterr().out


def test_the_table_is_readable_at_100_columns(published, tmp_path, monkeypatch, capsys):
    """Found and missing are grouped, a line each; commands and paths stay whole."""
    for part in ("weights", "benchmarks", "flora"):
        (tmp_path / part).symlink_to(published / part)
    text = SETTINGS.replace("weights/judge", "ViT-L-14/openai").replace("weights/llama", "a/b/c")
    (tmp_path / "paper.toml").write_text(text)
    for name, place in (("STUDY_PAPER", ""), ("HF_HUB_CACHE", "cache"), ("STUDY_RUNS", "runs")):
        monkeypatch.setenv(name, str(tmp_path / place))
    assert run.main(["paper", "--check"]) == 2
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if not line.startswith("images: left out")]
    states = [line.split()[0] for line in lines if re.match("found |MISSING ", line)]
    assert states == sorted(states, reverse=True)
    assert states == [line.split()[0] for line in lines[: len(states)]]
    assert {"found", "MISSING"} == set(states) and states.count("MISSING") == 4
    wide = [line for line in lines if len(line) > 100]
    assert not [line for line in wide if " " in line.strip() and "python -c" not in line], wide
    assert "open_clip.create_model('ViT-L-14', 'openai')\"" in out
    assert lines[-1] == "nothing can start yet"
    assert err.rstrip().endswith("look again: python -m helpers.run paper --check")
    assert run.main(["paper", "--check", "05"]) == 0  # which needs none of the four
    told = " ".join(capsys.readouterr().out.split())
    assert "nothing can start yet. finetuned for world 'paper' not found" in told


def test_what_may_not_be_looked_at_is_missing(tmp_path, monkeypatch):
    """As folders of others on a machine that many share."""
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))

    def closed():
        raise PermissionError(13, "Permission denied", "/others/pool")

    need = doctor._found("pool", "00", "/others/pool", closed)
    assert not need.found and "denied: '/others/pool'" in need.get
    assert doctor._here(closed) is None
    monkeypatch.setattr(Path, "is_dir", lambda _: closed())
    assert probes.present(Path("/others/benchmarks")) == []
    assert config.identity("/others/pool") == "/others/pool"


def test_a_missing_folder_says_so(monkeypatch, capsys):
    monkeypatch.delenv("STUDY_PAPER", raising=False)
    assert run.main(["paper", "01"]) == 2 and "$STUDY_PAPER" in capsys.readouterr().err
