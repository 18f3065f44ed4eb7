"""Several processes learn what one learns alone; small trainings start no processes."""

import os

import numpy as np
import torch

from helpers.models import clip
from helpers.models.train import Schedule
from helpers.pocket.train import loop

PAIRS, BATCH = 48, 12


def contrast(worker, folder):
    """Train two linear towers contrastively for a few steps and leave their weights."""
    x, y = torch.randn(2, PAIRS, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    model = torch.nn.ModuleDict({"image": torch.nn.Linear(6, 4), "text": torch.nn.Linear(6, 4)})
    order = loop.batches(PAIRS, BATCH, 0, worker)
    loss = clip.contrastive_loss(worker.rank, worker.count)

    def loss_of(step):
        rows = next(order)
        image = torch.nn.functional.normalize(model["image"](x[rows]), dim=1)
        text = torch.nn.functional.normalize(model["text"](y[rows]), dim=1)
        return loss(image, text, torch.tensor(5.0))

    loop.train(model, loss_of, Schedule(6, BATCH, 1e-2), "towers", worker)
    if worker.rank == 0:
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        np.save(folder / f"{worker.count}.npy", weights.numpy())


def touch(worker, folder):
    (folder / f"{worker.rank}-of-{worker.count}-{os.getpid()}").touch()


def test_two_processes_learn_what_one_does(tmp_path):
    contrast(loop.Worker(), tmp_path)
    torch.multiprocessing.spawn(
        loop._join, (2, f"file://{tmp_path}/meet", contrast, (tmp_path,)), nprocs=2
    )
    alone, together = np.load(tmp_path / "1.npy"), np.load(tmp_path / "2.npy")
    assert np.allclose(alone, together, atol=1e-5)
    assert np.isfinite(alone).all()


def test_a_small_training_stays_here_and_leaves_the_random_state_alone(tmp_path):
    state = torch.random.get_rng_state()
    loop.distribute(touch, tmp_path, passes=loop.FEW - 1)
    assert [p.name for p in tmp_path.iterdir()] == [f"0-of-1-{os.getpid()}"]
    assert torch.equal(state, torch.random.get_rng_state())


def test_workers_share_an_epoch_without_overlap():
    first, second = (loop.batches(12, 4, 3, loop.Worker(rank, 2)) for rank in (0, 1))
    rows = np.concatenate([[*next(first), *next(second)] for _ in range(6)])  # two epochs
    assert sorted(rows[:12]) == sorted(rows[12:]) == list(range(12))
