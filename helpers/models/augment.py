"""Random views of pictures for training."""

from __future__ import annotations


def crop_windows(n: int, generator, low: float = 0.9):
    """Windows of ``low`` to 1 of the area somewhere in an image, as affine maps (n, 2, 3) of its coordinates."""
    import torch

    side = (low + (1 - low) * torch.rand(n, generator=generator)).sqrt()
    shift = (2 * torch.rand(n, 2, generator=generator) - 1) * (1 - side)[:, None]
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, :, 2] = shift
    return theta


def random_crops(images, generator, low: float = 0.9):
    """Random crops of ``low`` to 1 of the area, resized back: float (n, 3, s, s) in and out (open_clip's augmentation [L])."""
    return cropped(images, crop_windows(len(images), generator, low))


def cropped(images, theta):
    """The windows ``theta`` (n, 2, 3) of images, resized to their size: float (n, 3, s, s) in and out."""
    import torch

    where = torch.nn.functional.affine_grid(
        theta.to(images.device), list(images.shape), align_corners=False
    )
    return torch.nn.functional.grid_sample(
        images, where, padding_mode="reflection", align_corners=False
    )


def augmented(images, generator, low: float = 0.9):
    """Random crops of ``low`` to 1 of the area, and mirror images: float (n, 3, s, s) in and out."""
    import torch

    x = random_crops(images, generator, low)
    mirrored = torch.rand(len(x), generator=generator).to(x.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(-1), x)
