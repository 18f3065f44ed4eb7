"""Rules that keep notebooks readable and the package thin; see README.md."""

import ast
import inspect
import json
import re
import statistics
import subprocess
import sys
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


def test_no_world_is_singled_out():
    for path in [*MODULES, *NOTEBOOKS]:
        assert not re.search(
            r"if \w*(world|name)\w* [!=]= ['\"](smoke|pocket|workstation|paper)", path.read_text()
        ), path


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(TOP)))
def test_import_graph(path):
    found = imports(path)
    stages = {f"helpers.{s}" for s in STAGES}
    if path.parent.name == "helpers" and path.name != "run.py":
        assert not found & stages, "stages meet through files in the store"
        assert not any(f.startswith(("helpers.pocket", "helpers.paper")) for f in found), (
            "worlds are reached by worlds.backend"
        )
    if path.name not in ("clip.py", "weights.py"):
        assert "open_clip" not in found, "only clip.py and weights.py import open_clip"
    if path.parent.name in ("pocket", "paper"):
        assert not found & stages
    if path.name != "gpu.py":
        assert "torch.cuda" not in path.read_text(), "only gpu.py asks what hardware this is"


def test_the_package_stays_thin():
    lengths = {p: len(p.read_text().splitlines()) for p in MODULES}
    assert (
        sum(n for p, n in lengths.items() if p.parent.name not in ("pocket", "paper")) < 6_200
    )  # eight notebooks
    assert (
        sum(lengths.values()) < 11_800
    )  # with the renderer and the upstream trainings of the miniature, and downloads
    assert not [str(p) for p, n in lengths.items() if n > (400 if p.name in LISTS else 310)]


def test_public_functions_are_documented():
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_importing_a_stage_is_cheap(stage):
    if not (TOP / "helpers" / f"{stage}.py").exists():
        pytest.skip("not written yet")
    code = f"import helpers.{stage}, sys; assert not {{'torch', 'open_clip', 'diffusers', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=TOP, check=True)


def test_both_backends_offer_the_same():
    from helpers import paper, pocket

    names = [
        n
        for n, f in vars(pocket).items()
        if inspect.isfunction(f) and f.__module__ == "helpers.pocket"
    ]
    assert {"write_captions", "draw", "open_pool", "benchmark"} <= set(names)
    for name in names:
        assert inspect.signature(getattr(pocket, name)) == inspect.signature(
            getattr(paper, name)
        ), name
