"""Public benchmarks in their published splits, tasks of one's own, and how images are read."""

import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers import worlds
from helpers.errors import StudyError
from helpers.models import clip
from helpers.paper import benchmarks
from tests.paper.folders import (
    FLORA,
    flowers_102,
    folders,
    jpeg,
    stanford_cars,
    textures,
)


def test_benchmarks_have_their_published_splits(paper, tmp_path, monkeypatch):
    textures(tmp_path / "benchmarks")
    flowers_102(tmp_path / "benchmarks", monkeypatch)
    stanford_cars(tmp_path / "benchmarks")
    (tmp_path / "paper.toml").write_text("[world]\nimage_size = 24")
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    w = worlds.get("paper")
    made = {task: worlds.backend(w).benchmark(w, task) for task in ("dtd", "flowers", "cars")}
    assert [tuple(len(getattr(b, s)) for s in ("train", "val", "test")) for b in made.values()] == [
        (6, 6, 6),
        (102, 102, 102),
        (16, 4, 20),
    ]
    assert [len(b.templates) for b in made.values()] == [8, 1, 8] and made["cars"].classes == (
        "Audi S5",
        "BMW M3",
    )
    cars = made["cars"]
    kept = {f for s in (cars.train, cars.val) for f in s.images.sources[0].files}
    assert len(kept) == 20 and made["flowers"].train.images[:3].shape == (3, 24, 24, 3)
    for bench in made.values():  # what is decoded belongs to the label beside it
        for i in (0, len(bench.test) - 1):
            label = int(bench.test.labels[i])
            assert (
                bench.test.facts["class"][i] == bench.classes[label]
                and bench.test.images[i].dtype == np.uint8
            )


def test_imagenet_has_a_thousand_names_and_folders(tmp_path, monkeypatch):

    names, templates = clip.imagenet()
    assert (
        len(set(names)) == len(names) == 1_000
        and len(templates) == 80
        and all("{}" in t for t in templates)
    )
    assert (names[134], names[517], names[638], names[639]) == (
        "crane bird",
        "construction crane",
        "tights",
        "one-piece bathing suit",
    )
    assert (names[657], names[744], names[836], names[837]) == (
        "missile",
        "projectile",
        "sunglass",
        "sunglasses",
    )
    top = tmp_path / "benchmarks" / "imagenet"
    for i in range(1_000):
        for split in ("train", "val"):
            (top / split / f"n{i:08d}").mkdir(parents=True)
            (top / split / f"n{i:08d}" / "a.JPEG").touch()
    jpeg(top / "val" / "n00000007" / "a.JPEG", 7, 0)
    (tmp_path / "paper.toml").write_text("")
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    w = worlds.get("paper")
    bench = worlds.backend(w).benchmark(
        w, "imagenet"
    )  # nothing is decoded: most of these files are empty
    assert (len(bench.train), len(bench.val), len(bench.test)) == (800, 200, 1_000)
    assert bench.test.images[7].shape == (224, 224, 3) and bench.test.facts["class"][7] == names[7]
    with pytest.raises(StudyError, match=r"cannot read the image .*n00000008"):
        bench.test.images[7:9]
    shutil.rmtree(top / "train" / "n00000005")
    benchmarks._benchmark.cache_clear()
    with pytest.raises(StudyError, match="999 folders"):
        worlds.backend(w).benchmark(w, "imagenet")


def test_own_task_needs_folders_and_names_only(paper, published, tmp_path, monkeypatch):
    bench = worlds.backend(paper).benchmark(paper, "flora")
    assert (
        bench.classes == FLORA
        and (len(bench.train), len(bench.val), len(bench.test)) == (24, 6, 30)
        and bench.noun == "plant"
    )
    folders(tmp_path / "flora", ("train", "val", "test"), ("tree", "black_rose"), 2)
    (tmp_path / "flora" / "names.txt").write_text("tree\nblack/rose\n")
    text = (
        "[tasks.flora]\nfolder = 'flora'\nclasses = 'flora/names.txt'\n[world]\ntasks = ['flora']"
    )
    (tmp_path / "paper.toml").write_text(text)
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    w = worlds.get("paper")
    bench = worlds.backend(w).benchmark(w, "flora")
    assert (
        bench.classes == ("tree", "black/rose")
        and len(bench.val) == 4
        and list(bench.test.labels) == [0, 0, 1, 1]
    )
    folders(tmp_path / "flora", ("train",), ("tre",), 1)
    benchmarks._benchmark.cache_clear()
    with pytest.raises(StudyError, match="Did you mean 'tree'"):
        worlds.backend(w).benchmark(w, "flora")


def test_large_photographs_are_decoded_whole_or_at_a_smaller_scale(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    whole = benchmarks.Decoded([tmp_path / "a.jpg"], 32, reduced=False)[:]
    photograph = Image.open(tmp_path / "a.jpg").convert("RGB")
    assert np.array_equal(whole[0], ImageOps.fit(photograph, (32, 32), Image.Resampling.BICUBIC))
    reduced = benchmarks.Decoded([tmp_path / "a.jpg"], 32)[:]
    assert reduced.shape == (1, 32, 32, 3) and not np.array_equal(reduced, whole)
    assert benchmarks.Decoded([], 32)[:].shape == (0, 32, 32, 3)
