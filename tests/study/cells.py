"""Code cells of notebooks, for tests of what is worked out there."""

from __future__ import annotations

import json
from typing import Any

from helpers.engine import catalogue


def run(notebook: str, text: str, **names: Any) -> dict[str, Any]:
    """Run the one code cell of a notebook ("01") that contains ``text``; the names it leaves."""
    cells = json.loads(catalogue.notebooks()[notebook].read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (source,) = [source for source in sources if text in source]
    exec(source, names)
    return names
