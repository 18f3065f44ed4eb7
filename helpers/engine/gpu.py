"""What hardware this is: the only module that asks. Device, precision, processes, and the device's name for figures."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence

from helpers.errors import StudyError


@functools.cache
def device() -> str:
    """``"cuda"`` if there is a GPU, else ``"cpu"``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> str:
    """The device in words, for figure labels and timing tables."""
    if device() == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{cores()} CPU core{'s' if cores() > 1 else ''} ({platform.machine()})"


def memory() -> int:
    """Bytes of memory of the device: of one GPU, or of this machine."""
    if device() == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def autocast(precision: str = "bf16"):
    """bfloat16 autocast where the device computes it fast; elsewhere, or with "fp32", a context that does nothing."""
    import torch

    if precision != "fp32" and (device() == "cuda" or _cpu_has_bf16()):
        return torch.autocast(device(), torch.bfloat16)
    return contextlib.nullcontext()


@functools.cache
def _cpu_has_bf16() -> bool:
    try:
        with open("/proc/cpuinfo") as f:
            return "avx512_bf16" in f.read()
    except OSError:
        return False


def precision():
    """The type that large published models are loaded in: bfloat16 on a GPU, float32 elsewhere."""
    import torch

    return torch.bfloat16 if device() == "cuda" else torch.float32


def sent(x):
    """A tensor on the device; a GPU goes on with what it does while it is on its way."""
    if device() == "cuda" and not x.is_cuda:
        return x.pin_memory().to(device(), non_blocking=True)
    return x.to(device())


@functools.lru_cache(maxsize=1)
def compiled(module):
    """``module`` through torch.compile on a GPU, as it is elsewhere. The first call takes a minute or two."""
    return inductor(module) if device() == "cuda" else module


def inductor(module) -> Callable:
    """``module`` through torch.compile; as it is, after a line that says why, where its code cannot be compiled."""
    import torch

    ways = [torch.compile(module), module]

    def call(*args, **kwargs):
        try:
            return ways[0](*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as e:
            if len(ways) == 1:
                raise
            reason = str(e).strip().splitlines()[0]
            print(
                f"{type(module).__name__}: goes on without torch.compile, slower, to the same results ({reason}). It needs a C++ "
                "compiler such as g++, or one named in $CC and $CXX."
            )
            del ways[0]
        return call(*args, **kwargs)

    return call


_FITTED: dict[
    str, int
] = {}  # batch sizes that had to be halved, so that it happens once per process


def fitting_batches(
    fn: Callable, items: Sequence, size: int, what: str
) -> Iterator[tuple[Sequence, object]]:
    """Yield ``(part, fn(part))`` for consecutive parts of ``items``, ``size`` at a time, or half of it where memory is short.

    ``what`` names the work, in messages and where the size that fitted is remembered. Raises ``StudyError`` when not even a
    single item fits.
    """
    import torch

    start = 0
    while start < len(items):
        part, short = items[start : start + _FITTED.get(what, size)], None
        try:
            yield part, fn(part)
        except torch.OutOfMemoryError as e:
            short = str(e).splitlines()[0]
        if short is None:
            start += len(part)
            continue
        if len(part) == 1:
            raise StudyError(
                f"{what}: the memory of {describe()} does not hold a single one ({short}). Close what else uses it, or "
                "take a device with more memory."
            )
        _FITTED[what] = len(part) // 2
        print(f"{what}: out of memory with {len(part)} at a time; going on with {len(part) // 2}")
        if device() == "cuda":
            torch.cuda.empty_cache()


def gpus() -> int:
    """How many GPUs this process may use."""
    import torch

    return torch.cuda.device_count()


def single_threaded() -> None:
    """One thread for whatever this process computes: torch, and the BLAS under NumPy and SciPy.

    A BLAS splits a product among its threads and rounds otherwise at the seams, so that with one thread per core the last
    digits would depend on the number of cores.
    """
    import threadpoolctl

    os.environ.update(
        dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    )  # of what is loaded later
    threadpoolctl.threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def ray_address() -> str:
    """The Ray that shards are spread over, ``$STUDY_RAY`` (set by the runner's ``--ray``); "" without."""
    return os.environ.get("STUDY_RAY", "")
