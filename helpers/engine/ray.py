"""The same shards on many machines: Ray under ``workers.starmap`` (``--ray``, ``$STUDY_RAY``).

Assumed of the machines: the store (``$STUDY_RUNS``, or ``.runs`` beside the package) and
``$STUDY_PAPER`` lie on a file system that all of them see at the same path; Python, Ray and what
``requirements.txt`` names have the same versions; the processors are of one kind, as another kind
rounds floats otherwise. The package itself travels with the tasks. Tasks read from the store and
send back what they computed; this process writes it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from helpers.engine import gpu, places
from helpers.errors import StudyError

RETRIES = 3  # of a task whose process or machine died; its own errors are not tried again
AHEAD = 2  # tasks handed out per core or GPU: one runs, and the next is there when it ends
VALID = (
    "Valid: local (a Ray on this machine), HOST:PORT of a head node started by `ray start --head`, "
    "auto (the cluster that this machine is part of), or none of --ray and STUDY_RAY."
)


def check(address: str) -> None:
    """``StudyError`` when Ray is not installed, or there is no cluster at ``address``."""
    if address == "local":
        _imported(address)
    else:
        connect(address).shutdown()


def connect(address: str) -> Any:
    """The module ``ray``, connected: to this machine (``local``) or to the cluster at ``address``.

    A connection that this process has already is kept. Raises ``StudyError`` when Ray is not
    installed, cannot be started, or there is none at ``address``.
    """
    if address != "local" and (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # which ``ray start`` left
    ray = _imported(address)
    if ray.is_initialized():
        return ray
    _see_that_somebody_listens(address)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    path = os.pathsep.join(filter(None, [str(places.TOP), os.environ.get("PYTHONPATH")]))
    here = {"runtime_env": {"env_vars": {"PYTHONPATH": path}}, "include_dashboard": False}
    there = {"runtime_env": {"py_modules": [str(places.PACKAGE)]}}  # the package travels
    options = {**here, "num_cpus": gpu.cores()} if address == "local" else there
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as e:  # Ray raises a bare Exception when its parts are not up in time
        raise StudyError(f"Ray {address!r} cannot be used: {_first_line(e)} {VALID}") from e
    return ray


def _imported(address: str) -> Any:
    try:
        import ray
    except ImportError as e:
        raise StudyError(
            f"Ray was asked for ({address!r}), but is not installed. Install it here and on all "
            "machines, in one version: pip install ray. Or leave out --ray (and STUDY_RAY): the "
            "study then runs on this machine."
        ) from e
    return ray


def _see_that_somebody_listens(address: str) -> None:
    """Raise ``StudyError`` if nobody does at ``HOST:PORT``; Ray itself would wait for minutes."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise StudyError(f"{address!r} is no address of a Ray cluster. {VALID}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as e:
        raise StudyError(f"no Ray answers at {address!r} ({e}). {VALID}") from e


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0].rstrip(".") + "."


def starmap(
    fn: Callable, jobs: Sequence[tuple], address: str, uses_gpu: bool = True
) -> Iterator[tuple[int, Any]]:
    """Yield ``(i, fn(*jobs[i]))`` as results come in: Ray tasks instead of local processes.

    A task gets one GPU if ``fn`` would use it and this process has one, otherwise one core and a
    single thread. It is started again when its process or machine dies. An error of ``fn`` is
    raised as it is. Raises ``StudyError`` when there is no such device, or a task died each time.
    """
    ray = connect(address)
    kind = "GPU" if uses_gpu and gpu.device() == "cuda" else "CPU"
    task = ray.remote(num_cpus=1, num_gpus=int(kind == "GPU"), max_retries=RETRIES)(_task)
    environment = _environment(kind)
    waiting = iter(enumerate(jobs))
    running: dict[Any, int] = {}
    try:
        while True:
            room = AHEAD * _slots(ray, address, kind) - len(running)
            for i, job in islice(waiting, max(0, room)):
                running[task.remote(environment, places.root().is_dir(), fn, *job)] = i
            if not running:
                return
            done = ray.wait(list(running), num_returns=1)[0][0]
            value = _result(ray, done)
            yield running.pop(done), value
    finally:
        if ray.is_initialized():
            for ref in running:
                ray.cancel(ref, force=True)


def _slots(ray: Any, address: str, kind: str) -> int:
    """How many tasks run at a time just now; machines may come and go."""
    slots = int(ray.cluster_resources().get(kind, 0))
    if not slots:
        way_out = " Or set CUDA_VISIBLE_DEVICES to nothing to compute on CPUs." * (kind == "GPU")
        raise StudyError(
            f"the Ray cluster {address!r} offers no {kind}, but this process computes on one. Add "
            f"machines with a {kind}.{way_out}"
        )
    return slots


def _result(ray: Any, ref: Any) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as e:
        raise e.cause from e
    except ray.exceptions.RayError as e:
        raise StudyError(
            f"a shard was lost {1 + RETRIES} times on Ray, most likely for want of memory "
            f"({_first_line(e)}) What was finished is kept: run the same command again to go on."
        ) from e


def _environment(kind: str) -> dict[str, str]:
    """What a task has to know of this process: where the data are, and what it may use."""
    variables = {"STUDY_RUNS": str(places.root()), "STUDY_HEADLESS": "1", "STUDY_RAY": ""}
    for name in ("STUDY_PAPER", "HF_HOME"):
        if os.environ.get(name):
            variables[name] = str(places.TOP / os.environ[name])  # where kernels work
    if kind == "CPU":
        variables |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    return variables


def _task(environment: dict[str, str], store_seen: bool, fn: Callable, *job: Any) -> Any:
    """Runs in a process of Ray; where the store was seen at home, it must be seen here too."""
    os.environ.update(environment)
    if store_seen and not Path(environment["STUDY_RUNS"]).is_dir():
        raise StudyError(
            f"machine {socket.gethostname()} does not see the store {environment['STUDY_RUNS']}. "
            "Set STUDY_RUNS to a folder on a file system that all machines share."
        )
    if "OMP_NUM_THREADS" in environment:
        gpu.single_threaded()
    return fn(*job)
