"""paper.toml: what is wrong in it is said in one line; weights that it names are part of keys."""

import shutil
from pathlib import Path

import pytest

from helpers import paper as backend
from helpers import worlds
from helpers.engine import artifacts
from helpers.engine.places import PACKAGE
from helpers.errors import StudyError
from helpers.paper import config


def test_weights_are_part_of_an_artifacts_name(published, paper, tmp_path, monkeypatch):
    """Other weights give another artifact; the same weights elsewhere the same one."""
    names = {
        n: artifacts.key(n, paper)
        for n in ("captions", "synthetic", "embeddings", "retrieved", "scaled", "robust")
    }
    shutil.copytree(published, tmp_path / "moved")
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path / "moved"))
    assert {n: artifacts.key(n, worlds.get("paper")) for n in names} == names

    def changed_by(change) -> list[str]:
        before = {n: artifacts.key(n, worlds.get("paper")) for n in names}
        change(tmp_path / "moved")
        config._listing.cache_clear()
        after = {n: artifacts.key(n, worlds.get("paper")) for n in names}
        return [n for n in names if after[n] != before[n]]

    for change, made_anew in (
        (
            lambda top: (top / "weights/llama/more.json").write_text("x"),
            ["captions", "synthetic", "scaled", "robust"],
        ),
        (
            lambda top: (top / "weights/judge/more.json").write_text("x"),
            ["scaled", "robust"],
        ),  # it is probed, too
        (lambda top: (top / "weights/clone/model.safetensors").write_text("x"), ["robust"]),
        (lambda top: (top / "benchmarks/sun").mkdir(), ["robust"]),
    ):
        assert changed_by(change) == made_anew


@pytest.mark.parametrize(
    "text, words",
    [
        ('langage_model = "x"', "Did you mean 'language_model'"),
        ('language_engine = "vllm"', "unknown key of .*paper.toml 'language_engine'"),
        ("drawn = true", "drawn was given True; it wants int"),
        ("tasks.birds = 3", "tasks was given 3; it wants a table"),
        ("[tasks.birds]\nfolde = 'birds'", "Did you mean 'folder'"),
        ("[tasks.birds]\nfolder = 'b'\nclasses = [3]", r"\[tasks.birds\] .*a list of names or"),
        ("drawn = 'large'", "it wants int"),
        ("x =", "wants TOML"),
        ("[tasks.birds]\nnoun = 'bird'", "folder is missing"),
        ("[world]\nfinetune = { epoch = 1 }", "Did you mean 'epochs'"),
        ("[world]\ntasks = ['aircaft']", "Did you mean 'aircraft'"),
        ("judge = 3", "judge was given 3; it wants str"),
        ("checkpoints = ['timm/resnet50']", "wants a tuple of tuples"),
        (
            "checkpoints = [['superwised', 'synthetic', 'timm/resnet50']]",
            "Did you mean 'supervised'",
        ),
        (
            "[world.robustness]\ncheckpoints = [['supervised', 'real', 'timm/resnet50']]",
            "unknown source of checkpoint 'timm/resnet50' 'real'",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_way_out(tmp_path, monkeypatch, text, words):
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    (tmp_path / "paper.toml").write_text(text)
    with pytest.raises(StudyError, match=words):
        worlds.get("paper")


def test_the_example_has_every_key_and_is_valid(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    shutil.copy(PACKAGE / "paper" / "example.toml", tmp_path / config.FILE)
    s = config.settings()
    assert s.model_fields_set == set(config.Config.model_fields)
    assert s.tasks["birds"].model_fields_set == set(config.Task.model_fields)
    assert s.tasks["birds"].folder == tmp_path / "birds" and s.laion == tmp_path / "laion"
    assert worlds.get("paper").finetune.epochs == 10


def test_no_function_of_the_seam_is_called_like_a_module():
    """Once imported, a module would stand in the way of the function."""
    modules = {path.stem for path in Path(backend.__file__).parent.glob("*.py")}
    assert not modules & set(backend.SEAM)
