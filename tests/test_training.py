"""The training loops: what several processes learn together is what one learns alone; small trainings start no processes."""

import os

import numpy as np
import pytest
import torch

from helpers.models import clip, train

PAIRS, BATCH = 48, 12


def contrast(rank, workers, folder):
    """Train two linear towers contrastively for a few steps and leave their weights."""
    x, y = torch.randn(2, PAIRS, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    model = torch.nn.ModuleDict({"image": torch.nn.Linear(6, 4), "text": torch.nn.Linear(6, 4)})
    order, loss = (
        train.batches(PAIRS, BATCH, 0, rank, workers),
        clip.contrastive_loss(rank, workers),
    )

    def loss_of(model, step):
        rows = next(order)
        towers = (
            torch.nn.functional.normalize(model[name](v[rows]), dim=1)
            for name, v in (("image", x), ("text", y))
        )
        return loss(*towers, torch.tensor(5.0))

    train.fit(model, loss_of, train.Schedule(6, BATCH, 1e-2), rank, workers)
    if rank == 0:
        np.save(
            folder / f"{workers}.npy",
            torch.cat([p.detach().flatten() for p in model.parameters()]).numpy(),
        )


def where(rank, workers, folder):
    (folder / f"{rank}-of-{workers}-{os.getpid()}").touch()


def test_two_processes_learn_what_one_does(tmp_path):
    contrast(0, 1, tmp_path)
    torch.multiprocessing.spawn(
        train._join, (2, f"file://{tmp_path}/meet", contrast, (tmp_path,)), nprocs=2
    )
    alone, together = np.load(tmp_path / "1.npy"), np.load(tmp_path / "2.npy")
    assert np.allclose(alone, together, atol=1e-5) and np.isfinite(alone).all()


def test_a_small_training_stays_here_and_leaves_the_random_state_alone(tmp_path):
    state = torch.random.get_rng_state()
    train.distribute(where, tmp_path, passes=train.FEW - 1)
    assert [p.name for p in tmp_path.iterdir()] == [f"0-of-1-{os.getpid()}"]
    assert torch.equal(state, torch.random.get_rng_state())


def test_workers_share_an_epoch_without_overlap():
    first, second = (train.batches(12, 4, 3, rank, 2) for rank in (0, 1))
    seen = np.concatenate([[*next(first), *next(second)] for _ in range(6)])  # two epochs
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))


@pytest.mark.parametrize(
    ("settings", "step", "rate"),
    [
        ({}, 0, 0.1),
        ({}, 9, 1.0),
        ({}, 54, 0.5),
        ({"cosine": False, "cooldown": 0.5}, 49, 1.0),
        ({"cosine": False, "cooldown": 0.5}, 75, 0.5),
        ({"cosine": False, "cooldown": 0.5}, 99, 0.02),
    ],
)
def test_learning_rate_by_hand(settings, step, rate):
    assert train.Schedule(100, 8, 1.0, warmup=0.1, **settings).rate(step) == pytest.approx(
        rate, abs=0.02
    )
