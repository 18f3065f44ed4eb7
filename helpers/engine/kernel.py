"""The Jupyter kernel in which the runner executes notebooks: started once, as if fresh for each."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jupyter_client import AsyncKernelClient, KernelManager
from jupyter_client.kernelspec import KernelSpecManager

from helpers.engine import gpu, workers
from helpers.errors import StudyError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

FORGET = "import helpers.engine.kernel as kernel; kernel.forget(get_ipython(), {!r})"
QUIET = ["--IPKernelApp.log_level=50", "--HistoryManager.hist_file=:memory:"]


@contextlib.contextmanager
def started(folder: str) -> Iterator[KernelManager]:
    """A running kernel that works in ``folder``, as its manager; stopped at the end."""
    manager = KernelManager(
        kernel_name="python3",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # this interpreter's own
        client_factory=AsyncKernelClient,
        shutdown_wait_time=30.0 if gpu.ray_address() else 1.0,  # with a Ray it has much to stop
    )
    manager.start_kernel(cwd=folder, extra_arguments=QUIET)
    try:
        yield manager
    finally:
        manager.shutdown_kernel()


def empty(manager: KernelManager, notebook: str = "") -> None:
    """Have the kernel forget a notebook for the next one; ``StudyError`` if it does not answer."""
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        reply = client.execute_interactive(FORGET.format(notebook), timeout=60)["content"]
        if reply["status"] != "ok":
            raise RuntimeError(f"{reply['ename']}: {reply['evalue']}")
    except (RuntimeError, TimeoutError) as e:
        raise StudyError(
            f"the notebooks' kernel does not answer ({e}). What was finished is kept: run the same "
            "command again."
        ) from e
    finally:
        client.stop_channels()


def forget(shell: InteractiveShell, notebook: str) -> None:
    """Within the kernel: drop all but the libraries, whose import takes longest."""
    workers.release()
    os.environ["STUDY_NOTEBOOK"] = notebook
    dunders = {n: v for n, v in shell.user_ns.items() if n.startswith("__") and n.strip("_")}
    for name in [n for n in sys.modules if n.split(".")[0] == "helpers"]:
        del sys.modules[name]
    shell.reset()
    shell.user_ns.update(dunders)  # multiprocessing asks for __spec__
    gc.collect()
    gpu.forget()
