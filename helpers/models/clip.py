"""CLIP models through open_clip: load, build, save, embed, and classify by texts."""

from __future__ import annotations

import copy as copying
import functools
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import worlds
from helpers.engine import gpu
from helpers.errors import StudyError
from helpers.models import weights
from helpers.worlds import World

if TYPE_CHECKING:
    import torch
    from torch import nn

WEIGHTS = weights.CLIP  # the file that ``save`` writes


@dataclass(frozen=True, eq=False)
class Clip:
    """An open_clip model with its tokenizer, and how pixels have to be scaled for it."""

    model: Any
    tokenizer: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int


def load(w: World) -> Clip:
    """The CLIP of this world, on the device; loaded once per process.

    Raises ``StudyError`` when its weights are not there, saying how to get them.
    """
    if w.clip.model == "upstream":
        return load_folder(worlds.backend(w).clip_folder(w))
    return by_name(f"{w.clip.model}/{w.clip.pretrained}")


@functools.cache
def by_name(name: str) -> Clip:
    """A finished CLIP by a name of ``weights.clip_file``; loaded once per process.

    Raises ``StudyError`` when it is unknown, not on this machine, or damaged.
    """
    import open_clip

    if Path(name).is_dir():
        return load_folder(Path(name))
    weights.clip_file(name)
    model, _, pretrained = name.partition("/")
    network = _create(model, pretrained, force_quick_gelu=quick_gelu(model, pretrained))
    return _ready(network, open_clip.get_tokenizer(model))


def quick_gelu(model: str, pretrained: str) -> bool:
    """Whether these weights were trained with QuickGELU, which open_clip only warns of."""
    import open_clip

    return (open_clip.get_pretrained_cfg(model, pretrained) or {}).get("quick_gelu", False)


@functools.cache
def load_folder(folder: Path) -> Clip:
    """A CLIP in a folder as ``save`` leaves it, or as open_clip's repositories are laid out.

    Raises ``StudyError`` when they are missing or damaged.
    """
    file = weights.clip_file(str(folder))
    config, scaling = _configuration(Path(folder))
    return build(config, folder, file, scaling)


def _configuration(folder: Path) -> tuple[dict, dict | None]:
    """The architecture of the CLIP in a folder and, of one from the hub, the scaling of pixels."""
    hub = folder / "open_clip_config.json"
    try:
        if hub.exists():
            config = json.loads(hub.read_text())
            return config["model_cfg"], config["preprocess_cfg"]
        return json.loads((folder / "config.json").read_text()), None
    except (OSError, ValueError, KeyError) as e:
        raise StudyError(
            f"the configuration of the CLIP in {folder} cannot be read ({type(e).__name__}: {e}). "
            "It has config.json as helpers.models.clip.save leaves it, or open_clip_config.json as "
            "on the hub."
        ) from e


def build(
    config: dict,
    tokenizer_folder: Path,
    weights_file: Path | None = None,
    scaling: Mapping | None = None,
) -> Clip:
    """A CLIP from open_clip's configuration and transformers' tokenizer, random without weights.

    ``scaling`` is that of its pixels, in open_clip's words (``mean``, ``std``); without, CLIP's.
    """
    import open_clip

    context = config["text_cfg"]["context_length"]
    network = _configured(config, weights_file, scaling)
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tokenizer_folder), context_length=context)
    return _ready(network, tokenizer)


def untrained(w: World, image_size: int, context: int) -> Clip:
    """The world's CLIP with random weights, for images of ``image_size`` and ``context`` tokens."""
    import open_clip

    folder = Path(worlds.backend(w).clip_folder(w)) if w.clip.model == "upstream" else None
    config = _configuration(folder)[0] if folder else open_clip.get_model_config(w.clip.model)
    config["vision_cfg"]["image_size"] = image_size
    config["text_cfg"]["context_length"] = context
    if folder:
        return build(config, folder)
    tokenizer = open_clip.get_tokenizer(w.clip.model, context_length=context)
    return _ready(_configured(config), tokenizer)


def _configured(
    config: dict, weights_file: Path | None = None, scaling: Mapping | None = None
) -> nn.Module:
    """A network of an architecture that open_clip does not know by name."""
    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "miniature.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder)
    pretrained = str(weights_file) if weights_file else None
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # open_clip warns of random weights even where they are wanted
    try:
        return _create("miniature", pretrained, force_preprocess_cfg=dict(scaling or {}))
    finally:
        logging.disable(before)


def _create(model: str, pretrained: str | None, **options) -> nn.Module:
    import open_clip
    from safetensors import SafetensorError

    try:
        return open_clip.create_model(model, pretrained=pretrained, **options)
    except (OSError, RuntimeError, SafetensorError) as e:
        raise StudyError(
            f"the weights {pretrained!r} of CLIP {model} could not be loaded ({type(e).__name__}): "
            "they are damaged, or of another architecture."
        ) from e


def _ready(network: nn.Module, tokenizer: Any) -> Clip:
    """The network on the device, with what open_clip says of its pixels."""
    import torch

    visual = network.visual
    size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    network = network.to(gpu.device(), memory_format=torch.channels_last).eval()
    return Clip(network, tokenizer, tuple(visual.image_mean), tuple(visual.image_std), size)


def save(clip: Clip, folder: Path, config: dict) -> None:
    """Write weights (float16), configuration and tokenizer, for ``load_folder``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {
        k: (v.half() if v.is_floating_point() else v).cpu().contiguous()
        for k, v in clip.model.state_dict().items()
    }
    save_file(state, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    clip.tokenizer.save_pretrained(folder)


def contrastive_loss(rank: int = 0, workers: int = 1) -> nn.Module:
    """open_clip's symmetric InfoNCE, ``loss(image, text, scale)``, over all workers' batches."""
    import open_clip

    return open_clip.ClipLoss(
        local_loss=True, gather_with_grad=True, cache_labels=True, rank=rank, world_size=workers
    )


def copy(clip: Clip) -> Clip:
    """A deep copy, to finetune without touching the original."""
    return replace(clip, model=copying.deepcopy(clip.model))


def pixels(clip: Clip, images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 images (n, side, side, 3) as the model's input: float (n, 3, S, S), channels last."""
    import torch

    if isinstance(images, np.ndarray):
        images = np.ascontiguousarray(images)
    x = gpu.sent(torch.as_tensor(images)).permute(0, 3, 1, 2).float() / 255
    if x.shape[-1] != clip.image_size:
        x = torch.nn.functional.interpolate(
            x, (clip.image_size,) * 2, mode="bicubic", antialias=True
        ).clamp(0, 1)
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (clip.mean, clip.std))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def embed_images(clip: Clip, images: Any, batch: int = 256) -> np.ndarray:
    """Unit-length image embeddings, (n, d) float32, of uint8 images (n, side, side, 3)."""

    def encode(part: np.ndarray) -> torch.Tensor:
        return clip.model.encode_image(pixels(clip, part), normalize=True)

    return _embed(encode, images, batch)


def embed_texts(clip: Clip, texts: Iterable[str], batch: int = 512) -> np.ndarray:
    """Unit-length text embeddings, (n, d) float32."""

    def encode(part: list[str]) -> torch.Tensor:
        return clip.model.encode_text(clip.tokenizer(part).to(gpu.device()), normalize=True)

    return _embed(encode, list(texts), batch)


def _embed(encode: Callable, items: Any, batch: int) -> np.ndarray:
    import torch

    with torch.inference_mode(), gpu.autocast():
        parts = [encode(items[i : i + batch]).float() for i in range(0, len(items), batch)]
        if not parts:
            return np.zeros((0, 1), np.float32)
        return torch.cat(parts).cpu().numpy()  # fetched at the end: a GPU never waits for a batch


def imagenet() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of ImageNet's 1,000 classes, which all differ, and CLIP's 80 templates [P].

    open_clip's list names two classes missile and two sunglasses ([C] trains on 998 names for
    that); the two that ImageNet calls "projectile" and "sunglass" are called so here. Crane and
    maillot, which torchvision has twice, differ already.
    """
    import open_clip

    names = list(open_clip.IMAGENET_CLASSNAMES)
    names[744] = "projectile"
    names[836] = "sunglass"
    return tuple(names), tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


def class_texts(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """Unit embeddings (classes, templates, d) of every class name in every template."""
    texts = embed_texts(clip, [t.format(name) for name in classes for t in templates])
    return texts.reshape(len(classes), len(templates), -1)


_kept_class_texts = functools.lru_cache(maxsize=8)(class_texts)  # for a CLIP that does not change


def head(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """Classifier weights (classes, d): mean text embeddings over templates, of unit length [C]."""
    means = class_texts(clip, classes, templates).mean(1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def label_scores(
    clip: Clip,
    embeddings: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    templates: Sequence[str],
) -> np.ndarray:
    """Cosine of image embeddings to their label's text, (n,) float32 ([P] section 3).

    It is the largest over templates. The texts are embedded once per process and CLIP, so that
    shards can be scored one by one.
    """
    texts = _kept_class_texts(clip, tuple(classes), tuple(templates))
    return np.einsum("nd,ntd->nt", embeddings, texts[np.asarray(labels)]).max(1).astype(np.float32)
