"""The package's rooms: which may use which, without circles, and how large each may be."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import paper, pocket

TOP = Path(__file__).parent.parent
MODULES = {
    ".".join(p.relative_to(TOP).with_suffix("").parts): p
    for p in sorted((TOP / "helpers").rglob("*.py"))
}
BELOW = {  # room -> the rooms that it may use, beside itself
    "settings": [],
    "worlds": ["settings", "errors"],
    "engine": ["worlds", "settings", "errors"],
    "data": ["engine", "worlds", "settings", "errors"],
    "measure": ["data", "engine", "worlds", "settings", "errors"],
    "models": ["measure", "data", "engine", "worlds", "settings", "errors"],
    "study": ["models", "measure", "data", "engine", "worlds", "settings", "errors"],
    "pocket": ["models", "measure", "data", "engine", "worlds", "settings", "errors"],
    "paper": ["models", "measure", "data", "engine", "worlds", "settings", "errors"],
    "clean": ["engine", "worlds", "settings", "errors"],
    "answers": ["engine", "worlds", "settings", "errors"],
    "pages": ["answers", "engine", "worlds", "settings", "errors"],
    "run": ["pages", "clean", "engine", "worlds", "settings", "errors"],
    "errors": [],
}
BUDGETS = {  # rooms -> lines in all
    ("study", "models", "data", "measure"): 6_210,  # the aim is 4,700
    ("engine",): 1_500,
    ("pocket",): 4_300,
    ("paper",): 2_604,  # the aim is 2,000
}
LONGEST = 300  # lines of a module
STUDY_IN_ORDER = [
    "runs", "captions", "synthesis", "embeddings", "retrieval", "finetune", "analysis",
    "arms", "pairs", "scaling", "robustness", "mixes",
]  # fmt: skip


def room(module):
    return module.split(".")[1] if "." in module else ""


def imports_of(module):
    """(imported module of the package, whether inside a function) of every import statement."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in full]
        for name in names:
            if name.split(".")[0] == "helpers":
                yield name, id(node) in inside


GRAPH = {m: {name for name, _ in imports_of(m) if name in MODULES and name != m} for m in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_rooms_use_only_what_is_below_them(module):
    allowed = {room(module), *BELOW.get(room(module), [])}
    wrong = {name for name in GRAPH[module] if room(name) not in allowed}
    assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_of_the_package_is_imported_inside_a_function(module):
    assert not [name for name, inside in imports_of(module) if inside]


def test_no_import_goes_round_in_circles():
    finished, open_ = set(), []

    def visit(module):
        if module in finished:
            return
        assert module not in open_, " -> ".join([*open_[open_.index(module) :], module])
        open_.append(module)
        for name in sorted(GRAPH[module]):
            visit(name)
        finished.add(open_.pop())

    for module in MODULES:
        visit(module)


def test_a_study_module_imports_earlier_ones_only():
    place = {f"helpers.study.{name}": i for i, name in enumerate(STUDY_IN_ORDER)}
    for module, i in place.items():
        later = [name for name in GRAPH[module] if place.get(name, -1) > i]
        assert not later, f"{module} imports {later}"


@pytest.mark.parametrize("rooms", BUDGETS, ids="+".join)
def test_rooms_keep_their_budget(rooms):
    lines = sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for module, path in MODULES.items()
        if room(module) in rooms
    )
    assert lines <= BUDGETS[rooms]


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_long(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("module", MODULES)
def test_whatever_is_public_is_documented(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body, module
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}: {node.name}"


def test_no_world_is_singled_out():
    pattern = re.compile(r"if \w*(world|name)\w* [!=]= ['\"](smoke|pocket|desk|paper)")
    notebooks = sorted((TOP / "notebooks").glob("*.ipynb"))
    for path in [*MODULES.values(), *notebooks]:
        assert not pattern.search(path.read_text(encoding="utf-8")), path


def test_only_one_module_asks_what_hardware_this_is():
    asking = [m for m, path in MODULES.items() if "torch.cuda" in path.read_text(encoding="utf-8")]
    assert asking == ["helpers.engine.gpu"]


IMPORTING = """
import importlib
import sys

heavy = {"torch", "open_clip", "diffusers", "transformers"}
for module in sys.argv[1:]:
    importlib.import_module(module)
    loaded = heavy & set(sys.modules)
    assert not loaded, f"{module} imports {loaded}"
"""


def test_importing_study_modules_is_cheap():
    modules = [m for m in MODULES if room(m) == "study"]
    subprocess.run([sys.executable, "-c", IMPORTING, *modules], cwd=TOP, check=True)


def test_every_module_is_on_the_map():
    """``helpers/README.md`` has a phrase for each module, and names none that is not there."""
    text = (TOP / "helpers" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w/]+\.py)` \|", text, re.M))
    there = {
        str(path.relative_to(TOP / "helpers"))
        for path in MODULES.values()
        if path.name != "__init__.py"
    }
    assert named == there


def test_both_worlds_offer_the_same():
    assert list(pocket.SEAM) == list(paper.SEAM)
    for name in pocket.SEAM:
        signatures = [
            inspect.signature(getattr(package, name), eval_str=True) for package in (pocket, paper)
        ]
        assert signatures[0] == signatures[1], name
