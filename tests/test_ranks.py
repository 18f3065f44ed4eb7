"""One finetuning on two processes: the weights of one process, through a kill, and by either number of processes afterwards."""

import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest

from helpers import adapt, clip, gpu, ranks, run, worlds
from helpers.pools import Benchmark, Lazy, Split
from tests import tiny

SETTINGS = {"min_steps": 12, "batch": 10, "evaluations": 1, "checkpoint_minutes": 0.0, "precision": "fp32"}


class Deadly:
    """Images of which the second rank's process reads a few batches before it is killed."""

    def __init__(self, images, batches):
        self.images, self.left = images, batches

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        self.left -= 1
        if self.left == 0 and ranks.place()[0] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[rows]


def colours(n):
    """Slightly reddish and bluish noise."""
    labels, rng = np.arange(n) % 2, np.random.default_rng(n)
    images = rng.integers(0, 90, (n, 32, 32, 3), dtype=np.uint8)
    images[labels == 0, :, :, 0] += 20
    images[labels == 1, :, :, 2] += 20
    return Split(images, labels)


def train(folder, state="", batches=0, n=25):
    """A run of 12 steps; its parameters, what it kept, and who trained it."""
    bench = Benchmark("colours", ("red", "blue"), "thing", "a thing", ("a photo of a {}",), (), pd.DataFrame(), *map(colours, (n, 21, 4)))
    images = Split(Lazy(Deadly(bench.train.images, batches)), bench.train.labels)
    s = worlds.adapt(worlds.get("smoke"), finetune=SETTINGS).finetune
    model, kept = adapt.finetune(clip.load_folder(folder), images, bench, 1e-3, 7, s, folder / state if state else None)
    tensors = {**model.clip.model.visual.state_dict(), "weight": model.weight, "bias": model.bias}
    return {k: v.numpy() for k, v in tensors.items()}, kept, ranks.place()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.clip(tmp_path_factory.mktemp("clip"))


def close(one, other):
    """Equal up to rounding. A key's bias has no gradient but rounding (softmax ignores it), which Adam makes as large as any other."""
    for k in other:
        at = np.abs(one[k] - other[k])
        if k.endswith("in_proj_bias"):
            at[len(at) // 3 : 2 * len(at) // 3] = 0
        assert at.max() < 1e-5, k
    return one.keys() == other.keys()


def test_two_ranks_learn_what_one_does_and_go_on_after_a_kill(folder, capfd):
    alone, kept, _ = train(folder)
    [(_, (together, kept_together, place))] = gpu.starmap(train, [(folder,)], ranks=2)
    assert place == (0, 2) and kept_together == kept and close(together, alone)
    with pytest.raises(AssertionError):  # the comparison can tell weights apart
        close(train(folder, n=24)[0], alone)
    with pytest.raises(worlds.StudyError, match="killed.*run the same command again"):
        ranks.run(2, train, folder, "state.pt", 7)
    shutil.copy(folder / "state.pt", folder / "other.pt")
    resumed, kept_resumed, _ = ranks.run(2, train, folder, "state.pt")
    assert capfd.readouterr().out.count("goes on at step") == 1
    assert kept_resumed == kept and all(np.array_equal(resumed[k], together[k]) for k in together)
    assert close(train(folder, "other.pt")[0], alone) and not list(folder.glob("*.pt"))


def complain():
    raise worlds.StudyError("shard 3 of the pool is damaged")


def test_what_a_rank_has_to_say_is_said_here():
    with pytest.raises(worlds.StudyError, match="^shard 3 of the pool is damaged$"):
        ranks.run(2, complain)


def test_ranks_without_an_image_are_refused(folder, monkeypatch):
    monkeypatch.setattr(ranks, "place", lambda: (1, 2))
    with pytest.raises(worlds.StudyError, match="2 ranks cannot share a batch of 1 images"):
        train(folder, n=1)


def test_impossible_numbers_of_ranks_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for given in ("0", "two", str(max(gpu.cores(), gpu.gpus()) + 1)):
        code, message = run.main(["smoke", "04", "--ranks", given]), capsys.readouterr().err.strip()
        assert code == 2 and repr(given) in message and "valid here: 1 to" in message and len(message.splitlines()) == 1
    monkeypatch.setenv("STUDY_RANKS", str(gpu.cores()))
    monkeypatch.setenv("STUDY_RAY", "local")
    if gpu.cores() > 1:
        with pytest.raises(worlds.StudyError, match="leave out one"):
            ranks.asked()
