"""What a reader without a kernel gets: a page of every executed notebook, and their contents."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from helpers import answers, worlds
from helpers.engine import catalogue, places, report, store
from helpers.errors import reading

SHOWN = ["text/markdown", "text/html", "text/plain"]  # what a page takes of an output, best first
ASIDE = "aside"  # the tag of a cell that is for readers at a kernel only
END = "\n## Exercises"  # which a page leaves out


def write(copy: Path, part: str) -> None:
    """Write the page of an executed notebook, and what else shows it: contents, and README.md.

    ``part`` is the folder of its figures, as ``places.part`` names it. The study's own README.md is
    written where its own figures are.
    """
    root = places.figures_root()
    write_page(copy, root / part)
    if part not in worlds.WORLDS or not places.shown(root / part):
        return
    write_contents()
    if root == places.COMMITTED:
        readme = places.TOP / "README.md"
        answers.write(readme, "the answer", answers.answer(root, "figures/"))
        answers.write(readme, "the notebooks", _notebooks())


def write_page(copy: Path, folder: Path) -> Path:
    """Write the page of an executed notebook, ``NN_name.md``, beside its figures in ``folder``.

    It has the notebook's prose and what its cells show, with pictures as links to their files, and
    neither code nor exercises, up to the next section, nor cells with the tag ``ASIDE``. Links to
    notebooks become links to pages.
    """
    import nbformat
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    notebook = nbformat.read(copy, as_version=4)
    kept, exercises = [], ""
    for cell in [*notebook.cells[:1], *notebook.cells[2:]]:  # without what it reads and writes
        if cell.source.startswith("## "):
            exercises = ""
        if exercises or ASIDE in cell.metadata.get("tags", []):
            continue
        cell.source, exercises, _ = f"\n{cell.source}".partition(END)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_told(output)]
        kept.append(cell)
    notebook.cells = kept
    config = Config({"NbConvertBase": {"display_data_priority": SHOWN}})
    exporter = MarkdownExporter(config=config, exclude_input=True, exclude_output_prompt=True)
    text, _ = exporter.from_notebook_node(notebook)
    title, _, rest = text.strip().partition("\n")
    source = os.path.relpath(places.NOTEBOOKS / copy.name, folder)
    about = f"[All pages](../README.md) · [the notebook, with its code]({source})"
    return store.write(folder / f"{copy.stem}.md", f"{title}\n\n{about}\n{_tidy(rest)}\n".encode())


def _is_told(output: Mapping) -> bool:
    """Whether a page has an output: not what a run says of its progress, nor names of objects."""
    if output["output_type"] == "stream":
        return output["text"].startswith("left out")
    plain = output["data"].get("text/plain", "")
    return "image/png" not in output["data"] and (len(output["data"]) > 1 or plain[:1] != "<")


def _tidy(text: str) -> str:
    """Markdown by nbconvert without what only a browser with a notebook's styles can show."""
    text = re.sub(r"<style.*?</style>\n*", "", text, flags=re.S)
    text = re.sub(r"</?div[^>]*>\n*", "", text)
    text = re.sub(r' (border="1" class="dataframe"|style="[^"]*")', "", text)
    text = re.sub(r"\((\d\d_\w+)\.ipynb\)", r"(\1.md)", text)
    text = re.sub(r"(?m)[ \t]+$", "", text)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip()


def write_contents() -> Path:
    """Write ``figures/README.md``: the answer, every notebook's, claims not settled, all figures.

    Pages of ``desk`` come before those of ``pocket``; worlds that git ignores are left out.
    """
    root = places.figures_root()
    lines = ["# Retrieve or generate? The report", "", WHAT, *answers.answer(root, "")]
    lines += ["", *answers.by_paper(root)]
    with store.alone(root):
        for path, found in _pages().items():
            lines += _entry(path, found)
        heading = "## Claims that turned out otherwise, or are not settled"
        told = answers.against(root)
        lines += ["", heading, *told] if told else []
        lines += ["", "## All figures"]
        for folder in _folders():
            listed = _figures(folder)
            lines += ["", f"World `{folder.name}`:", "", *listed] if listed else []
        return store.write(root / "README.md", ("\n".join(lines) + "\n").encode())


def _notebooks() -> list[str]:
    """A line for every notebook, for README.md: its question, a link to its page, and how its
    answer begins, up to a semicolon."""
    lines = []
    for path, (first, *_) in _pages().items():
        said = answer_of(first).removeprefix(f"{report.ANSWER} ").partition("; ")[0].rstrip(".")
        number, _, question = catalogue.title(path).partition(" - ")
        question = question.rpartition(": ")[2]
        link = f"[{question[:1].upper()}{question[1:]}](figures/{first.parent.name}/{first.name})"
        lines.append(f"- **{number}**, `{first.parent.name}`: {link} {said[:1].upper()}{said[1:]}.")
    return lines


def _pages() -> dict[Path, list[Path]]:
    """The pages of every notebook that has any: those of ``desk`` before those of ``pocket``."""
    every = {}
    for path in catalogue.notebooks().values():
        found = [folder / f"{path.stem}.md" for folder in _folders()]
        every[path] = [page for page in found if page.exists()]
    return {path: found for path, found in every.items() if found}


def _folders() -> list[Path]:
    """The worlds' folders of figures, that which decides first; not those that git ignores."""
    names = dict.fromkeys([worlds.DESK.name, worlds.POCKET.name, *worlds.WORLDS])
    folders = (places.figures_root() / name for name in names)
    return [folder for folder in folders if places.shown(folder)]


WHAT = """\
Written by `python -m helpers.run`: what its notebooks found, without their code. Every figure
names its world, seed and device; its numbers are in the CSV file beside it.

## The answer
"""


def _entry(path: Path, pages: list[Path]) -> list[str]:
    """What the contents say of a notebook: its question, answer and main picture, its pages."""
    first, folder = pages[0], pages[0].parent.name
    heading = f"## [{catalogue.title(path)}]({folder}/{first.name})"
    named = re.findall(r"`(\w+)`", catalogue.row(path, "Figures"))
    main = rf'<img src="{"".join(named[:1])}\.png"[^>]*>'
    picture = re.search(main, first.read_text(encoding="utf-8"))
    lines = ["", heading, "", answer_of(first)]
    if picture:
        lines += ["", picture[0].replace('src="', f'src="{folder}/')]
    links = [f"[{page.parent.name}]({page.parent.name}/{page.name})" for page in pages]
    return [*lines, "", f"Pages: {', '.join(links)}"]


def answer_of(page: Path) -> str:
    """The sentence by which a page answers its question."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith(report.ANSWER)), "")


def _figures(folder: Path) -> list[str]:
    """A line for every figure of a folder: a link, and what it shows in words."""
    from PIL import Image

    damage = (AttributeError, SyntaxError, Image.DecompressionBombError)
    lines = []
    for png in sorted(folder.glob("*.png")):
        way = f"delete it; notebook {png.name[:2]} draws it again"
        with reading(png, *damage, way=way):
            alt = Image.open(png).text.get("Description", "")
        lines.append(f"- [{png.stem}]({folder.name}/{png.name}): {report.escaped(alt)}")
    return lines
