"""Worker processes start no others: what a job shares out runs in the job's own process."""

import os

from helpers.engine import gpu, workers


def process_of(_):
    return os.getpid()


def nested(n):
    return [process for _, process in workers.starmap(process_of, [(i,) for i in range(n)])]


def test_a_worker_starts_no_others():
    for _, processes in workers.starmap(nested, [(3,), (3,)]):
        assert len(processes) == 3 and len(set(processes)) == 1
        assert gpu.cores() == 1 or os.getpid() not in processes
