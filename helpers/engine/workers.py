"""Processes that share out work: one single-threaded worker per core, or one per GPU."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import multiprocessing.util
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from typing import Any

import loky
from loky.process_executor import BrokenProcessPool

from helpers.engine import gpu, ray
from helpers.errors import StudyError

PIPELINE = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"
PRELOADED = ("open_clip", PIPELINE, "pydantic")  # not this package, which the server may not find
_EXECUTORS: dict[int, loky.ProcessPoolExecutor] = {}  # number of GPUs -> its workers


def prepare() -> None:
    """Start to import, in the background, what workers are going to need; returns at once."""
    if gpu.device() == "cpu" and gpu.cores() > 1 and not gpu.ray_address():
        _forkserver()
        forkserver.ensure_running()


@functools.cache
def _forkserver() -> BaseContext:
    """Workers are forked from a server that has imported the heavy libraries once for all."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) > 70:  # a socket's address has 103 bytes at most
        tempfile.tempdir = "/tmp"
    multiprocessing.util.get_temp_dir()  # made now, and kept for the sockets of this process
    tempfile.tempdir = usual
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _executor(on_gpus: int) -> loky.ProcessPoolExecutor:
    """A process per core; or, with ``on_gpus``, one for each of so many GPUs."""
    if on_gpus in _EXECUTORS:
        return _EXECUTORS[on_gpus]
    context = _forkserver()
    forkserver.ensure_running()
    for name in PRELOADED:
        importlib.import_module(name)  # needed soon; the server's own imports take as long
    cards = context.Queue()
    visible = [c for c in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if c]
    for card in (visible or [str(i) for i in range(on_gpus)])[:on_gpus]:
        cards.put(card)
    _EXECUTORS[on_gpus] = loky.ProcessPoolExecutor(
        on_gpus or gpu.cores(),
        context=context,
        initializer=_start_worker,
        initargs=(cards if on_gpus else None,),
    )
    return _EXECUTORS[on_gpus]


def _start_worker(cards: Any) -> None:
    """Take a GPU where there are some, one thread, and an end with the process that started it."""
    if cards is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = cards.get()  # before this process asks for a GPU

    import torch  # noqa: F401 - before its threads are counted

    gpu.single_threaded()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process stops its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose main process was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def release() -> None:
    """End the worker processes and what they hold in memory; the next ``starmap`` starts others."""
    while _EXECUTORS:
        _EXECUTORS.popitem()[1].shutdown(kill_workers=True)


def starmap(
    fn: Callable, jobs: Sequence[tuple], parallel: bool = True, uses_gpu: bool = True
) -> Iterator[tuple[int, Any]]:
    """Yield ``(i, fn(*jobs[i]))`` as results come in.

    On a CPU there is one single-threaded process per core, so that a result does not depend on
    how many cores there are (one core needs no other process). On GPUs that ``fn`` would use
    there is one process for each, so that one shard or run is on one GPU. With one GPU, or
    without ``parallel``, jobs run one after the other in this process. With ``parallel`` and an
    address of Ray they run there (engine/ray.py). Raises ``StudyError`` when a process was killed.
    """
    if not jobs:
        return
    parallel = parallel and multiprocessing.parent_process() is None  # a worker starts no others
    if parallel and gpu.ray_address():
        yield from ray.starmap(fn, jobs, gpu.ray_address(), uses_gpu)
        return
    on_gpus = gpu.gpus() if uses_gpu and gpu.device() == "cuda" else 0
    if not parallel or on_gpus == 1 or (not on_gpus and gpu.cores() == 1):
        yield from ((i, fn(*job)) for i, job in enumerate(jobs))
        return
    executor = _executor(on_gpus)
    futures = {executor.submit(fn, *job): i for i, job in enumerate(jobs)}
    try:
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
    except BrokenProcessPool as e:
        _EXECUTORS.pop(on_gpus).shutdown(kill_workers=True)
        raise StudyError(
            "a worker process was killed, most likely for want of memory. What was finished is kept"
            ": run the same command again. (A script calls this below if __name__ == '__main__'.)"
        ) from e
    finally:
        for future in futures:
            future.cancel()
