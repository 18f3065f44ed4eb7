"""The README: its links lead somewhere, the modules and benchmarks it names are those there are."""

import re
from pathlib import Path

TOP = Path(__file__).parents[1]
TEXT = (TOP / "README.md").read_text()


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert len(links) > 20 and not [link for link in links if not (TOP / link).exists()]


def test_every_module_and_benchmark_named_is_there():
    named = set(re.findall(r"^  (\w+\.py) ", TEXT, re.M)) | {
        f"{n}.py" for n in re.findall(r"(\w+)\.py\b(?= \w+\.py|    one per)", TEXT)
    }
    assert len(named) > 20 and {p.name for p in (TOP / "helpers").glob("[!_]*.py")} == named
    for names in re.findall(r"tests\.bench ([\w|]+)", TEXT):
        assert all((TOP / "tests/bench" / f"{name}.py").exists() for name in names.split("|")), (
            names
        )
