"""Three families of models, trained from scratch by one recipe ([R]), or finished ones.

All have one small tower, to whose unit embedding a linear layer is added, and equally many updates.
Only what the tower learns from differs: labels, the images alone, or captions.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from helpers import worlds
from helpers.data.subsets import thinned
from helpers.data.tables import Benchmark, Split
from helpers.engine import gpu, randomness
from helpers.engine.late import open_clip, timm, torch
from helpers.errors import StudyError, unknown
from helpers.measure import metrics
from helpers.models import clip, linear, weights
from helpers.models.classifier import Classifier, text_classifier
from helpers.models.clip import Clip
from helpers.models.train import Batches, Schedule, augmented, fit
from helpers.worlds import World

FAMILIES = ("supervised", "self-supervised", "language-supervised")
SOURCES = ("retrieved", "synthetic", "mixed")
CROP = 0.6  # smallest share of the area in a random crop
VIEW = 0.3  # the same in a view for SimCLR
WARMUP = 0.1  # share of the steps
WEIGHT_DECAY = 0.1
PROJECTED = 128  # width of SimCLR's projector


def train(
    w: World, family: str, images: Split, real: Split, bench: Benchmark, seed: int, views: int = 1
) -> Classifier:
    """Train one model from scratch on ``images``. Raises ``StudyError`` on an unknown family.

    ``real`` labels the linear head of the self-supervised family, whatever its tower saw [R]; the
    other two get their classes from the labels, or from the captions, of ``images``. With several
    ``views``, ``images`` has so many of each text, one set after the other; a batch takes either.
    """
    if family not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    prepare = (_supervised, _self_supervised, _language_supervised)[FAMILIES.index(family)]
    s = w.robustness
    tower = untrained(w, seed)
    seed = randomness.entropy(w.seed, "robust", family, seed)
    parameters, loss_of, finish = prepare(w, tower, images, real, bench, seed)
    # the recipe of all families: equally many updates, of loss_of(pixels, rows, generator)
    generator = torch.Generator().manual_seed(seed % 2**63)
    texts = len(images) // views
    order = Batches(s.batch, lambda: torch.randperm(texts, generator=generator).numpy())
    pixels = clip.pixels(tower, images.images)

    def backward(step: int) -> None:
        rows = next(order)
        if views > 1:
            rows = rows + texts * torch.randint(views, (len(rows),), generator=generator).numpy()
        x = pixels[rows].contiguous(memory_format=torch.channels_last)
        with gpu.autocast():
            loss = loss_of(x, rows, generator)
        loss.backward()

    schedule = Schedule(s.steps, s.batch, s.lr, round(WARMUP * s.steps))
    tower.model.train()
    fit(parameters, backward, schedule, weight_decay=WEIGHT_DECAY, fused=True)
    tower.model.eval()
    return finish()


def untrained(w: World, seed: int) -> Clip:
    """The world's CLIP with random weights, for smaller images and shorter texts."""
    folder = worlds.backend(w).clip_folder(w) if w.clip.model == "upstream" else None
    config = clip.configuration(folder)[0] if folder else open_clip.get_model_config(w.clip.model)
    config["vision_cfg"]["image_size"] = w.robustness.image_size
    config["text_cfg"]["context_length"] = w.robustness.context
    with torch.random.fork_rng():
        torch.manual_seed(randomness.entropy(w.seed, "robust", "weights", seed) % 2**31)
        return clip.build(config, folder)


def _supervised(w, tower, images, real, bench, seed):
    """Cross-entropy with the labels; the head starts from random directions of length 10."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    shape = (len(bench.classes), tower.model.text_projection.shape[1])
    directions = torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)
    head = (10 * directions, torch.zeros(len(directions)))
    model = Classifier(tower, *(torch.nn.Parameter(part.to(gpu.device())) for part in head))
    labels = torch.from_numpy(images.labels)

    def loss_of(x, rows, generator):
        logits = model.logits(augmented(x, generator, CROP))
        return torch.nn.functional.cross_entropy(logits.float(), labels[rows].to(gpu.device()))

    return list(model.trainable().parameters()), loss_of, lambda: model


def _self_supervised(w, tower, images, real, bench, seed):
    """SimCLR: two views of an image lie closer together than those of two images.

    The classifier is the linear probe on real images that has the best validation likelihood.
    """
    nn = torch.nn
    with torch.random.fork_rng():
        torch.manual_seed(seed % 2**31)
        first = nn.Linear(tower.model.text_projection.shape[1], PROJECTED)
        second = nn.Linear(PROJECTED, PROJECTED)
    projector = nn.Sequential(nn.ReLU(), first, nn.ReLU(), second).to(gpu.device())

    def loss_of(x, rows, generator):
        views = torch.cat([view(x, generator), view(x, generator)])
        projected = projector(tower.model.encode_image(views))
        first, second = nn.functional.normalize(projected.float(), dim=1).chunk(2)
        return nt_xent(first, second)

    def finish():
        val = thinned(bench.val, w.robustness.validation)
        x, y = (clip.embed_images(tower, split.images) for split in (real, val))
        descending = sorted(linear.PENALTIES, reverse=True)
        probes = linear.linear_probes((x, real.labels), len(bench.classes), descending)
        best = min(probes, key=lambda pair: metrics.nll(y @ pair[0].T + pair[1], val.labels))
        return Classifier(tower, *(torch.from_numpy(part).to(gpu.device()) for part in best))

    return [*tower.model.visual.parameters(), *projector.parameters()], loss_of, finish


def view(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A view for SimCLR: a crop, other brightness, contrast and saturation. Hue defines classes."""
    x = augmented(images, generator, VIEW)
    gain, shift, colour = (2 * torch.rand(3, len(x), 1, 1, 1, generator=generator) - 1).to(x.device)
    grey = x.mean(1, keepdim=True)
    return (grey + (x - grey) * (1 + colour) / 2) * (1 + 0.4 * gain) + 0.4 * shift


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float = 0.2) -> torch.Tensor:
    """SimCLR's loss (arXiv 2002.05709, eq. 1) of two views' unit embeddings, (n, d) each."""
    both = torch.cat([first, second])
    scores = (both @ both.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(len(both), device=both.device).roll(len(first))
    return torch.nn.functional.cross_entropy(scores, partners)


def _language_supervised(w, tower, images, real, bench, seed):
    """CLIP's contrast of images and captions."""
    ids = tower.tokenizer(list(images.facts["caption"]))
    contrast = clip.contrastive_loss()

    def loss_of(x, rows, generator):
        image = tower.model.encode_image(augmented(x, generator, CROP), normalize=True).float()
        text = text_embeddings(tower, ids[rows]).float()
        return contrast(image, text, tower.model.logit_scale.exp().float())

    return list(tower.model.parameters()), loss_of, lambda: text_classifier(tower, bench)


def text_embeddings(tower: Clip, ids: torch.Tensor) -> torch.Tensor:
    """Unit embeddings (n, d) of token ids (n, context): those of ``encode_text``, up to rounding.

    The tower is causal, so what follows a text's end can be left out: the shorter half of the
    texts, and the longer half, are each cut where their longest ends.
    """
    model = tower.model
    ends = ids.argmax(1)  # the end token has the largest id
    order = ends.argsort(stable=True)
    halves = []
    for half in order.chunk(2):
        width = int(ends[half].max()) + 1
        mask = model.attn_mask[:width, :width]
        x = model.token_embedding(ids[half, :width].to(gpu.device()))
        x = model.transformer(x + model.positional_embedding[:width], attn_mask=mask)
        ended = model.ln_final(x)[torch.arange(len(half)), ends[half]]
        halves.append(ended @ model.text_projection)
    return torch.nn.functional.normalize(torch.cat(halves)[order.argsort()], dim=-1)


def finished(name: str, bench: Benchmark) -> Classifier:
    """A named model (``weights.checkpoint_file``) as a classifier; ``StudyError`` if it is none."""
    file = weights.checkpoint_file(name)
    library, _, rest = name.partition("/")
    if library == "open_clip":
        return text_classifier(clip.by_name(rest), bench)
    classes = len(bench.classes)
    model, _, own = rest.partition("/")
    options: dict[str, Any] = {"pretrained": True}
    if Path(rest).is_dir():
        model = f"local-dir:{rest}"
    elif own:
        options = {"num_classes": classes, "checkpoint_path": str(file)}
    try:
        if model.startswith("local-dir:"):
            weights.described(file.parent / "config.json", [file])
        network = timm.create_model(model, **options)
    except (
        OSError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        SafetensorError,
    ) as e:
        reason = " ".join(str(e).split())[:200]
        raise StudyError(
            f"timm could not load {rest!r} from {file} ({type(e).__name__}: {reason}). It is "
            f"damaged, of another architecture, or not of {classes} classes."
        ) from e
    if network.num_classes != classes:
        raise StudyError(
            f"checkpoint {name!r} tells {network.num_classes} classes apart, the probed benchmark "
            f"has {classes}. Take a checkpoint of these classes, or the whole benchmark."
        )
    network = network.to(gpu.device()).eval()
    data = timm.data.resolve_model_data_config(network)
    # its embeddings are its logits, which an identity classifies
    tower = types.SimpleNamespace(encode_image=lambda x, normalize: network(x))
    eye = torch.eye(classes, device=gpu.device())
    seen = Clip(tower, None, data["mean"], data["std"], data["input_size"][-1])
    return Classifier(seen, eye, 0 * eye[0])


def checked(checkpoints: Sequence[tuple[str, str, str]]) -> None:
    """Raise ``StudyError`` unless each checkpoint's family and source are known."""
    for family, source, name in checkpoints:
        for what, given, valid in (("family", family, FAMILIES), ("source", source, SOURCES)):
            if given not in valid:
                raise unknown(f"{what} of checkpoint {name!r}", given, valid)
