"""The Jupyter kernel in which the runner executes notebooks: started once, as if fresh for each."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jupyter_client import AsyncKernelClient, KernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

from helpers.engine import gpu, workers
from helpers.errors import StudyError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

NAME = "python3"
FORGET = "import helpers.engine.kernel as kernel; kernel.forget(get_ipython())"
QUIET = ["--IPKernelApp.log_level=50", "--HistoryManager.hist_file=:memory:"]


class ThisInterpreter(KernelSpecManager):
    """Finds one kernel: the interpreter that is running, whatever kernels are installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The command that starts this interpreter as a kernel."""
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name=kernel_name, language="python")


@contextlib.contextmanager
def started(folder: str) -> Iterator[KernelManager]:
    """A running kernel that works in ``folder``, as its manager; stopped at the end."""
    patience = 30.0 if gpu.ray_address() else 1.0  # with a Ray it has much to stop
    manager = KernelManager(
        kernel_name=NAME,
        kernel_spec_manager=ThisInterpreter(),
        client_factory=AsyncKernelClient,
        shutdown_wait_time=patience,
    )
    manager.start_kernel(cwd=folder, extra_arguments=QUIET)
    try:
        yield manager
    finally:
        manager.shutdown_kernel()


def empty(manager: KernelManager) -> None:
    """Have the kernel forget what a notebook left in it; ``StudyError`` when it does not answer."""
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        reply = client.execute_interactive(FORGET, timeout=60)["content"]
        if reply["status"] != "ok":
            raise RuntimeError(f"{reply['ename']}: {reply['evalue']}")
    except (RuntimeError, TimeoutError) as e:
        raise StudyError(
            f"the notebooks' kernel does not answer ({e}). What was finished is kept: run the same "
            "command again."
        ) from e
    finally:
        client.stop_channels()


def forget(shell: InteractiveShell) -> None:
    """Within the kernel: drop all but the libraries, whose import takes longest."""
    workers.release()
    dunders = {n: v for n, v in shell.user_ns.items() if n.startswith("__") and n.strip("_")}
    for name in [n for n in sys.modules if n.split(".")[0] == "helpers"]:
        del sys.modules[name]
    shell.reset()
    shell.user_ns.update(dunders)  # multiprocessing asks for __spec__
    gc.collect()
    gpu.forget()
