"""One training on several GPUs: every process (rank) takes its part of each batch, and gradients are added up (data parallelism).

Reached by the runner's ``--ranks N`` or by ``$STUDY_RANKS``. All ranks run the same job, as under torchrun: same weights, same
order of images, same random numbers for every image. So the gradients are those of one process, up to the order in which
floats are added, and a run that was interrupted can go on with another number of ranks. Only the first rank writes.
"""

from __future__ import annotations

import datetime
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

from helpers import gpu
from helpers.worlds import StudyError

PATIENCE = datetime.timedelta(days=1)  # ranks wait while the first measures; that one has died is seen at once, without waiting


def asked() -> int:
    """How many ranks shall train one model: ``$STUDY_RANKS``, 1 without.

    Raises ``StudyError`` when this machine has fewer GPUs (or, without one, cores), or with Ray, which spreads whole runs.
    """
    given = os.environ.get("STUDY_RANKS") or "1"
    on_gpus = gpu.device() == "cuda"
    most = gpu.gpus() if on_gpus else gpu.cores()
    if not given.isdecimal() or not 1 <= int(given) <= most:
        raise StudyError(f"--ranks (or STUDY_RANKS) was given {given!r}; valid here: 1 to {most}, the {'GPUs' if on_gpus else 'cores'} "
                         "of this machine that may train one model together. Without it every run has one.")
    if int(given) > 1 and gpu.ray_address():
        raise StudyError(f"--ranks {given} and --ray {gpu.ray_address()} were both given. Ray gives every run one GPU; leave out one of "
                         "the two (and STUDY_RANKS or STUDY_RAY).")
    return int(given)


def place() -> tuple[int, int]:
    """This process's rank among those that train one model, and how many they are: ``(0, 1)`` alone."""
    import torch.distributed as dist

    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def add_up(tensors: Sequence) -> None:
    """Replace each tensor by its sum over all ranks; alone, do nothing. Every rank has to come here, and gets the same bytes."""
    import torch
    import torch.distributed as dist

    if place()[1] == 1:
        return
    flat = torch.cat([t.flatten() for t in tensors])  # one message instead of hundreds
    dist.all_reduce(flat)
    for t, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        t.copy_(part.view_as(t))


def meet() -> None:
    """Wait until every rank is here."""
    import torch

    add_up([torch.zeros(1, device=gpu.device())])


def run(ranks: int, fn: Callable, *args):
    """``fn(*args)`` in so many processes, each with a GPU of its own or single-threaded; what it returns in the first.

    ``fn`` must be importable. Its ``StudyError`` is raised here; also raises ``StudyError`` when a process was killed.
    """
    import tempfile

    import torch.multiprocessing as mp

    with tempfile.TemporaryDirectory() as folder:
        try:
            mp.spawn(_rank, (ranks, Path(folder), fn, args), nprocs=ranks)
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as e:
            for said in Path(folder).glob("*.said"):
                raise StudyError(said.read_text()) from e
            if isinstance(e, mp.ProcessRaisedException):
                raise
            raise StudyError(f"one of {ranks} processes that trained together was killed, most likely for want of memory. What was "
                             "finished is kept: run the same command again to go on.") from e
        return pickle.loads((Path(folder) / "returned").read_bytes())


def _rank(rank: int, ranks: int, folder: Path, fn: Callable, args: tuple) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # sent when the process that started this one ends: end without a word
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu.cards(ranks)[rank]  # before this process asks for a GPU: it will see this one only

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("nccl" if gpu.device() == "cuda" else "gloo", init_method=f"file://{folder}/meet", rank=rank,
                            world_size=ranks, timeout=PATIENCE)
    try:
        returned = fn(*args)
    except StudyError as e:
        (folder / f"{rank}.said").write_text(str(e))
        raise
    if rank == 0:
        (folder / "returned").write_bytes(pickle.dumps(returned))
    meet()
    dist.destroy_process_group()
