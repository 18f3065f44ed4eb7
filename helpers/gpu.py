"""What hardware this is: the only module that asks. Device, precision, processes, and the device's name for figures."""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver

from helpers.worlds import StudyError


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
            print(f"{type(module).__name__}: goes on without torch.compile, slower, to the same results ({reason}). It needs a C++ "
                  "compiler such as g++, or one named in $CC and $CXX.")
            del ways[0]
        return call(*args, **kwargs)

    return call


_FITTED: dict[str, int] = {}  # batch sizes that had to be halved, so that it happens once per process


def fitting_batches(fn: Callable, items: Sequence, size: int, what: str) -> Iterator[tuple[Sequence, object]]:
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
            raise StudyError(f"{what}: the memory of {describe()} does not hold a single one ({short}). Close what else uses it, or "
                             "take a device with more memory.")
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

    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))  # of what is loaded later
    threadpoolctl.threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _start_worker(cards=None) -> None:
    import signal

    if cards is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = cards.get()  # before this process asks for a GPU: it will see this one only

    import torch  # noqa: F401 - before its threads are counted

    single_threaded()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the main process, which then stops the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose main process was killed would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


PRELOADED = ["open_clip", "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "helpers.worlds"]


@functools.cache
def _forkserver():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def prepare_workers() -> None:
    """Start to import, in the background, what the worker processes are going to need; returns at once."""
    if device() == "cpu" and cores() > 1 and not ray_address():
        _forkserver()
        forkserver.ensure_running()


def cards(count: int) -> list[str]:
    """The names of ``count`` GPUs, as ``CUDA_VISIBLE_DEVICES`` has them."""
    return ([c for c in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if c] or list(map(str, range(count))))[:count]


@functools.cache
def _processes(count: int = 0, each: int = 1) -> ProcessPoolExecutor:
    """A process per core; or, with ``count``, so many, for ``each`` GPUs apiece."""
    _forkserver()
    forkserver.ensure_running()
    for name in PRELOADED:
        importlib.import_module(name)  # needed soon, and for as long there is nothing to do but wait for the server's imports
    if not count:
        return _kept(ProcessPoolExecutor(cores(), mp_context=_forkserver(), initializer=_start_worker))
    names, free = cards(count * each), _forkserver().Queue()
    for i in range(count):
        free.put(",".join(names[i * each : (i + 1) * each]))
    return _kept(ProcessPoolExecutor(count, mp_context=_forkserver(), initializer=_start_worker, initargs=(free,)))


_RUNNING: list[ProcessPoolExecutor] = []


def _kept(workers: ProcessPoolExecutor) -> ProcessPoolExecutor:
    _RUNNING.append(workers)
    return workers


def release() -> None:
    """End the worker processes and what they hold in memory; the next ``starmap`` starts others."""
    _processes.cache_clear()
    while _RUNNING:
        _RUNNING.pop().shutdown(cancel_futures=True)


def ray_address() -> str:
    """The Ray that shards are spread over, ``$STUDY_RAY`` (set by the runner's ``--ray``); "" without."""
    return os.environ.get("STUDY_RAY", "")


def starmap(fn: Callable, jobs: Sequence[tuple], parallel: bool = True, uses_gpu: bool = True,
            ranks: int = 1) -> Iterator[tuple[int, object]]:
    """Yield ``(i, fn(*jobs[i]))`` as results come in.

    On a CPU with ``parallel``, one single-threaded process per core, so that a result does not depend on how many cores
    there are (one core needs no other process); on GPUs that ``fn`` would use, one process for each, so that one shard or run
    is on one GPU; with one GPU, or without ``parallel``, one after the other in this process. With ``parallel`` and a
    ``ray_address``, on Ray (helpers/ray_engine.py). With ``ranks`` above 1 so many processes do each job together
    (helpers/ranks.py), on a GPU each. ``fn`` must be importable. Raises ``StudyError`` when a process was killed.
    """
    if not jobs:
        return
    if parallel and ray_address():
        from helpers import ray_engine

        yield from ray_engine.starmap(fn, jobs, ray_address(), uses_gpu)
        return
    count = gpus() // ranks if uses_gpu and device() == "cuda" else 0
    if ranks > 1:
        from helpers import ranks as together

        fn, count = functools.partial(together.run, ranks, fn), max(count, 1)
    if not parallel or count == 1 or (not count and cores() == 1):
        yield from ((i, fn(*job)) for i, job in enumerate(jobs))
        return
    workers = _processes(count, ranks)
    futures = {workers.submit(fn, *job): i for i, job in enumerate(jobs)}
    try:
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
    except BrokenProcessPool as e:
        _processes.cache_clear()
        raise StudyError("a worker process was killed, most likely for want of memory. What was finished is kept: run the same "
                         "command again to go on. (A script of your own must call this below if __name__ == '__main__'.)") from e
    finally:
        for future in futures:
            future.cancel()
