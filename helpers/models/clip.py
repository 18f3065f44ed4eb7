"""CLIP models through open_clip: load, build, save, embed, and classify by texts."""

from __future__ import annotations

import functools
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helpers import worlds
from helpers.engine import gpu
from helpers.engine.late import functional, open_clip, torch
from helpers.errors import StudyError
from helpers.models import weights
from helpers.worlds import World

NO_CODE = weights.NO_CODE
WEIGHTS = weights.CLIP  # the file that ``save`` writes
AT_ONCE = {"cuda": 256, "cpu": 64}  # images embedded together: on a CPU what its cache holds


@dataclass(frozen=True, eq=False)
class Clip:
    """An open_clip model with its tokenizer, and how pixels have to be scaled for it."""

    model: Any
    tokenizer: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int


def load(w: World) -> Clip:
    """The CLIP of this world, on the device. Raises ``StudyError`` when its weights are missing."""
    if w.clip.model == "upstream":
        return by_name(str(worlds.backend(w).clip_folder(w)))
    return by_name(f"{w.clip.model}/{w.clip.pretrained}")


@functools.cache
def by_name(name: str) -> Clip:
    """A finished CLIP by a name of ``weights.clip_file``; ``StudyError`` also if it is damaged."""
    file = weights.clip_file(name)
    model, _, pretrained = name.partition("/")
    try:
        if file.parent == Path(name):
            config, scaling = configuration(file.parent)
            return build(config, file.parent, file, scaling)
        published = open_clip.get_model_config(model)["text_cfg"].get("hf_tokenizer_name")
        options = {"local_files_only": True, **NO_CODE} if published else {}
        tokenizer = open_clip.get_tokenizer(model, **options)
        quick = quick_gelu(model, pretrained)
        return _created(model, pretrained, tokenizer, force_quick_gelu=quick)
    except StudyError:
        raise
    except Exception as e:  # open_clip checks nothing of what it reads
        reason = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
        kinds = "It is damaged, of another architecture, or without its tokenizer, which this gets"
        fetch = f"python -c \"import open_clip; open_clip.get_tokenizer('{model}')\""
        problem = f"cannot load the CLIP {name!r} from {file} ({reason})"
        raise StudyError(f"{problem}. {kinds}: {fetch}") from e


def checked(name: str) -> Path:
    """The weights of such a CLIP; raises what ``by_name`` would, reading only names and shapes."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # that nothing is copied to a tensor without memory
        by_name.__wrapped__(name)
    return weights.clip_file(name)


def quick_gelu(model: str, pretrained: str) -> bool:
    """Whether these weights were trained with QuickGELU, which open_clip only warns of."""
    return (open_clip.get_pretrained_cfg(model, pretrained) or {}).get("quick_gelu", False)


def configuration(folder: Path) -> tuple[dict, Mapping]:
    """The architecture of the CLIP in a folder and, of one from the hub, the scaling of pixels."""
    hub = folder / "open_clip_config.json"
    try:
        if not hub.exists():
            return weights.described(folder / "config.json", [folder / WEIGHTS]), {}
        config = weights.described(hub, [folder / WEIGHTS])
        return config["model_cfg"], config["preprocess_cfg"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        files = "config.json as clip.save leaves it, or open_clip_config.json as on the hub"
        raise StudyError(f"no configuration of a CLIP in {folder} ({e!r}): {files}.") from e


def build(
    config: dict, tokenizer: Path | None, file: Path | None = None, scaling: Mapping | None = None
) -> Clip:
    """A CLIP of a configuration, random without ``file``; ``scaling`` is pixels' mean and std.

    ``tokenizer`` is a folder (None: the configuration's own). No code from there runs.
    """
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # and nobody is asked whether it may
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "miniature.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder)
    if tokenizer is None:
        reader = open_clip.get_tokenizer("miniature")
    else:
        context = config["text_cfg"].get("context_length", 77)
        reader = open_clip.tokenizer.HFTokenizer(str(tokenizer), context_length=context, **NO_CODE)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # open_clip warns of random weights even where they are wanted
    try:
        pretrained = str(file) if file else None
        return _created("miniature", pretrained, reader, force_preprocess_cfg=scaling or {})
    finally:
        logging.disable(before)


def _created(model: str, pretrained: str | None, tokenizer: Any, **options: Any) -> Clip:
    """A model by open_clip, on the device, with what open_clip says of its pixels."""
    only_names = torch.get_default_device().type == "meta"
    device = "meta" if only_names else gpu.device()
    network: Any = open_clip.create_model(model, pretrained=pretrained, device=device, **options)
    visual = network.visual
    size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    network = network.to(memory_format=torch.channels_last).eval()
    return Clip(network, tokenizer, tuple(visual.image_mean), tuple(visual.image_std), size)


def save(clip: Clip, folder: Path, config: dict) -> None:
    """Write weights (float16), configuration and tokenizer, for ``by_name``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = clip.model.state_dict()
    for k, v in state.items():
        state[k] = (v.half() if v.is_floating_point() else v).cpu().contiguous()
    save_file(state, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    clip.tokenizer.save_pretrained(folder)


def contrastive_loss(rank: int = 0, workers: int = 1) -> torch.nn.Module:
    """open_clip's symmetric InfoNCE, ``loss(image, text, scale)``, over all workers' batches."""
    options = dict.fromkeys(("local_loss", "gather_with_grad", "cache_labels"), True)
    return open_clip.ClipLoss(rank=rank, world_size=workers, **options)


def pixels(clip: Clip, images: Any) -> torch.Tensor:
    """uint8 images (n, side, side, 3) as the model's input: float (n, 3, S, S), channels last."""
    images = np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images
    x = gpu.sent(torch.as_tensor(images)).permute(0, 3, 1, 2).float() / 255
    if x.shape[-1] != clip.image_size:
        size = (clip.image_size, clip.image_size)
        x = functional.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (clip.mean, clip.std))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def resized(x: torch.Tensor, side: int) -> torch.Tensor:
    """Images (n, 3, s, s) in 0..1 at another size, by matrices: the gradient costs a tenth."""
    old = x.shape[-1]
    if old == side:
        return x
    eye = torch.eye(old)[None, None]
    matrix = functional.interpolate(eye, (side, old), mode="bicubic", antialias=True)
    matrix = matrix[0, 0].to(x.device)
    return (matrix @ (x @ matrix.T)).clamp(0, 1)


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 images, (n, side, side, 3), as a tower of ``side`` pixels sees them."""
    if images.shape[1] == side:
        return images
    parts = []
    for start in range(0, len(images), 256):
        x = torch.tensor(images[start : start + 256]).permute(0, 3, 1, 2).float()
        x = functional.interpolate(x, (side, side), mode="bicubic", antialias=True)
        parts.append(x.clamp(0, 255).round().byte())
    return torch.cat(parts).permute(0, 2, 3, 1).numpy()


def embed_images(clip: Clip, images: Any, batch: int | None = None) -> np.ndarray:
    """Unit-length image embeddings, (n, d) float32, of uint8 images (n, side, side, 3)."""
    batch = AT_ONCE[gpu.device()] if batch is None else batch
    return _embed(lambda x: clip.model.encode_image(pixels(clip, x), normalize=True), images, batch)


def embed_texts(clip: Clip, texts: Iterable[str], batch: int = 512) -> np.ndarray:
    """Unit-length text embeddings, (n, d) float32."""
    encode = functools.partial(clip.model.encode_text, normalize=True)
    return _embed(lambda part: encode(clip.tokenizer(part).to(gpu.device())), list(texts), batch)


def _embed(encode: Callable, items: Any, batch: int) -> np.ndarray:
    with torch.inference_mode(), gpu.autocast():
        parts = [encode(items[i : i + batch]).float() for i in range(0, len(items), batch)]
        if not parts:
            return np.zeros((0, 1), np.float32)
        return torch.cat(parts).cpu().numpy()  # fetched at the end: a GPU never waits for a batch


def imagenet() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of ImageNet's 1,000 classes and CLIP's 80 templates [P]."""
    names = list(open_clip.IMAGENET_CLASSNAMES)
    names[744] = "projectile"  # a second missile in open_clip's list, and so in [C]
    names[836] = "sunglass"  # a second sunglasses
    return tuple(names), tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


def class_texts(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """Unit embeddings (classes, templates, d) of every class name in every template."""
    texts = embed_texts(clip, [t.format(name) for name in classes for t in templates])
    return texts.reshape(len(classes), len(templates), -1)


_kept_class_texts = functools.lru_cache(maxsize=8)(class_texts)  # shards ask again


def head(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """Classifier weights (classes, d): mean text embeddings over templates, of unit length [C]."""
    means = class_texts(clip, classes, templates).mean(1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def label_scores(
    clip: Clip, x: np.ndarray, labels: np.ndarray, classes: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
    """Largest cosine of each image embedding with a text of its label, (n,) ([P] section 3)."""
    texts = _kept_class_texts(clip, tuple(classes), tuple(templates))
    return np.einsum("nd,ntd->nt", x, texts[np.asarray(labels)]).max(1).astype(np.float32)
