"""The study's answer: what the verdicts of the deciding world say, for README.md and the report."""

from __future__ import annotations

import csv
import functools
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from helpers import worlds
from helpers.engine import store
from helpers.errors import StudyError

GAPS = {"aircraft": ("UP01", "UP02"), "flowers": ("UP03", "UP04"), "cars": ("UP05", "UP06")}
METRICS = ("zero-shot accuracy", "linear probe")
REASONS = {  # wheels, what is added to many real images, and to few -> of what the claim speaks
    "UP18": "share of images",
    "UP22": "finetuned CLIP",
    "SL07": "frozen CLIP",
}
OWN = "This study"  # the paper whose claims are this study's own
TOLD = 1  # reversed claims in README.md, which is short; all of them are in the report
HEADS = {  # verdicts that the report lists, and what stands beside each claim
    "reversed": "found, against the papers",
    "undecided": "it would take",
    "not testable here": "why",
}
PUBLISHED = {"+": "better", "-": "worse", "0": "equal", "noninferior": "no worse"}
WRAP = functools.partial(
    textwrap.fill, width=118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
)
NOT_RUN = "not run in this world"  # the reason of a claim whose notebook has not run
WORDS = ("holds", "reversed", "equivalent", "undecided", "not testable here")


def write(readme: Path, part: str, lines: Sequence[str]) -> None:
    """Write ``lines`` between the two markers of a ``part`` of ``readme``, which are comments.

    Raises ``StudyError`` where a marker is gone.
    """
    start = f"<!-- {part}: written by helpers.run -->\n"
    end = f"<!-- end of {part} -->\n"
    before, _, rest = readme.read_text(encoding="utf-8").partition(start)
    old, found, after = rest.partition(end)
    if not found:
        raise StudyError(f"{readme} lacks the line {start.strip()!r} or {end.strip()!r}; add both.")
    wrapped = [line if line.startswith("|") else WRAP(line) for line in lines]
    text = "".join(f"{line}\n" for line in wrapped)
    if text != old:
        store.write(readme, (before + start + text + end + after).encode())


def answer(figures: Path, base: str) -> list[str]:
    """What the claims of the deciding worlds say, in a table and some sentences.

    Links call the folder ``figures`` by ``base``. No lines where no world has claims yet.
    """
    claims = decided(figures)
    if not claims:
        return []
    count = Counter(row["world"] for row in claims.values())
    of = [f"{n} of [{w}]({base}{w}/claims.csv)" for w, n in count.items()]
    counted = _counted(list(claims.values()))
    last = f"{len(claims)} claims, {' and '.join(of)}; in brackets corrected: {counted}."
    rest = "in the report" if base else "below"
    found = [*gaps(claims), "", *reasons(claims), *turned(claims, rest), own(claims)]
    return [sentence(claims), "", *found, "", last]


def by_paper(figures: Path) -> list[str]:
    """How many claims of every paper came out how in the deciding worlds, a line for each."""
    papers: dict[str, list] = {}
    for row in decided(figures).values():
        papers.setdefault(row["paper"], []).append(row)
    return [f"- {paper}: {_counted(rows)}" for paper, rows in papers.items()]


def decided(figures: Path) -> dict[str, dict[str, str]]:
    """The rows of claims by their ids, with their ``world``.

    They are those of ``claims.csv`` in the folder of ``desk``, which decides, in ``figures``; of
    ``pocket`` as long as ``desk`` has not run a claim's notebook.
    """
    claims: dict[str, dict[str, str]] = {}
    for w in (worlds.POCKET, worlds.DESK):
        table = figures / w.name / "claims.csv"
        if table.exists():
            with table.open(encoding="utf-8", newline="") as file:
                rows = [row | {"world": w.name} for row in csv.DictReader(file)]
            claims |= {r["id"]: r for r in rows if r["id"] not in claims or r["reason"] != NOT_RUN}
    return claims


def sentence(claims: dict[str, dict[str, str]]) -> str:
    """The question answered: on how many tasks which source teaches more, after correction."""
    verdicts = Counter(claims[zero_shot]["corrected"] for zero_shot, _ in GAPS.values())
    ahead, behind = verdicts["holds"], verdicts["reversed"]
    advice = "It is open"
    if max(ahead, behind) > len(GAPS) / 2:
        advice = "Retrieve" if ahead > behind else "Generate"
    said = f"retrieved images teach more on {ahead} of {len(GAPS)} tasks, synthetic on {behind}"
    return f"**{advice}**, in this miniature: at equal numbers {said} (zero-shot)."


def gaps(claims: dict[str, dict[str, str]]) -> list[str]:
    """A table: what retrieved images teach more than as many synthetic ones, task by task."""
    lines = [
        f"| retrieved - synthetic, points | {' | '.join(METRICS)} | the paper says retrieved is |"
    ]
    lines.append("|---" * 4 + "|")
    for task, ids in GAPS.items():
        rows = [claims[name] for name in ids]
        said = ", ".join(PUBLISHED[row["sign"]] for row in rows)
        n = re.search(r"\d[\d,]*", rows[0]["cell"])
        at = f", {int(n[0].replace(',', '')):,} each" if n else ""
        lines.append(f"| {task}{at} | {' | '.join(map(_found, rows))} | {said} |")
    return lines


def reasons(claims: dict[str, dict[str, str]]) -> list[str]:
    """The claims on reasons that have been asked, each with what decided it."""
    rows = [(claims[name], what) for name, what in REASONS.items() if claims[name]["value"]]
    line = "- *{0[claim]}* {1} (points; {2}; {0[cell]})."
    return [line.format(row, _found(row), what) for row, what in rows]


def turned(claims: dict[str, dict[str, str]], rest: str) -> list[str]:
    """A sentence on some of the claims that are reversed even after correction, if there are any.

    The others are where ``rest`` says.
    """
    rows = [row for row in claims.values() if row["corrected"] == "reversed"]
    metrics = _metrics()
    told = []
    for row in rows[:TOLD]:
        unit = metrics[row["id"]].rpartition(", ")[2]
        told.append(f"*{row['claim'].removesuffix('.')}* ({float(row['value']):+.2g} {unit})")
    told += [f"{len(rows) - TOLD} more {rest}"] if len(rows) > TOLD else []
    return [f"- Reversed, against the papers: {'; '.join(told)}."] if rows else []


def own(claims: dict[str, dict[str, str]]) -> str:
    """How many of this study's own claims came out how."""
    rows = [row for row in claims.values() if row["paper"] == OWN]
    return f"- Of this study's own claims, on when to generate: {_counted(rows)}."


def against(figures: Path) -> list[str]:
    """Tables of the claims that are reversed, open or not testable, all after correction."""
    claims = decided(figures)
    metrics = _metrics()
    lines = []
    for word, head in HEADS.items():
        rows = [row for row in claims.values() if row["corrected"] == word]
        lines += ["", f"| {word.capitalize()} | {head} |", "|---|---|"] if rows else []
        for row in rows:
            why = row["reason"] or word
            if word == "reversed":
                why = f"{float(row['value']):+.2g}; {metrics[row['id']]}; {row['cell']}"
            lines.append(f"| {row['claim'].removesuffix('.')} | {why} |")
    return lines


def _metrics() -> dict[str, str]:
    """What the values of claims are, as in "zero-shot accuracy, points", by id."""
    with (Path(__file__).parent / "study" / "claims.csv").open(encoding="utf-8") as file:
        return {row["id"]: row["metric"] for row in csv.DictReader(file)}


def _counted(rows: Sequence[dict[str, str]]) -> str:
    """How many claims came out how, and in brackets after correction."""
    plain = Counter(row["verdict"] for row in rows)
    corrected = Counter(row["corrected"] for row in rows)
    return ", ".join(f"{plain[word]} {word} ({corrected[word]})" for word in WORDS if plain[word])


def _found(row: dict[str, str]) -> str:
    """A value with its interval, and the verdict; "open" if a correction takes it."""
    if not row["value"]:
        return row["verdict"]
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    digits = 1 if abs(value) >= 1 else 2
    ends = f"{low:+.{digits}f} to {high:+.{digits}f}"
    left = "" if row["corrected"] == row["verdict"] else ", corrected open"
    return f"**{value:+.{digits}f}** ({ends}), {row['verdict']}{left}"
