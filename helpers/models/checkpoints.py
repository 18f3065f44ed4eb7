"""Finished models by name, for the paper world's notebook 07: checkpoints of timm and open_clip, as
classifiers.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.data.tables import Benchmark
from helpers.engine import gpu
from helpers.errors import StudyError, unknown
from helpers.models import clip, weights
from helpers.models.classifier import Classifier, text_classifier
from helpers.models.clip import Clip
from helpers.models.families import FAMILIES, SOURCES

if TYPE_CHECKING:
    from torch import nn


def load(name: str, bench: Benchmark) -> Classifier:
    """The finished model of a name of ``weights.checkpoint_file``, as a classifier of the
    benchmark's classes.

    It keeps its own image size and normalisation. Raises ``StudyError`` on another form of name,
    and on a model that is not on this machine, damaged, or of other classes.
    """
    import timm
    import torch

    file = weights.checkpoint_file(name)
    library, _, rest = name.partition("/")
    if library == "open_clip":
        return text_classifier(clip.by_name(rest), bench)
    network = _timm(rest, file, len(bench.classes)).to(gpu.device()).eval()
    data = timm.data.resolve_model_data_config(network)

    def logits(x, normalize=False):
        return network(x)

    # Its embeddings are its logits, which an identity classifies.
    tower = types.SimpleNamespace(encode_image=logits)
    eye = torch.eye(len(bench.classes), device=gpu.device())
    size = data["input_size"][-1]
    model = Clip(tower, None, tuple(data["mean"]), tuple(data["std"]), size)
    return Classifier(model, eye, 0 * eye[0])


def _timm(rest: str, weights_file: Path, classes: int) -> nn.Module:
    """A model of timm, "MODEL", "MODEL/FILE" or a folder, that tells ``classes`` classes apart."""
    import timm
    from safetensors import SafetensorError

    model, _, file = rest.partition("/")
    try:
        if Path(rest).is_dir():
            network = timm.create_model(f"local-dir:{rest}", pretrained=True)
        elif file:
            network = timm.create_model(
                model, num_classes=classes, checkpoint_path=str(weights_file)
            )
        else:
            network = timm.create_model(model, pretrained=True)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as e:
        reason = " ".join(str(e).split())[:200]
        raise StudyError(
            f"timm could not load {rest!r} from {weights_file} ({type(e).__name__}: {reason}). It "
            f"is damaged, of another architecture, or not of {classes} classes."
        ) from e
    if network.num_classes != classes:
        raise StudyError(
            f"checkpoint 'timm/{rest}' tells {network.num_classes} classes apart, the probed "
            f"benchmark has {classes}. Take a checkpoint of these classes, or the whole benchmark."
        )
    return network


def checked(checkpoints: Iterable[Sequence[str]]) -> None:
    """Raise ``StudyError`` unless each checkpoint is a known family, a known source and a name."""
    for entry in checkpoints:
        if isinstance(entry, str) or len(entry) != 3 or not all(isinstance(p, str) for p in entry):
            raise StudyError(
                f"the checkpoint {entry!r} was given; valid: a family, a source and a name, such "
                "as ['supervised', 'synthetic', 'timm/resnet50/weights/clone.safetensors']."
            )
        family, source, name = entry
        if family not in FAMILIES:
            raise unknown(f"family of checkpoint {name!r}", family, FAMILIES)
        if source not in SOURCES:
            raise unknown(f"source of checkpoint {name!r}", source, SOURCES)
