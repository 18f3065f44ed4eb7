"""Three families of models, trained from scratch by one recipe ([R]).

Architecture, number of updates and recipe are the same, down to the last layer: logits are linear
in the unit embedding of one small tower. Only what the tower learns from differs: labels, the
images alone, or captions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.data.subsets import thinned
from helpers.data.tables import Benchmark, Split
from helpers.engine import gpu, randomness
from helpers.errors import unknown
from helpers.measure import metrics
from helpers.models import augment, clip, linear
from helpers.models.classifier import Classifier, text_classifier
from helpers.models.clip import Clip
from helpers.models.train import Batches, Schedule, fit
from helpers.worlds import RobustnessSettings, World

if TYPE_CHECKING:
    import torch

FAMILIES = ("supervised", "self-supervised", "language-supervised")
SOURCES = ("retrieved", "synthetic", "mixed")
CROP = 0.6  # smallest share of the area in a random crop
VIEW = 0.3  # the same in a view for SimCLR
WARMUP = 0.1  # share of the steps
WEIGHT_DECAY = 0.1
PROJECTED = 128  # width of SimCLR's projector


def train(
    w: World, family: str, images: Split, real: Split, bench: Benchmark, seed: int
) -> Classifier:
    """Train one model from scratch on ``images``, with its head.

    ``real`` labels the linear head of the self-supervised family, whatever its tower saw, as in
    [R]; the other two get their classes from the labels, or from the captions, of ``images``.
    Raises ``StudyError`` on an unknown family.
    """
    if family not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    tower = untrained(w, seed)
    seed = randomness.entropy(w.seed, "robust", family, seed)
    if family == "supervised":
        return _supervised(w.robustness, tower, images, len(bench.classes), seed)
    if family == "self-supervised":
        _self_supervised(w.robustness, tower, images, seed)
        return linear_classifier(tower, real, bench, w.robustness.validation)
    _language_supervised(w.robustness, tower, images, seed)
    return text_classifier(tower, bench)


def untrained(w: World, seed: int) -> Clip:
    """The world's CLIP architecture with random weights, for a smaller picture and a shorter text.

    The same seed gives the same weights.
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(randomness.entropy(w.seed, "robust", "weights", seed) % 2**31)
        return clip.untrained(w, w.robustness.image_size, w.robustness.context)


def _fit(s: RobustnessSettings, tower: Clip, images: Split, parameters, loss_of, seed: int) -> None:
    """The recipe of all families: equally many updates of ``loss_of(pixels, rows, generator)``."""
    import torch

    generator = torch.Generator().manual_seed(seed % 2**63)
    order = Batches(s.batch, lambda: torch.randperm(len(images), generator=generator).numpy())
    x = clip.pixels(tower, images.images)

    def backward(step: int) -> None:
        rows = next(order)
        with gpu.autocast():
            loss = loss_of(x[rows].contiguous(memory_format=torch.channels_last), rows, generator)
        loss.backward()

    schedule = Schedule(s.steps, s.batch, s.lr, round(WARMUP * s.steps))
    tower.model.train()
    fit(parameters, backward, schedule, weight_decay=WEIGHT_DECAY, fused=True)
    tower.model.eval()


def _supervised(
    s: RobustnessSettings, tower: Clip, images: Split, classes: int, seed: int
) -> Classifier:
    """Cross-entropy with the labels; the head starts from random directions of length 10."""
    import torch

    generator = torch.Generator().manual_seed(seed % 2**63)
    width = tower.model.text_projection.shape[1]
    directions = torch.randn(classes, width, generator=generator)
    weight = (10 * torch.nn.functional.normalize(directions, dim=1)).to(gpu.device())
    bias = torch.zeros(classes, device=gpu.device())
    model = Classifier(tower, torch.nn.Parameter(weight), torch.nn.Parameter(bias))
    labels = torch.from_numpy(images.labels)

    def loss_of(x, rows, generator):
        logits = model.logits(augment.augmented(x, generator, CROP))
        return torch.nn.functional.cross_entropy(logits.float(), labels[rows].to(gpu.device()))

    _fit(s, tower, images, list(model.trainable().parameters()), loss_of, seed)
    return model.detached()


def _self_supervised(s: RobustnessSettings, tower: Clip, images: Split, seed: int) -> None:
    """SimCLR: two views of an image lie closer together than those of two images."""
    import torch
    from torch import nn

    with torch.random.fork_rng():
        torch.manual_seed(seed % 2**31)
        first = nn.Linear(tower.model.text_projection.shape[1], PROJECTED)
        second = nn.Linear(PROJECTED, PROJECTED)
    projector = nn.Sequential(nn.ReLU(), first, nn.ReLU(), second).to(gpu.device())

    def loss_of(x, rows, generator):
        views = torch.cat([view(x, generator), view(x, generator)])
        projected = projector(tower.model.encode_image(views))
        return nt_xent(*nn.functional.normalize(projected.float(), dim=1).chunk(2))

    parameters = [*tower.model.visual.parameters(), *projector.parameters()]
    _fit(s, tower, images, parameters, loss_of, seed)


def view(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A view for SimCLR: a crop, brightness and contrast changed, saturation down to grey at most.

    Hue stays: unlike in photographs of objects it defines classes here.
    """
    import torch

    x = augment.augmented(images, generator, VIEW)
    gain, shift, colour = (2 * torch.rand(3, len(x), 1, 1, 1, generator=generator) - 1).to(x.device)
    grey = x.mean(1, keepdim=True)
    return (grey + (x - grey) * (1 + colour) / 2) * (1 + 0.4 * gain) + 0.4 * shift


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float = 0.2) -> torch.Tensor:
    """SimCLR's loss (arXiv 2002.05709, eq. 1) of two views' unit embeddings, (n, d) each.

    Each has to find its partner among the 2n - 1 others.
    """
    import torch

    both = torch.cat([first, second])
    scores = (both @ both.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(len(both), device=both.device).roll(len(first))
    return torch.nn.functional.cross_entropy(scores, partners)


def linear_classifier(tower: Clip, train: Split, bench: Benchmark, validation: int) -> Classifier:
    """A frozen tower with the linear probe on ``train`` that has the best validation likelihood."""
    import torch

    val = thinned(bench.val, validation)
    x = clip.embed_images(tower, train.images)
    y = clip.embed_images(tower, val.images)
    descending = sorted(linear.PENALTIES, reverse=True)
    solutions = linear.linear_probes(x, train.labels, len(bench.classes), descending)
    best = min(solutions, key=lambda pair: metrics.nll(y @ pair[0].T + pair[1], val.labels))
    return Classifier(tower, *(torch.from_numpy(part).to(gpu.device()) for part in best))


def _language_supervised(s: RobustnessSettings, tower: Clip, images: Split, seed: int) -> None:
    """CLIP's contrast of images and captions."""
    ids = tower.tokenizer(list(images.facts["caption"]))
    contrast = clip.contrastive_loss()

    def loss_of(x, rows, generator):
        crops = augment.augmented(x, generator, CROP)
        image = tower.model.encode_image(crops, normalize=True).float()
        text = text_embeddings(tower, ids[rows]).float()
        return contrast(image, text, tower.model.logit_scale.exp().float())

    _fit(s, tower, images, list(tower.model.parameters()), loss_of, seed)


def text_embeddings(tower: Clip, ids: torch.Tensor) -> torch.Tensor:
    """Unit embeddings (n, d) of token ids (n, context): those of ``encode_text``, up to rounding.

    The text tower is causal, so what follows a text's end can be left out. Texts go through in two
    halves, the shorter and the longer ones, each cut where its longest ends: most captions are half
    as long as the longest.
    """
    import torch

    ends = ids.argmax(1)  # the end token has the largest id
    order = ends.argsort(stable=True)
    halves = [_projected(tower.model, ids[half], ends[half]) for half in order.chunk(2)]
    return torch.nn.functional.normalize(torch.cat(halves)[order.argsort()], dim=-1)


def _projected(model, ids, ends):
    """Embeddings (n, d) of texts that end at the positions ``ends``, not of unit length."""
    import torch

    width = int(ends.max()) + 1
    x = model.token_embedding(ids[:, :width].to(gpu.device())) + model.positional_embedding[:width]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:width, :width]))
    return x[torch.arange(len(ids)), ends] @ model.text_projection
