"""What is missing is said before anything starts, with the way to get it; and what a run costs."""

import re
import shutil

import pytest

from helpers import run
from tests import tiny
from tests.paper.folders import SETTINGS


@pytest.mark.parametrize(
    "change, missing",
    [
        (("weights/llama", "weights/lama"), "language model"),
        (("drawn = 64", 'benchmarks = "elsewhere"'), "benchmark aircraft"),
        (("drawn = 64", 'index = "elsewhere"'), "index"),
        (("drawn = 64", 'laion = "elsewhere"'), "pool"),
        (("weights/clip", "laion2b_s34b_b88k"), "CLIP"),
        (('folder = "flora"', 'folder = "fauna"'), "benchmark flora"),
    ],
)
def test_nothing_starts_while_something_is_missing(
    published, tmp_path, monkeypatch, capsys, change, missing
):
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
    assert "--check" in printed and "start" in printed.splitlines()[-2]


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
    assert lines[-1] == "can start: python -m helpers.run paper 02 04 05 08"
    assert err.rstrip().endswith("look again: python -m helpers.run paper --check")


def test_a_missing_folder_says_so(monkeypatch, capsys):
    monkeypatch.delenv("STUDY_PAPER", raising=False)
    assert run.main(["paper", "01"]) == 2 and "$STUDY_PAPER" in capsys.readouterr().err
