"""Pages of executed notebooks: prose and what cells show, pictures by link, no code."""

import re

import nbformat
import pytest

from helpers import pages
from helpers.engine import places, report

ALT = "A line that rises from zero to one, drawn to see how a page keeps a picture and its words."
FRAME = '<div>\n<style scoped>td {color: red}</style>\n<table border="1" class="dataframe">'


def output(data):
    return nbformat.v4.new_output("display_data", data)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The text of a page of a small executed notebook, in a world that is shown."""
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path))
    new = nbformat.v4
    shown = {"text/html": "<b>HTML</b>", "text/markdown": f'<img src="04_line.png" alt="{ALT}">'}
    code = {
        "secret = 1": [output({"text/markdown": f"{report.ANSWER} Retrieve."})],
        "figure": [output(shown)],
        "frame": [output({"text/html": f"{FRAME}<tr><td>7</td></tr></table></div>"})],
        "noise": [new.new_output("stream", name="stderr", text="a warning")],
    }
    cells = [new.new_markdown_cell("# 04 - Which?"), new.new_markdown_cell("| Reads | much |")]
    cells += [new.new_code_cell(source, outputs=outputs) for source, outputs in code.items()]
    cells += [new.new_code_cell("toy", outputs=[output({"text/plain": "a toy"})])]
    cells[-1].metadata["tags"] = [pages.ASIDE]
    cells += [new.new_markdown_cell("Next: [05](05_analysis.ipynb)\n" + pages.END)]
    cells += [new.new_markdown_cell("an exercise")]
    copy = tmp_path / "04_finetuning.ipynb"
    nbformat.write(new.new_notebook(cells=cells), copy)
    pages.write(copy, "smoke")
    return (tmp_path / "smoke" / "04_finetuning.md").read_text()


def test_a_page_has_prose_and_results_only(page):
    assert page.startswith("# 04 - Which?\n")
    assert f'<img src="04_line.png" alt="{ALT}">' in page
    assert "<table><tr><td>7</td></tr></table>" in page
    assert "[05](05_analysis.md)" in page
    for absent in ("secret", "HTML", "<style", "<div", "a warning", "a toy", "Reads", "xercise"):
        assert absent not in page


def test_contents_lead_to_pages_and_give_their_answers(page, tmp_path):
    contents = (tmp_path / "README.md").read_text()
    assert "(smoke/04_finetuning.md)" in contents
    assert f"{report.ANSWER} Retrieve." in contents


@pytest.mark.parametrize("page", sorted(places.COMMITTED.rglob("*.md")), ids=lambda p: p.name)
def test_committed_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r'(?:\]\(|src=")([^)"#]+)', text)
    assert targets
    for target in [target for target in targets if not target.startswith("https://")]:
        assert (page.parent / target).exists(), f"{page.name}: {target}"
    for alt in re.findall(r'<img [^>]*alt="([^"]*)"', text):
        assert len(alt) >= 60, f"{page.name}: {alt}"
    assert "base64" not in text
