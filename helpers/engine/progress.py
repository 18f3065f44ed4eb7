"""What a run says of itself, through a pipe to the runner that ``$STUDY_PIPE`` names.

What cells print does not go there, and stays in their notebook.
"""

from __future__ import annotations

import contextlib
import math
import os
import textwrap
import time
from collections.abc import Iterable, Iterator

from tqdm.auto import tqdm

WIPE = "\r\x1b[K"  # empties a terminal's last line
OFTEN = 0.2  # seconds between changes of the live line


def tell(text: str, end: str = "\n") -> None:
    """Have the runner show a line, in place of the live one; nothing where there is no runner."""
    line = f"{WIPE if _columns() else ''}{text}{end}".encode(errors="backslashreplace")
    with contextlib.suppress(KeyError, OSError):  # not in a run, or its runner has ended
        pipe = os.open(os.environ["STUDY_PIPE"], os.O_WRONLY | os.O_NONBLOCK)
        with os.fdopen(pipe, "wb", buffering=0) as file:
            file.write(line)


def live(text: str) -> None:
    """Show a line on the runner's terminal, if there is one, until the next takes its place."""
    if _columns():
        tell(f"   {text}"[: _columns() - 1], end="")


def say(text: str) -> None:
    """Print about the run: in the notebook, and indented in the runner's output."""
    print(text, flush=True)
    tell(textwrap.indent(text, "   "))


def over(items: Iterable, label: str, total: int | None = None) -> Iterator:
    """Go through ``items``: with a bar in JupyterLab; in the runner with a line at the end.

    On its terminal a live line says until then how many are done, and how long the rest may take.
    """
    if os.environ.get("STUDY_HEADLESS") != "1":
        yield from tqdm(items, desc=label, total=total)
        return
    step = f"{os.environ.get('STUDY_NOTEBOOK', '')} · {label}"
    if total:
        live(f"{step}: 0 of {total}")
    start = shown = now = time.monotonic()
    n = 0
    for n, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if total and now > shown + OFTEN:
            shown = now
            minutes = math.ceil((now - start) / n * (total - n) / 60)
            live(f"{step}: {n} of {total}, {minutes} min left")
    if n:
        say(f"{label}: {n} in {now - start:.1f} s")


def _columns() -> int:
    """How wide the runner's terminal is; 0 where its output is none."""
    return int(os.environ.get("STUDY_COLUMNS", 0))
