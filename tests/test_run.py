"""The runner: what it lists, checks and says; errors are one line with the way out."""

from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from papermill.exceptions import PapermillExecutionError
from PIL import Image

from helpers import pages, run, worlds
from helpers.engine import catalogue, figures, notebooks, places, randomness, store
from helpers.errors import StudyError
from helpers.pocket.render.pictures import subject


def status(capsys, *arguments):
    code = run.main(list(arguments))
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["pokcet"], "Did you mean 'pocket'"),
        (["pocket", "09"], "unknown notebook '09'"),
        (["pocket", "03_retreival"], "Did you mean '03_retrieval'"),
        (["pocket", "03", "-p", "wrold=paper"], "Did you mean 'world'"),
        (["pocket", "03", "-p", "seed"], "name=value"),
        (["pocket", "03", "-p", "seed=many"], "wants an int"),
        (
            ["pocket", "03", "-p", "seed=1", "-p", "seed=2"],
            "-p seed was given twice; write each once",
        ),
        (["pocket", "03", "-p", "seed=-1"], "no negative number"),
        (
            ["pocket", "01", "-p", "world=smoke"],
            "the world is the first argument: python -m helpers.run smoke",
        ),
        (["pocket", "01", "-p", "seed=1", "--seed", "2"], "--seed 2 and -p seed=1 contradict"),
        (["smoke", "-p", "seed=1", "09"], "unknown notebook '09'"),
        (["smoke", "--list", "nosuch"], "unknown notebook 'nosuch'"),
        (["pokcet", "--list"], "Did you mean 'pocket'"),
    ],
)
def test_bad_input_is_one_line_with_the_way_out(capsys, arguments, words):
    code, message = status(capsys, *arguments)
    assert code == 2
    assert words in message
    assert len(message.splitlines()) == 1


def test_list_names_every_notebook(capsys):
    assert run.main(["pocket", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(catalogue.notebooks())
    assert all(line.endswith("?") for line in lines)
    assert run.main(["--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "world pocket; for another: python -m helpers.run WORLD --list",
        *lines,
    ]
    for arguments in (["pocket", "--list", "03", "05"], ["--list", "03", "05"]):
        assert run.main(arguments) == 0
        names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert names[-2:] == ["03_retrieval", "05_analysis"]


def test_list_estimates_what_nobody_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path))
    store.write(
        tmp_path / "smoke" / "00_timing.csv", b"notebook,seconds\n02_image_synthesis,12.3\n"
    )
    shipped = catalogue.times("pocket", places.TOP / "figures")
    lines = catalogue.listing("smoke").splitlines()
    assert " 12 s  Image" in lines[2]
    assert "est." not in lines[2]
    assert f"est. {shipped['03_retrieval']:.0f} s in pocket" in lines[3]
    assert "not measured" not in "".join(lines)
    assert "est. GPU-days for a million images" in catalogue.listing("paper", ["02"])
    assert "est. GPU-hours  Robustness" in catalogue.listing("paper", ["07"])
    (tmp_path / "smoke" / "00_timing.csv").write_text("something else")
    with pytest.raises(StudyError, match=r"00_timing\.csv.*delete it"):
        catalogue.listing("smoke")


def test_parameters_take_the_types_of_their_defaults():
    path = catalogue.notebooks()["00"]
    other = catalogue.notebooks()["01"]
    made = run.typed_parameters([path, other], "smoke", None, {"seed": "3", "retrain": "True"})
    assert made == {
        path: {"seed": 3, "retrain": True, "world": "smoke"},
        other: {"seed": 3, "world": "smoke"},
    }


def test_a_failing_notebook_prints_its_message(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path / "figures"))
    code, message = status(capsys, "smoke", "05")  # says so before anything is rendered
    assert code == 1
    assert "finetuned" in message
    assert "python -m helpers.run smoke 04" in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "runs" / "smoke" / "store").exists()

    def started(path, *_):
        pytest.fail(f"started with {path.stem}")

    monkeypatch.setattr(notebooks, "execute", started)
    code, message = status(capsys, "smoke", "02", "04")
    assert code == 1
    assert "python -m helpers.run smoke 01" in message
    # each finds what one before makes
    paths = [catalogue.notebooks()[n] for n in ("01", "02", "03", "04", "05", "07")]
    assert not any(run._unread("smoke", {path: {} for path in paths}).values())


ERRORS = "from helpers.errors import NotKnown, StudyError"


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Makes 00_tiny the only notebook, with some code in its last cell.

    Its runs and figures are in a temporary folder.
    """
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(places, "NOTEBOOKS", tmp_path)

    def make(code):
        cells = [
            nbformat.v4.new_markdown_cell("# 00 - Tiny: does it run?"),
            nbformat.v4.new_code_cell(
                "world = 'pocket'\nseed = 0", metadata={"tags": ["parameters"]}
            ),
            nbformat.v4.new_code_cell(ERRORS),
            nbformat.v4.new_code_cell(code),
        ]
        spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec}),
            tmp_path / "00_tiny.ipynb",
        )

    return make


@pytest.mark.parametrize(
    "code, words",
    [
        ("raise StudyError('lower sizes')", "error: 00_tiny: lower sizes"),
        ("raise NotKnown('nobody knows')", "error: 00_tiny: nobody knows"),
        (
            "lost = {'A320': 2}\nassert not lost, f'some are\\nlost: {lost}'",
            "error: 00_tiny: a checkpoint failed: some are lost: {'A320': 2}",
        ),
    ],
)
def test_a_notebooks_error_is_one_line(notebook, capsys, tmp_path, code, words):
    notebook(code)
    assert status(capsys, "smoke") == (1, words)
    assert (tmp_path / "runs" / "smoke" / "00_tiny.html").exists()


@pytest.mark.parametrize("seed, tracked", [(0, True), (3, False)])
def test_what_a_run_changed_of_committed_figures_is_said(
    notebook, capsys, tmp_path, monkeypatch, seed, tracked
):
    """A clone with its own figures: the line says how to have them as they were."""
    notebook("1 + 1")
    monkeypatch.setattr(places, "COMMITTED", tmp_path / "figures")
    monkeypatch.setattr(pages, "write", lambda *_: None)  # it would write the study's own README.md
    assert run.main(["pocket", "--seed", str(seed)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    back = "(as committed: git checkout -- figures/pocket), executed copies"
    assert (back in last) == tracked and ("git checkout" in last) == tracked


def test_an_unexpected_error_keeps_its_traceback(notebook):
    notebook("def inner():\n    return [][1]\ninner()")
    with pytest.raises(PapermillExecutionError, match=r"inner\(\)(.|\n)*IndexError"):
        run.main(["smoke"])


@pytest.mark.parametrize("variable", ["STUDY_RUNS", "STUDY_FIGURES"])
def test_folders_that_cannot_be(notebook, capsys, tmp_path, monkeypatch, variable):
    notebook("1 + 1")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv(variable, str(folder))
        code, message = status(capsys, "smoke")
        assert code == 2
        assert f"{tmp_path / 'file'} is a file, not a folder" in message
        assert "Set STUDY_RUNS" in message
    # as when a disk turns read-only on the way
    with pytest.raises(StudyError, match=r"cannot write .*not a folder"):
        run.execute("smoke")


def test_without_a_home_caches_go_to_the_runs(notebook, tmp_path, monkeypatch):
    """As for a user whose number has no name, with HOME unset."""
    notebook("import os; assert os.environ['HOME'] == os.environ['STUDY_RUNS'], 'another home'")

    def refuse():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("HOME", "/nowhere")  # to have it back afterwards
    monkeypatch.setattr(Path, "home", refuse)
    assert list(run.execute("smoke")) == ["00_tiny"]


def test_check_starts_nothing_and_says_nothing_of_starting(capsys, monkeypatch):
    monkeypatch.delenv("STUDY_PAPER", raising=False)
    assert run.main(["paper", "--check", "00"]) == 2
    printed = capsys.readouterr()
    assert "MISSING" in printed.out
    assert "start" not in printed.err
    assert len(printed.err.splitlines()) == 1
    assert run.main(["smoke", "--check", "00"]) == 0
    assert not capsys.readouterr().err


def test_check_ends_with_the_very_command_that_can_start(capsys, tmp_path, monkeypatch):
    """The numbers, seed and parameters that were given, but for what has nothing to read yet."""
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    start = "can start: python -m helpers.run smoke"
    for arguments, right in (
        ([], f"{start} 00 01 02 03 04 05 06 07 08"),
        (["03", "--seed", "3"], f"{start} 03 --seed 3"),
        (["00", "01", "-p", "retrain=False"], f"{start} 00 01 -p retrain=False"),
        (["01", "00", "05", "-p", "seed=1"], f"{start} 00 01 -p seed=1"),  # 05 reads what 04 makes
    ):
        assert run.main(["smoke", "--check", *arguments]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == right
    assert run.main(["smoke", "--check", "05"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "nothing can start yet. finetuned for world 'smoke' not found" in told
    assert told.endswith("Run: python -m helpers.run smoke 04")


def test_a_broken_figure_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path))
    store.write(tmp_path / "smoke" / "03_funnel.png", b"no picture")
    with pytest.raises(StudyError, match=r"03_funnel\.png.*notebook 03 draws it again"):
        pages.write_contents()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"task": 1}, "setting of world"),
        ({"finetune": {"epoch": 3}}, "Did you mean 'epochs'"),
        ({"tasks": ("boats",)}, "Valid: aircraft, flowers, cars.$"),
        (
            {"finetune": {"epochs": -5}},
            "epochs of world 'pocket'.finetune was given -5; it wants at least 1, like 6",
        ),
        ({"finetune": {"epochs": 0}}, "at least 1"),
        ({"finetune": {"epochs": "x"}}, "wants an int"),
        ({"finetune": {"epochs": True}}, "an int"),
        ({"seed": "1"}, "wants an int"),
        ({"seed": {}}, "wants an int"),
        ({"seed": -1}, "no negative number"),
        ({"finetune": 5}, r"wants a mapping of settings, as in finetune=\{"),
        ({"tasks": ()}, "at least one"),
        (
            {"tasks": "aircraft"},
            r"given 'aircraft'; it wants a tuple of str, each once, like \('aircraft'",
        ),
        ({"tasks": ["cars"]}, "tuple of str"),
        ({"finetune": {"lrs": (1e-3, float("nan"))}}, "tuple of float"),
        ({"finetune": {"sizes": (0, 30)}}, "at least 1"),
        (
            {"finetune": {"sizes": (480, 120)}},
            r"\(480, 120\); it wants .* larger than the one before",
        ),
        ({"scaling": {"pairs": (48, 48)}}, "each larger than the one before"),
        ({"tasks": ("cars", "cars")}, r"\('cars', 'cars'\); it wants a tuple of str, each once"),
        ({"clip": {"top_share": 0.0}}, "given 0.0; it wants a float above 0, at most 1, like 0.7"),
        ({"clip": {"top_share": 30.0}}, "above 0, at most 1"),
        ({"robustness": {"checkpoints": (("a", "b"),)}}, "tuple of tuples"),
        ({"captions": {"per_class_of": (("cars", "8"),)}}, "tuple"),
        ({"synthesis": {"guidance": -1.0}}, "no negative number"),
        ({"backend": "paper2"}, "Did you mean 'paper'"),
    ],
)
def test_bad_settings(changes, words):
    with pytest.raises(StudyError, match=words):
        worlds.get("pocket", **changes)


def test_settings_take_all_that_fits():
    w = worlds.get(
        "pocket",
        seed=3,
        synthesis={"guidance": 3},
        finetune={"synthetic_beyond": 0, "epochs_of": (("cars", 2),)},
        analysis={"mixes": ((3, 7),), "strengths": ()},
    )
    assert w.seed == 3
    assert w.synthesis.guidance == 3
    assert w.finetune.synthetic_beyond == 0
    assert w.analysis.strengths == ()


@pytest.mark.parametrize("world", ["smoke", "desk", "paper"])
def test_what_the_worlds_say_fits(world):
    w = worlds.WORLDS[world]
    names = ("pool", "captions", "retrieval", "finetune", "analysis", "scaling")
    parts = {name: vars(getattr(w, name)) for name in names}
    assert worlds.replace(worlds.POCKET, **parts).finetune == w.finetune


@pytest.mark.parametrize("world", ["smoke", "paper"])
def test_captions_and_seeds_go_together(world):
    w = worlds.get(world)
    with pytest.raises(StudyError, match="1 captions, 2 seeds were given"):
        worlds.backend(w).draw(w, ["a"], [1, 2])
    with pytest.raises(StudyError, match="2 captions, 2 seeds, 1 images"):
        worlds.backend(w).draw(w, ["a", "b"], [1, 2], np.zeros((1, 8, 8, 3), np.uint8), 0.5)


def test_unknown_class_and_task():
    with pytest.raises(StudyError, match="Did you mean 'A32"):
        subject("aircraft", "A32O")
    with pytest.raises(StudyError, match="unknown task"):
        subject("ships", "A320")


def test_paper_world_says_what_it_needs(monkeypatch):
    monkeypatch.delenv("STUDY_PAPER", raising=False)
    w = worlds.get("paper")
    with pytest.raises(StudyError, match="STUDY_PAPER"):
        worlds.backend(w).benchmark(w, "aircraft")
    with pytest.raises(StudyError, match="rendered worlds"):
        worlds.backend(w).intervention(w)


def test_randomness_depends_on_names_only():
    w = worlds.get("smoke")
    first = randomness.rng(w, "a", 1).random()
    assert randomness.rng(w, "a", 1).random() == first
    assert randomness.rng(w, "a", 2).random() != first
    assert randomness.entropy("ab", "c") != randomness.entropy("a", "bc")


def test_figures_need_alt_text_and_keep_it(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path))
    w = worlds.get("smoke")
    alt = "A line from zero to one, rising evenly, drawn for a test of how alt text is kept."
    with pytest.raises(StudyError, match="60 to 300"):
        figures.save(plt.figure(), "00_x", None, "short", w)
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    shown = figures.save(fig, "00_x", None, alt, w)._repr_mimebundle_()
    assert alt in shown["text/html"]
    assert Image.open(tmp_path / "smoke" / "00_x.png").text["Description"] == alt
    assert alt in pages.write_contents().read_text()
