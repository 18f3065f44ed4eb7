"""Random views of images for training; images are float tensors (n, 3, s, s), in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def crop_windows(n: int, generator: torch.Generator, low: float = 0.9) -> torch.Tensor:
    """Windows of ``low`` to 1 of the area, as affine maps (n, 2, 3) of an image's coordinates."""
    import torch

    side = (low + (1 - low) * torch.rand(n, generator=generator)).sqrt()
    shift = (2 * torch.rand(n, 2, generator=generator) - 1) * (1 - side)[:, None]
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = side
    theta[:, 1, 1] = side
    theta[:, :, 2] = shift
    return theta


def cropped(images: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """The windows ``theta`` (n, 2, 3) of the images, resized to the images' size."""
    import torch

    grid = torch.nn.functional.affine_grid(
        theta.to(images.device), list(images.shape), align_corners=False
    )
    return torch.nn.functional.grid_sample(
        images, grid, padding_mode="reflection", align_corners=False
    )


def augmented(images: torch.Tensor, generator: torch.Generator, low: float = 0.9) -> torch.Tensor:
    """Random crops of ``low`` to 1 of the area, as open_clip's, half of them mirrored."""
    import torch

    x = cropped(images, crop_windows(len(images), generator, low))
    mirrored = torch.rand(len(x), generator=generator).to(x.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(-1), x)
