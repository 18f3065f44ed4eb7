"""Processes that share out work: one single-threaded worker per core, or one per GPU."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver

from helpers.engine import ray
from helpers.engine.gpu import cores, device, gpus, ray_address, single_threaded
from helpers.errors import StudyError


def _start_worker(cards=None) -> None:
    import signal

    if cards is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = (
            cards.get()
        )  # before this process asks for a GPU: it will see this one only

    import torch  # noqa: F401 - before its threads are counted

    single_threaded()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # an interrupt is for the main process, which then stops the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose main process was killed would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


PRELOADED = [
    "open_clip",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "helpers.worlds",
]


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


@functools.cache
def _processes(on_gpus: int = 0) -> ProcessPoolExecutor:
    """A process per core; or, with ``on_gpus``, one for each of so many GPUs."""
    _forkserver()
    forkserver.ensure_running()
    for name in PRELOADED:
        importlib.import_module(
            name
        )  # needed soon, and for as long there is nothing to do but wait for the server's imports
    if not on_gpus:
        return _kept(
            ProcessPoolExecutor(cores(), mp_context=_forkserver(), initializer=_start_worker)
        )
    visible = [c for c in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if c] or [
        str(i) for i in range(on_gpus)
    ]
    free = _forkserver().Queue()
    for card in visible[:on_gpus]:
        free.put(card)
    return _kept(
        ProcessPoolExecutor(
            on_gpus, mp_context=_forkserver(), initializer=_start_worker, initargs=(free,)
        )
    )


_RUNNING: list[ProcessPoolExecutor] = []


def _kept(workers: ProcessPoolExecutor) -> ProcessPoolExecutor:
    _RUNNING.append(workers)
    return workers


def release() -> None:
    """End the worker processes and what they hold in memory; the next ``starmap`` starts others."""
    _processes.cache_clear()
    while _RUNNING:
        _RUNNING.pop().shutdown(cancel_futures=True)


def starmap(
    fn: Callable, jobs: Sequence[tuple], parallel: bool = True, uses_gpu: bool = True
) -> Iterator[tuple[int, object]]:
    """Yield ``(i, fn(*jobs[i]))`` as results come in.

    On a CPU with ``parallel``, one single-threaded process per core, so that a result does not depend on how many cores
    there are (one core needs no other process); on GPUs that ``fn`` would use, one process for each, so that one shard or run
    is on one GPU; with one GPU, or without ``parallel``, one after the other in this process. With ``parallel`` and a
    ``ray_address``, on Ray (helpers/engine/ray.py). ``fn`` must be importable. Raises ``StudyError`` when a process was killed.
    """
    if not jobs:
        return
    if parallel and ray_address():
        yield from ray.starmap(fn, jobs, ray_address(), uses_gpu)
        return
    count = gpus() if uses_gpu and device() == "cuda" else 0
    if not parallel or count == 1 or (not count and cores() == 1):
        yield from ((i, fn(*job)) for i, job in enumerate(jobs))
        return
    workers = _processes(count)
    futures = {workers.submit(fn, *job): i for i, job in enumerate(jobs)}
    try:
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
    except BrokenProcessPool as e:
        _processes.cache_clear()
        raise StudyError(
            "a worker process was killed, most likely for want of memory. What was finished is kept: run the same "
            "command again to go on. (A script of your own must call this below if __name__ == '__main__'.)"
        ) from e
    finally:
        for future in futures:
            future.cancel()
