"""Public benchmarks, and tasks of the user's own, from folders here."""

from __future__ import annotations

import collections
import difflib
import functools
import itertools
from collections import namedtuple
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data import pictures
from helpers.data.shards import Lazy
from helpers.data.tables import Benchmark, Split
from helpers.engine import gpu, progress
from helpers.engine.late import torch
from helpers.errors import StudyError, unknown
from helpers.measure.metrics import PUBLISHED
from helpers.models import clip
from helpers.paper import config
from helpers.paper.pools import open_pool  # noqa: F401 - the seam's name for it is older
from helpers.worlds import World

# Noun, number of classes, torchvision's name, where it looks, and where that comes from.
Public = namedtuple("Public", "noun classes dataset folder source backgrounds", defaults=[()])
OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
AIRCRAFT = f"{OXFORD}/fgvc-aircraft"
CARS = "the Stanford Cars archives (mirrors only)"
IMAGENET = "https://image-net.org (an account is needed)"
PUBLIC = {
    "aircraft": Public("aircraft", 100, "FGVCAircraft", "fgvc-aircraft-2013b", AIRCRAFT),
    "cars": Public("car", 196, "StanfordCars", "stanford_cars", CARS),
    "flowers": Public("flower", 102, "Flowers102", "flowers-102", f"{OXFORD}/flowers/102"),
    "dtd": Public("texture", 47, "DTD", "dtd", f"{OXFORD}/dtd"),
    "imagenet": Public("object", 1_000, "ImageNet", "imagenet", IMAGENET),
}
THINGS = list(itertools.product(("a", "the"), ("texture", "pattern", "thing", "object")))
# CLIP's own templates [P]; ImageNet's 80 come from open_clip. [C] has longer lists for heads and
# shorter ones for its filter.
TEMPLATES = {
    "aircraft": ("a photo of a {}, a type of aircraft.", "a photo of the {}, a type of aircraft."),
    "cars": (
        *("a photo of a {}.", "a photo of the {}.", "a photo of my {}.", "i love my {}!"),
        *(f"a photo of my {kind} {{}}." for kind in ("dirty", "clean", "new", "old")),
    ),
    "flowers": ("a photo of a {}, a type of flower.",),
    "dtd": tuple(f"a photo of {article} {{}} {thing}." for article, thing in THINGS),
}
AIRPORTS = ("runway", "hangar", "airport")
LANDSCAPES = ("sky", "sunset", "sea", "mountains", "city", "meadow", "road", "garden", "forest")
BACKGROUNDS = (*AIRPORTS, *LANDSCAPES)
LITTER = ("Thumbs.db", "desktop.ini")  # of other systems
SPELLINGS = {  # of the folders of an own task, in any case
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLITS = tuple(SPELLINGS)
CARS_TEST = "cars_test_annos_withlabels.mat"
LISTS = {  # what torchvision reads, in the folder of each
    "FGVCAircraft": ("data/variants.txt", *(f"data/images_variant_{s}.txt" for s in SPLITS)),
    "StanfordCars": ("devkit/cars_meta.mat", "devkit/cars_train_annos.mat", CARS_TEST),
    "Flowers102": ("imagelabels.mat", "setid.mat"),
    "DTD": tuple(f"dtd/labels/{split}1.txt" for split in SPLITS),
}
SEED = 42  # of the splits that are cut from train [C]
IMAGENET_VALIDATION = 50_000  # images [P]
Listed = dict[str, tuple[Sequence, Sequence]]  # split -> image files and labels


class Decoded:
    """Image files as an array (n, side, side, 3) uint8, decoded by threads when asked for.

    The centre square, resized bicubically as in CLIP's validation transform; ``reduced``: JPEGs are
    decoded at the smallest scale that is large enough, which is faster and a little softer.
    """

    def __init__(self, files: Iterable[str | Path], side: int, reduced: bool = True):
        self.files = np.array([str(f) for f in files], object)
        self.side = side
        self.reduced = reduced

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows) -> np.ndarray:
        files = [Path(file) for file in self.files[rows]]
        read = functools.partial(pictures.rgb, side=self.side, reduced=self.reduced)
        images = list(_threads().map(read, files))
        return np.stack(images) if images else np.zeros((0, self.side, self.side, 3), np.uint8)


_threads = functools.cache(lambda: ThreadPoolExecutor(gpu.cores()))


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Those of ``paths`` that are images, and those below folders among them, in order of name.

    Says how many files of other endings are left out; names that begin with a dot do not count.
    """
    paths = [path for path in paths if path.name[0] != "."]
    files: set[Path] = set()
    for path in paths:
        files |= set(pictures.files_below(path)) if path.is_dir() else {path}
    visible = [file for file in files if file.name not in LITTER]
    found = sorted(file for file in visible if file.suffix.lower() in pictures.ENDINGS)
    others = collections.Counter(file.suffix.lower() or file.name for file in visible)
    others = {ending: n for ending, n in others.items() if ending not in pictures.ENDINGS}
    if others:
        counts = ", ".join(f"{n} {ending}" for ending, n in sorted(others.items()))
        folder = min(visible).parent
        progress.say(f"images: left out of {folder} as they are none that can be read: {counts}")
    return found


def benchmark(w: World, task: str) -> Benchmark:
    """A public benchmark, or a task of the user's own; ``StudyError`` where it is not."""
    known = (*w.tasks, w.robustness.task)  # finished checkpoints are probed on the latter
    if task not in known:
        raise unknown(f"task in world {w.name!r}", task, known)
    return _benchmark(config.root(), task, w.image_size)


@functools.lru_cache(maxsize=8)
def _benchmark(root: Path, task: str, side: int) -> Benchmark:
    s = config.settings()
    about = s.tasks.get(task) or PUBLIC[task]
    folder = s.benchmarks / about.folder  # that of an own task is absolute
    if task in s.tasks:
        names = about.classes or _subfolders(_split(folder, "train"))
        templates = about.templates
        listed = _folders(folder, names, SPLITS)
    elif task == "imagenet":
        wnids, names = imagenet(folder)
        templates = clip.imagenet()[1]
        listed = _folders(folder, wnids, ("train", "val"))
        listed["test"] = listed.pop("val")
    else:
        templates = TEMPLATES[task]
        names, listed = _published(about, s.benchmarks)
    classes = config.class_names(names, folder)
    splits = {}
    for name, (files, numbers) in listed.items():
        labels = np.array(numbers, np.int64)
        facts = pd.DataFrame({"class": np.array(classes, object)[labels]})
        splits[name] = Split(Lazy(Decoded(files, side)), labels, facts)
    if "val" not in splits:
        splits |= _cut(splits["train"], own=task in s.tasks)
    if not len(splits["val"]):
        raise StudyError(f"{folder}: too few images to cut val from train; give it a folder val.")
    domain = f"a photo of {'an' if about.noun[0].lower() in 'aeiou' else 'a'} {about.noun}"
    texts = (about.noun, domain, templates, about.backgrounds or BACKGROUNDS)
    details = pd.DataFrame(index=list(classes))
    return Benchmark(task, classes, *texts, details, *(splits[name] for name in SPLITS))


def _published(about: Public, folder: Path) -> tuple[tuple[str, ...], Listed]:
    """Classes and splits as torchvision has them. Raises ``StudyError`` where lists are missing or
    damaged, or list images that are not there.
    """
    import torchvision

    lists = [folder / about.folder / file for file in LISTS[about.dataset]]
    load = getattr(torchvision.datasets, about.dataset)
    cars = about.dataset == "StanfordCars"
    listed, classes = {}, []
    try:
        if [f for f in lists if f.stat().st_size > config.LARGEST or not f.is_file()]:
            raise ValueError(f"its lists are no files, or have over {config.LARGEST:,} bytes")
        for name in ("train", "test") if cars else SPLITS:
            data = load(str(folder), split=name, download=False)
            pairs = data._samples if cars else zip(data._image_files, data._labels, strict=True)
            listed[name] = files, labels = tuple(zip(*pairs, strict=True))
            if absent := [file for file in files if not Path(file).is_file()]:
                raise ValueError(f"{len(absent)} images of {name} are missing, as {absent[0]}")
            if not 0 <= min(labels) <= max(labels) < len(data.classes):
                raise ValueError(f"{name} has labels of no class")
            classes.append(data.classes)
        if classes[1:] != classes[:-1]:
            raise ValueError("its splits have different classes")
    except Exception as e:  # readers of such files raise all kinds
        reason = f"{type(e).__name__}: {' '.join(str(e).split()).rstrip('.')}"
        layout = f"in torchvision's layout ({about.folder}/), from {about.source}"
        advice = f"Put it there {layout}, or name another folder as benchmarks in {config.FILE}"
        raise StudyError(f"cannot read {about.dataset} in {folder} ({reason}). {advice}.") from e
    return tuple(classes[0]), listed


def imagenet(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """WordNet ids and names of the classes: the table ``classes.csv`` (wnid,name) of a part of
    ImageNet, or its 1,000 folders. Raises ``StudyError`` when ``train`` has other folders.
    """
    part = folder / "classes.csv"
    if part.exists():
        table = config.table_of(part, "wnid", "name")
        return config.class_names(table["wnid"], part), config.class_names(table["name"], part)
    wnids = tuple(name for name in _subfolders(folder / "train") if name[0] == "n")
    names = clip.imagenet()[0]
    if len(wnids) != len(names):
        problem = f"{folder} is not ImageNet: train/ has {len(wnids)} folders n*, not 1,000"
        advice = f"Unpack it in torchvision's layout, from {IMAGENET}; of a part, list wnid,name in"
        raise StudyError(f"{problem}. {advice} {part}.")
    return wnids, names


def _subfolders(folder: Path) -> list[str]:
    names = (path.name for path in folder.glob("*") if path.is_dir())
    return sorted(name for name in names if not name.startswith(pictures.HIDDEN))


def _split(folder: Path, split: str, needed: bool = True) -> Path | None:
    """A split's folder by any usual name, in any case; ``StudyError`` unless there is one."""
    found = [folder / name for name in _subfolders(folder) if name.lower() in SPELLINGS[split]]
    if len(found) > 1:
        raise StudyError(f"both {found[0]} and {found[1]} could be {split}; keep one of them.")
    if not found and needed:
        packed = [path.name for path in folder.glob(f"{split}.*")]
        there = f" but {packed[0]}, which has to be unpacked" if packed else ""
        example = folder / split / "class" / "any.jpg"
        raise StudyError(f"no images of {split} in {folder}{there}: it should have {example}.")
    return found[0] if found else None


def _folders(folder: Path, names: Sequence[str], splits: Sequence[str]) -> Listed:
    """The images ``folder/SPLIT/NAME/**``, names in order of the labels; ``val`` may lack."""
    labels = {config.identifier(name): label for label, name in enumerate(names)}
    listed = {}
    for split in splits:
        top = _split(folder, split, needed=split != "val" or "test" not in splits)
        if top is None:
            continue
        found: dict[int, str] = {}  # label -> folder
        for name in _subfolders(top):
            label = labels.get(config.identifier(name))
            if label is None:
                close = difflib.get_close_matches(name, names, 5) or names[:5]
                raise unknown(f"class folder in {top}", name, close)
            if found.setdefault(label, name) != name:
                both = f"{found[label]!r} and {name!r} are both {names[label]!r}"
                raise StudyError(f"{top}: {both}; merge the folders, or rename one.")
        label_of = {name: label for label, name in found.items()}
        files = image_files([top])
        folders = [file.relative_to(top).parts[0] for file in files]
        kept = [file for file, name in zip(files, folders, strict=True) if name in label_of]
        numbers = np.array([label_of[name] for name in folders if name in label_of], np.int64)
        empty = [names[label] for label in sorted({*range(len(names))} - {*numbers.tolist()})]
        some = ", ".join(empty[:5])
        if not kept or (empty and split == "train"):
            wanted = f"every class needs some, in {top / 'CLASS'}, or leave it out"
            lack = f"for {some} ({len(empty)} classes)" if names else "in folders of classes"
            raise StudyError(f"{top} has no images {lack}; {wanted}.")
        if len(kept) < len(files):
            progress.say(f"{top}: {len(files) - len(kept)} images outside class folders left out")
        if empty:
            progress.say(f"{top} has no images for {some}; {split} lacks {len(empty)} classes")
        order = np.argsort(numbers, kind="stable")
        listed[split] = ([kept[i] for i in order], numbers[order])
    return listed


def _cut(train: Split, own: bool) -> dict[str, Split]:
    """``train`` and ``val`` cut from train, 80 / 20 by a seed [C]. Of an ``own`` task an image of
    each class stays in train; otherwise val has at most as many as that of ImageNet.
    """
    n = len(train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SEED)).numpy()
    in_val = np.arange(n) >= n - min(n - int(0.8 * n), n if own else IMAGENET_VALIDATION)
    if own:
        in_val[np.unique(train.labels[order], return_index=True)[1]] = False
    return {"train": train.take(order[~in_val]), "val": train.take(order[in_val])}


def published(w: World) -> pd.DataFrame:
    """Published accuracy (0..1), loss (nats) and ECE on ImageNet validation images, of checkpoints
    of *Scaling Laws of Synthetic Images*, by [R] (visinf/benchmarking-synthetic-clones, a443db5).
    """
    return pd.read_csv(Path(__file__).parent / "published.csv")[list(PUBLISHED)]
