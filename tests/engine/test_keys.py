"""Keys follow from imports: a changed module moves the keys of what depends on it and no other."""

import json
import shutil
import subprocess
import sys

import pytest

from helpers import worlds
from helpers.engine import artifacts, places, sources

PRINT = """
import json
from helpers import worlds
from helpers.engine import artifacts
w = worlds.get("pocket")
print(json.dumps({name: artifacts.key(name, w) for name in artifacts.ARTIFACTS}))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package without its weights, to change modules in."""
    top = tmp_path_factory.mktemp("copy")
    leave_out = shutil.ignore_patterns("weights", "__pycache__")
    shutil.copytree(places.PACKAGE, top / "helpers", ignore=leave_out)
    return top


def keys_in(top):
    result = subprocess.run(
        [sys.executable, "-c", PRINT], cwd=top, check=True, capture_output=True, text=True
    )
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def keys(copy):
    """The keys of all artifacts before anything is changed."""
    return keys_in(copy)


def moved(copy, keys, file, text="\n# another comment\n"):
    """The artifacts whose keys are others after some text is added to a file of the copy."""
    path = copy / "helpers" / file
    before = path.read_text(encoding="utf-8")
    path.write_text(before + text, encoding="utf-8")
    after = keys_in(copy)
    path.write_text(before, encoding="utf-8")
    return {name for name in keys if keys[name] != after[name]}


def depend_on(module, w):
    """The artifacts that depend on a module: their builder does, or what they are made from."""
    found = {name for name in artifacts.ARTIFACTS if module in artifacts.code(name, w)}
    while True:
        more = {
            name
            for name, spec in artifacts.ARTIFACTS.items()
            if name not in found and found & set(spec.needs.split())
        }
        if not more:
            return found
        found |= more


@pytest.mark.parametrize(
    "file, some, others",
    [
        ("pocket/world/wording.py", {"pool", "captions", "synthetic"}, set()),
        ("study/embeddings.py", {"embeddings", "retrieved", "finetuned"}, {"pool", "captions"}),
        ("study/captions.py", {"captions", "synthetic"}, {"pool", "embeddings", "retrieved"}),
        ("data/rules.py", {"retrieved", "finetuned"}, {"pool", "captions", "synthetic"}),
        ("models/heads.py", {"scaled", "rarity"}, {"finetuned", "robust", "analysed"}),
        ("pocket/render/canvas.py", set(artifacts.ARTIFACTS), set()),
        ("engine/randomness.py", set(artifacts.ARTIFACTS), set()),
    ],
)
def test_a_comment_moves_exactly_the_keys_that_depend_on_it(copy, keys, file, some, others):
    module = "helpers." + file.removesuffix(".py").replace("/", ".")
    found = moved(copy, keys, file)
    assert found == depend_on(module, worlds.get("pocket"))
    assert some <= found and not others & found


@pytest.mark.parametrize(
    "file",
    [
        "engine/figures.py",
        "engine/notebooks.py",
        "run.py",
        "worlds.py",
        "errors.py",
        "study/plots.py",
    ],
)
def test_figures_reports_and_messages_move_none(copy, keys, file):
    assert not moved(copy, keys, file)


def test_spaces_at_ends_of_lines_move_none(copy, keys):
    assert not moved(copy, keys, "study/captions.py", "   \n\n")


def test_an_import_inside_a_function_counts(copy):
    assert "helpers.engine.gpu" in sources.imported("helpers.models.clip")


def test_what_lies_behind_the_seam_counts():
    modules = sources.closure("helpers.study.synthesis", "pocket")
    assert {"helpers.pocket.models", "helpers.pocket.train.generator"} <= set(modules)
    assert not any(m.startswith("helpers.paper") for m in modules)
    assert "helpers.paper.generator" in sources.closure("helpers.study.synthesis", "paper")


def test_builders_do_not_depend_on_figures_or_on_the_other_world():
    for world, other in (("pocket", "paper"), ("paper", "pocket")):
        w = worlds.get(world)
        for name in artifacts.ARTIFACTS:
            modules = artifacts.code(name, w)
            assert not any(f"helpers.{other}" in m or "figures" in m for m in modules), name


def test_example_lines_of_prompts_count_in_every_world(copy, keys):
    file = "study/examples.csv"
    found = moved(copy, keys, file, "class,a line => more\n")
    assert found == depend_on(file, worlds.get("pocket")) and "captions" in found
    assert file in artifacts.code("captions", worlds.get("paper"))
