"""Where weights, data and indices of the paper world lie: ``paper.toml`` in the folder ``$STUDY_PAPER``.

Every key is optional; without the file everything has the published name and lies in the folder itself. Relative paths are
relative to the folder. A name of weights is a folder or file here if there is one, else a name on the Hugging Face hub (or,
for ``clip``, a tag of open_clip), which must be in the local cache: nothing is downloaded by surprise. Weights are safetensors.

    language_model = "meta-llama/Llama-2-7b-hf"    # hub name, or folder as transformers saves it
    language_engine = "transformers"               # or "vllm", an extra: pip install vllm
    clip = "laion2b_s34b_b88k"                     # open_clip tag, file, or folder as on the hub or as helpers.models.clip.save leaves it
    drawn = 512                                    # pixels: what the generator draws ...
    kept = 256                                     # ... and what is kept of it
    laion = "laion"                                # img2dataset shards: 00000.parquet beside 00000.tar
    index = "http://localhost:1234/knn-service"    # or a folder of clip-retrieval; without: built from the shards
    benchmarks = "benchmarks"                      # torchvision's layouts; the probe sets of notebook 07 as in helpers/paper/probes.py
    judge = "ViT-L-14/openai"                      # CLIP that judges images in notebook 06: MODEL/TAG of open_clip, MODEL/FILE, or FOLDER
    checkpoints = [                                # finished models that notebook 07 probes: family, source of its images, name
        ["supervised", "retrieved", "timm/resnet50.a1_in1k"],                       # retrieved: real images; a name that timm knows,
        ["supervised", "synthetic", "timm/resnet50/weights/clone.safetensors"],     # its architecture with a file, or timm/FOLDER
        ["language-supervised", "retrieved", "open_clip/ViT-B-16-quickgelu/openai"],    # the same for open_clip
        ["language-supervised", "synthetic", "open_clip/weights/synclip"],          # a folder as the hub has it
    ]
    [generators]                                   # name -> hub name, or folder as diffusers saves it
    "1.5" = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    [tasks.birds]                                  # your own task: birds/train/<class>/*.jpg, test/, and val/ if there is one
    folder = "birds"
    classes = ["robin", "wren"]                    # or a text file with a name per line; without: the folders' names
    noun = "bird"                                  # also: templates, backgrounds
    [world]                                        # any setting of helpers/worlds.py
    tasks = ["aircraft", "birds"]
    finetune = { epochs = 10 }
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helpers import worlds
from helpers.errors import StudyError, unknown
from helpers.models import checkpoints
from helpers.worlds import World

FILE = "paper.toml"
GENERATORS = {
    "1.1": "CompVis/stable-diffusion-v1-1",
    "1.3": "CompVis/stable-diffusion-v1-3",
    "1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}  # the original 1.5 repository was withdrawn


@dataclass(frozen=True)
class Task:
    """A task of the user's own: a folder with ``train``, ``test`` and perhaps ``val``, each with a folder per class."""

    folder: Path
    classes: (
        tuple[str, ...] | str
    ) = ()  # names in the order of the labels; a text file; none: the folders of ``train``
    noun: str = "object"
    templates: tuple[str, ...] = ("a photo of a {}.", "a photo of the {}.")
    backgrounds: tuple[str, ...] = ()  # for captions; none: a list of everyday places


@dataclass(frozen=True)
class Config:
    """What ``paper.toml`` says, paths resolved; the defaults are the published choices ([P] section 3, [C])."""

    language_model: str = "meta-llama/Llama-2-7b-hf"  # base weights [C]
    language_engine: str = (
        "transformers"  # or "vllm", where it is installed: other random numbers, so other captions
    )
    generators: Mapping[str, str] = field(default_factory=lambda: dict(GENERATORS))
    drawn: int = 512  # pixels [C]
    kept: int = 256  # pixels [C]
    clip: str = "laion2b_s34b_b88k"  # of the architecture in World.clip.model [P]
    laion: Path = Path("laion")
    index: str | None = None
    benchmarks: Path = Path("benchmarks")
    judge: str = "ViT-L-14/openai"  # not the CLIP that is adapted and that filters, and trained on other data
    checkpoints: tuple[tuple[str, str, str], ...] = ()  # none: those of RobustnessSettings
    tasks: Mapping[str, Task] = field(default_factory=dict)
    world: Mapping[str, object] = field(
        default_factory=dict
    )  # settings of helpers/worlds.py to replace


def root() -> Path:
    """``$STUDY_PAPER``. Raises ``StudyError`` when it is not set or not there."""
    path = os.environ.get("STUDY_PAPER", "")
    if not path or not Path(path).is_dir():
        raise StudyError(
            f"the paper world reads {FILE}, weights and data from the folder in $STUDY_PAPER (now {path or 'not set'!r}). "
            "Make one, then: python -m helpers.run paper --check   Without data: python -m helpers.run pocket"
        )
    return Path(path).resolve()


def settings() -> Config:
    """The configuration in ``$STUDY_PAPER``. Raises ``StudyError`` on a missing folder, an unknown key or a wrong type."""
    folder = root()
    file = folder / FILE
    return _read(folder, file.stat().st_mtime_ns if file.exists() else None)


@functools.lru_cache(maxsize=4)
def _read(folder: Path, changed: int | None) -> Config:
    file, given = folder / FILE, {}
    if changed is not None:
        try:
            given = tomllib.loads(file.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise StudyError(
                f"cannot read {file}: {e}. It wants TOML; helpers/paper/config.py shows every key."
            ) from e
    made = _checked(Config, given, f"key of {file}")
    tasks = {
        name: _task(folder, name, _checked(Task, table, f"key of [tasks.{name}] in {file}"))
        for name, table in made.tasks.items()
    }
    return dataclasses.replace(
        made,
        tasks=tasks,
        laion=folder / made.laion,
        benchmarks=folder / made.benchmarks,
        clip=_here(folder, made.clip),
        judge=placed(folder, made.judge),
        language_model=_here(folder, made.language_model),
        index=made.index and _here(folder, made.index),
        generators={
            name: _here(folder, path) for name, path in {**GENERATORS, **made.generators}.items()
        },
    )


def _task(folder: Path, name: str, task: Task) -> Task:
    named = _here(folder, task.classes) if isinstance(task.classes, str) else task.classes
    return dataclasses.replace(task, folder=folder / task.folder, classes=named)


def _here(folder: Path, name: str) -> str:
    """A path in the folder where there is one of this name, else the name: that of something on a hub, or a service."""
    return str(folder / name) if (folder / name).exists() else name


def placed(folder: Path, name: str) -> str:
    """``name`` of a model, with its path made absolute where it is "FOLDER" or "MODEL/FILE" and that is there."""
    model, _, file = name.partition("/")
    return f"{model}/{folder / file}" if file and (folder / file).is_file() else _here(folder, name)


def checkpoint(w: World, name: str) -> str:
    """The name of a finished model (``checkpoints.load``), with a path in it that is relative to ``$STUDY_PAPER`` made absolute."""
    library, slash, rest = name.partition("/")
    return library + slash + placed(root(), rest) if rest else name


def _checked(kind: type, given: object, what: str):
    """A ``Config`` or ``Task`` of what a table of the file holds; lists become tuples, names of paths paths."""
    if not isinstance(given, Mapping):
        raise StudyError(
            f"{what}: a table was expected, not {given!r}; helpers/paper/config.py shows every key."
        )
    known = {f.name: str(f.type) for f in dataclasses.fields(kind)}
    values = {}
    for key, value in given.items():
        if key not in known:
            raise unknown(what, key, known)
        valid = (
            Mapping
            if "Mapping" in known[key]
            else int
            if known[key] == "int"
            else (str, list, tuple)
            if key == "classes"
            else (list, tuple)
            if "tuple" in known[key]
            else str
        )
        if not isinstance(value, valid) or isinstance(value, bool):
            raise StudyError(
                f"{what}: {key} was given {value!r}; it wants {known[key].replace('Mapping', 'a table')}."
            )
        values[key] = Path(value) if known[key] == "Path" else hashable(value)
    if kind is Task and "folder" not in values:
        raise StudyError(
            f"{what}: folder is missing; it names the folder with train/<class>/*.jpg and test/<class>/*.jpg."
        )
    return kind(**values)


def hashable(value):
    """The same with every list as a tuple, which is how the frozen settings keep lists."""
    if isinstance(value, Mapping):
        return {k: hashable(v) for k, v in value.items()}
    return tuple(hashable(v) for v in value) if isinstance(value, list) else value


def configured(w: World) -> World:
    """The paper world as the user configured it: own tasks added, settings of ``[world]`` replaced, CLIP's weights named.

    Without ``$STUDY_PAPER`` it is the published world. Raises ``StudyError`` on settings that do not exist.
    """
    if not os.environ.get("STUDY_PAPER"):
        return w
    s = settings()
    pretrained = (
        {"model": "upstream", "pretrained": identity(s.clip)}
        if Path(s.clip).is_dir()
        else {"pretrained": s.clip}
    )
    w = worlds.replace(
        w, tasks=(*w.tasks, *(t for t in s.tasks if t not in w.tasks)), clip=pretrained
    )
    w = worlds.replace(
        w, **({"robustness": {"checkpoints": s.checkpoints}} if s.checkpoints else {})
    )
    w = worlds.replace(w, **s.world)
    checkpoints.checked(w.robustness.checkpoints)
    for task in w.tasks:
        if task not in (*worlds.WORLDS[w.name].tasks, *s.tasks):
            raise unknown(
                f"task in [world] of {root() / FILE}",
                task,
                (*worlds.WORLDS[w.name].tasks, *s.tasks),
            )
    return w


def identity(name: str) -> str:
    """A name on a hub as it is; a folder as a hash of the names and sizes of its files, a file as name and size, wherever they lie.

    The same for "MODEL/FILE", "LIBRARY/FOLDER" and "LIBRARY/MODEL/FILE".
    """
    for before, path in (
        ("", name),
        *((name[: i + 1], name[i + 1 :]) for i, letter in enumerate(name) if letter == "/"),
    ):
        if Path(path).is_absolute() and Path(path).is_dir():
            return before + _listing(path, Path(path).stat().st_mtime_ns)
        if Path(path).is_absolute() and Path(path).is_file():
            return f"{before}{Path(path).name}, {Path(path).stat().st_size} bytes"
    return name


@functools.lru_cache(maxsize=64)
def _listing(folder: str, changed: int) -> str:
    files = sorted(
        (str(p.relative_to(folder)), p.stat().st_size)
        for p in Path(folder).rglob("*")
        if p.is_file()
    )
    return hashlib.sha256(repr(files).encode()).hexdigest()[:12]


def clip_folder(w: World) -> Path:
    """The folder that ``clip`` in paper.toml names: weights, configuration and tokenizer (``clip.load_folder``)."""
    return Path(settings().clip)
