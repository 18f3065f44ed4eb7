"""Rules that keep notebooks readable: short cells, prose, questions, predictions and exercises."""

import ast
import itertools
import json
import re
import statistics
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
NOTEBOOKS = sorted((TOP / "notebooks").glob("*.ipynb"))
LONGEST = 20  # lines of a code cell
WIDEST = 100  # columns of a line of code
# The folder of the study goes on the path, wherever a notebook is run from.
FINDING = """\
import sys; from pathlib import Path; import psutil  # fmt: skip

runs = [psutil.Process(), *psutil.Process().parents()[:1]]  # this kernel and, it may be, papermill
near = (Path(p.cwd(), a) for p in runs for a in [".ipynb", *p.cmdline()] if a.endswith(".ipynb"))
tops = (top for path in near for top in path.resolve().parents)
sys.path.insert(0, str(next((t for t in tops if (t / "helpers/engine/places.py").exists()), "")))
""".splitlines()


def cells(path, kind):
    content = json.loads(path.read_text(encoding="utf-8"))
    return [c for c in content["cells"] if c["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def notebook(request):
    return request.param


def test_all_notebooks_are_there():
    assert {"00", "01", "02", "03", "04", "05", "06", "07"} <= {p.name[:2] for p in NOTEBOOKS}


def test_stripped_and_portable(notebook):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert all(c.get("id") for c in content["cells"])
    for cell in cells(notebook, "code"):
        assert not cell["outputs"]
        assert cell["execution_count"] is None


def test_title_is_a_question_and_table_follows(notebook):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    first, second = (source(c) for c in content["cells"][:2])
    assert first.startswith(f"# {notebook.name[:2]} - ")
    assert first.splitlines()[0].endswith("?")
    rows = ("Learn", "Needs", "Reads", "Writes", "Figures", "Time")
    assert all(f"**{word}**" in second for word in rows)
    assert len(first.split("\n", 1)[1].split()) <= 90


def test_parameters_then_imports(notebook):
    parameters, imports, *others = cells(notebook, "code")
    assert parameters["metadata"]["tags"] == ["parameters"]
    lines = source(parameters).splitlines()
    assert len(lines) <= 4
    assert all(re.fullmatch(r"\w+ = [^=]+  # .+", line) for line in lines)
    lines = source(imports).splitlines()
    assert lines[: len(FINDING)] == FINDING
    assert lines[-1] == "w = worlds.get(world, seed=seed)"
    for cell in others:
        assert not re.search(r"^(import|from) ", source(cell), re.M)


def test_code_cells_are_short_and_narrow(notebook):
    lines = [source(c).splitlines() for c in cells(notebook, "code")]
    lengths = [len(each) for each in lines]
    assert max(lengths) <= LONGEST
    assert statistics.median(lengths) <= 8
    assert not [line for each in lines for line in each if len(line) > WIDEST]


def test_more_prose_than_code(notebook):
    code = cells(notebook, "code")
    prose = cells(notebook, "markdown")
    assert len(prose) >= 0.55 * len(code)
    assert sum(len(source(c).split()) for c in prose) >= 400


def test_few_functions_and_no_classes(notebook):
    nodes = [n for c in cells(notebook, "code") for n in ast.walk(ast.parse(source(c)))]
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef)]
    assert len(functions) <= 2
    assert all(f.end_lineno - f.lineno < 12 for f in functions)
    assert not any(isinstance(n, ast.ClassDef) for n in nodes)


def test_no_typed_results_in_prose(notebook):
    for cell in cells(notebook, "markdown"):
        for line in source(cell).splitlines():
            cited = "[P" in line or "papers" in line
            assert cited or not re.search(r"\d\s?(%|percent|points)", line), line


def tags(cell):
    return cell["metadata"].get("tags", [])


def test_one_prediction_one_answer_and_checkpoints(notebook):
    text = "\n".join(source(c) for c in cells(notebook, "markdown"))
    for part in ("**Predict first.**", "## What we learned", "\n## Exercises\n"):
        assert text.count(part) == 1, part
    code = cells(notebook, "code")
    for call in ("report.predict(", "report.answer(", "report.settle("):
        assert "".join(map(source, code)).count(call) == 1, call
    assert all(tags(c) == ["aside"] for c in code if "report.predict(" in source(c))
    assert any("checkpoint" in tags(c) for c in code)
    for link in re.findall(r"\]\((\w+\.ipynb)\)", text):
        assert (TOP / "notebooks" / link).exists(), link


def test_two_exercises_want_a_line_and_fold_its_solution(notebook):
    exercises = [source(c) for c in cells(notebook, "code") if tags(c) == ["exercise"]]
    assert len(exercises) == 2
    for exercise in exercises:
        assert exercise.count("# your line") == 1
        assert re.search(r"^ *assert .*,", exercise, re.M | re.S)
    text = "\n".join(source(c) for c in cells(notebook, "markdown")).partition("## Exercises")[2]
    solutions = re.findall(r"<summary>Solution</summary>(.*?)</details>", text, re.S)
    assert len(solutions) == 2
    assert all("```python" in solution for solution in solutions)


def test_every_figure_states_what_it_finds_and_is_read(notebook):
    every = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [c for c in every if c["cell_type"] == "code"]
    saved = [call for c in code for call in ast.walk(ast.parse(source(c))) if is_save(call)]
    assert saved
    for call in saved:
        titles = call.args[5:] + [word.value for word in call.keywords if word.arg == "title"]
        assert titles and not isinstance(titles[0], ast.Constant), ast.unparse(call)
    for cell, after in itertools.pairwise(every):
        if "figures.save(" in source(cell):
            assert after["cell_type"] == "markdown" or "report." in source(after), source(cell)


def is_save(node):
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "figures.save"


def test_figures_are_named_by_their_notebook():
    pattern = re.compile(r'figures\.save\([^"]*"([\w]+)"')
    names = []
    for path in NOTEBOOKS:
        for cell in cells(path, "code"):
            names += [(path, name) for name in pattern.findall(source(cell))]
    assert names
    assert all(name.startswith(path.name[:2] + "_") for path, name in names)
    assert len({name for _, name in names}) == len(names)
