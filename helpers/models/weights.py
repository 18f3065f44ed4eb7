"""Weights that are already on this machine, as safetensors; nothing is downloaded, and no pickle is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from helpers.errors import StudyError

PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def folder(what: str, name: str) -> Path:
    """The folder of the weights ``name``: a folder here, or that of a Hugging Face repository in the user's cache.

    Raises ``StudyError`` when they are not there, or when a part of them is there as a pickle only.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        found = (
            Path(name)
            if Path(name).is_dir()
            else Path(snapshot_download(name, local_files_only=True))
        )
    except (LocalEntryNotFoundError, HFValidationError) as e:
        if name.startswith(("/", "~", ".")) or name.count("/") > 1:
            key = "[generators]" if what.startswith("generator") else what.replace(" ", "_")
            raise StudyError(
                f"{what} {name!r} is a path, but there is no such folder. It is named under {key} in paper.toml (in "
                "$STUDY_PAPER): put the weights there or name the folder they are in. Or take a world that needs nothing: "
                "pocket."
            ) from e
        raise StudyError(
            f"{what} {name!r} is not on this machine: neither a folder nor in the Hugging Face cache. Accept its licence on "
            f"its page, log in (hf auth login), and run: hf download {name}   If you have it elsewhere, put its folder into "
            "paper.toml. Or take a world that needs nothing: pocket."
        ) from e
    for part in [found, *sorted(p for p in found.iterdir() if p.is_dir())]:
        pickles = sorted(p.name for p in part.iterdir() if p.suffix in PICKLES)
        if (
            pickles
            and part.name != "safety_checker"
            and not any(part.glob("*.safetensors"))
            and (part / "config.json").exists()
        ):
            raise StudyError(
                f"{what} {name!r} has {part / pickles[0]} but no safetensors. Loading a pickle can run any code, so it is "
                "refused. Download a revision that has *.safetensors, or convert it once where you trust it (load it with "
                "use_safetensors=False, then save_pretrained(folder)) and name that folder in paper.toml."
            )
    return found


def load(what: str, name: str, open_folder: Callable):
    """``open_folder`` of the folder of ``name``, or a ``StudyError`` that says what is missing or damaged."""
    from safetensors import SafetensorError

    path = folder(what, name)
    try:
        return open_folder(path)
    except (OSError, ValueError, KeyError, SafetensorError) as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise StudyError(
            f"{what} {name!r} cannot be loaded from {path}: {reason}. It is incomplete or damaged; fetch it again: "
            f"hf download {name} --force-download"
        ) from e
