"""The paper world on tiny artifacts in the published formats: notebooks 00 to 05 without edits, benchmarks, and what is missing."""

import hashlib
import json
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from helpers import pools, run, worlds
from helpers.worlds import StudyError
from tests import tiny

SETTINGS = """
language_model = "weights/llama"
clip = "weights/clip"
drawn = 64
kept = 32
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
finetune = { sizes = [4, 8], seeds = 2, lrs = [1e-3, 1e-4], batch = 8, epochs = 1, warmup = 0.1, evaluations = 1 }
analysis = { size = 6, generators = ["1.1", "1.5"], strengths = [0.5], mix_synthetic = [0, 4] }
"""
AIRCRAFT, FLORA = ("A320", "F-16/A"), ("rose", "tree")


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
        names = [(jpeg(data / "images" / f"{s}{label}{i:05d}.jpg", label, 100 * s + i)[:-4], name)
                 for label, name in enumerate(AIRCRAFT) for i in range(per_class)]
        (data / f"images_variant_{split}.txt").write_text("".join(f"{i} {name}\n" for i, name in names))


def folders(folder, splits=("train", "test"), classes=FLORA, per_class: int = 15, first: int = 2) -> None:
    for s, split in enumerate(splits):
        for label, name in enumerate(classes):
            for i in range(per_class):
                jpeg(folder / split / name / f"{i}.jpg", first + label, 100 * s + i)


def laion(folder, rows: int = 120, shard: int = 40) -> None:
    """Shards as helpers/paper/laion.py leaves them: LAION's columns beside a tar of images, one row per image."""
    folder.mkdir(parents=True)
    names = [*AIRCRAFT, *FLORA]
    for start in range(0, rows, shard):
        labels = np.arange(start, start + shard) % 5
        texts = [f"a photo of a {names[k]}, number {i}" if k < 4 else f"something else {i}" for i, k in enumerate(labels, start)]
        images = np.stack([picture(k, 1_000 + i, 32) for i, k in enumerate(labels, start)])
        (folder / f"{start // shard:05d}.tar").write_bytes(pools.tar_bytes(images, [{"caption": t} for t in texts]))
        pd.DataFrame({"SAMPLE_ID": np.arange(start, start + shard), "url": [f"http://example.org/{i}" for i in range(start, start + shard)],
                      "TEXT": texts, "NSFW": "UNLIKELY", "similarity": 0.3}).to_parquet(folder / f"{start // shard:05d}.parquet")


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A ``$STUDY_PAPER`` with tiny weights, two tasks and a pool."""
    top = tmp_path_factory.mktemp("paper")
    for name in ("clip", "generator"):
        getattr(tiny, name)(top / "weights" / name)
    tiny.language_model(top / "weights" / "llama")
    fgvc_aircraft(top / "benchmarks")
    folders(top / "flora")
    laion(top / "laion")
    (top / "paper.toml").write_text(SETTINGS)
    return top


@pytest.fixture
def paper(published, monkeypatch):
    monkeypatch.setenv("STUDY_PAPER", str(published))
    return worlds.get("paper")


@pytest.fixture(scope="session")
def study(published, tmp_path_factory):
    """Notebooks 00 to 05 in the paper world, by the command line of the real thing."""
    top = tmp_path_factory.mktemp("study")
    before = dict(os.environ)
    os.environ |= {"STUDY_PAPER": str(published), "STUDY_RUNS": str(top / "runs"), "STUDY_FIGURES": str(top / "figures")}
    try:
        assert run.main(["paper", "00", "01", "02", "03", "04", "05"]) == 0
    finally:
        for name in ("STUDY_PAPER", "STUDY_RUNS", "STUDY_FIGURES"):
            os.environ.pop(name, None)
        os.environ |= {k: v for k, v in before.items() if k.startswith("STUDY_")}
    return top


def test_all_notebooks_run(study):
    made = pd.read_csv(study / "figures" / "paper" / "00_timing.csv")
    assert len(made) == 6
