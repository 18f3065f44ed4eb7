"""paper.toml: what is wrong in it is said in one line; weights that it names are part of keys."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from helpers import paper as backend
from helpers import worlds
from helpers.data import pictures
from helpers.engine import artifacts, places
from helpers.engine.places import PACKAGE
from helpers.errors import StudyError
from helpers.paper import config, pools
from tests.paper.folders import within


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
        ("kept = 0", "kept was given 0; it wants int, from 1 to 8,192 pixels"),
        ("kept = -5", "kept was given -5; it wants int, from 1"),
        ("drawn = 0", "drawn was given 0; it wants int, from 1"),
        ("drawn = 1_000_000", "drawn was given 1000000; it wants int, from 1 to 8,192"),
        ("kept = inf", "kept was given inf; it wants int"),
        ("drawn = 1979-05-27", r"drawn was given datetime.date\(1979, 5, 27\); it wants int"),
        ("clip = 07:32:00", r"clip was given datetime.time\(7, 32\); it wants str"),
        ("[world]\nseed = 1979-05-27T07:32:00Z", "seed of world 'paper' was given datetime"),
        ("[world.synthesis]\nguidance = inf", "guidance of .* was given inf; it wants a float"),
        ("[world.clip]\ntop_share = nan", "top_share of .* was given nan; it wants a float"),
        ('laion = "a\\u0000b"', r"laion was given 'a\\x00b'; it wants str, a name that a file can"),
        ('clip = "a\\u0000b"', "clip was given .*; it wants str, a name that a file can have"),
        (f'clip = "{"x" * 5_000}"', "clip was given 'x{199}; it wants str, a name that a file can"),
        (f'laion = "{"x" * 256}"', "laion was given 'x{199}; it wants str, a name that a file can"),
        (f'index = "{"a/" * 3_000}"', "index was given .*; it wants str, a name that a file can"),
        (f'judge = "ViT-B-32/{"x" * 256}"', "judge was given .*; it wants str, a name"),
        (f'generators.x = "{"x" * 256}"', "generators was given .*; it wants a table of names"),
        (
            "[tasks.birds]\nfolder = 'a\\u0000'".replace("'", '"'),
            "folder was given .* it wants str",
        ),
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


TASK = "[tasks.birds]\nfolder = 'b'\n"


@pytest.mark.parametrize(
    "text, words",
    [
        (
            "templates = ['a {c}']",
            "templates was given 'a {c}'; it wants a list of texts with one {}",
        ),
        ("templates = ['a {} or {}']", "with one {} each"),
        ("templates = ['a {0.__class__}']", "with one {} each"),
        ("templates = ['a bird']", "with one {} each"),
        ("templates = []", "with one {} each"),
        ("noun = ''", "noun was given ''; it wants a noun"),
        ("backgrounds = ['sea', ' ']", "backgrounds was given ' '"),
        ("classes = [1, 2]", "it wants a list of names or a text file"),
        ("classes = [nan, true]", "it wants a list of names or a text file"),
        ("classes = ['robin', 'wren', 'robin']", "'robin' and 'robin' are one name"),
        ("classes = ['A/B', 'A_B']", "'A/B' and 'A_B' are one name to a folder or a text"),
        ("classes = ['Robin', 'robin ']", "'Robin' and 'robin' are one name"),
        ("classes = ['robin', '']", "'' is no class name"),
        ("classes = ['robin', '\U0001f426']", "is no class name; it wants letters or digits"),
        ("classes = ['robin']", "1 classes; a task tells at least two apart"),
        ("classes = 'nowhere.txt'", "cannot read .*nowhere.txt: No such file"),
        ("classes = 'latin.txt'", "latin.txt is not in UTF-8"),
        ("classes = 'wide.txt'", "wide.txt is not in UTF-8"),
        ("classes = 'empty.txt'", "empty.txt: 0 classes"),
        ("classes = 'huge.txt'", "huge.txt is larger than 16,777,216 bytes"),
    ],
)
def test_a_task_is_checked_when_it_is_configured(tmp_path, monkeypatch, text, words):
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    (tmp_path / "latin.txt").write_bytes("nandú\nrobin".encode("latin-1"))
    (tmp_path / "wide.txt").write_bytes("robin\nwren".encode("utf-16"))
    (tmp_path / "empty.txt").write_text(" \n\n")
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(2**24 + 1)
    (tmp_path / config.FILE).write_text(TASK + text)
    with pytest.raises(StudyError, match=words) as e:
        config.settings()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "a b", ""])
def test_a_task_whose_name_could_lead_out_of_a_folder_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    (tmp_path / config.FILE).write_text(f'[tasks."{name}"]\nfolder = "b"')
    with pytest.raises(StudyError, match="names of letters, digits, - and _"):
        config.settings()


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = '\udcff'"])
def test_a_configuration_of_any_shape_is_one_line(tmp_path, monkeypatch, text):
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    (tmp_path / config.FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StudyError, match=r"paper\.toml"):
        config.settings()


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_what_is_no_file_is_not_read(tmp_path, monkeypatch, kind):
    """A pipe that nobody fills would be waited for, and /dev/zero has no end."""
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    make = {"folder": Path.mkdir, "pipe": os.mkfifo, "device": lambda p: p.symlink_to("/dev/null")}
    make[kind](tmp_path / "names.txt")
    make[kind](tmp_path / config.FILE)
    with within(5):
        with pytest.raises(StudyError, match=r"paper\.toml is a folder, pipe or device"):
            config.settings()
        with pytest.raises(StudyError, match=r"names\.txt is a folder, pipe or device"):
            config.table_of(tmp_path / "names.txt", "wnid")


def test_a_relative_folder_has_one_anchor(tmp_path, monkeypatch):
    """As that of STUDY_RUNS: the clone, wherever a command is given and a kernel works."""
    monkeypatch.setenv("STUDY_PAPER", os.path.relpath(tmp_path, places.TOP))
    (tmp_path / config.FILE).write_text("kept = 64")
    for cwd in (tmp_path, places.TOP):
        monkeypatch.chdir(cwd)
        assert config.root() == tmp_path and config.settings().kept == 64
    monkeypatch.setenv("STUDY_PAPER", "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=f"now '{places.TOP / 'elsewhere'}'"):
        config.root()


@pytest.mark.parametrize("name", ["x" * 5_000, "a file", "nowhere", "closed", "closed/inside"])
def test_a_folder_that_cannot_be_entered_is_one_line(tmp_path, monkeypatch, name):
    (tmp_path / "a file").touch(mode=0o777)
    (tmp_path / "closed" / "inside").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    if name.startswith("closed") and os.access(tmp_path / "closed", os.X_OK):
        pytest.skip("this user may enter any folder")
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path / name))
    with pytest.raises(StudyError, match="Make one, then: python -m helpers"):
        config.root()


def test_a_pool_beside_the_folder_of_settings(tmp_path, monkeypatch):
    """Its ".." does not look like paths that lead out of it, relative or absolute."""
    for folder in ("study", "pool"):
        (tmp_path / folder).mkdir()
    (tmp_path / "study" / "paper.toml").write_text('laion = "../pool"')
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path / "study"))
    Image.new("RGB", (8, 8)).save(tmp_path / "pool" / "a.png")
    for path in ("a.png", tmp_path / "pool" / "a.png"):
        (tmp_path / "pool" / "metadata.csv").write_text(f"file_name,text\n{path},x\n")
        assert pools.size(config.settings().laion) == 1


def test_names_are_kept_in_one_spelling(tmp_path, monkeypatch):
    given = [
        "\ufeffcafe\u0301",
        "F\u201116",
        "colt\u2019s\u00a0foot",
        "bird&#39;s",
        "a  \u201cb\u201d",
        "鳥",
        "737-200",
    ]
    right = ("café", "F-16", "colt's foot", "bird's", 'a "b"', "鳥", "737-200")
    assert config.class_names(given, "here") == right
    assert config.class_names(["nan", "None", "True"], "here") == ("nan", "None", "True")
    assert len(config.class_names(map(str, range(20_000)), "here")) == 20_000
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    (tmp_path / "names.txt").write_bytes("\r\n".join(given).encode("utf-8-sig") + b"\rlast\n\n")
    (tmp_path / config.FILE).write_bytes((TASK + "classes = 'names.txt'").encode("utf-8-sig"))
    assert config.settings().tasks["birds"].classes == (*right, "last")


def test_all_files_of_a_folder_count_once_links_too(tmp_path):
    for name in ("a/1.jpg", "b/c/2.jpg", ".hidden/3.jpg", "a/._1.jpg", "__MACOSX/4.jpg"):
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).write_bytes(b"1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "top" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "top" / "b" / "loop").symlink_to(tmp_path / "top")
    (tmp_path / "top" / "b" / "lost.jpg").symlink_to(tmp_path / "nowhere")
    before = config.identity(str(tmp_path / "top"))
    (tmp_path / "elsewhere" / "5.jpg").write_bytes(b"1")
    found = [str(p.relative_to(tmp_path / "top")) for p in pictures.files_below(tmp_path / "top")]
    assert sorted(found) == ["a/1.jpg", "b/c/2.jpg", "b/lost.jpg", "linked/5.jpg"]
    config._listing.cache_clear()
    assert config.identity(str(tmp_path / "top")) != before


def test_a_table_beside_a_tar_is_part_of_its_name(tmp_path):
    """Captions that are put right make another pool."""
    for name in ("0.tar", "0.csv", "1.tar"):
        (tmp_path / name).write_text("key,text")
    before = config.identity(str(tmp_path / "0.tar"))
    (tmp_path / "1.tar").write_text("another")
    assert config.identity(str(tmp_path / "0.tar")) == before
    (tmp_path / "0.csv").write_text("key,text\n0,a fish")
    assert config.identity(str(tmp_path / "0.tar")) != before


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
