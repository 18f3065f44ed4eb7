"""LAION shards, public benchmarks with their published splits, and tasks of the user's own, from folders on this machine."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.shards import Lazy, fetch_tar
from helpers.data.tables import Benchmark, Pool, Split
from helpers.engine import gpu
from helpers.errors import StudyError, unknown
from helpers.measure.probes import PUBLISHED
from helpers.models import clip
from helpers.paper import config
from helpers.worlds import World

CAR = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of my {}.",
    "i love my {}!",
    "a photo of my dirty {}.",
    "a photo of my clean {}.",
    "a photo of my new {}.",
    "a photo of my old {}.",
)
TEMPLATES = {  # CLIP's own [P]; ImageNet's 80 come from open_clip. [C] has longer lists for heads, shorter ones for its filter
    "aircraft": ("a photo of a {}, a type of aircraft.", "a photo of the {}, a type of aircraft."),
    "cars": CAR,
    "flowers": ("a photo of a {}, a type of flower.",),
    "dtd": tuple(
        f"a photo of {article} {{}} {kind}."
        for article in ("a", "the")
        for kind in ("texture", "pattern", "thing", "object")
    ),
}
NOUNS = {
    "aircraft": "aircraft",
    "cars": "car",
    "flowers": "flower",
    "dtd": "texture",
    "imagenet": "object",
}
BACKGROUNDS = (
    "runway",
    "hangar",
    "airport",
    "sky",
    "sunset",
    "sea",
    "mountains",
    "city",
    "meadow",
    "road",
    "garden",
    "forest",
)
DATASETS = {
    "aircraft": "FGVCAircraft",
    "cars": "StanfordCars",
    "flowers": "Flowers102",
    "dtd": "DTD",
}  # torchvision's names
SOURCES = {
    "aircraft": "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
    "cars": "the Stanford Cars archives (mirrors only)",
    "flowers": "https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
    "dtd": "https://www.robots.ox.ac.uk/~vgg/data/dtd",
    "imagenet": "https://image-net.org (an account is needed)",
}
FOLDERS = {
    "aircraft": "fgvc-aircraft-2013b",
    "cars": "stanford_cars",
    "flowers": "flowers-102",
    "dtd": "dtd",
    "imagenet": "imagenet",
}
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SEED, IMAGENET_VALIDATION = 42, 50_000  # of the splits that are cut from train [P], [C]


class Decoded:
    """Image files, decoded when asked for by a pool of threads: centre square, ``side`` pixels, as CLIP's validation transform."""

    def __init__(self, files: Sequence[str | Path], side: int):
        self.files, self.side = np.array([str(f) for f in files], object), side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows) -> np.ndarray:
        made = list(_threads().map(functools.partial(_decode, side=self.side), self.files[rows]))
        return np.stack(made) if made else np.zeros((0, self.side, self.side, 3), np.uint8)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(gpu.cores())


def _decode(file: str, side: int) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            image.draft(
                "RGB", (side, side)
            )  # a JPEG is decoded at the smallest scale that is large enough
            return np.asarray(
                ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BICUBIC)
            )
    except (OSError, ValueError) as e:
        raise StudyError(
            f"cannot read the image {file}: {e}. Restore it from the data set's archive."
        ) from e


def open_pool(w: World) -> Pool:
    """img2dataset shards under ``laion``: ``00000.parquet`` with LAION's columns beside ``00000.tar``, one row per image.

    That is what helpers/paper/download/laion.py leaves; img2dataset's own tables also list the rows that did not come.
    """
    import pyarrow.parquet as pq

    folder = config.settings().laion
    shards = tuple(sorted(folder.glob("*.parquet")))
    if not shards:
        raise StudyError(
            f"no parquet shards in {folder}; fill it with helpers.paper.download.laion.download, or name another folder as "
            f"laion in {config.FILE}."
        )
    return Pool(shards, fetch_tar, tuple(pq.ParquetFile(s).metadata.num_rows for s in shards))


def benchmark(w: World, task: str) -> Benchmark:
    """A benchmark with its published splits, or a task of the user's own; images are decoded when they are asked for.

    Raises ``StudyError`` on an unknown task, or when it is not where the settings say.
    """
    if task not in (
        known := (*w.tasks, w.robustness.task)
    ):  # finished checkpoints are probed on a task that needs no images to train on
        raise unknown(f"task in world {w.name!r}", task, known)
    return _benchmark(config.root(), task, w.image_size)


@functools.lru_cache(maxsize=8)
def _benchmark(root: Path, task: str, side: int) -> Benchmark:
    s = config.settings()
    if task in s.tasks:
        own = s.tasks[task]
        classes, noun, templates = _classes(own), own.noun, own.templates
        splits = _folders(own.folder, classes, classes)
    elif task == "imagenet":
        (wnids, classes), templates = imagenet(s.benchmarks / "imagenet"), clip.imagenet()[1]
        noun, splits = (
            NOUNS[task],
            _folders(s.benchmarks / "imagenet", classes, wnids, {"train": "train", "test": "val"}),
        )
    else:
        noun, templates = NOUNS[task], TEMPLATES[task]
        classes, splits = _published(task, s.benchmarks)
    backgrounds = s.tasks[task].backgrounds if task in s.tasks else ()
    if "val" not in splits:
        splits |= _cut(*splits["train"], IMAGENET_VALIDATION if task == "imagenet" else None)
    made = {
        name: Split(
            Lazy(Decoded(files, side)),
            labels,
            pd.DataFrame({"class": np.array(classes, object)[labels]}),
        )
        for name, (files, labels) in splits.items()
    }
    domain = f"a photo of {'an' if noun[0] in 'aeiou' else 'a'} {noun}"
    return Benchmark(
        task,
        classes,
        noun,
        domain,
        templates,
        backgrounds or BACKGROUNDS,
        pd.DataFrame(index=list(classes)),
        **made,
    )


def _published(task: str, folder: Path) -> tuple[tuple[str, ...], dict]:
    import torchvision

    load = getattr(torchvision.datasets, DATASETS[task])
    try:
        sets = {
            split: load(str(folder), split=split, download=False)
            for split in (("train", "test") if task == "cars" else ("train", "val", "test"))
        }
    except (RuntimeError, OSError) as e:
        raise StudyError(
            f"{DATASETS[task]} not found under {folder}: {str(e).rstrip('.')}. Put it there in torchvision's "
            f"layout ({FOLDERS[task]}/), from {SOURCES[task]}, or name another folder as benchmarks in {config.FILE}."
        ) from e
    pairs = {
        split: list(zip(*made._samples, strict=True))
        if task == "cars"
        else (made._image_files, made._labels)
        for split, made in sets.items()
    }
    return tuple(sets["train"].classes), {
        split: (np.array([str(f) for f in files], object), np.array(labels, np.int64))
        for split, (files, labels) in pairs.items()
    }


def imagenet(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """WordNet ids and names of ImageNet's classes in order: the 1,000 folders in order, or the table ``classes.csv`` (wnid,name).

    Raises ``StudyError`` when the folders of ``train`` are others.
    """
    wnids, names = tuple(sorted(p.name for p in (folder / "train").glob("n*"))), clip.imagenet()[0]
    if (folder / "classes.csv").exists():
        table = pd.read_csv(folder / "classes.csv")
        return tuple(table["wnid"]), tuple(table["name"])
    if len(wnids) != len(names):
        raise StudyError(
            f"ImageNet not found under {folder}: train/ has {len(wnids)} folders n01440764, n01443537, ... instead of 1,000. "
            f"Unpack it there in torchvision's layout, from {SOURCES['imagenet']}; for a part of it, list the part's "
            f"wnid,name in {folder / 'classes.csv'}."
        )
    return wnids, names


def _classes(own: config.Task) -> tuple[str, ...]:
    if isinstance(own.classes, tuple):
        return own.classes or tuple(
            sorted(p.name for p in (own.folder / "train").glob("*") if p.is_dir())
        )
    if not Path(own.classes).is_file():
        raise StudyError(
            f"the list of classes {own.classes!r} does not exist; write one name per line, or list them in {config.FILE}."
        )
    return tuple(
        line.strip() for line in Path(own.classes).read_text().splitlines() if line.strip()
    )


def _folders(
    folder: Path, classes: Sequence[str], names: Sequence[str], splits: dict[str, str] | None = None
) -> dict:
    """Files and labels of ``folder/split/class/*.jpg``; a missing ``val`` is cut from train by the caller."""
    splits = splits or {
        s: s for s in ("train", "val", "test") if s != "val" or (folder / s).is_dir()
    }
    names, made = [n.replace("/", "_") for n in names], {}
    for split, where in splits.items():
        found = sorted(p.name for p in (folder / where).glob("*") if p.is_dir())
        if not found:
            raise StudyError(
                f"no images in {folder / where}: it should have a folder per class, {folder / where / 'class' / 'any.jpg'}."
            )
        for name in found:
            if name not in names:
                raise unknown(f"class folder in {folder / where}", name, names)
        files = [
            sorted(f for f in (folder / where / name).glob("*") if f.suffix.lower() in ENDINGS)
            for name in names
        ]
        empty = [c for c, f in zip(classes, files, strict=True) if not f]
        if empty and split == "train":
            raise StudyError(
                f"{folder / where} has no images for {', '.join(empty[:5])}; every class needs some, or leave it out."
            )
        made[split] = (
            np.array([str(f) for many in files for f in many], object),
            np.repeat(np.arange(len(names)), [len(f) for f in files]).astype(np.int64),
        )
    return made


def _cut(files: np.ndarray, labels: np.ndarray, most: int | None) -> dict:
    """``train`` and ``val``: 80 / 20 of train by seed 42 (Stanford Cars), at most ``most`` for validation (ImageNet) [P], [C]."""
    import torch

    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(SEED)).numpy()
    cut = max(int(0.8 * len(order)), len(order) - (most or len(order)))
    return {
        "train": (files[order[:cut]], labels[order[:cut]]),
        "val": (files[order[cut:]], labels[order[cut:]]),
    }


def published(w: World) -> pd.DataFrame:
    """Published accuracy (0..1), loss (nats) and ECE on ImageNet validation images by training set, prompt and size.

    Checkpoints of *Scaling Laws of Synthetic Images* (1M to 16M images; CLIP 64M to 371M pairs) as scored again by [R]: result
    files of its repository (visinf/benchmarking-synthetic-clones, a443db5), the prompt and the mixing ablation.
    """
    return pd.read_csv(Path(__file__).parent / "published.csv")[list(PUBLISHED)]
