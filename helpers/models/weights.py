"""Where weights are: here, or in the Hugging Face cache; no download, and no pickle is opened."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from helpers.engine.late import open_clip, timm
from helpers.errors import StudyError, unknown

CLIP = "open_clip_model.safetensors"  # as a repository of open_clip on the hub has it
TIMM = "model.safetensors"  # as a repository of timm has it
NO_CODE = {"trust_remote_code": False}  # and no question whether it may run
CONFIGURATION = 10_000_000  # bytes
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "layers", "depth")
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
    """``file``. Raises ``StudyError`` when it is a pickle, or no safetensors by its header."""
    if file.suffix in PICKLES:
        raise StudyError(
            f"{file} is a pickle, and there is no safetensors. Loading a pickle can run any code, "
            "so it is refused. Take a revision with *.safetensors, or convert it once where you "
            "trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW_FILE)."
        )
    start = b""
    try:
        with file.open("rb") as opened:
            start = opened.read(40)
        with safe_open(file, "numpy"):
            return file
    except (OSError, SafetensorError) as e:
        pointer = "a pointer of git-lfs: run git lfs pull, or hf download REPOSITORY"
        reason = pointer if start.startswith(b"version https://git-lfs") else f"damaged or cut: {e}"
        raise StudyError(f"{file} is no safetensors file ({reason}).") from e


def folder(what: str, name: str) -> Path:
    """A model's folder, here or in the cache; ``StudyError`` if there is none, if its weights are
    pickles only, or one that it lists is missing, cut, or a pointer.
    """
    found = Path(name) if Path(name).is_dir() else cached(name)
    if found is None and (name.startswith(("/", "~", ".")) or name.count("/") > 1 or "\\" in name):
        generator = what.startswith("generator")
        key = "[generators]" if generator else what.replace(" ", "_")
        way = "PIPELINE.from_single_file(FILE)" if generator else "MODEL"
        single = f"a single file, no folder: {way}.save_pretrained(FOLDER) makes one"
        kind = single if Path(name).is_file() else "a path, but there is no such folder"
        advice = f"Put the weights there, or another folder under {key} in paper.toml."
        raise StudyError(f"{what} {name!r} is {kind}. {advice}")
    if found is None:
        raise StudyError(
            f"{what} {name!r} is not on this machine. Accept its licence on its page, log in (hf "
            f"auth login), then: hf download {name}   Or put its folder into paper.toml."
        )
    if strange := [p for p in found.rglob("*") if p.exists() and not (p.is_file() or p.is_dir())]:
        raise StudyError(f"{strange[0]} is a pipe or device, which would be waited for. Remove it.")
    here = {path.name for path in found.iterdir()}
    if "adapter_config.json" in here or not here & {"config.json", "model_index.json"}:
        wanted = "Give a folder as transformers or diffusers saves it: no GGUF, adapters merged."
        raise StudyError(f"{what} {name!r}: {found} holds no whole model. {wanted}")
    for part in (found, *sorted(p for p in found.iterdir() if p.is_dir())):
        files = sorted(part.glob("*.safetensors"))
        if not files and (part / "config.json").exists() and part.name != "safety_checker":
            files = [file for file in sorted(part.iterdir()) if file.suffix in PICKLES]
        for file in files:
            safe(file)
    return found


def load(what: str, name: str, open_folder: Callable[[Path], Any]) -> Any:
    """``open_folder`` of ``folder``; ``StudyError`` also where that is incomplete or damaged."""
    path = folder(what, name)
    try:
        return open_folder(path)
    except MemoryError:
        raise
    except Exception as e:  # of other formats libraries raise all kinds
        reason = " ".join(str(e).split())[:300] or type(e).__name__
        way = f"hf download {name} --force-download"
        way = "copy its repository there as a whole" if Path(name).is_dir() else way
        problem = f"{what} {name!r} cannot be loaded from {path}: {reason}"
        raise StudyError(f"{problem}. If it is incomplete or damaged: {way}") from e


def complete(kind: Any, path: Path, **options: Any) -> Any:
    """``kind.from_pretrained(path)`` of safetensors, without code from the folder, fp16 if there is
    nothing else. Raises ``ValueError`` on weights that are missing, too many, or of other shapes,
    and as ``described``.
    """
    described(path / "config.json", path.glob("*.safetensors"))
    names = [file.name for file in path.glob("*.safetensors")]
    if names and all(".fp16" in name for name in names):
        options["variant"] = "fp16"
    model, found = kind.from_pretrained(
        path, use_safetensors=True, output_loading_info=True, local_files_only=True, **options
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, found[problem])):
            some = f"{', '.join(keys[:3])} ({len(keys)} in all)"
            raise ValueError(f"{problem.replace('_keys', '')} weights in {path.name}: {some}")
    return model


def described(file: Path, tensors: Iterable[Path]) -> Any:
    """What a configuration says; ``ValueError`` when it is too large or has too many layers."""
    if file.stat().st_size > CONFIGURATION:
        raise ValueError(f"{file.name} has over {CONFIGURATION:,} bytes")
    text = file.read_text(encoding="utf-8-sig")
    named = re.findall(rf'"(?:{"|".join(LAYERS)})"\s*:\s*(\d+)', text)
    layers = max(map(int, named), default=0)
    number = sum(len(safe_open(part, "numpy").keys()) for part in tensors)
    if layers > number > 0:  # they would all be made before anything is missed
        raise ValueError(f"{file.name} has {layers:,} layers, but there are {number} tensors")
    return json.loads(text)


def clip_file(name: str) -> Path:
    """Weights of open_clip's "MODEL/PRETRAINED", "MODEL/FILE" or "FOLDER"; else ``StudyError``."""
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
        names = f"python -c \"import timm; print(timm.list_models('{model[:4]}*'))\" lists names"
        raise StudyError(f"timm knows no model {model!r}, nor is {rest!r} a folder; {names}.")
    if Path(file).is_file():
        return safe(Path(file))
    published = None if file else timm.get_pretrained_cfg(model)
    repository = str(published.hf_hub_id or "") if published else ""
    fetch = f"import timm; timm.create_model('{model}', pretrained=True)"
    return _fetched(f"checkpoint {name!r}", repository, TIMM, fetch)


def _within(folder: Path, *files: str) -> Path:
    """The first of the files in a folder. Raises ``StudyError`` when one is missing."""
    if folder.is_file():
        raise StudyError(f"{folder} is a file; name it with its model, as MODEL/FILE.")
    for file in files:
        if not (folder / file).is_file():
            complete = f"a folder is complete when it has {' and '.join(files)}"
            shipped = "A shipped one: restore it from git, or run notebook 00."
            raise StudyError(f"{folder / file} is missing; {complete}. {shipped}")
    return safe(folder / files[0])


def _fetched(what: str, repository: str, file: str, fetch: str) -> Path:
    found = cached(repository, file)
    if found is None:
        how = f'python -c "{fetch}"   or give your own safetensors: MODEL/FILE or FOLDER'
        raise StudyError(f"the weights of {what} are not on this machine. Fetch them: {how}.")
    return safe(found)
