"""Attacks against a linear model, whose worst pixels are known, and one whose loss bends."""

import pytest
import torch

from helpers.errors import StudyError
from helpers.measure import attacks, metrics


def line():
    """A linear two-class model, pixels, labels; the worst pixels in the L-inf ball are known."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3 * 6 * 6, generator=generator)
    x, y = (
        torch.rand(40, 3, 6, 6, generator=generator),
        torch.randint(2, (40,), generator=generator),
    )

    def logits_of(pixels):
        score = pixels.flatten(1) @ weight
        return torch.stack([torch.zeros_like(score), score - weight.sum() / 2], 1)

    towards = torch.where(y == 1, -1.0, 1.0)[:, None] * weight.sign()
    return logits_of, x, y, lambda eps: (x.flatten(1) + eps * towards).clamp(0, 1).reshape(x.shape)


@pytest.mark.parametrize("eps", [0.002, 0.02, 0.3])
def test_attacks_find_the_known_optimum_of_a_linear_model(eps):
    logits_of, x, y, optimum = line()
    twice = attacks.fgsm(logits_of, x, y, (eps, 2 * eps))
    assert torch.equal(twice[0], optimum(eps)) and torch.equal(twice[1], optimum(2 * eps))
    found = attacks.pgd(logits_of, x, y, eps, 20, torch.Generator().manual_seed(1))
    assert torch.allclose(logits_of(found), logits_of(optimum(eps)), atol=1e-5)
    assert not torch.allclose(logits_of(found), logits_of(x), atol=1e-3)
    assert (found - x).abs().max() <= eps + 1e-6 and found.min() >= 0 and found.max() <= 1


def test_pgd_is_at_least_as_strong_as_fgsm_where_the_loss_bends():
    generator = torch.Generator().manual_seed(3)
    first, second = (
        torch.randn(48, 64, generator=generator),
        torch.randn(64, 4, generator=generator),
    )
    x = torch.rand(200, 3, 4, 4, generator=generator)

    def logits_of(pixels):
        return torch.sin(2 * pixels.flatten(1) @ first) @ second

    y = logits_of(x).argmax(1)
    for eps in (0.01, 0.03):
        fgsm, pgd = (
            metrics.accuracy(logits_of(a).numpy(), y.numpy())
            for a in (
                attacks.fgsm(logits_of, x, y, [eps])[0],
                attacks.pgd(logits_of, x, y, eps, 20, torch.Generator().manual_seed(0)),
            )
        )
        assert pgd <= fgsm < 1
    assert torch.equal(attacks.pgd(logits_of, x, y, 0.0, 3, torch.Generator()), x)


def test_an_attack_needs_a_step():
    with pytest.raises(StudyError, match="at least one step"):
        attacks.pgd(None, None, None, 0.1, 0, None)
