"""Rules that keep notebooks readable and the package thin; see README.md."""

import ast
import json
import re
import statistics
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
NOTEBOOKS = sorted((TOP / "notebooks").glob("*.ipynb"))
MODULES = sorted((TOP / "helpers").rglob("*.py"))
STAGES = {"captions", "synthesis", "retrieval", "finetune", "analysis", "scaling", "robustness"}
LISTS = {"scenes.py", "objects.py", "worlds.py"}  # drawings and settings are long


def cells(path, kind):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def notebook(request):
    return request.param


def test_all_notebooks_are_there():
    assert {"00", "01", "02", "03", "04", "05", "06", "07"} <= {p.name[:2] for p in NOTEBOOKS}


def test_stripped_and_portable(notebook):
    content = json.loads(notebook.read_text())
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert all(c.get("id") for c in content["cells"])
    assert all(not c["outputs"] and c["execution_count"] is None for c in cells(notebook, "code"))


def test_title_is_a_question_and_table_follows(notebook):
    first, second = (source(c) for c in json.loads(notebook.read_text())["cells"][:2])
    assert first.startswith(f"# {notebook.name[:2]} - ") and first.splitlines()[0].endswith("?")
    assert all(f"**{word}**" in second for word in ("Reads", "Writes", "Figures", "Time"))


def test_parameters_then_imports(notebook):
    first, second = cells(notebook, "code")[:2]
    assert first["metadata"]["tags"] == ["parameters"]
    lines = source(first).splitlines()
    assert len(lines) <= 4 and all(re.fullmatch(r"\w+ = [^=]+  # .+", line) for line in lines)
    text = source(second)
    assert text.startswith('import sys; sys.path[:0] = ["..", "."]') and text.endswith(
        "w = worlds.get(world, seed=seed)"
    )
    assert not any(
        re.search(r"^(import|from) ", source(c), re.M) for c in cells(notebook, "code")[2:]
    )


def test_short_cells_more_prose_than_code(notebook):
    code, prose = cells(notebook, "code"), cells(notebook, "markdown")
    lengths = [len(source(c).splitlines()) for c in code]
    assert max(lengths) <= 25 and statistics.median(lengths) <= 8
    assert len(prose) >= 0.55 * len(code) and sum(len(source(c).split()) for c in prose) >= 400
    functions = [
        f for c in code for f in ast.walk(ast.parse(source(c))) if isinstance(f, ast.FunctionDef)
    ]
    assert len(functions) <= 2 and all(f.end_lineno - f.lineno < 12 for f in functions)
    assert not any(
        isinstance(n, ast.ClassDef) for c in code for n in ast.walk(ast.parse(source(c)))
    )


def test_no_typed_results_in_prose(notebook):
    for cell in cells(notebook, "markdown"):
        for line in source(cell).splitlines():
            cited = "[P" in line or "papers" in line
            assert cited or not re.search(r"\d\s?(%|percent|points)", line), line


def test_predictions_exercises_and_checkpoints(notebook):
    text = "\n".join(source(c) for c in cells(notebook, "markdown"))
    tags = [tag for c in cells(notebook, "code") for tag in c["metadata"].get("tags", [])]
    assert (
        "**Predict first.**" in text
        and "## Exercises" in text
        and "## What we learned" in text
        and "<details>" in text
    )
    assert tags.count("exercise") >= 2 and "checkpoint" in tags
    for link in re.findall(r"\]\((\w+\.ipynb)\)", text):
        assert (TOP / "notebooks" / link).exists(), link


def test_figures_are_named_by_their_notebook():
    names = [
        (p, n)
        for p in NOTEBOOKS
        for c in cells(p, "code")
        for n in re.findall(r'figures\.save\([^"]*"([\w]+)"', source(c))
    ]
    assert names and all(n.startswith(p.name[:2] + "_") for p, n in names)
    assert len({n for _, n in names}) == len(names)
