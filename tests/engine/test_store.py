"""Artifacts: keys, atomic writes, kills, damaged files, full and read-only disks, dead workers."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.engine import artifacts, gpu, manifest, store, workers
from helpers.errors import StudyError

W = worlds.get("smoke")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    return tmp_path


def numbers(i: int) -> np.ndarray:
    time.sleep(0.15)
    return np.random.default_rng(i).normal(size=50)


def build(path):
    store.fill(path, {f"{i:02d}.npy": (i,) for i in range(12)}, numbers, "parts", parallel=False)


def one_file(path):
    store.write(path / "05.npy", np.arange(50))


def test_made_once_then_found(runs, capsys):
    made = store.make("captions", W, build)
    assert len(made.files("*.npy")) == 12
    assert np.array_equal(made.array("03.npy"), np.random.default_rng(3).normal(size=50))
    again = store.make("captions", W, lambda path: pytest.fail("built twice"))
    assert again.path == made.path
    assert "captions: found" in capsys.readouterr().out


def test_missing_artifact_names_the_next_command(runs):
    # pocket's cost is no other world's
    with pytest.raises(store.MissingArtifact, match=r"python -m helpers.run smoke 02$"):
        store.load("synthetic", W)
    words = r"python -m helpers.run pocket 02   \(2 min\)$"
    with pytest.raises(store.MissingArtifact, match=words):
        store.load("synthetic", worlds.get("pocket"))
    with pytest.raises(store.MissingArtifact, match=r"python -m helpers.run smoke 02 --seed 3$"):
        store.load("synthetic", worlds.get("smoke", seed=3))
    with pytest.raises(StudyError, match="Did you mean 'captions'"):
        store.load("caption", W)


def test_key_follows_settings_and_upstream_and_variant():
    base = artifacts.key("synthetic", W)
    assert artifacts.key("synthetic", worlds.replace(W, synthesis={"guidance": 3.0})) != base
    assert artifacts.key("synthetic", worlds.replace(W, captions={"temperature": 0.5})) != base
    assert artifacts.key("synthetic", worlds.replace(W, finetune={"epochs": 9})) == base
    assert artifacts.key("synthetic", W, generator="short") != base
    assert artifacts.key("pool", worlds.replace(W, seed=5)) == artifacts.key("pool", W)
    assert artifacts.key("captions", worlds.replace(W, seed=5)) != artifacts.key("captions", W)


def digests(folder):
    return {
        f.name: hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.glob("*"))
        if f.name != ".lock"
    }


MAKE = """
from helpers.engine import store
from tests.engine.test_store import W, build

print("ready", flush=True)
store.make("captions", W, build)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Digests of the files of a run that nobody kills."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_RUNS", str(tmp_path_factory.mktemp("undisturbed")))
        return digests(store.make("captions", W, build).path)


@pytest.mark.parametrize("seconds", [0.2, 0.9, 1.6])
def test_killed_anywhere_it_goes_on_byte_identical(runs, undisturbed, seconds):
    process = subprocess.Popen([sys.executable, "-c", MAKE], stdout=subprocess.PIPE)
    process.stdout.readline()
    left = store.folder("captions", W)
    until = time.monotonic() + 30
    while not left.exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (left / "manifest.json").exists()
    assert len(list(left.glob("*.npy"))) < 12
    assert store.make("captions", W, build).path == left
    assert digests(left) == undisturbed
    assert not list(left.glob("*.tmp"))


def test_damaged_artifact_says_which_file(runs):
    made = store.make("captions", W, build)
    (made.path / "05.npy").write_bytes(b"short")
    with pytest.raises(StudyError, match=r"05\.npy has 5 bytes.*Delete"):
        store.load("captions", W)


def test_other_bytes_of_the_same_size_are_noticed(runs, monkeypatch):
    made = store.make("captions", W, one_file)
    file = made.path / "05.npy"
    clock = made.path / "manifest.json"
    before = file.read_bytes()
    file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    os.utime(file, ns=(0, 0))  # small files are read whatever their time
    words = r"05\.npy holds other bytes.*Delete .* and run: python -m helpers.run smoke 01"
    with pytest.raises(StudyError, match=words):
        store.load("captions", W)
    monkeypatch.setattr(manifest, "SMALL", 0)
    store.load("captions", W)  # large ones only if they are younger than the manifest
    os.utime(file, ns=(0, clock.stat().st_mtime_ns + 10**9))
    with pytest.raises(StudyError, match=r"05\.npy holds other bytes"):
        store.load("captions", W)
    file.write_bytes(before)
    os.utime(file, ns=(0, clock.stat().st_mtime_ns + 2 * 10**9))
    os.utime(clock, ns=(0, 1))
    store.load("captions", W)
    assert clock.stat().st_mtime_ns > 1, "found unharmed, and not read again"


@pytest.mark.parametrize(
    "text",
    ["", '{"05.npy": [5', "null", "[]", "{}", '{"05.npy": 5}', '{"05.npy": ["x", "y"]}', "\x80"],
)
def test_a_damaged_manifest_is_one_line(runs, text):
    made = store.make("captions", W, one_file)
    (made.path / "manifest.json").write_text(text, encoding="latin-1")
    words = (
        r"captions is damaged: .*manifest\.json .*"
        r"Delete .* and run: python -m helpers.run smoke 01"
    )
    with pytest.raises(StudyError, match=words):
        store.load("captions", W)
    with pytest.raises(StudyError, match=words):
        store.make("captions", W, one_file)


def test_a_file_where_a_folder_should_be(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    for path, words in (
        ("file/x.json", "file is a file, not a folder"),
        ("file/below/x.json", "file is a file, not a folder"),
        ("folder.json", "Is a directory"),
    ):
        with pytest.raises(StudyError, match=f"cannot write .*{words}.*Set STUDY_RUNS"):
            store.write(tmp_path / path, {"a": 1})
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "file"))
    with pytest.raises(store.MissingArtifact):
        store.load("captions", W)
    with pytest.raises(StudyError, match="file is a file, not a folder"):
        store.make("captions", W, build)


def test_truncated_parquet(tmp_path):
    path = store.write(tmp_path / "t.parquet", pd.DataFrame({"a": [1, 2]}))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StudyError, match=r"t\.parquet.*truncated"):
        store.read_table(path)


@pytest.mark.parametrize(
    "code, words",
    [(errno.ENOSPC, "disk full"), (errno.EROFS, "STUDY_RUNS"), (errno.EACCES, "cannot write")],
)
def test_full_and_read_only_disks(tmp_path, monkeypatch, code, words):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StudyError, match=words):
        store.write(tmp_path / "x.json", {"a": 1})
    assert not (tmp_path / "x.json").exists()


def test_too_little_disk(tmp_path):
    with pytest.raises(StudyError, match="STUDY_RUNS"):
        store.check_disk(tmp_path / "later", 10**18)


def square(i: int) -> int:
    return i * i


def die(i: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def two_cores(monkeypatch):
    """Worker processes, also where the tests have one core."""
    monkeypatch.setattr(gpu, "cores", lambda: 2)


def test_processes_return_every_result(two_cores):
    assert dict(workers.starmap(square, [(i,) for i in range(20)])) == {i: i * i for i in range(20)}
    assert os.getpid() not in dict(workers.starmap(os.getpid, [()] * 4)).values()


def test_one_core_needs_no_other_process(monkeypatch):
    monkeypatch.setattr(gpu, "cores", lambda: 1)
    assert dict(workers.starmap(os.getpid, [()] * 2)) == {0: os.getpid(), 1: os.getpid()}


PRODUCT = """
import hashlib, sys
import numpy as np, threadpoolctl
from helpers.engine import gpu, workers

threadpoolctl.threadpool_limits(int(sys.argv[1]))
x = np.random.default_rng(0).normal(size=(1_400, 142)).astype(np.float32)
workers._start_worker(None)
print(hashlib.sha256(x[:, :128] @ x[:128, 128:]).hexdigest())
"""


def test_what_a_worker_computes_does_not_depend_on_the_number_of_cores():
    """A BLAS takes a thread per core unless told otherwise, and rounds where their parts meet."""
    products = set()
    for cores in "134":
        command = [sys.executable, "-c", PRODUCT, cores]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        products.add(done.stdout)
    assert len(products) == 1


WAITING = """
import os, time
from helpers.engine import gpu, workers

if __name__ == "__main__":
    gpu.cores = lambda: 2
    print(*{pid for _, pid in workers.starmap(os.getpid, [()] * 4)}, flush=True)
    time.sleep(600)
"""


def gone(pid, patience=20.0):
    """Whether a process ends in time (a zombie has ended)."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.2)
    return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_workers_end_with_a_killed_main_process(tmp_path):
    (tmp_path / "waiting.py").write_text(WAITING)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    main = subprocess.Popen(
        [sys.executable, str(tmp_path / "waiting.py")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    pids = main.stdout.readline().split()
    main.kill()
    main.wait()
    assert pids
    assert all(gone(pid) for pid in pids)


def test_a_dead_worker_is_explained(two_cores):
    with pytest.raises(StudyError, match="run the same command again"):
        list(workers.starmap(die, [(0,)]))
    assert dict(workers.starmap(square, [(3,)])) == {0: 9}


def test_several_gpus_have_a_process_each(monkeypatch):
    """Which card a process sees is settled before it asks for one; here cards are only named."""
    monkeypatch.setattr(gpu, "device", lambda: "cuda")
    monkeypatch.setattr(gpu, "gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    workers.release()
    seen = dict(workers.starmap(os.getenv, [("CUDA_VISIBLE_DEVICES",)] * 12))
    assert sorted(seen) == list(range(12))
    assert set(seen.values()) <= {"4", "7"}
    workers.release()
