"""Sentences computed from results, as Markdown: no number in a notebook's prose is typed.

A sentence about every row of a table is a template that names the table's columns (``rows``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from IPython.display import Markdown

# For ``rows``: a difference in percentage points with its interval, "+1.2 points (-0.3 to +2.7)".
OPEN = "the interval includes zero"
POINTS = "{mean:+.1f} points ({low:+.1f} to {high:+.1f})"


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
    """The name of a column or metric as words: "zero_shot" is "zero shot"."""
    return name.replace("_", " ")


def includes_zero(intervals: pd.DataFrame) -> pd.Series:
    """Which intervals, ``low`` to ``high``, include zero: the sign of the difference is open."""
    return (intervals["low"] <= 0) & (intervals["high"] >= 0)


def verdict(low: float, high: float, above: str, below: str, between: str = OPEN) -> str:
    """What an interval of a difference says: ``above`` or ``below`` zero, or neither."""
    if low <= 0 <= high:
        return between
    return above if low > 0 else below
