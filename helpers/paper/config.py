"""Where weights, data and indices of the paper world lie: ``paper.toml`` in ``$STUDY_PAPER``.

Every key is optional (helpers/paper/example.toml has all); the defaults are the published names.
"""

from __future__ import annotations

import functools
import hashlib
import html
import io
import os
import re
import stat
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from helpers.data.pictures import files_below
from helpers.engine import places
from helpers.errors import StudyError, unknown
from helpers.worlds import World

FILE = "paper.toml"
GENERATORS = {
    "1.1": "CompVis/stable-diffusion-v1-1",
    "1.3": "CompVis/stable-diffusion-v1-3",
    "1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",  # the original repository was withdrawn
}
LARGEST = 2**24  # bytes of a text file; 20,000 names take a fiftieth of it
PLAIN = {
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-"),
    **dict.fromkeys(map(ord, "\u2018\u2019\u02bc\u00b4"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d"), '"'),
    **dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff\0"), ""),  # never seen
}


def text_of(file: Path) -> str:
    """A text file in UTF-8, with or without a byte-order mark. Raises ``StudyError`` otherwise."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise StudyError(f"{file} is a folder, pipe or device. It has to be a text file.")
        if file.stat().st_size > LARGEST:
            raise StudyError(f"{file} is larger than {LARGEST:,} bytes, so no list or table.")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise StudyError(f"{file} is not in UTF-8 (Latin-1 or UTF-16?); save it as UTF-8.") from e
    except OSError as e:
        raise StudyError(f"cannot read {file}: {e.strerror}. It is a text file in UTF-8.") from e


def table_of(file: Path, *columns: str) -> pd.DataFrame:
    """These columns of a CSV file, as text. Raises ``StudyError`` where one is not there."""
    wanted = f"it wants the header {','.join(columns)} and a row per class"
    try:
        options = {"dtype": str, "keep_default_na": False, "skipinitialspace": True}
        table = pd.read_csv(io.StringIO(text_of(file)), **options)
    except ValueError as e:
        raise StudyError(f"{file} is no table ({str(e).strip()}); {wanted}.") from e
    if not {*columns} <= {*table} or not isinstance(table.index, pd.RangeIndex):
        raise StudyError(f"{file} has the columns {', '.join(map(repr, table))}; {wanted}.")
    return table[list(columns)]


def spelt(name: str) -> str:
    """A name as it is kept: composed characters (NFC), plain spaces, hyphens and quotes, no HTML
    entities, nothing invisible.
    """
    return " ".join(unicodedata.normalize("NFC", html.unescape(name)).translate(PLAIN).split())


def identifier(name: str) -> str:
    """What names share that a folder or a text does not tell apart: all but case, spaces, "-_/"."""
    return " ".join(re.findall(r"[^\s_/-]+", spelt(name).casefold()))


def class_names(given: Iterable[str], where: object) -> tuple[str, ...]:
    """Names as ``spelt``, in order. Raises ``StudyError`` on fewer than two, one without a letter
    or digit, and two of one ``identifier``.
    """
    first: dict[str, str] = {}
    for name in map(spelt, given):
        if not re.search(r"[^\W_]", name) or re.search("[\ud800-\udfff]", name):
            raise StudyError(f"{where}: {name!r} is no class name; it wants letters or digits.")
        if (key := identifier(name)) in first:
            both = f"{first[key]!r} and {name!r} are one name to a folder or a text"
            raise StudyError(f"{where}: {both}; merge the classes, or rename one.")
        first[key] = name
    if len(first) < 2:
        raise StudyError(f"{where}: {len(first)} classes; a task tells at least two apart.")
    return tuple(first.values())


def here(folder: Path, name: str) -> str:
    """The path of ``name`` in the folder if it is there, else the name: on a hub, or a service."""
    return str(folder / name) if os.access(folder / name, os.F_OK) else name


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
    """What tells weights or data apart wherever they lie, for the keys of artifacts: names and
    sizes of a folder's files (hashed), of a file and those of its stem, or another name as it is.
    """
    path = Path(name)
    if not path.is_absolute() or not os.access(path, os.R_OK):
        return name
    if path.is_dir():
        return _listing(path, path.stat().st_mtime_ns)
    beside = sorted(f for f in path.parent.iterdir() if f.stem == path.stem and f.is_file())
    return ", ".join(f"{file.name} of {file.stat().st_size} bytes" for file in beside)


@functools.lru_cache(maxsize=64)
def _listing(folder: Path, changed: int) -> str:
    files = [p for p in files_below(folder) if p.is_file()]
    sizes = sorted((str(p.relative_to(folder)), p.stat().st_size) for p in files)
    return hashlib.sha256(repr(sizes).encode()).hexdigest()[:12]


def _path(name: Path | str, at: ValidationInfo) -> Path:
    """``name`` in the folder that is the context; ``ValueError`` where no file can have it."""
    path = os.path.normpath(at.context / name)  # a ".." would look as if it led out of a pool
    if "\0" in path or len(path) > 4_000 or max(map(len, os.fsencode(path).split(b"/"))) > 255:
        raise ValueError("no file can have that name")
    return Path(path)


# Types of settings; they are read in the context of the folder $STUDY_PAPER.
NAMED = Field(strict=False, description="str, a name that a file can have")
Inside = Annotated[Path, NAMED, AfterValidator(_path)]
Text = Annotated[str, NAMED, AfterValidator(lambda name, at: _path(name, at) and name)]
Name = Annotated[Text, AfterValidator(lambda name, at: here(at.context, name))]
Model = Annotated[Text, AfterValidator(lambda name, at: placed(at.context, name))]
Pixels = Annotated[int, Field(ge=1, le=8_192, description="int, from 1 to 8,192 pixels")]
Word = Annotated[str, Field(pattern=r"\w")]
Template = Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]
Checkpoints = tuple[tuple[str, str, Text], ...]


def _listed(classes: tuple[str, ...] | str, folder: Path) -> tuple[str, ...]:
    """Class names as they are kept, listed or in a text file; () for those of the folders."""
    if isinstance(classes, tuple):
        return class_names(classes, folder / FILE) if classes else ()
    file = folder / classes
    return class_names(filter(str.strip, text_of(file).splitlines()), file)


class _Table(BaseModel):
    """A table of the file; a field's description says what its values can be."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


class Task(_Table):
    """A task of the user's own: a folder with ``train``, ``test`` and perhaps ``val``."""

    folder: Inside
    classes: Annotated[
        tuple[str, ...] | Text, AfterValidator(lambda names, at: _listed(names, at.context))
    ] = Field((), description="a list of names or a text file")
    noun: Word = Field("object", description="a noun, such as bird")
    templates: tuple[Template, ...] = Field(
        ("a photo of a {}.", "a photo of the {}."),
        min_length=1,
        description="a list of texts with one {} each, for the class name",
    )
    backgrounds: tuple[Word, ...] = Field((), description="a list of places")


class Config(_Table):
    """``paper.toml`` with paths made absolute; the defaults are the published choices."""

    language_model: Name = "meta-llama/Llama-2-7b-hf"  # base weights [C]
    generators: dict[str, Name] = Field(GENERATORS, description="a table of names of folders")
    drawn: Pixels = 512  # pixels [C]
    kept: Pixels = 256  # pixels [C]
    clip: Name = "laion2b_s34b_b88k"  # of the architecture in World.clip.model [P]
    laion: Inside = Path("laion")
    index: Annotated[Name | None, NAMED] = None
    benchmarks: Inside = Path("benchmarks")
    judge: Model = "ViT-L-14/openai"  # neither finetuned nor a filter, and trained on other data
    # without any: those of RobustnessSettings
    checkpoints: Checkpoints = Field((), description="a tuple of tuples (family, source, name)")
    tasks: dict[Annotated[str, Field(pattern=r"^\w[\w-]*$")], Task] = Field(
        {}, description="a table with names of letters, digits, - and _"
    )
    world: dict[str, Any] = Field({}, description="a table")  # settings to replace


def root() -> Path:
    """``$STUDY_PAPER``, seen from the folder of the package; ``StudyError`` if it is not there."""
    given = os.environ.get("STUDY_PAPER", "")
    path = places.TOP / given
    if not given or not os.access(f"{path}/", os.R_OK | os.X_OK):  # a folder that may be entered
        problem = f"the paper world reads {FILE}, weights and data from the folder in $STUDY_PAPER"
        advice = "Make one, then: python -m helpers.run paper --check   Without data: take pocket"
        raise StudyError(f"{problem} (now {str(path) if given else 'not set'!r}). {advice}")
    return path.resolve()


def settings() -> Config:
    """The configuration; ``StudyError`` on a missing folder, an unknown key or a wrong type."""
    file = root() / FILE
    return _read(file, file.stat().st_mtime_ns if file.exists() else None)


@functools.lru_cache(maxsize=4)
def _read(file: Path, changed: int | None) -> Config:
    try:
        table = _frozen(tomllib.loads("" if changed is None else text_of(file)))
    except (tomllib.TOMLDecodeError, RecursionError) as e:
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
    if key == "tasks" and inside[1:] not in ([], ["[key]"]):
        task, key = inside[:2]
        fields = Task.model_fields
        where = f"key of [tasks.{task}] in {file}"
    if error["type"] == "extra_forbidden":
        return unknown(where, key, fields)
    if error["type"] == "missing" and fields[key].is_required():
        layout = "the folder with train/<class>/*.jpg and test/<class>/*.jpg"
        return StudyError(f"{where}: {key} is missing; it names {layout}.")
    wanted = fields[key].description or fields[key].annotation.__name__
    return StudyError(f"{where}: {key} was given {error['input']!r:.200}; it wants {wanted}.")
