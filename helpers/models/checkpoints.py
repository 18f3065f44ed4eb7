"""Finished models by name, for the paper world's notebook 07: checkpoints of timm and open_clip, from safetensors on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from helpers.data.tables import Benchmark
from helpers.engine import gpu
from helpers.errors import StudyError, unknown
from helpers.models import clip
from helpers.models.classifier import Classifier, text_classifier
from helpers.models.clip import Clip
from helpers.models.families import FAMILIES, SOURCES

WEIGHTS = "model.safetensors"  # of a timm repository on the hub


def load(name: str, bench: Benchmark) -> Classifier:
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
    seen = types.SimpleNamespace(
        encode_image=lambda x, normalize=False: made(x)
    )  # its embedding is its logits
    eye = torch.eye(len(bench.classes), device=gpu.device())
    return Classifier(
        Clip(seen, None, tuple(data["mean"]), tuple(data["std"]), data["input_size"][-1]),
        eye,
        0 * eye[0],
    )


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
        raise StudyError(
            f"timm could not load {rest!r} from {place} ({type(e).__name__}: {reason}). It is damaged, of another "
            f"architecture, or not of {classes} classes."
        ) from e
    if made.num_classes != classes:
        raise StudyError(
            f"checkpoint 'timm/{rest}' tells {made.num_classes} classes apart, the probed benchmark has {classes}. Take a "
            "checkpoint of these classes, or the whole benchmark."
        )
    return made


def located(name: str) -> Path:
    """The file with the weights of a checkpoint (see ``load``); nothing is downloaded. Raises ``StudyError`` when it is not here."""
    library, _, rest = name.partition("/")
    if library not in ("open_clip", "timm") or not rest:
        raise StudyError(
            f"checkpoint {name!r} is unknown; valid: 'timm/NAME', 'timm/NAME/FILE', 'timm/FOLDER', "
            "'open_clip/MODEL/PRETRAINED', 'open_clip/MODEL/FILE', 'open_clip/FOLDER'; files are safetensors."
        )
    return clip.place(rest) if library == "open_clip" else _located_timm(rest)


def _located_timm(rest: str) -> Path:
    import timm
    from huggingface_hub import try_to_load_from_cache

    model, _, file = rest.partition("/")
    if Path(rest).is_dir():
        found = Path(rest) / WEIGHTS
        if not found.is_file() or not (Path(rest) / "config.json").is_file():
            raise StudyError(
                f"no timm checkpoint in {rest}: it has {WEIGHTS} and config.json, as a repository of timm on the hub."
            )
        return found
    if not timm.is_model(model):
        raise StudyError(
            f'timm knows no model {model!r}, and there is no folder {rest!r}; python -c "import timm; '
            f"print(timm.list_models('{model[:4]}*'))\" lists names."
        )
    known = None if file else timm.get_pretrained_cfg(model)
    found = file or try_to_load_from_cache((known and known.hf_hub_id) or "none", WEIGHTS)
    if not isinstance(found, str) or not Path(found).is_file():
        raise StudyError(
            f"the weights of checkpoint 'timm/{rest}' are not on this machine. Fetch them once with a network: "
            f"python -c \"import timm; timm.create_model('{model}', pretrained=True)\"   or give safetensors: "
            f"'timm/{model}/FILE', or 'timm/FOLDER' as on the hub."
        )
    return clip.safe(Path(found))


def checked(checkpoints: Iterable[Sequence[str]]) -> None:
    """Raises ``StudyError`` unless every checkpoint is a family, a source and a name, of the families and sources there are."""
    for given in checkpoints:
        if (
            isinstance(given, str)
            or len(given) != 3
            or not all(isinstance(part, str) for part in given)
        ):
            raise StudyError(
                f"the checkpoint {given!r} was given; valid: a family, a source and a name, such as "
                "['supervised', 'synthetic', 'timm/resnet50/weights/clone.safetensors']."
            )
        for kind, part, valid in (("family", given[0], FAMILIES), ("source", given[1], SOURCES)):
            if part not in valid:
                raise unknown(f"{kind} of checkpoint {given[2]!r}", part, valid)
