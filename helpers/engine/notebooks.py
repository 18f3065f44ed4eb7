"""Executing notebooks with papermill, in one kernel; what is left of a run: copies and gallery."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import worlds
from helpers.engine import kernel, places, store
from helpers.errors import StudyError, writing

if TYPE_CHECKING:
    from jupyter_client import KernelManager
    from papermill.exceptions import PapermillExecutionError

OWN_ERRORS = ("StudyError", "MissingArtifact", "NotKnown")


def execute(path: Path, copy: Path, values: Mapping[str, Any], manager: KernelManager) -> None:
    """Execute one notebook with parameters ``values``; the executed copy, and a page of it, stay.

    Raises ``StudyError`` with the message of a cell that failed with one, when the kernel was
    killed, and when the copy cannot be written.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    kernel.empty(manager, path.stem.replace("_", " "))
    try:
        with writing(copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            papermill.execute_notebook(
                str(path),
                str(copy),
                dict(values),
                kernel_name=manager.kernel_name,
                km=manager,
                progress_bar=False,
                request_save_on_cell_execute=False,
            )
    except PapermillExecutionError as e:
        raise _explained(path, e) from e
    except DeadKernelError as e:
        raise StudyError(
            f"{path.stem}: the kernel was killed, most likely for want of memory. What was "
            "finished is kept: run the same command again to go on."
        ) from e
    finally:
        _write_html(copy)


def _explained(path: Path, error: PapermillExecutionError) -> Exception:
    """A notebook's error as one line where a user can put it right; any other as it is."""
    if error.ename in OWN_ERRORS:
        return StudyError(f"{path.stem}: {error.evalue}")
    if error.ename == "AssertionError" and re.search(r"^assert ", error.source, re.M):
        reason = " ".join(error.evalue.split()) or error.source.strip()
        return StudyError(f"{path.stem}: a checkpoint failed: {reason}")
    return error


def _write_html(copy: Path) -> None:
    if not copy.exists():
        return
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(template_name="classic").from_filename(str(copy))
    store.write(copy.with_suffix(".html"), page.encode())


def write_gallery() -> Path:
    """Write ``figures/README.md``: every figure of every world with its alt text, by number."""
    from PIL import Image

    root = places.figures_root()
    introduction = (
        "Written by `python -m helpers.run`; every figure names its world, seed and device."
    )
    lines = ["# Figures", "", introduction]
    for world in worlds.WORLDS:
        if (root / world).is_dir():
            lines += ["", f"## {world}"]
        for png in sorted((root / world).glob("*.png")):
            try:
                alt = Image.open(png).text.get("Description", "")
            except (OSError, AttributeError) as e:
                raise StudyError(
                    f"cannot read {png}: {e}. Delete it; notebook {png.name[:2]} draws it again."
                ) from e
            picture = f'<img src="{world}/{png.name}" alt="{html.escape(alt)}" width="800">'
            lines += ["", f"### {png.stem}", "", picture, "", alt]
    return store.write(root / "README.md", ("\n".join(lines) + "\n").encode())
