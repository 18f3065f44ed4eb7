"""Executing notebooks with papermill, in one kernel; executed copies and HTML pages are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.engine import kernel, store
from helpers.errors import StudyError, writing

if TYPE_CHECKING:
    from jupyter_client import KernelManager
    from papermill.exceptions import PapermillExecutionError

OWN_ERRORS = ("StudyError", "MissingArtifact", "NotKnown")
BRACES = str.maketrans({"{": "{{", "}": "}}"})  # in a path: papermill fills in what they enclose


def execute(path: Path, copy: Path, values: Mapping[str, Any], manager: KernelManager) -> None:
    """Execute one notebook with parameters ``values``; the executed copy, and a page of it, stay.

    Raises ``StudyError`` with the message of a cell that failed with one, when the kernel was
    killed, and when the copy cannot be written.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from nbconvert import HTMLExporter
    from papermill.exceptions import PapermillExecutionError

    kernel.empty(manager, path.stem.replace("_", " "))
    own = copy.with_name(f"{os.getpid()}.{copy.name}")  # another run may write the same copy
    try:
        with writing(copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            papermill.execute_notebook(
                str(path).translate(BRACES),
                str(own).translate(BRACES),
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
        if own.exists():
            page, _ = HTMLExporter(template_name="classic").from_filename(str(own))
            store.write(copy.with_suffix(".html"), page.encode())
            own.replace(copy)


def _explained(path: Path, error: PapermillExecutionError) -> Exception:
    """A notebook's error as one line where a user can put it right; any other as it is."""
    if error.ename in OWN_ERRORS:
        return StudyError(f"{path.stem}: {error.evalue}")
    if error.ename == "AssertionError" and re.search(r"^assert ", error.source, re.M):
        reason = " ".join(error.evalue.split()) or error.source.strip()
        return StudyError(f"{path.stem}: a checkpoint failed: {reason}")
    return error
