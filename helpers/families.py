"""Three families of models trained from scratch by one recipe: supervised, self-supervised, language-supervised ([R]).

Architecture, number of updates and recipe are the same, down to the last layer: logits are linear in the unit embedding of one
small tower. Only what the tower learns from differs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from helpers import adapt, clip, gpu, probes, worlds
from helpers.adapt import Adapted
from helpers.clip import Clip
from helpers.lazy import Lazy
from helpers.linear import linear_probes
from helpers.pools import Benchmark, Split
from helpers.worlds import StudyError, World, unknown

FAMILIES = ("supervised", "self-supervised", "language-supervised")
SOURCES = ("retrieved", "synthetic", "mixed")
WEIGHTS = "model.safetensors"  # of a timm repository on the hub
CROP = 0.6  # smallest share of the area in a random crop


def untrained(w: World, seed: int) -> Clip:
    """The world's CLIP architecture with random weights, a smaller picture and a shorter text; the same weights for the same seed."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(worlds.entropy(w.seed, "robust", "weights", seed) % 2**31)
        return clip.untrained(w, w.robustness.image_size, w.robustness.context)


def view(images, generator):
    """A view for SimCLR: a crop of 0.3 to 1 of the area, brightness and contrast changed, saturation down to grey at most.

    Hue stays: unlike in photographs of objects it defines classes here.
    """
    import torch

    x = adapt.augmented(images, generator, 0.3)
    gain, shift, colour = (2 * torch.rand(3, len(x), 1, 1, 1, generator=generator) - 1).to(x.device)
    grey = x.mean(1, keepdim=True)
    return (grey + (x - grey) * (1 + colour) / 2) * (1 + 0.4 * gain) + 0.4 * shift


def nt_xent(first, second, temperature: float = 0.2):
    """SimCLR's loss (arXiv 2002.05709, eq. 1) of two views' unit embeddings, (n, d) each: find the partner among 2n - 1."""
    import torch

    both = torch.cat([first, second])
    scores = (both @ both.T / temperature).fill_diagonal_(-torch.inf)
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(both), device=both.device).roll(len(first)))


def train(w: World, family: str, images: Split, real: Split, bench: Benchmark, seed: int) -> Adapted:
    """Train one model from scratch on ``images``, with its head.

    ``real`` labels the linear head of the self-supervised family, whatever its tower saw, as in [R]; the other two get their
    classes from the labels, or from the captions, of ``images``. Raises ``StudyError`` on an unknown family.
    """
    ways = {"supervised": _supervised, "self-supervised": _self_supervised, "language-supervised": _language_supervised}
    if family not in ways:
        raise unknown("family", family, ways)
    return ways[family](w, untrained(w, seed), images, real, bench, worlds.entropy(w.seed, "robust", family, seed))


def _fit(w: World, made: Clip, images: Split, parameters: Sequence, loss_of: Callable, seed: int) -> None:
    """The recipe of all families: AdamW, warm-up and cosine, equally many updates of ``loss_of(pixels, rows, generator)``."""
    import torch

    s, generator, order = w.robustness, torch.Generator().manual_seed(seed % 2**63), np.zeros(0, np.int64)
    optimiser, x = torch.optim.AdamW(parameters, lr=s.lr, weight_decay=0.1, fused=True), clip.pixels(made, images.images)
    made.model.train()
    for step in range(s.steps):
        while len(order) < s.batch:
            order = np.concatenate([order, torch.randperm(len(images), generator=generator).numpy()])
        rows, order = order[: s.batch], order[s.batch :]
        optimiser.param_groups[0]["lr"] = adapt.rate(step, s.steps, s.lr, 0.1)
        with gpu.autocast():
            loss = loss_of(x[rows].contiguous(memory_format=torch.channels_last), rows, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    made.model.eval()


def _width(made: Clip) -> int:
    return made.model.text_projection.shape[1]


def _supervised(w: World, made: Clip, images: Split, real: Split, bench: Benchmark, seed: int) -> Adapted:
    import torch

    start = torch.randn(len(bench.classes), _width(made), generator=torch.Generator().manual_seed(seed % 2**63))
    weight = torch.nn.Parameter((10 * torch.nn.functional.normalize(start, dim=1)).to(gpu.device()))
    bias, wanted = torch.nn.Parameter(torch.zeros(len(weight), device=gpu.device())), torch.from_numpy(images.labels)

    def loss_of(x, rows, generator):
        logits = made.model.encode_image(adapt.augmented(x, generator, CROP), normalize=True) @ weight.T + bias
        return torch.nn.functional.cross_entropy(logits.float(), wanted[rows].to(gpu.device()))

    _fit(w, made, images, [*made.model.visual.parameters(), weight, bias], loss_of, seed)
    return Adapted(made, weight.detach(), bias.detach())


def _self_supervised(w: World, made: Clip, images: Split, real: Split, bench: Benchmark, seed: int) -> Adapted:
    import torch
    from torch import nn

    with torch.random.fork_rng():
        torch.manual_seed(seed % 2**31)
        projector = nn.Sequential(nn.ReLU(), nn.Linear(_width(made), 128), nn.ReLU(), nn.Linear(128, 128)).to(gpu.device())

    def loss_of(x, rows, generator):
        both = projector(made.model.encode_image(torch.cat([view(x, generator), view(x, generator)])))
        return nt_xent(*nn.functional.normalize(both.float(), dim=1).chunk(2))

    _fit(w, made, images, [*made.model.visual.parameters(), *projector.parameters()], loss_of, seed)
    return linear_classifier(made, real, bench, w.robustness.validation)


def _language_supervised(w: World, made: Clip, images: Split, real: Split, bench: Benchmark, seed: int) -> Adapted:
    ids, loss = made.tokenizer(list(images.facts["caption"])), clip.contrastive_loss()

    def loss_of(x, rows, generator):
        image = made.model.encode_image(adapt.augmented(x, generator, CROP), normalize=True)
        return loss(image.float(), text_embeddings(made, ids[rows]).float(), made.model.logit_scale.exp().float())

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


def linear_classifier(made: Clip, train: Split, bench: Benchmark, validation: int) -> Adapted:
    """A frozen tower with logistic regression on ``train``; of the penalties the one with the best validation likelihood."""
    import torch

    val, best = adapt.thinned(bench.val, validation), (np.inf, None)
    x, y = clip.embed_images(made, train.images), clip.embed_images(made, val.images)
    for solution in linear_probes(x, train.labels, len(bench.classes), sorted(adapt.PENALTIES, reverse=True)):
        best = min(best, (probes.nll(y @ solution[0].T + solution[1], val.labels), solution), key=lambda pair: pair[0])
    return Adapted(made, *(torch.from_numpy(part).to(gpu.device()) for part in best[1]))


def text_classifier(made: Clip, bench: Benchmark) -> Adapted:
    """A CLIP as a classifier by its text head and its own logit scale, on which ECE depends ([R] fixes it at 100)."""
    import torch

    weight = made.model.logit_scale.detach().exp() * torch.tensor(clip.head(made, bench.classes, bench.templates), device=gpu.device())
    return Adapted(made, weight, torch.zeros(len(weight), device=gpu.device()))


def load(name: str, bench: Benchmark) -> Adapted:
    """A finished model: "timm/NAME" or "open_clip/MODEL/PRETRAINED" as these libraries know them, or with weights of one's own:
    "timm/NAME/FILE", "open_clip/MODEL/FILE", "timm/FOLDER", "open_clip/FOLDER" as their repositories on the hub are laid out.

    Each keeps its own picture size and normalisation. Raises ``StudyError`` on another form or a model that cannot be loaded.
    """
    import types

    import torch

    place, (library, _, rest) = located(name), name.partition("/")
    if library == "open_clip":
        return text_classifier(clip.by_name(rest), bench)
    made = _timm(rest, place, len(bench.classes))
    import timm

    made, data = made.to(gpu.device()).eval(), timm.data.resolve_model_data_config(made)
    seen = types.SimpleNamespace(encode_image=lambda x, normalize=False: made(x))  # its embedding is its logits
    eye = torch.eye(len(bench.classes), device=gpu.device())
    return Adapted(Clip(seen, None, tuple(data["mean"]), tuple(data["std"]), data["input_size"][-1]), eye, 0 * eye[0])


def _timm(rest: str, place: Path, classes: int):
    import timm
    from safetensors import SafetensorError

    model, file = rest.split("/", 1)[0], rest.partition("/")[2]
    try:
        if Path(rest).is_dir():
            made = timm.create_model(f"local-dir:{rest}", pretrained=True)
        elif file:
            made = timm.create_model(model, num_classes=classes, checkpoint_path=str(place))
        else:
            made = timm.create_model(model, pretrained=True)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as e:
        reason = " ".join(str(e).split())[:200]
        raise StudyError(f"timm could not load {rest!r} from {place} ({type(e).__name__}: {reason}). It is damaged, of another "
                         f"architecture, or not of {classes} classes.") from e
    if made.num_classes != classes:
        raise StudyError(f"checkpoint 'timm/{rest}' tells {made.num_classes} classes apart, the probed benchmark has {classes}. Take a "
                         "checkpoint of these classes, or the whole benchmark.")
    return made


def located(name: str) -> Path:
    """The file with the weights of a checkpoint (see ``load``); nothing is downloaded. Raises ``StudyError`` when it is not here."""
    library, _, rest = name.partition("/")
    if library not in ("open_clip", "timm") or not rest:
        raise StudyError(f"checkpoint {name!r} is unknown; valid: 'timm/NAME', 'timm/NAME/FILE', 'timm/FOLDER', "
                         "'open_clip/MODEL/PRETRAINED', 'open_clip/MODEL/FILE', 'open_clip/FOLDER'; files are safetensors.")
    return clip.place(rest) if library == "open_clip" else _located_timm(rest)


def _located_timm(rest: str) -> Path:
    import timm
    from huggingface_hub import try_to_load_from_cache

    model, _, file = rest.partition("/")
    if Path(rest).is_dir():
        found = Path(rest) / WEIGHTS
        if not found.is_file() or not (Path(rest) / "config.json").is_file():
            raise StudyError(f"no timm checkpoint in {rest}: it has {WEIGHTS} and config.json, as a repository of timm on the hub.")
        return found
    if not timm.is_model(model):
        raise StudyError(f"timm knows no model {model!r}, and there is no folder {rest!r}; python -c \"import timm; "
                         f"print(timm.list_models('{model[:4]}*'))\" lists names.")
    known = None if file else timm.get_pretrained_cfg(model)
    found = file or try_to_load_from_cache((known and known.hf_hub_id) or "none", WEIGHTS)
    if not isinstance(found, str) or not Path(found).is_file():
        raise StudyError(f"the weights of checkpoint 'timm/{rest}' are not on this machine. Fetch them once with a network: "
                         f"python -c \"import timm; timm.create_model('{model}', pretrained=True)\"   or give safetensors: "
                         f"'timm/{model}/FILE', or 'timm/FOLDER' as on the hub.")
    return clip.safe(Path(found))


def checked(checkpoints: Iterable[Sequence[str]]) -> None:
    """Raises ``StudyError`` unless every checkpoint is a family, a source and a name, of the families and sources there are."""
    for given in checkpoints:
        if isinstance(given, str) or len(given) != 3 or not all(isinstance(part, str) for part in given):
            raise StudyError(f"the checkpoint {given!r} was given; valid: a family, a source and a name, such as "
                             "['supervised', 'synthetic', 'timm/resnet50/weights/clone.safetensors'].")
        for kind, part, valid in (("family", given[0], FAMILIES), ("source", given[1], SOURCES)):
            if part not in valid:
                raise unknown(f"{kind} of checkpoint {given[2]!r}", part, valid)


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 images as a tower of ``side`` pixels sees them, (n, side, side, 3): done once for all models that look at them."""
    import torch

    if images.shape[1] == side:
        return images
    parts = [torch.nn.functional.interpolate(torch.tensor(images[i : i + 256]).permute(0, 3, 1, 2).float(), (side, side), mode="bicubic",
                                             antialias=True).clamp(0, 255).round().byte() for i in range(0, len(images), 256)]
    return torch.cat(parts).permute(0, 2, 3, 1).numpy()


def logits(model: Adapted, images: np.ndarray) -> np.ndarray:
    """Logits (n, classes) float32 of uint8 images (n, side, side, 3)."""
    return logits_by_set(model, {"": images})[""]


def logits_by_set(model: Adapted, sets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The logits of several sets of images of one size: small ones fill batches together, as if they were one."""
    embedded = clip.embed_images(model.clip, Lazy(*sets.values()))
    parts = np.split(embedded, np.cumsum([len(images) for images in sets.values()])[:-1])
    weight, bias = model.weight.cpu().numpy().T, model.bias.cpu().numpy()
    return {name: part @ weight + bias for name, part in zip(sets, parts, strict=True)}


def logits_of(model: Adapted) -> Callable:
    """The same as a differentiable function of pixels (n, 3, s, s) in 0..1, with the model's own resizing and normalisation inside."""
    def function(x):
        x = resized(x, model.clip.image_size)
        embedded = model.clip.model.encode_image(clip.pixels(model.clip, 255 * x.permute(0, 2, 3, 1)), normalize=True)
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
        return torch.nn.functional.interpolate(eye, (new, old), mode="bicubic", antialias=True)[0, 0]
