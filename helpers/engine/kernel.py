"""The Jupyter kernel in which the runner executes notebooks: started once, as if fresh for each of them."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

from helpers.engine import gpu, workers
from helpers.errors import StudyError


@contextlib.contextmanager
def started(folder: str) -> Iterator:
    """A running kernel of this interpreter that works in ``folder``, as its jupyter_client manager; stopped at the end."""
    from jupyter_client import AsyncKernelClient, KernelManager

    manager = KernelManager(
        kernel_name=_name(), client_factory=AsyncKernelClient, shutdown_wait_time=_seconds_to_stop()
    )
    manager.start_kernel(
        cwd=folder,
        extra_arguments=["--IPKernelApp.log_level=50", "--HistoryManager.hist_file=:memory:"],
    )
    try:
        yield manager
    finally:
        manager.shutdown_kernel()


def empty(manager) -> None:
    """Have the kernel forget all that a notebook left in it. Raises ``StudyError`` when it does not answer."""
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        reply = client.execute_interactive(
            "import helpers.engine.kernel; helpers.engine.kernel.forget(get_ipython())", timeout=60
        )["content"]
        if reply["status"] != "ok":
            raise RuntimeError(f"{reply['ename']}: {reply['evalue']}")
    except (RuntimeError, TimeoutError) as e:
        raise StudyError(
            f"the notebooks' kernel does not answer ({e}). What was finished is kept: run the same command again."
        ) from e
    finally:
        client.stop_channels()


def forget(shell) -> None:
    """Within the kernel: drop its variables, and the helpers with all they remember (models, images, worker processes).

    Torch, open_clip and diffusers stay loaded: importing them takes longer than many a notebook of a small world.
    """
    workers.release()
    dunders = {n: v for n, v in shell.user_ns.items() if n.startswith("__") and n.strip("_")}
    for name in [n for n in sys.modules if n.split(".")[0] == "helpers"]:
        del sys.modules[name]
    shell.reset()
    shell.user_ns.update(dunders)  # multiprocessing asks for __spec__
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def _seconds_to_stop() -> float:
    """A kernel with a Ray has much to stop; another has nothing, but would wait for a helper of multiprocessing that ignores it."""
    return 30.0 if gpu.ray_address() else 1.0


def _name() -> str:
    """A kernel of this interpreter, whatever other kernels are installed under the name python3."""
    from ipykernel.kernelspec import install
    from jupyter_client.kernelspec import KernelSpecManager

    found = KernelSpecManager().get_all_specs().get("python3")
    if found and os.path.realpath(found["spec"]["argv"][0]) in (
        os.path.realpath(sys.executable),
        "python",
    ):
        return "python3"
    install(kernel_name="study", prefix=sys.prefix, display_name="Study")
    return "study"
