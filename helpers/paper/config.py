"""Where weights, data and indices of the paper world lie: ``paper.toml`` in the folder ``$STUDY_PAPER``.

Every key is optional; without the file everything has the published name and lies in the folder
itself. Relative paths are relative to the folder. A name of weights is a folder or file here if
there is one, else a name on the Hugging Face hub (or, for ``clip``, a tag of open_clip), which must
be in the local cache: nothing is downloaded by surprise. Weights are safetensors.

    language_model = "meta-llama/Llama-2-7b-hf"    # hub name, or folder as transformers saves it
    clip = "laion2b_s34b_b88k"   # open_clip tag, file, or folder as on the hub or of models.clip.save
    drawn = 512                  # pixels: what the generator draws ...
    kept = 256                   # ... and what is kept of it
    laion = "laion"              # img2dataset shards: 00000.parquet beside 00000.tar
    index = "http://localhost:1234/knn-service"    # or a folder of clip-retrieval; without: built
    benchmarks = "benchmarks"    # torchvision's layouts; the probe sets as in helpers/paper/probes.py
    judge = "ViT-L-14/openai"    # judges images in notebook 06: open_clip's MODEL/TAG, MODEL/FILE,
                                 # or FOLDER
    checkpoints = [              # finished models that notebook 07 probes: family, source, name
        ["supervised", "retrieved", "timm/resnet50.a1_in1k"],    # a name that timm knows,
        ["supervised", "synthetic", "timm/resnet50/weights/clone.safetensors"],    # its architecture
        ["supervised", "synthetic", "timm/weights/clone"],       # with a file, or timm/FOLDER;
        ["language-supervised", "retrieved", "open_clip/ViT-B-16-quickgelu/openai"],    # likewise
    ]
    [generators]                 # name -> hub name, or folder as diffusers saves it
    "1.5" = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    [tasks.birds]                # your own task: birds/train/<class>/*.jpg, test/, and perhaps val/
    folder = "birds"
    classes = ["robin", "wren"]  # or a text file with a name per line; without: the folders' names
    noun = "bird"                # also: templates, backgrounds
    [world]                      # any setting of helpers/worlds.py
    tasks = ["aircraft", "birds"]
    finetune = { epochs = 10 }
"""

from __future__ import annotations

import functools
import hashlib
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from helpers.errors import StudyError, unknown
from helpers.worlds import World

FILE = "paper.toml"
GENERATORS = {
    "1.1": "CompVis/stable-diffusion-v1-1",
    "1.3": "CompVis/stable-diffusion-v1-3",
    "1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",  # the original repository was withdrawn
}


def here(folder: Path, name: str) -> str:
    """A path in the folder where there is one of this name, else the name: on a hub, or a service."""
    return str(folder / name) if (folder / name).exists() else name


def placed(folder: Path, name: str, say: Callable[[str], str] = str) -> str:
    """``name`` of a model, "FOLDER" or "MODEL/FILE", with what ``say`` makes of its absolute path.

    A name with no path that is there, such as "MODEL/TAG", stays as it is.
    """
    model, _, file = name.partition("/")
    if file and (folder / file).is_file():
        return f"{model}/{say(str(folder / file))}"
    return say(here(folder, name))


def identity(name: str) -> str:
    """What tells weights or data apart wherever they lie, for the keys of artifacts.

    Of a folder: a hash of the names and sizes of its files. Of a file: its name and size. Any other
    name, such as one on a hub, stays as it is.
    """
    path = Path(name)
    if path.is_absolute() and path.is_dir():
        return _listing(path, path.stat().st_mtime_ns)
    if path.is_absolute() and path.is_file():
        return f"{path.name}, {path.stat().st_size} bytes"
    return name


@functools.lru_cache(maxsize=64)
def _listing(folder: Path, changed: int) -> str:
    files = [p for p in folder.rglob("*") if p.is_file()]
    sizes = sorted((str(p.relative_to(folder)), p.stat().st_size) for p in files)
    return hashlib.sha256(repr(sizes).encode()).hexdigest()[:12]


# Types of settings: the folder $STUDY_PAPER is the context in which they are read.
Inside = Annotated[
    Path, Field(strict=False), AfterValidator(lambda path, info: info.context / path)
]
Name = Annotated[str, AfterValidator(lambda name, info: here(info.context, name))]
Names = Annotated[tuple[str, ...], Field(description="a list of names")]


class _Table(BaseModel):
    """A table of the file. Values that cannot be are told by the descriptions of the fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


class Task(_Table):
    """A task of the user's own: a folder with ``train``, ``test`` and perhaps ``val``."""

    folder: Inside
    classes: tuple[str, ...] | Name = Field((), description="a list of names or a text file")
    noun: str = "object"
    templates: Names = ("a photo of a {}.", "a photo of the {}.")
    backgrounds: Names = ()  # for captions; none: everyday places


class Config(_Table):
    """``paper.toml`` with paths made absolute; the defaults are the published choices."""

    language_model: Name = "meta-llama/Llama-2-7b-hf"  # base weights [C]
    generators: dict[str, Name] = Field({}, description="a table of names")
    drawn: int = 512  # pixels [C]
    kept: int = 256  # pixels [C]
    clip: Name = "laion2b_s34b_b88k"  # of the architecture in World.clip.model [P]
    laion: Inside = Path("laion")
    index: Name | None = Field(None, description="str")
    benchmarks: Inside = Path("benchmarks")
    judge: str = "ViT-L-14/openai"  # neither finetuned nor a filter, and trained on other data
    checkpoints: tuple[tuple[str, str, str], ...] = Field(
        (), description="a tuple of tuples (family, source, name)"
    )  # none: those of RobustnessSettings
    tasks: dict[str, Task] = Field({}, description="a table")
    world: dict[str, Any] = Field({}, description="a table")  # settings to replace

    @field_validator("generators", mode="before")
    @classmethod
    def _with_the_published(cls, table: object) -> object:
        return {**GENERATORS, **table} if isinstance(table, dict) else table

    @field_validator("judge")
    @classmethod
    def _placed(cls, name: str, info: ValidationInfo) -> str:
        return placed(info.context, name)


def root() -> Path:
    """``$STUDY_PAPER``. Raises ``StudyError`` when it is not set or not there."""
    path = os.environ.get("STUDY_PAPER", "")
    if not path or not Path(path).is_dir():
        raise StudyError(
            f"the paper world reads {FILE}, weights and data from the folder in $STUDY_PAPER (now "
            f"{path or 'not set'!r}). Make one, then: python -m helpers.run paper --check   "
            "Without data: python -m helpers.run pocket"
        )
    return Path(path).resolve()


def settings() -> Config:
    """The configuration in ``$STUDY_PAPER``.

    Raises ``StudyError`` on a missing folder, an unknown key or a wrong type.
    """
    file = root() / FILE
    return _read(file, file.stat().st_mtime_ns if file.exists() else None)


@functools.lru_cache(maxsize=4)
def _read(file: Path, changed: int | None) -> Config:
    try:
        table = tomllib.loads(file.read_text()) if changed is not None else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise StudyError(
            f"cannot read {file}: {e}. It wants TOML; helpers/paper/config.py shows every key."
        ) from e
    try:
        return Config.model_validate(_frozen(table), context=file.parent)
    except ValidationError as e:
        # A misspelt key explains what is missing, so it comes first.
        errors = sorted(e.errors(), key=lambda error: error["type"] != "extra_forbidden")
        raise _complaint(file, errors[0]["type"], errors[0]["loc"], errors[0]["input"]) from e


def _frozen(value: object) -> object:
    """The same with every list as a tuple, as the frozen settings have them."""
    if isinstance(value, Mapping):
        return {k: _frozen(v) for k, v in value.items()}
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _complaint(file: Path, kind: str, place: tuple, value: object) -> StudyError:
    """One line on what is wrong in the file: pydantic's kind of error, its place, what is there."""
    table, where, key = Config, str(file), place[0]
    if key == "tasks" and len(place) > 2:
        table, where, key = Task, f"[tasks.{place[1]}] in {file}", place[2]
    if kind == "extra_forbidden":
        return unknown(f"key of {where}", key, table.model_fields)
    if kind == "missing" and key == "folder":
        return StudyError(
            f"key of {where}: folder is missing; it names the folder with train/<class>/*.jpg and "
            "test/<class>/*.jpg."
        )
    field = table.model_fields[key]
    wanted = field.description or field.annotation.__name__
    return StudyError(f"key of {where}: {key} was given {value!r}; it wants {wanted}.")


def checkpoint(w: World, name: str, say: Callable[[str], str] = str) -> str:
    """The name of a finished model (``checkpoints.load``), with what ``say`` makes of a path in it.

    The path may be relative to ``$STUDY_PAPER``; ``say`` gets the absolute one.
    """
    library, _, rest = name.partition("/")
    return f"{library}/{placed(root(), rest, say)}" if rest else name


def clip_folder(w: World) -> Path:
    """The folder that ``clip`` names: weights, configuration and tokenizer."""
    return Path(settings().clip)
