"""Where weights, data and indices of the paper world lie: ``paper.toml`` in ``$STUDY_PAPER``.

Every key is optional (helpers/paper/example.toml has all); the defaults are the published names.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from helpers.data.pictures import files_below
from helpers.errors import StudyError, unknown
from helpers.worlds import World

FILE = "paper.toml"
GENERATORS = {
    "1.1": "CompVis/stable-diffusion-v1-1",
    "1.3": "CompVis/stable-diffusion-v1-3",
    "1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",  # the original repository was withdrawn
}


def here(folder: Path, name: str) -> str:
    """The path of ``name`` in the folder if it is there, else the name: on a hub, or a service."""
    return str(folder / name) if (folder / name).exists() else name


def placed(folder: Path, name: str, say: Callable[[str], str] = str) -> str:
    """``name`` of a model, "FOLDER" or "MODEL/FILE", with what ``say`` makes of its absolute path;
    without a path that is there, such as "MODEL/TAG", as it is.
    """
    model, _, file = name.partition("/")
    if file and (folder / file).is_file():
        return f"{model}/{say(str(folder / file))}"
    return say(here(folder, name))


def checkpoint(w: World, name: str) -> str:
    """The name of a finished model (``families.finished``): its library, then as ``placed``."""
    library, _, rest = name.partition("/")
    return f"{library}/{placed(root(), rest)}" if rest else name


def clip_folder(w: World) -> Path:
    """The folder that ``clip`` names: weights, configuration and tokenizer."""
    return Path(settings().clip)


def identity(name: str) -> str:
    """What tells weights or data apart wherever they lie, for the keys of artifacts: a hash of the
    names and sizes of a folder's files, a file's name and size, or another name as it is.
    """
    path = Path(name)
    if path.is_absolute() and path.is_dir():
        return _listing(path, path.stat().st_mtime_ns)
    is_file = path.is_absolute() and path.is_file()
    return f"{path.name}, {path.stat().st_size} bytes" if is_file else name


@functools.lru_cache(maxsize=64)
def _listing(folder: Path, changed: int) -> str:
    files = [p for p in files_below(folder) if p.is_file()]
    sizes = sorted((str(p.relative_to(folder)), p.stat().st_size) for p in files)
    return hashlib.sha256(repr(sizes).encode()).hexdigest()[:12]


# Types of settings; they are read in the context of the folder $STUDY_PAPER.
Inside = Annotated[Path, Field(strict=False), AfterValidator(lambda path, at: at.context / path)]
Name = Annotated[str, AfterValidator(lambda name, at: here(at.context, name))]
Model = Annotated[str, AfterValidator(lambda name, at: placed(at.context, name))]
Names = Annotated[tuple[str, ...], Field(description="a list of names")]
Checkpoints = tuple[tuple[str, str, str], ...]


class _Table(BaseModel):
    """A table of the file; a field's description says what its values can be."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


class Task(_Table):
    """A task of the user's own: a folder with ``train``, ``test`` and perhaps ``val``."""

    folder: Inside
    classes: tuple[str, ...] | Name = Field((), description="a list of names or a text file")
    noun: str = "object"
    templates: Names = ("a photo of a {}.", "a photo of the {}.")
    backgrounds: Names = ()


class Config(_Table):
    """``paper.toml`` with paths made absolute; the defaults are the published choices."""

    language_model: Name = "meta-llama/Llama-2-7b-hf"  # base weights [C]
    generators: dict[str, Name] = Field(GENERATORS, description="a table of names")
    drawn: int = 512  # pixels [C]
    kept: int = 256  # pixels [C]
    clip: Name = "laion2b_s34b_b88k"  # of the architecture in World.clip.model [P]
    laion: Inside = Path("laion")
    index: Name | None = Field(None, description="str")
    benchmarks: Inside = Path("benchmarks")
    judge: Model = "ViT-L-14/openai"  # neither finetuned nor a filter, and trained on other data
    # without any: those of RobustnessSettings
    checkpoints: Checkpoints = Field((), description="a tuple of tuples (family, source, name)")
    tasks: dict[str, Task] = Field({}, description="a table")
    world: dict[str, Any] = Field({}, description="a table")  # settings to replace


def root() -> Path:
    """``$STUDY_PAPER``. Raises ``StudyError`` when it is not set or not there."""
    path = os.environ.get("STUDY_PAPER", "")
    if not path or not Path(path).is_dir():
        problem = f"the paper world reads {FILE}, weights and data from the folder in $STUDY_PAPER"
        advice = "Make one, then: python -m helpers.run paper --check   Without data: take pocket"
        raise StudyError(f"{problem} (now {path or 'not set'!r}). {advice}")
    return Path(path).resolve()


def settings() -> Config:
    """The configuration; ``StudyError`` on a missing folder, an unknown key or a wrong type."""
    file = root() / FILE
    return _read(file, file.stat().st_mtime_ns if file.exists() else None)


@functools.lru_cache(maxsize=4)
def _read(file: Path, changed: int | None) -> Config:
    try:
        table = _frozen(tomllib.loads("" if changed is None else file.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        advice = "It wants TOML; helpers/paper/example.toml shows every key."
        raise StudyError(f"cannot read {file}: {e}. {advice}") from e
    if isinstance(table.get("generators"), Mapping):
        table["generators"] = GENERATORS | table["generators"]
    try:
        return Config.model_validate(table, context=file.parent)
    except ValidationError as e:
        # A misspelt key explains what is missing, so it comes first.
        errors = sorted(e.errors(), key=lambda error: error["type"] != "extra_forbidden")
        raise _complaint(file, errors[0]) from e


def _frozen(value: object) -> Any:
    """The same with every list as a tuple, as the frozen settings have them."""
    if isinstance(value, Mapping):
        return {k: _frozen(v) for k, v in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _complaint(file: Path, error: Mapping[str, Any]) -> StudyError:
    """One line for an error that pydantic found in the file: key, value, and what is valid."""
    key, *inside = error["loc"]
    fields = Config.model_fields
    where = f"key of {file}"
    if key == "tasks" and len(inside) > 1:
        task, key = inside[:2]
        fields = Task.model_fields
        where = f"key of [tasks.{task}] in {file}"
    if error["type"] == "extra_forbidden":
        return unknown(where, key, fields)
    if error["type"] == "missing" and fields[key].is_required():
        layout = "the folder with train/<class>/*.jpg and test/<class>/*.jpg"
        return StudyError(f"{where}: {key} is missing; it names {layout}.")
    wanted = fields[key].description or fields[key].annotation.__name__
    return StudyError(f"{where}: {key} was given {error['input']!r}; it wants {wanted}.")
