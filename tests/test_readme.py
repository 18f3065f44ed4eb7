"""The READMEs: their links lead somewhere, the files and benchmarks they name are there."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
FOLDERS = (".", "helpers", "helpers/paper", "notebooks", "tests/bench")
PAGES = [TOP / folder / "README.md" for folder in FOLDERS]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith("http")]
    assert not [link for link in local if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_files_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:helpers|tests|notebooks|figures)/[\w/.]+)`", text):
        assert (TOP / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_benchmarks_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"tests\.bench ([a-z]+)", text):
        assert (TOP / "tests" / "bench" / f"{name}.py").exists(), name


def test_the_readme_is_short():
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    assert max(map(len, text.splitlines())) <= 120


def test_every_room_is_named():
    rooms = {p.name for p in (TOP / "helpers").iterdir() if (p / "__init__.py").exists()}
    readme, helpers = (page.read_text(encoding="utf-8") for page in PAGES[:2])
    for room in rooms:
        assert room in readme.partition("## Layout")[2], room
        assert f"### `{room}/" in helpers, room
