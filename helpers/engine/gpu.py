"""What hardware this is, and how it is used best: the only module that asks for it."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import loky
import threadpoolctl

from helpers.engine import progress
from helpers.engine.late import torch
from helpers.errors import StudyError

CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_FITTED: dict[str, int] = {}  # batch sizes that had to be halved, so that it happens once a process


@functools.cache
def device() -> str:
    """``"cuda"`` if there is a GPU, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def gpus() -> int:
    """How many GPUs this process may use."""
    return torch.cuda.device_count()


def cores() -> int:
    """CPU cores this process may use: of its affinity, and of a container's quota."""
    return loky.cpu_count()


def describe() -> str:
    """The device in words, for figure labels and timing tables."""
    if device() == "cuda":
        return torch.cuda.get_device_name()
    return f"{cores()} CPU core{'s' if cores() > 1 else ''} ({os.uname().machine})"


def memory() -> int:
    """Bytes of memory of the device: of one GPU, or of this machine and what a container allows."""
    if device() == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    limits = [f.read_text(encoding="utf-8").strip() for f in map(Path, CONTAINER) if f.exists()]
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([found, *(int(limit) for limit in limits if limit.isdecimal())])  # or "max"


def forget() -> None:
    """Give back GPU memory that torch holds but no tensor needs."""
    if "torch" in sys.modules and device() == "cuda":
        sys.modules["torch"].cuda.empty_cache()


def autocast(precision: str = "bf16") -> contextlib.AbstractContextManager:
    """bfloat16 autocast where the device computes it fast; elsewhere, or with "fp32", no change."""
    if precision != "fp32" and (device() == "cuda" or _cpu_has_bf16()):
        return torch.autocast(device(), torch.bfloat16)
    return contextlib.nullcontext()


@functools.cache
def _cpu_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text(encoding="utf-8")


def precision() -> torch.dtype:
    """The type that large published models are loaded in: bfloat16 on a GPU, float32 elsewhere."""
    return torch.bfloat16 if device() == "cuda" else torch.float32


def sent(x: torch.Tensor) -> torch.Tensor:
    """A tensor on the device; a GPU goes on with what it does while it is on its way."""
    pinned = x.pin_memory() if device() == "cuda" and not x.is_cuda else x
    return pinned.to(device(), non_blocking=True)


@functools.lru_cache(maxsize=1)
def compiled(module: torch.nn.Module) -> Callable:
    """``module`` through torch.compile on a GPU, where the first call takes a minute.

    What cannot be compiled, as where there is no C++ compiler, runs as it is, only slower.
    """
    if device() == "cpu":
        return module
    torch._dynamo.config.suppress_errors = True
    return torch.compile(module)


def fitting_batches(
    fn: Callable, items: Sequence, size: int, what: str
) -> Iterator[tuple[Sequence, Any]]:
    """Yield ``(part, fn(part))`` for consecutive parts of ``items``.

    A part has ``size`` items, or half as many where memory is short, and half of that again.
    ``what`` names the work, in messages and where the size that fitted is remembered. Raises
    ``StudyError`` when not even a single item fits.
    """
    start = 0
    while start < len(items):
        part = items[start : start + _FITTED.get(what, size)]
        try:
            yield part, fn(part)
            start += len(part)
            continue
        except torch.OutOfMemoryError as e:
            short = str(e).splitlines()[0]
        # out of the handler, which would keep what did not fit alive
        if len(part) == 1:
            raise StudyError(
                f"{what}: the memory of {describe()} does not hold a single one ({short}). Close "
                "what else uses it, or take a device with more memory."
            )
        half = _FITTED[what] = len(part) // 2
        progress.say(f"{what}: out of memory with {len(part)} at a time; going on with {half}")
        forget()


def single_threaded() -> None:
    """One thread for whatever this process computes: torch, and the BLAS under NumPy and SciPy.

    A BLAS splits a product among its threads and rounds otherwise at the seams, so that with one
    thread per core the last digits would depend on the number of cores.
    """
    of_later_libraries = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    os.environ.update(dict.fromkeys(of_later_libraries, "1"))
    threadpoolctl.threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def ray_address() -> str:
    """The Ray that shards are spread over, ``$STUDY_RAY`` (the runner's ``--ray``); "" without."""
    return os.environ.get("STUDY_RAY", "")
