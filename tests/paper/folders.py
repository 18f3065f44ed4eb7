"""Folders in the layouts of the published data, with few small images, and their settings."""

import contextlib
import hashlib
import signal

import numpy as np
import pandas as pd
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import Flowers102

from helpers.data.shards import tar_bytes

SETTINGS = """
language_model = "weights/llama"
clip = "weights/clip"
drawn = 64
kept = 32
judge = "weights/judge"
checkpoints = [
    ["supervised", "retrieved", "timm/weights/resnet"],
    ["supervised", "synthetic", "timm/test_resnet/weights/clone/model.safetensors"],
    ["language-supervised", "retrieved", "open_clip/weights/judge"],
    ["language-supervised", "synthetic", "open_clip/weights/clip"],
]
[generators]
"1.1" = "weights/generator"
"1.5" = "weights/generator"
[tasks.flora]
folder = "flora"
noun = "plant"
[world]
image_size = 32
tasks = ["aircraft", "flora"]
captions = { per_class = 16, max_new_tokens = 12, temperature = 3.0, top_p = 1.0 }
synthesis = { steps = 2, shard = 8, batch = 8 }
clip = { top_share = 0.5 }
retrieval = { k = 10 }
[world.finetune]
sizes = [4, 8]
seeds = 2
lrs = [1e-3, 1e-4]
batch = 8
epochs = 1
warmup = 0.1
[world.analysis]
size = 4
generators = ["1.1", "1.5"]
strengths = [0.5]
mixes = [[4, 4]]
[world.scaling]
sizes = [2, 4, 8, 10]
beyond = 0
guidances = [1.0, 7.5]
prompts = ["class names", "alt text"]
generators = ["1.1", "1.5"]
seeds = 2
steps = 5
batch = 4
hidden = 8
pairs = [4, 8]
[world.mixes]
counts = [4, 8]
steps = 1
seeds = 2
size = 4
access = [0.5]
shots = [1]
[world.adapter]
rank = 2
steps = 2
warmup = 1
[world.robustness]
image_size = 32
context = 32
steps = 2
batch = 4
seeds = 2
probe_images = 6
validation = 6
attacked = 4
epsilons = [1, 4]
pgd_steps = 2
"""


@contextlib.contextmanager
def within(seconds: int):
    """Fails with ``TimeoutError`` what waits longer, as for a pipe that nobody fills."""

    def stop(*_):
        raise TimeoutError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


AIRCRAFT = ("A320", "F-16/A")
FLORA = ("rose", "tree")


def picture(label: int, i: int, side: int = 40) -> np.ndarray:
    """A class is a colour and a stripe; images differ by noise."""
    rng = np.random.default_rng([label, i])
    image = np.full((side, side, 3), 40 + 50 * (label % 4), np.uint8)
    image[:: 2 + label % 3, :, label % 3] = 250
    return np.clip(image + rng.integers(-30, 30, image.shape), 0, 255).astype(np.uint8)


def jpeg(path, label: int, i: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(label, i)).resize((56, 40)).save(path, quality=95)
    return path.name


def fgvc_aircraft(folder, per_class: int = 12) -> None:
    data = folder / "fgvc-aircraft-2013b" / "data"
    data.mkdir(parents=True)
    (data / "variants.txt").write_text("\n".join(AIRCRAFT) + "\n")
    for s, split in enumerate(("train", "val", "test")):
        names = [
            (jpeg(data / "images" / f"{s}{label}{i:05d}.jpg", label, 100 * s + i)[:-4], name)
            for label, name in enumerate(AIRCRAFT)
            for i in range(per_class)
        ]
        (data / f"images_variant_{split}.txt").write_text(
            "".join(f"{i} {name}\n" for i, name in names)
        )


def folders(
    folder, splits=("train", "test"), classes=FLORA, per_class: int = 15, first: int = 2
) -> None:
    for s, split in enumerate(splits):
        for label, name in enumerate(classes):
            for i in range(per_class):
                jpeg(folder / split / name / f"{i}.jpg", first + label, 100 * s + i)


def laion(folder, rows: int = 120, shard: int = 40) -> None:
    """Shards as helpers/paper/download/laion.py leaves them: LAION's columns beside a tar."""
    folder.mkdir(parents=True)
    names = [*AIRCRAFT, *FLORA]
    for start in range(0, rows, shard):
        labels = np.arange(start, start + shard) % 5
        texts = [
            f"a photo of a {names[k]}, number {i}" if k < 4 else f"something else {i}"
            for i, k in enumerate(labels, start)
        ]
        images = np.stack([picture(k, 1_000 + i, 32) for i, k in enumerate(labels, start)])
        (folder / f"{start // shard:05d}.tar").write_bytes(
            tar_bytes(images, [{"caption": t} for t in texts])
        )
        pd.DataFrame(
            {
                "SAMPLE_ID": np.arange(start, start + shard),
                "url": [f"http://example.org/{i}" for i in range(start, start + shard)],
                "TEXT": texts,
                "NSFW": "UNLIKELY",
                "similarity": 0.3,
            }
        ).to_parquet(folder / f"{start // shard:05d}.parquet")


def stanford_cars(folder) -> None:
    names, kinds = np.array(["Audi S5", "BMW M3"], object), [("fname", "O"), ("class", "O")]
    for split, where in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        rows = [
            (jpeg(folder / "stanford_cars" / f"cars_{split}" / f"{i:05d}.jpg", i % 2, i), i % 2 + 1)
            for i in range(20)
        ]
        (folder / "stanford_cars" / "devkit").mkdir(parents=True, exist_ok=True)
        savemat(folder / "stanford_cars" / where, {"annotations": np.array(rows, dtype=kinds)})
    savemat(folder / "stanford_cars" / "devkit" / "cars_meta.mat", {"class_names": names})


def flowers_102(folder, monkeypatch) -> None:
    top = folder / "flowers-102"
    for i in range(1, 103 * 3):
        jpeg(top / "jpg" / f"image_{i:05d}.jpg", i % 102, i)
    savemat(top / "imagelabels.mat", {"labels": np.arange(1, 103 * 3) % 102 + 1})
    savemat(
        top / "setid.mat",
        {name: np.arange(1, 103) + 102 * k for k, name in enumerate(("trnid", "valid", "tstid"))},
    )
    sums = {
        kind: (file, hashlib.md5((top / file).read_bytes()).hexdigest())
        for kind, file in (("label", "imagelabels.mat"), ("setid", "setid.mat"))
    }
    monkeypatch.setattr(
        Flowers102, "_file_dict", {**Flowers102._file_dict, **sums}
    )  # our lists are other than the published ones


def textures(folder) -> None:
    data = folder / "dtd" / "dtd"
    (data / "labels").mkdir(parents=True)
    for s, split in enumerate(("train", "val", "test")):
        rows = [
            f"{name}/{jpeg(data / 'images' / name / f'{name}_{s}{i}.jpg', k, 10 * s + i)}"
            for k, name in enumerate(("banded", "lacy"))
            for i in range(3)
        ]
        (data / "labels" / f"{split}1.txt").write_text("\n".join(rows) + "\n")
