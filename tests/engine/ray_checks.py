"""Shards on Ray: the serial run's bytes, the cost of a killed worker, errors, and a clean end.

Run by test_ray.py in a process of its own.
"""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import run, worlds
from helpers.data import rules, scan
from helpers.engine import gpu, places, ray, store, workers
from helpers.errors import StudyError
from helpers.models import clip
from helpers.pocket.train import clip as miniature
from helpers.pocket.train import vocabulary
from helpers.study import embeddings

TINY = worlds.get("smoke", pool={"rows": 36, "shard_rows": 12})


@pytest.fixture(scope="module")
def local_ray():
    """A Ray with two workers on this machine, as ``--ray local`` starts it on two cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "cores", lambda: 2)
        try:
            connected = ray.connect("local")
        except StudyError as e:
            if "timed out" in str(e):
                pytest.skip(f"this machine is too busy for Ray: {e}")
            raise
        yield connected
        connected.shutdown()


@pytest.fixture
def on_ray(local_ray, monkeypatch, tmp_path):
    monkeypatch.setenv("STUDY_RAY", "local")
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    (tmp_path / "runs").mkdir()
    return local_ray


def status(capsys, *arguments):
    code = run.main(list(arguments))
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    "address", ["pocket", "head:port", "127.0.0.1:{closed}", "ray://127.0.0.1:{closed}"]
)
def test_an_address_without_a_cluster(capsys, address):
    with socket.socket() as s:  # bound, but nobody listens
        s.bind(("127.0.0.1", 0))
        address = address.format(closed=s.getsockname()[1])
        code, message = status(capsys, "pocket", "03", "--ray", address)
    assert code == 2
    assert repr(address) in message
    assert "Valid: local" in message
    assert len(message.splitlines()) == 1


def digests(folder: Path) -> dict:
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in folder.rglob("*")
        if f.is_file() and f.name != ".lock"
    }


def untrained_upstream(folder: Path) -> None:
    """A CLIP with random weights where the world looks for its own; there is nothing to train."""
    import torch
    from transformers import CLIPTokenizerFast

    torch.manual_seed(0)
    (folder / "tokenizer").mkdir(parents=True)
    vocabulary.train(["an Airbus A320 at dusk", "a photo of a rose"], folder / "tokenizer")
    tokenizer = CLIPTokenizerFast.from_pretrained(folder / "tokenizer")
    config = miniature.config(TINY, len(tokenizer))
    clip.save(clip.build(config, folder / "tokenizer"), folder / "clip", config)
    store.write(folder / "manifest.json", {})


def render_embed_scan(runs: Path) -> dict:
    """Render, embed and scan the tiny pool, each shard by shard; digests of all files."""
    shutil.copytree(runs.parent / "upstream", store.folder("upstream", TINY))
    pool = worlds.backend(TINY).open_pool(TINY)
    out = runs / "out"
    jobs = {}
    for kind in ("img", "text"):
        for start in range(0, 36, 12):
            jobs[f"{kind}_{start}.npy"] = (TINY, kind, start, start + 12)
    store.fill(out, jobs, embeddings.embed_shard, "shards embedded")
    store.write(
        out / "found.parquet",
        scan.find(pool.shards, rules.plan(["A320", "rose", "a"], "substring")),
    )
    return digests(runs)


def one_after_the_other(fn, jobs, *_, **__):
    return ((i, fn(*job)) for i, job in enumerate(jobs))


def test_the_same_bytes_as_the_serial_run(on_ray, tmp_path, monkeypatch):
    import torch

    untrained_upstream(tmp_path / "upstream")
    spread = render_embed_scan(tmp_path / "runs")
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "serial"))
    monkeypatch.setattr(workers, "starmap", one_after_the_other)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        serial = render_embed_scan(tmp_path / "serial")
    finally:
        torch.set_num_threads(threads)
    assert serial == spread
    assert sum(name.startswith("out/") for name in serial) == 7


def tried(folder: Path, i: int, deaths: int) -> np.ndarray:
    """Notes each attempt; the process dies in the first ``deaths`` attempts."""
    attempt = len(list(folder.glob(f"{i}-*")))
    (folder / f"{i}-{attempt}").touch()
    if attempt < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.random.default_rng(i).normal(size=20)


def test_a_killed_worker_costs_one_shard(on_ray, tmp_path):
    attempts = tmp_path / "attempts"
    attempts.mkdir()
    jobs = {f"{i}.npy": (attempts, i, int(i == 3)) for i in range(8)}
    files = store.fill(tmp_path / "out", jobs, tried, "shards")
    for i, file in enumerate(files):
        assert np.array_equal(np.load(file), np.random.default_rng(i).normal(size=20))
    assert {f.name for f in attempts.iterdir()} == {*(f"{i}-0" for i in range(8)), "3-1"}


def test_a_shard_that_always_dies_is_explained(on_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "RETRIES", 1)
    with pytest.raises(StudyError, match=r"lost 2 times.*run the same command again"):
        list(workers.starmap(tried, [(tmp_path, 0, 99)]))


def refuse(i: int) -> None:
    raise StudyError(f"shard {i} is damaged; delete it.")


def test_errors_of_a_shard_keep_their_type(on_ray):
    with pytest.raises(StudyError, match=r"^shard 7 is damaged; delete it.$") as caught:
        list(workers.starmap(refuse, [(7,)]))
    assert type(caught.value) is StudyError


def surroundings() -> tuple:
    import torch

    names = ("STUDY_RUNS", "STUDY_RAY", "CUDA_VISIBLE_DEVICES")
    return torch.get_num_threads(), *(os.environ.get(name) for name in names)


def test_a_task_has_one_core_and_the_store(on_ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDY_RUNS", "runs")
    found = (1, str(places.TOP / "runs"), "", "")  # relative folders start at the clone
    assert dict(workers.starmap(surroundings, [()])) == {0: found}
    with monkeypatch.context() as patch:  # as on a machine without it
        patch.setenv("STUDY_RUNS", str(tmp_path))  # here it is
        patch.setattr(ray, "_environment", lambda kind: {"STUDY_RUNS": "/nowhere"})
        with pytest.raises(StudyError, match="does not see the store /nowhere"):
            list(workers.starmap(surroundings, [()]))
    monkeypatch.setattr(gpu, "device", lambda: "cuda")
    with pytest.raises(StudyError, match="offers no GPU"):
        list(workers.starmap(surroundings, [()]))


class Counted(list):
    """Jobs that know how many of them were handed out."""

    given = 0

    def __iter__(self):
        for job in super().__iter__():
            self.given += 1
            yield job


def wait(folder: Path, i: int, seconds: float) -> int:
    (folder / str(i)).touch()
    time.sleep(seconds)
    return i


def test_few_tasks_in_flight_and_none_after_a_stop(on_ray, tmp_path):
    jobs = Counted((tmp_path / "runs", i, 600 if i else 0) for i in range(50))
    results = workers.starmap(wait, jobs)
    assert next(results) == (0, 0)
    assert jobs.given == 2 * ray.AHEAD
    results.close()
    # both workers are free again
    start = time.monotonic()
    assert dict(workers.starmap(abs, [(-1,), (-2,), (-3,)])) == {0: 1, 1: 2, 2: 3}
    assert time.monotonic() - start < 300
    assert len(list((tmp_path / "runs").iterdir())) <= 2 * ray.AHEAD


JOINING = """
import os
from helpers.engine import gpu, ray, workers

ray.check(os.environ["STUDY_RAY"])
print(dict(workers.starmap(eval, [("__import__('helpers').__file__",)]))[0])
"""


def test_another_process_joins_by_address_and_brings_the_package(on_ray, tmp_path):
    address = on_ray.get_runtime_context().gcs_address
    environment = {
        **os.environ,
        "STUDY_RAY": address,
        "PYTHONPATH": os.pathsep.join([str(places.TOP), *sys.path]),
    }
    # set by the Ray of this process; another has to find the token by itself
    environment.pop("RAY_AUTH_MODE", None)
    done = subprocess.run(
        [sys.executable, "-c", JOINING],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "py_modules" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not done.stderr
