"""LAION's shards, public benchmarks, and tasks of the user's own, from folders here."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.data.shards import Lazy, fetch_tar
from helpers.data.tables import Benchmark, Pool, Split
from helpers.engine import gpu
from helpers.errors import StudyError, unknown
from helpers.measure.metrics import PUBLISHED
from helpers.models import clip
from helpers.paper import config
from helpers.worlds import World

OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"


class Public(NamedTuple):
    """A public benchmark: its classes, their number, and where torchvision looks for it."""

    noun: str
    classes: int
    dataset: str
    folder: str
    source: str


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
# CLIP's own templates [P]; ImageNet's 80 come from open_clip. [C] has longer lists for heads and
# shorter ones for its filter.
TEMPLATES = {
    "aircraft": ("a photo of a {}, a type of aircraft.", "a photo of the {}, a type of aircraft."),
    "cars": (
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of my {}.",
        "i love my {}!",
        "a photo of my dirty {}.",
        "a photo of my clean {}.",
        "a photo of my new {}.",
        "a photo of my old {}.",
    ),
    "flowers": ("a photo of a {}, a type of flower.",),
    "dtd": tuple(
        f"a photo of {article} {{}} {kind}."
        for article in ("a", "the")
        for kind in ("texture", "pattern", "thing", "object")
    ),
}
AIRPORTS = ("runway", "hangar", "airport")
LANDSCAPES = ("sky", "sunset", "sea", "mountains", "city", "meadow", "road", "garden", "forest")
BACKGROUNDS = (*AIRPORTS, *LANDSCAPES)
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SPLITS = ("train", "val", "test")
SEED = 42  # of the splits that are cut from train [C]
IMAGENET_VALIDATION = 50_000  # images [P]
Listed = tuple[np.ndarray, np.ndarray]  # image files (n,) of str, and labels (n,) int64


class Decoded:
    """Image files as an array (n, side, side, 3) uint8, decoded by threads when asked for.

    The centre square, resized bicubically as in CLIP's validation transform. ``reduced`` lets JPEGs
    be decoded at the smallest scale that is large enough, which is faster and a little softer.
    Raises ``StudyError`` on an image that cannot be read.
    """

    def __init__(self, files: Sequence[str | Path], side: int, reduced: bool = True):
        self.files = np.array([str(f) for f in files], object)
        self.decode = functools.partial(_decode, side=side, reduced=reduced)
        self.side = side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows) -> np.ndarray:
        images = list(_threads().map(self.decode, self.files[rows]))
        return np.stack(images) if images else np.zeros((0, self.side, self.side, 3), np.uint8)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(gpu.cores())


def _decode(file: str, side: int, reduced: bool) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            if reduced:
                image.draft("RGB", (side, side))
            square = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BICUBIC)
            return np.asarray(square)
    except (OSError, ValueError) as e:
        raise StudyError(
            f"cannot read the image {file}: {e}. Restore it from the data set's archive."
        ) from e


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Those of ``paths`` that are images, in order of name."""
    return sorted(path for path in paths if path.suffix.lower() in ENDINGS)


def open_pool(w: World) -> Pool:
    """Shards under ``laion``: ``00000.parquet`` with LAION's columns beside ``00000.tar``.

    One row per image: that is what helpers/paper/download/laion.py leaves; img2dataset's own tables
    also list the rows that did not come. Raises ``StudyError`` where there is none.
    """
    import pyarrow.parquet as pq

    folder = config.settings().laion
    shards = tuple(sorted(folder.glob("*.parquet")))
    if not shards:
        raise StudyError(
            f"no parquet shards in {folder}; fill it with helpers.paper.download.laion.download, "
            f"or name another folder as laion in {config.FILE}."
        )
    return Pool(shards, fetch_tar, tuple(pq.ParquetFile(s).metadata.num_rows for s in shards))


def benchmark(w: World, task: str) -> Benchmark:
    """A benchmark with its published splits, or a task of the user's own; decoded when asked for.

    Raises ``StudyError`` on an unknown task, or when it is not where the settings say.
    """
    known = (*w.tasks, w.robustness.task)  # finished checkpoints are probed on the latter
    if task not in known:
        raise unknown(f"task in world {w.name!r}", task, known)
    return _benchmark(config.root(), task, w.image_size)


@functools.lru_cache(maxsize=8)
def _benchmark(root: Path, task: str, side: int) -> Benchmark:
    s = config.settings()
    about = s.tasks.get(task) or PUBLIC[task]
    backgrounds = BACKGROUNDS
    if task in s.tasks:
        classes = _classes(about)
        templates = about.templates
        backgrounds = about.backgrounds or BACKGROUNDS
        names = [name.replace("/", "_") for name in classes]
        splits = _folders(about.folder, names, {split: split for split in SPLITS})
    elif task == "imagenet":
        templates = clip.imagenet()[1]
        wnids, classes = imagenet(s.benchmarks / about.folder)
        splits = _folders(s.benchmarks / about.folder, wnids, {"train": "train", "test": "val"})
    else:
        templates = TEMPLATES[task]
        classes, splits = _published(about, s.benchmarks)
    if "val" not in splits:
        splits |= _cut(*splits["train"], IMAGENET_VALIDATION if task == "imagenet" else None)
    article = "an" if about.noun[0] in "aeiou" else "a"
    return Benchmark(
        task,
        classes,
        about.noun,
        f"a photo of {article} {about.noun}",
        templates,
        backgrounds,
        pd.DataFrame(index=list(classes)),
        *(_split(classes, *splits[name], side) for name in SPLITS),
    )


def _split(classes: Sequence[str], files: np.ndarray, labels: np.ndarray, side: int) -> Split:
    facts = pd.DataFrame({"class": np.array(classes, object)[labels]})
    return Split(Lazy(Decoded(files, side)), labels, facts)


def _listed(files: Iterable[str | Path], labels: Iterable[int]) -> Listed:
    return np.array([str(f) for f in files], object), np.array(labels, np.int64)


def _published(about: Public, folder: Path) -> tuple[tuple[str, ...], dict[str, Listed]]:
    """Classes and splits as torchvision has them."""
    import torchvision

    load = getattr(torchvision.datasets, about.dataset)
    cars = about.dataset == "StanfordCars"
    names = ("train", "test") if cars else SPLITS
    try:
        sets = {name: load(str(folder), split=name, download=False) for name in names}
    except (RuntimeError, OSError) as e:
        raise StudyError(
            f"{about.dataset} not found under {folder}: {str(e).rstrip('.')}. Put it there in "
            f"torchvision's layout ({about.folder}/), from {about.source}, or name another folder "
            f"as benchmarks in {config.FILE}."
        ) from e
    splits = {}
    for name, data in sets.items():
        pairs = data._samples if cars else zip(data._image_files, data._labels, strict=True)
        splits[name] = _listed(*zip(*pairs, strict=True))
    return tuple(sets["train"].classes), splits


def imagenet(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """WordNet ids and names of ImageNet's classes in order.

    From the 1,000 folders in order, or from the table ``classes.csv`` (wnid,name). Raises
    ``StudyError`` when the folders of ``train`` are others.
    """
    part = folder / "classes.csv"
    if part.exists():
        table = pd.read_csv(part)
        return tuple(table["wnid"]), tuple(table["name"])
    wnids = tuple(sorted(p.name for p in (folder / "train").glob("n*")))
    names = clip.imagenet()[0]
    if len(wnids) != len(names):
        raise StudyError(
            f"ImageNet not found under {folder}: train/ has {len(wnids)} folders n01440764, "
            "n01443537, ... instead of 1,000. Unpack it there in torchvision's layout, from "
            f"{IMAGENET}; for a part of it, list the part's wnid,name in {part}."
        )
    return wnids, names


def _classes(own: config.Task) -> tuple[str, ...]:
    """The names in order of the labels: listed, in a text file, or those of train's folders."""
    if isinstance(own.classes, tuple):
        folders = (own.folder / "train").glob("*")
        return own.classes or tuple(sorted(p.name for p in folders if p.is_dir()))
    if not Path(own.classes).is_file():
        raise StudyError(
            f"the list of classes {own.classes!r} does not exist; write one name per line, or list "
            f"them in {config.FILE}."
        )
    lines = Path(own.classes).read_text().splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _folders(folder: Path, names: Sequence[str], places: Mapping[str, str]) -> dict[str, Listed]:
    """The images ``folder/PLACE/NAME/*.jpg`` of every split; ``names`` in order of the labels.

    A missing ``val`` is left out.
    """
    splits = {}
    for split, place in places.items():
        top = folder / place
        found = sorted(p.name for p in top.glob("*") if p.is_dir())
        if split == "val" and not top.is_dir():
            continue
        if not found:
            example = top / "class" / "any.jpg"
            raise StudyError(f"no images in {top}: it should have a folder per class, {example}.")
        for name in found:
            if name not in names:
                raise unknown(f"class folder in {top}", name, names)
        files = [image_files((top / name).glob("*")) for name in names]
        empty = [name for name, inside in zip(names, files, strict=True) if not inside]
        if empty and split == "train":
            wanted = "every class needs some, or leave it out"
            raise StudyError(f"{top} has no images for {', '.join(empty[:5])}; {wanted}.")
        labels = np.repeat(np.arange(len(names)), [len(inside) for inside in files])
        splits[split] = _listed(itertools.chain(*files), labels)
    return splits


def _cut(files: np.ndarray, labels: np.ndarray, most: int | None) -> dict[str, Listed]:
    """``train`` and ``val`` cut from train, 80 / 20 by a seed; ``val`` has at most ``most`` [C]."""
    import torch

    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(SEED)).numpy()
    cut = max(int(0.8 * len(order)), len(order) - (most or len(order)))
    parts = {"train": order[:cut], "val": order[cut:]}
    return {name: (files[rows], labels[rows]) for name, rows in parts.items()}


def published(w: World) -> pd.DataFrame:
    """Published accuracy (0..1), loss (nats) and ECE on ImageNet validation images.

    By training set, prompt and size: checkpoints of *Scaling Laws of Synthetic Images* (1M to 16M
    images; CLIP 64M to 371M pairs) as scored again by [R]. From result files of its repository
    (visinf/benchmarking-synthetic-clones, a443db5): the prompt and the mixing ablation.
    """
    return pd.read_csv(Path(__file__).parent / "published.csv")[list(PUBLISHED)]
