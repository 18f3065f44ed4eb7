"""Sentences computed from results, as Markdown: no number in a notebook's prose is typed.

A sentence about every row of a table is a template that names the table's columns (``rows``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from IPython.display import Markdown
from ipywidgets import RadioButtons

OPEN = "the interval includes zero"
ANSWER = "**Answer.**"  # how the sentence begins by which a notebook answers its question
POINTS = "{mean:+.1f} points ({low:+.1f} to {high:+.1f})"  # for ``rows``: with its interval


def text(*paragraphs: str) -> Markdown:
    """Paragraphs to show; empty ones are left out."""
    return Markdown(escaped("\n\n".join(p for p in paragraphs if p)))


def escaped(markdown: str) -> str:
    """Markdown in which nothing is HTML or leads elsewhere: captions and names may be quoted."""
    return markdown.replace("<", "&lt;").replace("](", "]\\(")


def bullets(lines: Iterable[str], title: str = "") -> Markdown:
    """A list of sentences to show, one bullet each, below a ``title`` if there is one."""
    return text(title, "\n".join(f"- {line}" for line in lines))


def table(rows: pd.DataFrame) -> Markdown:
    """A table to show, without its index; what breaks lines or columns in a cell does not."""
    lines = [list(rows), ["---"] * rows.shape[1], *rows.to_numpy().tolist()]
    cells = [[" ".join(str(c).split()).replace("|", "\\|") for c in line] for line in lines]
    return text("\n".join(f"| {' | '.join(line)} |" for line in cells))


def answer(sentence: str) -> Markdown:
    """The one sentence, of at most 30 words, by which a notebook answers its title's question."""
    return text(f"{ANSWER} {sentence}")


def predict(*options: str) -> RadioButtons:
    """A control that keeps which of ``options`` a reader expects; nothing is chosen at first."""
    return RadioButtons(options=options, value=None, layout={"width": "auto"})


def settle(prediction: RadioButtons, found: str, question: str = "") -> Markdown:
    """What a reader predicted by a control of ``predict`` to a ``question``, and what was found."""
    said = f"You predicted *{prediction.value}*; this" if prediction.value else "This"
    return text(f"{question and f'**Prediction.** {question} '}{said} world found *{found}*.")


def rows(results: pd.DataFrame, template: str) -> list[str]:
    """One sentence per row: ``template`` filled with the row's values, as in "{task}: {share:.0%}".

    Raises ``KeyError`` where the template names no column.
    """
    return [template.format(**row) for row in results.to_dict("records")]


def each(values: Mapping | pd.Series, template: str = "{} {:.0%}", between: str = ", ") -> str:
    """Names with their values in one line: ``template`` filled with every name and its value."""
    return between.join(template.format(name, value) for name, value in values.items())


def listed(items: Iterable, none: str = "none", between: str = ", ") -> str:
    """Items in one line, or the word for their absence."""
    return between.join(map(str, items)) or none


def words(name: str) -> str:
    """The name of a column or metric as words: "linear_probe" is "linear probe"."""
    return name.replace("zero_shot", "zero-shot").replace("_", " ")


def verdict(low: float, high: float, above: str, below: str, between: str = OPEN) -> str:
    """What an interval of a difference says: ``above`` or ``below`` zero, or neither."""
    if low <= 0 <= high:
        return between
    return above if low > 0 else below
