"""Three families of models trained from scratch by one recipe: supervised, self-supervised, language-supervised ([R]).

Architecture, number of updates and recipe are the same, down to the last layer: logits are linear in the unit embedding of one
small tower. Only what the tower learns from differs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from helpers.data.shards import Lazy
from helpers.data.subsets import thinned
from helpers.data.tables import Benchmark, Split
from helpers.engine import gpu, randomness
from helpers.errors import unknown
from helpers.measure import metrics
from helpers.models import augment, clip, linear
from helpers.models.classifier import Classifier
from helpers.models.clip import Clip
from helpers.models.linear import linear_probes
from helpers.models.train import rate
from helpers.worlds import World

FAMILIES = ("supervised", "self-supervised", "language-supervised")
SOURCES = ("retrieved", "synthetic", "mixed")
CROP = 0.6  # smallest share of the area in a random crop


def untrained(w: World, seed: int) -> Clip:
    """The world's CLIP architecture with random weights, a smaller picture and a shorter text; the same weights for the same seed."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(randomness.entropy(w.seed, "robust", "weights", seed) % 2**31)
        return clip.untrained(w, w.robustness.image_size, w.robustness.context)


def view(images, generator):
    """A view for SimCLR: a crop of 0.3 to 1 of the area, brightness and contrast changed, saturation down to grey at most.

    Hue stays: unlike in photographs of objects it defines classes here.
    """
    import torch

    x = augment.augmented(images, generator, 0.3)
    gain, shift, colour = (2 * torch.rand(3, len(x), 1, 1, 1, generator=generator) - 1).to(x.device)
    grey = x.mean(1, keepdim=True)
    return (grey + (x - grey) * (1 + colour) / 2) * (1 + 0.4 * gain) + 0.4 * shift


def nt_xent(first, second, temperature: float = 0.2):
    """SimCLR's loss (arXiv 2002.05709, eq. 1) of two views' unit embeddings, (n, d) each: find the partner among 2n - 1."""
    import torch

    both = torch.cat([first, second])
    scores = (both @ both.T / temperature).fill_diagonal_(-torch.inf)
    return torch.nn.functional.cross_entropy(
        scores, torch.arange(len(both), device=both.device).roll(len(first))
    )


def train(
    w: World, family: str, images: Split, real: Split, bench: Benchmark, seed: int
) -> Classifier:
    """Train one model from scratch on ``images``, with its head.

    ``real`` labels the linear head of the self-supervised family, whatever its tower saw, as in [R]; the other two get their
    classes from the labels, or from the captions, of ``images``. Raises ``StudyError`` on an unknown family.
    """
    ways = {
        "supervised": _supervised,
        "self-supervised": _self_supervised,
        "language-supervised": _language_supervised,
    }
    if family not in ways:
        raise unknown("family", family, ways)
    return ways[family](
        w,
        untrained(w, seed),
        images,
        real,
        bench,
        randomness.entropy(w.seed, "robust", family, seed),
    )


def _fit(
    w: World, made: Clip, images: Split, parameters: Sequence, loss_of: Callable, seed: int
) -> None:
    """The recipe of all families: AdamW, warm-up and cosine, equally many updates of ``loss_of(pixels, rows, generator)``."""
    import torch

    s, generator, order = (
        w.robustness,
        torch.Generator().manual_seed(seed % 2**63),
        np.zeros(0, np.int64),
    )
    optimiser, x = (
        torch.optim.AdamW(parameters, lr=s.lr, weight_decay=0.1, fused=True),
        clip.pixels(made, images.images),
    )
    made.model.train()
    for step in range(s.steps):
        while len(order) < s.batch:
            order = np.concatenate(
                [order, torch.randperm(len(images), generator=generator).numpy()]
            )
        rows, order = order[: s.batch], order[s.batch :]
        optimiser.param_groups[0]["lr"] = rate(step, s.steps, s.lr, 0.1)
        with gpu.autocast():
            loss = loss_of(x[rows].contiguous(memory_format=torch.channels_last), rows, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    made.model.eval()


def _width(made: Clip) -> int:
    return made.model.text_projection.shape[1]


def _supervised(
    w: World, made: Clip, images: Split, real: Split, bench: Benchmark, seed: int
) -> Classifier:
    import torch

    start = torch.randn(
        len(bench.classes), _width(made), generator=torch.Generator().manual_seed(seed % 2**63)
    )
    weight = torch.nn.Parameter((10 * torch.nn.functional.normalize(start, dim=1)).to(gpu.device()))
    bias, wanted = (
        torch.nn.Parameter(torch.zeros(len(weight), device=gpu.device())),
        torch.from_numpy(images.labels),
    )

    def loss_of(x, rows, generator):
        logits = (
            made.model.encode_image(augment.augmented(x, generator, CROP), normalize=True)
            @ weight.T
            + bias
        )
        return torch.nn.functional.cross_entropy(logits.float(), wanted[rows].to(gpu.device()))

    _fit(w, made, images, [*made.model.visual.parameters(), weight, bias], loss_of, seed)
    return Classifier(made, weight.detach(), bias.detach())


def _self_supervised(
    w: World, made: Clip, images: Split, real: Split, bench: Benchmark, seed: int
) -> Classifier:
    import torch
    from torch import nn

    with torch.random.fork_rng():
        torch.manual_seed(seed % 2**31)
        projector = nn.Sequential(
            nn.ReLU(), nn.Linear(_width(made), 128), nn.ReLU(), nn.Linear(128, 128)
        ).to(gpu.device())

    def loss_of(x, rows, generator):
        both = projector(
            made.model.encode_image(torch.cat([view(x, generator), view(x, generator)]))
        )
        return nt_xent(*nn.functional.normalize(both.float(), dim=1).chunk(2))

    _fit(w, made, images, [*made.model.visual.parameters(), *projector.parameters()], loss_of, seed)
    return linear_classifier(made, real, bench, w.robustness.validation)


def _language_supervised(
    w: World, made: Clip, images: Split, real: Split, bench: Benchmark, seed: int
) -> Classifier:
    ids, loss = made.tokenizer(list(images.facts["caption"])), clip.contrastive_loss()

    def loss_of(x, rows, generator):
        image = made.model.encode_image(augment.augmented(x, generator, CROP), normalize=True)
        return loss(
            image.float(),
            text_embeddings(made, ids[rows]).float(),
            made.model.logit_scale.exp().float(),
        )

    _fit(w, made, images, list(made.model.parameters()), loss_of, seed)
    return text_classifier(made, bench)


def text_embeddings(made: Clip, ids):
    """Unit embeddings (n, d) of token ids (n, context) by a causal text tower, the same as ``encode_text`` up to rounding.

    What follows a text's end is left out, as nothing before it can see it: texts go through the tower in two halves, the
    shorter ones and the longer ones, each cut where its longest ends. Most captions are half as long as the longest.
    """
    import torch

    model, ends, parts = made.model, ids.argmax(1), []
    order = ends.argsort(stable=True)
    for half in order.chunk(2):
        width = int(ends[half].max()) + 1
        part = ids[half, :width].to(gpu.device())
        x = model.token_embedding(part) + model.positional_embedding[:width]
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:width, :width]))
        parts.append(x[torch.arange(len(half)), ends[half]] @ model.text_projection)
    return torch.nn.functional.normalize(torch.cat(parts)[order.argsort()], dim=-1)


def linear_classifier(made: Clip, train: Split, bench: Benchmark, validation: int) -> Classifier:
    """A frozen tower with logistic regression on ``train``; of the penalties the one with the best validation likelihood."""
    import torch

    val, best = thinned(bench.val, validation), (np.inf, None)
    x, y = clip.embed_images(made, train.images), clip.embed_images(made, val.images)
    for solution in linear_probes(
        x, train.labels, len(bench.classes), sorted(linear.PENALTIES, reverse=True)
    ):
        best = min(
            best,
            (metrics.nll(y @ solution[0].T + solution[1], val.labels), solution),
            key=lambda pair: pair[0],
        )
    return Classifier(made, *(torch.from_numpy(part).to(gpu.device()) for part in best[1]))


def text_classifier(made: Clip, bench: Benchmark) -> Classifier:
    """A CLIP as a classifier by its text head and its own logit scale, on which ECE depends ([R] fixes it at 100)."""
    import torch

    weight = made.model.logit_scale.detach().exp() * torch.tensor(
        clip.head(made, bench.classes, bench.templates), device=gpu.device()
    )
    return Classifier(made, weight, torch.zeros(len(weight), device=gpu.device()))


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 images as a tower of ``side`` pixels sees them, (n, side, side, 3): done once for all models that look at them."""
    import torch

    if images.shape[1] == side:
        return images
    parts = [
        torch.nn.functional.interpolate(
            torch.tensor(images[i : i + 256]).permute(0, 3, 1, 2).float(),
            (side, side),
            mode="bicubic",
            antialias=True,
        )
        .clamp(0, 255)
        .round()
        .byte()
        for i in range(0, len(images), 256)
    ]
    return torch.cat(parts).permute(0, 2, 3, 1).numpy()


def logits(model: Classifier, images: np.ndarray) -> np.ndarray:
    """Logits (n, classes) float32 of uint8 images (n, side, side, 3)."""
    return logits_by_set(model, {"": images})[""]


def logits_by_set(model: Classifier, sets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The logits of several sets of images of one size: small ones fill batches together, as if they were one."""
    embedded = clip.embed_images(model.clip, Lazy(*sets.values()))
    parts = np.split(embedded, np.cumsum([len(images) for images in sets.values()])[:-1])
    weight, bias = model.weight.cpu().numpy().T, model.bias.cpu().numpy()
    return {name: part @ weight + bias for name, part in zip(sets, parts, strict=True)}


def logits_of(model: Classifier) -> Callable:
    """The same as a differentiable function of pixels (n, 3, s, s) in 0..1, with the model's own resizing and normalisation inside."""

    def function(x):
        x = resized(x, model.clip.image_size)
        embedded = model.clip.model.encode_image(
            clip.pixels(model.clip, 255 * x.permute(0, 2, 3, 1)), normalize=True
        )
        return embedded @ model.weight.T + model.bias

    return function


def resized(x, side: int):
    """Square pictures (n, 3, s, s) in 0..1 at another size: ``interpolate``, bicubic and antialiased, as two products of matrices.

    The same up to rounding; its gradient, which attacks want again and again, costs a tenth.
    """
    if x.shape[-1] == side:
        return x
    weights = _weights(x.shape[-1], side).to(x.device)
    return (weights @ (x @ weights.T)).clamp(0, 1)


@functools.lru_cache(maxsize=4)
def _weights(old: int, new: int):
    import torch

    with torch.inference_mode(False):  # used in gradients later, whoever asks first
        eye = torch.eye(old)[None, None]
        return torch.nn.functional.interpolate(eye, (new, old), mode="bicubic", antialias=True)[
            0, 0
        ]
