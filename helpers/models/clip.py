"""CLIP models through open_clip: build, save, load, embed, and the text-initialised classifier. Nobody else imports it."""

from __future__ import annotations

import contextlib
import copy as copying
import functools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helpers import worlds
from helpers.engine import gpu
from helpers.errors import StudyError, unknown
from helpers.worlds import World

WEIGHTS = "open_clip_model.safetensors"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".tar")


@dataclass(frozen=True, eq=False)
class Clip:
    """An open_clip model with its tokenizer, and how pixels have to be scaled for it."""

    model: object
    tokenizer: object
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int


def load(w: World) -> Clip:
    """The CLIP of this world, on the device; loaded once per process.

    Raises ``StudyError`` when its weights are not there, saying how to get them.
    """
    if w.clip.model == "upstream":
        return load_folder(worlds.backend(w).clip_folder(w))
    return named(w.clip.model, w.clip.pretrained)


def by_name(name: str) -> Clip:
    """A finished CLIP: "MODEL/PRETRAINED" as open_clip knows them, "MODEL/FILE" with safetensors, or a folder (``load_folder``)."""
    return load_folder(Path(name)) if Path(name).is_dir() else named(*_split(name))


def place(name: str) -> Path:
    """The file with the weights of ``by_name``; nothing is downloaded. Raises ``StudyError`` when it is not on this machine."""
    return _in_folder(Path(name)) if Path(name).is_dir() else located(*_split(name))


def _split(name: str) -> tuple[str, str]:
    import open_clip

    model, _, pretrained = name.partition("/")
    if not model or not pretrained:
        raise StudyError(
            f"CLIP {name!r} is unknown; valid: 'MODEL/PRETRAINED' as open_clip knows them, 'MODEL/FILE.safetensors', or a "
            f"folder with {WEIGHTS}."
        )
    if model not in open_clip.list_models():
        raise unknown("folder or CLIP model", name, open_clip.list_models())
    return model, pretrained


@functools.cache
def named(model: str, pretrained: str) -> Clip:
    """A CLIP that open_clip knows by name, with weights that it knows by tag, or a file of weights; loaded once per process."""
    import open_clip

    located(model, pretrained)
    return _wrapped(
        _created(model, pretrained, force_quick_gelu=quick_gelu(model, pretrained)),
        open_clip.get_tokenizer(model),
    )


def quick_gelu(model: str, pretrained: str) -> bool:
    """Whether these weights were trained with QuickGELU. open_clip only warns where the architecture has another activation."""
    import open_clip

    return (open_clip.get_pretrained_cfg(model, pretrained) or {}).get("quick_gelu", False)


def located(model: str, pretrained: str) -> Path:
    """The file with these weights: safetensors here, or what the Hugging Face cache has of open_clip's tag; nothing is downloaded.

    Raises ``StudyError`` on unknown names, on a pickle, and when it is not there, saying how to get it.
    """
    import open_clip
    from huggingface_hub import try_to_load_from_cache

    if model not in open_clip.list_models():
        raise unknown("CLIP model", model, open_clip.list_models())
    if Path(pretrained).is_file():
        return safe(Path(pretrained))
    if pretrained not in open_clip.list_pretrained_tags_by_model(model):
        raise unknown(
            f"weights of CLIP {model}", pretrained, open_clip.list_pretrained_tags_by_model(model)
        )
    repository = open_clip.get_pretrained_cfg(model, pretrained).get("hf_hub", "").strip("/")
    found = try_to_load_from_cache(repository, WEIGHTS) if repository else None
    if not isinstance(found, str):
        raise StudyError(
            f"the weights {pretrained!r} of CLIP {model} are not on this machine. Fetch them once with a network: "
            f"python -c \"import open_clip; open_clip.create_model('{model}', '{pretrained}')\""
        )
    return Path(found)


def safe(file: Path) -> Path:
    """``file``, unless it is a pickle: loading one can run any code, so ``StudyError`` says how to convert it."""
    if file.suffix in PICKLES:
        raise StudyError(
            f"{file} is a pickle. Loading one can run any code, so it is refused. Convert it once where you trust it: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'FILE.safetensors'), and name that file."
        )
    return file


def _in_folder(folder: Path) -> Path:
    if not (folder / WEIGHTS).exists():
        raise StudyError(
            f"no CLIP in {folder}: {WEIGHTS} is missing. A shipped one: restore it from git, or run notebook 00. One of the "
            "hub: download a revision that has it. Your own: save it there with helpers.models.clip.save."
        )
    return folder / WEIGHTS


@functools.cache
def load_folder(folder: Path) -> Clip:
    """A CLIP with weights, configuration and tokenizer as ``save`` leaves them, or as open_clip's repositories on the hub have them.

    Raises ``StudyError`` when they are missing or damaged.
    """
    weights, (config, pixels) = _in_folder(Path(folder)), _told(Path(folder))
    return build(config, folder, weights, pixels)


def _told(folder: Path) -> tuple[dict, dict | None]:
    hub = folder / "open_clip_config.json"
    try:
        told = json.loads((hub if hub.exists() else folder / "config.json").read_text())
        return (told["model_cfg"], told["preprocess_cfg"]) if hub.exists() else (told, None)
    except (OSError, ValueError, KeyError) as e:
        raise StudyError(
            f"the configuration of the CLIP in {folder} cannot be read ({type(e).__name__}: {e}). It has config.json as "
            "helpers.models.clip.save leaves it, or open_clip_config.json as on the hub."
        ) from e


def build(
    config: dict, tokenizer_folder: Path, weights: Path | None = None, pixels: dict | None = None
) -> Clip:
    """A CLIP from an open_clip configuration and a tokenizer saved by transformers; random where no weights are given.

    ``pixels`` says how they are scaled, in open_clip's words (``mean``, ``std``); without, as CLIP's.
    """
    import open_clip

    made = _configured(config, weights, pixels)
    return _wrapped(
        made,
        open_clip.tokenizer.HFTokenizer(
            str(tokenizer_folder), context_length=config["text_cfg"]["context_length"]
        ),
    )


def _configured(config: dict, weights: Path | None = None, pixels: dict | None = None):
    import tempfile

    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "miniature.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder)
    with _quiet():
        return _created(
            "miniature", str(weights) if weights else None, force_preprocess_cfg=dict(pixels or {})
        )


def _created(model: str, pretrained: str | None, **told):
    import open_clip
    from safetensors import SafetensorError

    try:
        return open_clip.create_model(model, pretrained=pretrained, **told)
    except (OSError, RuntimeError, SafetensorError) as e:
        raise StudyError(
            f"the weights {pretrained!r} of CLIP {model} could not be loaded ({type(e).__name__}): they are damaged, or of "
            "another architecture."
        ) from e


def untrained(w: World, image_size: int, context: int) -> Clip:
    """The world's CLIP architecture with random weights, for pictures of ``image_size`` pixels and texts of ``context`` tokens."""
    import open_clip

    folder = Path(worlds.backend(w).clip_folder(w)) if w.clip.model == "upstream" else None
    config = _told(folder)[0] if folder else open_clip.get_model_config(w.clip.model)
    config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"] = image_size, context
    if folder:
        return build(config, folder)
    return _wrapped(
        _configured(config), open_clip.get_tokenizer(w.clip.model, context_length=context)
    )


@contextlib.contextmanager
def _quiet():
    """open_clip warns of random weights, even where training from scratch is what is wanted."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _wrapped(model, tokenizer) -> Clip:
    import torch

    visual = model.visual
    size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    model = model.to(gpu.device(), memory_format=torch.channels_last).eval()
    return Clip(model, tokenizer, tuple(visual.image_mean), tuple(visual.image_std), size)


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


def contrastive_loss(rank: int = 0, workers: int = 1):
    """open_clip's symmetric InfoNCE, ``loss(image, text, scale)``; with several workers the batch is that of all of them."""
    import open_clip

    return open_clip.ClipLoss(
        local_loss=True, gather_with_grad=True, cache_labels=True, rank=rank, world_size=workers
    )


def copy(clip: Clip) -> Clip:
    """A deep copy, to finetune without touching the original."""
    return replace(clip, model=copying.deepcopy(clip.model))


def pixels(clip: Clip, images):
    """uint8 images (n, side, side, 3), array or tensor, as the model's input: float (n, 3, S, S), channels last."""
    import torch

    x = gpu.sent(
        torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images)
    )
    x = x.permute(0, 3, 1, 2).float() / 255
    if x.shape[-1] != clip.image_size:
        x = torch.nn.functional.interpolate(
            x, (clip.image_size,) * 2, mode="bicubic", antialias=True
        ).clamp(0, 1)
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (clip.mean, clip.std))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def embed_images(clip: Clip, images, batch: int = 256) -> np.ndarray:
    """Unit-length image embeddings, (n, d) float32, of uint8 images (n, side, side, 3)."""
    import torch

    return _embed(
        lambda i: clip.model.encode_image(pixels(clip, images[i : i + batch]), normalize=True),
        len(images),
        batch,
        torch,
    )


def embed_texts(clip: Clip, texts: Sequence[str], batch: int = 512) -> np.ndarray:
    """Unit-length text embeddings, (n, d) float32."""
    import torch

    texts = list(texts)
    return _embed(
        lambda i: clip.model.encode_text(
            clip.tokenizer(texts[i : i + batch]).to(gpu.device()), normalize=True
        ),
        len(texts),
        batch,
        torch,
    )


def _embed(part, n: int, batch: int, torch) -> np.ndarray:
    with torch.inference_mode(), gpu.autocast():
        parts = [
            part(i).float() for i in range(0, n, batch)
        ]  # fetched at the end, so that a GPU never waits for the next batch
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, 1), np.float32)


@functools.lru_cache(maxsize=8)
def _class_texts(clip: Clip, classes: tuple[str, ...], templates: tuple[str, ...]) -> np.ndarray:
    texts = embed_texts(clip, [t.format(name) for name in classes for t in templates])
    return texts.reshape(len(classes), len(templates), -1)


def imagenet() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of ImageNet's 1,000 classes in order, all different, and CLIP's 80 templates for them ([P] section 3).

    open_clip's list names two classes missile and two sunglasses ([C] trains on 998 names for that); the two that ImageNet
    calls "projectile" and "sunglass" are called so here. Crane and maillot, which torchvision has twice, differ already.
    """
    import open_clip

    names = [
        {744: "projectile", 836: "sunglass"}.get(i, name)
        for i, name in enumerate(open_clip.IMAGENET_CLASSNAMES)
    ]
    return tuple(names), tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


def head(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """Classifier weights (classes, d): mean of the unit text embeddings over templates, made unit length again [C]."""
    texts = embed_texts(clip, [t.format(name) for name in classes for t in templates])
    return _head(texts.reshape(len(classes), len(templates), -1))


def _head(texts: np.ndarray) -> np.ndarray:
    weights = texts.mean(1)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def label_scores(
    clip: Clip,
    embeddings: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    templates: Sequence[str],
    aggregate: str = "max",
) -> np.ndarray:
    """Cosine of each image embedding to its own label's text, (n,) float32: the largest over templates ([P] section 3).

    With ``aggregate="mean"`` the cosine to their mean embedding instead, which is what [C] computes. The texts are embedded
    once per process, so that shards can be scored one by one.
    """
    texts = _class_texts(clip, tuple(classes), tuple(templates))
    if aggregate == "mean":
        return np.einsum("nd,nd->n", embeddings, _head(texts)[np.asarray(labels)]).astype(
            np.float32
        )
    return np.einsum("nd,ntd->nt", embeddings, texts[np.asarray(labels)]).max(1).astype(np.float32)
