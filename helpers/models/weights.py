"""Where weights are: here, or in the Hugging Face cache; no download, and no pickle is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.errors import StudyError, unknown

CLIP = "open_clip_model.safetensors"  # as a repository of open_clip on the hub has it
TIMM = "model.safetensors"  # as a repository of timm has it
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".tar")


def cached(repository: str, file: str = "") -> Path | None:
    """A repository's folder in the Hugging Face cache, or a file in it; None when not there."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        if file:
            return Path(hf_hub_download(repository, file, local_files_only=True))
        return Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def safe(file: Path) -> Path:
    """``file``. Raises ``StudyError`` when it is a pickle, saying how to convert it."""
    if file.suffix in PICKLES:
        raise StudyError(
            f"{file} is a pickle, and there is no safetensors. Loading a pickle can run any code, "
            "so it is refused. Take a revision that has *.safetensors, or convert it once where "
            "you trust it, by safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
            "'FILE.safetensors') or the model's save_pretrained(FOLDER), and name that."
        )
    return file


def folder(what: str, name: str) -> Path:
    """The folder of a model of transformers or diffusers, called ``what`` in messages: here, or a
    repository in the cache. Raises ``StudyError`` when there is none, or pickles only.
    """
    found = Path(name) if Path(name).is_dir() else cached(name)
    if found is None and (name.startswith(("/", "~", ".")) or name.count("/") > 1):
        key = "[generators]" if what.startswith("generator") else what.replace(" ", "_")
        raise StudyError(
            f"{what} {name!r} is a path, but there is no such folder. Put the weights there, or "
            f"another folder under {key} in paper.toml, or take a world that needs none: pocket."
        )
    if found is None:
        raise StudyError(
            f"{what} {name!r} is not on this machine: neither a folder nor in the Hugging Face "
            "cache. Accept its licence on its page, log in (hf auth login), then: hf download "
            f"{name}   Or put its folder into paper.toml, or take a world that needs none: pocket."
        )
    for part in (found, *sorted(p for p in found.iterdir() if p.is_dir())):
        is_model = (part / "config.json").exists() and part.name != "safety_checker"
        if is_model and not any(part.glob("*.safetensors")):
            for file in sorted(part.iterdir()):
                safe(file)
    return found


def load(what: str, name: str, open_folder: Callable[[Path], Any]) -> Any:
    """``open_folder`` of ``folder``; ``StudyError`` also where that is incomplete or damaged."""
    from safetensors import SafetensorError

    path = folder(what, name)
    try:
        return open_folder(path)
    except (OSError, ValueError, KeyError, SafetensorError) as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise StudyError(
            f"{what} {name!r} cannot be loaded from {path}: {reason}. It is incomplete or damaged; "
            f"fetch it again: hf download {name} --force-download"
        ) from e


def clip_file(name: str) -> Path:
    """The weights of a CLIP: "MODEL/PRETRAINED" as open_clip knows it, "MODEL/FILE", or "FOLDER".

    Raises ``StudyError`` on another name, a pickle, and weights that are not on this machine.
    """
    import open_clip

    if Path(name).is_dir() or Path(name).is_absolute():
        return _within(Path(name), CLIP)
    model, _, pretrained = name.partition("/")
    if model not in open_clip.list_models():
        raise unknown(f"folder or CLIP model in {name!r}:", model, open_clip.list_models())
    if Path(pretrained).is_file():
        return safe(Path(pretrained))
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained not in tags:
        forms = "named 'MODEL/PRETRAINED' or 'MODEL/FILE.safetensors', or by a folder"
        raise unknown(f"weights of CLIP {model} ({forms}):", pretrained, tags)
    repository = open_clip.get_pretrained_cfg(model, pretrained).get("hf_hub", "").strip("/")
    fetch = f"import open_clip; open_clip.create_model('{model}', '{pretrained}')"
    return _fetched(f"CLIP {name!r}", repository, CLIP, fetch)


def checkpoint_file(name: str) -> Path:
    """The same of "open_clip/" and such a name, or "timm/" and "MODEL", "MODEL/FILE", "FOLDER"."""
    import timm

    library, _, rest = name.partition("/")
    if library not in ("open_clip", "timm") or not rest:
        raise StudyError(
            f"checkpoint {name!r} is unknown; valid: 'timm/NAME', 'timm/NAME/FILE', 'timm/FOLDER', "
            "'open_clip/MODEL/PRETRAINED', 'open_clip/MODEL/FILE', 'open_clip/FOLDER'."
        )
    if library == "open_clip":
        return clip_file(rest)
    if Path(rest).is_dir():
        return _within(Path(rest), TIMM, "config.json")
    model, _, file = rest.partition("/")
    if not timm.is_model(model):
        raise StudyError(
            f"timm knows no model {model!r}, and there is no folder {rest!r}; python -c "
            f"\"import timm; print(timm.list_models('{model[:4]}*'))\" lists names."
        )
    if Path(file).is_file():
        return safe(Path(file))
    published = None if file else timm.get_pretrained_cfg(model)
    repository = str(published.hf_hub_id or "") if published else ""
    fetch = f"import timm; timm.create_model('{model}', pretrained=True)"
    return _fetched(f"checkpoint {name!r}", repository, TIMM, fetch)


def _within(folder: Path, *files: str) -> Path:
    """The first of the files in a folder. Raises ``StudyError`` when one is missing."""
    for file in files:
        if not (folder / file).is_file():
            raise StudyError(
                f"{folder / file} is missing; a folder is complete when it has "
                f"{' and '.join(files)}. A shipped one: restore it from git, or run notebook 00."
            )
    return folder / files[0]


def _fetched(what: str, repository: str, file: str, fetch: str) -> Path:
    found = cached(repository, file)
    if found is None:
        raise StudyError(
            f"the weights of {what} are not on this machine. Fetch them once with a network: "
            f'python -c "{fetch}"   or give your own safetensors: MODEL/FILE or FOLDER.'
        )
    return found
