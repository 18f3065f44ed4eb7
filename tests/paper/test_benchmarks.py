"""Public benchmarks in their published splits, tasks of one's own, and how images are read."""

import contextlib
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers import worlds
from helpers.errors import StudyError
from helpers.models import clip
from helpers.paper import benchmarks, config
from tests.paper.folders import (
    FLORA,
    fgvc_aircraft,
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
    (top / "train" / "n00000005.tar").write_bytes(b"as it was downloaded")
    benchmarks._benchmark.cache_clear()
    assert len(worlds.backend(w).benchmark(w, "imagenet").classes) == 1_000
    shutil.rmtree(top / "train" / "n00000005")
    benchmarks._benchmark.cache_clear()
    with pytest.raises(StudyError, match="999 folders"):
        worlds.backend(w).benchmark(w, "imagenet")


def test_pictures_that_two_classes_share_by_links_count_in_both(tmp_path, monkeypatch):
    folders(tmp_path / "flora", ("train", "test"), FLORA, 4)
    folders(tmp_path, ("shared",), ("of both",), 3)
    for name in FLORA:
        (tmp_path / "flora" / "train" / name / "shared").symlink_to(tmp_path / "shared")
        (tmp_path / "flora" / "train" / name / "round").symlink_to(tmp_path / "flora")
    (tmp_path / "paper.toml").write_text("[tasks.flora]\nfolder = 'flora'\n")
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    w = worlds.get("paper")
    bench = worlds.backend(w).benchmark(w, "flora")
    assert np.bincount([*bench.train.labels, *bench.val.labels]).tolist() == [7, 7]
    assert len(bench.test) == 8


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


def task_of(top, monkeypatch, classes=""):
    """The benchmark of the folders in ``top/t``; its first classes as ``classes`` has them."""
    (top / "paper.toml").write_text(f"[tasks.t]\nfolder='t'\n{classes}\n[world]\ntasks = ['t']\n")
    monkeypatch.setenv("STUDY_PAPER", str(top))
    config._read.cache_clear()
    benchmarks._benchmark.cache_clear()
    w = worlds.get("paper", image_size=16)
    return worlds.backend(w).benchmark(w, "t")


@pytest.mark.parametrize(
    "names",
    [("Train", "TEST", "Validation"), ("training", "testing", "dev"), ("TRAIN", "test", "valid")],
)
def test_splits_and_class_folders_by_any_usual_name(tmp_path, monkeypatch, names):
    classes = ["747 'Jumbo'", "nan", "cafe\u0301 \U0001f426", "F-16_A", "True"]
    folders(tmp_path / "t", names, classes, 2)
    bench = task_of(tmp_path, monkeypatch)
    kept = ("747 'Jumbo'", "F-16_A", "True", "café \U0001f426", "nan")
    assert bench.classes == kept
    sizes = [len(getattr(bench, split)) for split in benchmarks.SPLITS]
    assert sizes == [10, 10, 10] and bench.train.facts["class"][9] == "nan"
    listed = 'classes = ["café \U0001f426", "NaN", "f-16/a", "747 \u2018jumbo\u2019", "true"]'
    bench = task_of(tmp_path, monkeypatch, listed)
    assert bench.classes == ("café \U0001f426", "NaN", "f-16/a", "747 'jumbo'", "true")
    assert [Path(f).parent.name for f in bench.test.images.sources[0].files[2:6]] == [
        *("nan",) * 2,
        *("F-16_A",) * 2,
    ]


def test_nested_linked_and_stray_pictures(tmp_path, monkeypatch, capsys):
    """Sub-folders and links are read; what is hidden is not; pictures of no class are counted."""
    folders(tmp_path / "t", ("train", "test"), ("rose", "tree"), 5)
    train = tmp_path / "t" / "train"
    jpeg(train / "rose" / "red" / "deep.jpg", 2, 99)
    (train / "tree").rename(tmp_path / "elsewhere")
    (train / "tree").symlink_to(tmp_path / "elsewhere")
    jpeg(train / "loose.jpg", 2, 98)
    jpeg(train / "rose" / "._1.jpg", 2, 97)
    for hidden in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN"):
        jpeg(train / hidden / "rose.jpg", 2, 96)
    bench = task_of(tmp_path, monkeypatch)
    assert bench.classes == ("rose", "tree")
    assert len(bench.train) + len(bench.val) == 11
    assert "train: 1 images outside class folders left out" in capsys.readouterr().out


def test_a_class_of_one_picture_stays_in_train(tmp_path, monkeypatch, capsys):
    folders(tmp_path / "t", ("train", "test"), ("rose", "tree"), 6)
    folders(tmp_path / "t", ("train",), [f"rare {i}" for i in range(6)], 1, first=4)
    bench = task_of(tmp_path, monkeypatch)
    assert set(bench.train.labels) == set(range(8))
    assert len(bench.train) + len(bench.val) == 18 and len(bench.val)
    assert "test has no images for rare 0, rare 1" in capsys.readouterr().out
    folders(tmp_path / "t", ("val",), ("rose", "tree"), 6)
    assert len(task_of(tmp_path, monkeypatch).val) == 12
    assert "val lacks 6 classes" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "t" / "val")
    shutil.rmtree(tmp_path / "t" / "train" / "rose")
    shutil.rmtree(tmp_path / "t" / "train" / "tree")
    shutil.rmtree(tmp_path / "t" / "test")
    folders(tmp_path / "t", ("test",), ["rare 0"], 1)
    with pytest.raises(StudyError, match="too few images to cut val from train"):
        task_of(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda top: shutil.rmtree(top), "no images of train in"),
        (lambda top: [shutil.rmtree(top / "train"), (top / "train.zip").write_bytes(b"PK")],
         "no images of train in .* but train.zip, which has to be unpacked"),
        (lambda top: [shutil.rmtree(top / "train"), jpeg(top / "train" / "a.jpg", 2, 1)],
         "train has no images in folders of classes; .*train/CLASS"),
        (lambda top: shutil.rmtree(top / "test"), "no images of test in"),
        (lambda top: shutil.copytree(top / "train", top / "Train"), "both .* could be train"),
        (lambda top: (top / "train" / "empty").mkdir(), "train has no images for empty .1 class"),
        (lambda top: (top / "test" / "weed").mkdir(), "unknown class folder in .*test 'weed'"),
        (
            lambda top: shutil.rmtree(top / "train" / "rose"),
            "unknown class folder in .*test 'rose'",
        ),
        (lambda top: [shutil.rmtree(top / s / "rose") for s in ("train", "test")], "1 classes; a"),
        (lambda top: (top / "train" / "Rose").mkdir(), "'Rose' and 'rose' are both 'rose'"),
        (lambda top: (top / "test" / "Rose").mkdir(), "'Rose' and 'rose' are both 'rose'"),
    ],
)  # fmt: skip
def test_folders_of_another_layout_are_one_line(tmp_path, monkeypatch, change, words):
    folders(tmp_path / "t", ("train", "test"), ("rose", "tree"), 2)
    change(tmp_path / "t")
    with pytest.raises(StudyError, match=words) as e:
        task_of(tmp_path, monkeypatch)
    assert "\n" not in str(e.value)


def test_twenty_thousand_classes_take_seconds(tmp_path, monkeypatch):
    names = [f"class {i}" for i in range(20_000)]
    for split in ("train", "val", "test"):
        for i in range(3):
            (tmp_path / split / f"class_{7 * i}").mkdir(parents=True)
            (tmp_path / split / f"class_{7 * i}" / "a.jpg").touch()
    start = time.monotonic()
    assert len(config.class_names(names, "here")) == 20_000
    listed = benchmarks._folders(tmp_path, names, ("test",))
    assert listed["test"][1].tolist() == [0, 7, 14] and time.monotonic() - start < 5
    with pytest.raises(StudyError, match=r"no images for class 1, .*19997 classes") as e:
        benchmarks._folders(tmp_path, names, ("train",))
    (tmp_path / "train" / "klass 7").mkdir()
    with pytest.raises(StudyError, match="Did you mean 'class") as e:
        benchmarks._folders(tmp_path, names, ("train",))
    assert len(str(e.value)) < 500


AIRCRAFT_FILE = "fgvc-aircraft-2013b/data/images_variant_val.txt"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda top: (top / "stanford_cars/devkit/cars_meta.mat").unlink(), "cars_meta.mat"),
        (lambda top: (top / "stanford_cars/devkit/cars_meta.mat").write_text("<html>"), "Car"),
        (lambda top: (top / "stanford_cars/devkit/cars_meta.mat").write_bytes(b""), "Car"),
        (lambda top: os.truncate(top / "stanford_cars/devkit/cars_meta.mat", 2**25), "over 16,777"),
        (lambda top: shutil.copy(top / "stanford_cars/devkit/cars_meta.mat",
                                 top / "stanford_cars" / benchmarks.CARS_TEST), "annotations"),
        (lambda top: (top / "stanford_cars/cars_test/00003.jpg").unlink(), "1 images of test are"),
        (lambda top: (top / "dtd/dtd/labels/val1.txt").write_text("banded_01.jpg\n"), "ValueError"),
        (lambda top: (top / "dtd/dtd/labels/val1.txt").write_text("banded/banded_10.jpg\n"),
         "its splits have different classes"),
        (lambda top: (top / "dtd/dtd/labels/test1.txt").unlink(), "test1.txt"),
    ],
)  # fmt: skip
def test_damaged_lists_of_public_benchmarks_are_one_line(tmp_path, monkeypatch, change, words):
    textures(tmp_path / "benchmarks")
    stanford_cars(tmp_path / "benchmarks")
    (tmp_path / "paper.toml").write_text("")
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    change(tmp_path / "benchmarks")
    w = worlds.get("paper")
    said = []
    for task in ("dtd", "cars"):
        with contextlib.suppress(StudyError):
            worlds.backend(w).benchmark(w, task)
            continue
        with pytest.raises(StudyError, match=f"cannot read .* in .*{words}") as e:
            worlds.backend(w).benchmark(w, task)
        said.append(str(e.value))
    assert len(said) == 1 and "\n" not in said[0] and "or name another folder" in said[0]


@pytest.mark.parametrize(
    "line, words",
    [
        ("1300000 A380", "KeyError: 'A380'"),
        ("1300000", "ValueError"),
        ("9999999 A320", "1 images of val are missing"),
    ],
)
def test_damaged_lists_of_aircraft(tmp_path, monkeypatch, line, words):
    fgvc_aircraft(tmp_path / "benchmarks", 2)
    (tmp_path / "benchmarks" / AIRCRAFT_FILE).write_text(line + "\n")
    (tmp_path / "paper.toml").write_text("")
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    with pytest.raises(StudyError, match=f"cannot read FGVCAircraft in .*{words}"):
        worlds.backend(worlds.get("paper")).benchmark(worlds.get("paper"), "aircraft")


def test_large_photographs_are_decoded_whole_or_at_a_smaller_scale(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    whole = benchmarks.Decoded([tmp_path / "a.jpg"], 32, reduced=False)[:]
    photograph = Image.open(tmp_path / "a.jpg").convert("RGB")
    assert np.array_equal(whole[0], ImageOps.fit(photograph, (32, 32), Image.Resampling.BICUBIC))
    reduced = benchmarks.Decoded([tmp_path / "a.jpg"], 32)[:]
    assert reduced.shape == (1, 32, 32, 3) and not np.array_equal(reduced, whole)
    assert benchmarks.Decoded([], 32)[:].shape == (0, 32, 32, 3)
