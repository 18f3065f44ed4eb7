"""The published probe sets, from folders in their layouts."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from helpers import paper, worlds
from helpers.errors import StudyError
from helpers.measure.metrics import shape_bias
from helpers.paper import config, doctor
from helpers.study import robustness


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Tiny folders in the layouts of the published sets: three classes, two of them animals."""
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    base = tmp_path / "benchmarks"
    rng = np.random.default_rng(0)

    def put(place, *names):
        for name in names:
            (base / place).mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(image).save(base / place / name)

    for wnid in ("n1", "n2", "n3"):
        put(f"imagenet/train/{wnid}", *(f"{i:02d}.JPEG" for i in range(12)))
        put(f"imagenet/val/{wnid}", "a.JPEG", "b.JPEG")
        put(f"imagenet-c/jpeg_compression/5/{wnid}", "a.JPEG")
    put("imagenet-r/n1", "a.jpg")
    put("imagenet-r/n3", "a.jpg")
    for kind in ("mixed_same", "mixed_rand"):
        put(f"imagenet-9/{kind}/val/00_dog", "a.JPEG")
        put(f"imagenet-9/{kind}/val/01_car", "a.JPEG")
    (base / "imagenet-9" / "in_to_in9.json").write_text(json.dumps({"0": 0, "1": 0, "2": -1}))
    put("focus/2/animal", "a.jpg")
    put("inaturalist/deep/er", "a.jpg")
    put("cue-conflict/animal", "animal1-car2.png", "car1-car3.png")
    wnids = ["n1", "n2", "n3"]
    categories = pd.DataFrame({"wnid": wnids, "category": ["animal", "animal", "car"]})
    for place in ("focus", "cue-conflict"):
        categories.to_csv(base / place / "categories.csv")
    classes = pd.DataFrame({"wnid": wnids, "name": ["cat", "dog", "truck"]})
    classes.to_csv(base / "imagenet" / "classes.csv")
    few = {"probe_images": 5, "validation": 10, "attacked": 3, "image_size": 16, "pgd_steps": 2}
    return worlds.get("paper", image_size=16, robustness=few)


def test_published_probe_sets_from_folders(folders, capsys):
    found = paper.probe_sets(folders, "imagenet")
    assert set(found.sets) == {
        "original",
        "renditions",
        "jpeg-5",
        "mixed_same",
        "mixed_rand",
        "context_2",
        "ood_far",
        "cue_conflict",
    }
    assert "left out" in capsys.readouterr().out
    assert found.sets["original"].images.shape == (5, 16, 16, 3)
    assert found.sets["renditions"].labels.tolist() == [0, 2]
    assert found.sets["ood_far"].labels.tolist() == [-1]
    logits = np.array([[0.0, 5, 1], [0, 5, 1]])
    assert found.chosen("renditions", logits).argmax(1).tolist() == [2, 2]
    truth = {name: found.sets[name].labels for name in ("renditions", "mixed_rand")}
    assert found.accuracy("renditions", logits[:, [2, 1, 0]], truth["renditions"]) == 0
    assert found.accuracy("mixed_rand", logits, truth["mixed_rand"]) == 0.5
    turned = logits[:, [2, 0, 1]]
    assert found.accuracy("mixed_rand", turned, truth["mixed_rand"]) == 0  # unmapped: never right
    facts = found.sets["cue_conflict"].facts
    assert len(facts) == 1
    assert shape_bias(np.array([1]), facts, found.groups)["shape_bias"] == 1
    bench = paper.benchmark(folders, "imagenet")
    assert (len(bench.train), len(bench.val), len(bench.test)) == (28, 8, 6)
    assert bench.classes == ("cat", "dog", "truck")


def table(place, *rows):
    return lambda base: (base / place).write_bytes("\n".join(rows).encode("latin-1"))


def png(base, name="imagenet-r/n1/b.jpg"):
    (base / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20)).save(base / name, "png")


CATEGORIES = "focus/categories.csv"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda base: os.truncate(base / "imagenet-r/n1/a.jpg", 200), "imagenet-r/n1/a.jpg"),
        (lambda base: (base / "sun").mkdir(), "sun holds no images"),
        (lambda base: png(base, "imagenet-r/n9/a.png"), "images of no class: n9"),
        (lambda base: png(base, "imagenet-r/loose.png"), "images of no class: loose.png"),
        (lambda base: png(base, "cue-conflict/animal/dog.png"), "dog.png is not named SHAPE1-TEX"),
        (lambda base: png(base, "cue-conflict/boat/boat1-car1.png"), "no class .* for boat"),
        (lambda base: (base / CATEGORIES).unlink(), "cannot read .*categories.csv"),
        (table(CATEGORIES, "wnid,category", "n1,vehicle"), "no class of ImageNet here for animal"),
        (table(CATEGORIES, "wnid,category", "n1,animal", "n1,car"), "lists n1 twice"),
        (table(CATEGORIES, "wnid;category", "n1;animal"), "columns 'wnid;category'; it wants the"),
        (table(CATEGORIES, "id,group", "n1,animal"), "it wants the header wnid,category"),
        (table(CATEGORIES, "wnid,category", "n1,\xe9"), "categories.csv is not in UTF-8"),
        (table(CATEGORIES, 'wnid,category', '"n1,animal'), "is no table"),
        (table("imagenet/classes.csv", "wnid;name", "n1;cat"), "it wants the header wnid,name"),
        (table("imagenet/classes.csv", "wnid,name", "n1,cat", "n2,Cat", "n3,car"), "are one name"),
        (table("imagenet-9/in_to_in9.json", json.dumps(dict.fromkeys(map(str, range(1000)), 0))),
         "has 1000 classes, and ImageNet here 3"),
        (table("imagenet-9/in_to_in9.json", '{"0": -1, "1": -1, "2": -1}'), "2 folders no classes"),
        (table("imagenet-9/in_to_in9.json", '{"0": 0, "1": 1, "2": 7}'), "no classes, or others"),
        (table("imagenet-9/in_to_in9.json", '{"n1": 0, "n2": 1, "n3": 1}'), "is no table from"),
        (table("imagenet-9/in_to_in9.json", '{"0": 0, "1": 0.7, "2": 1}'), "is no table from"),
        (table("imagenet-9/in_to_in9.json", '{"0": 0, "1": Infinity, "2": 1}'), "is no table from"),
        (lambda base: (base / "cue-conflict/animal/animal1-car2.png").unlink(),
         "no image whose shape and texture differ"),
        (lambda base: png(base, "imagenet-r/n3/z.png") or os.truncate(
            base / "imagenet-r/n3/z.png", 40), "imagenet-r/n3/z.png"),
        (table("imagenet-9/in_to_in9.json", "[" * 100_000), "is no table from every class"),
        (table("imagenet-9/in_to_in9.json", "<html>"), "is no table from every class"),
    ],
)  # fmt: skip
def test_a_set_that_cannot_be_used_is_one_line_in_the_check(folders, change, words):
    change(config.settings().benchmarks)
    with pytest.raises(StudyError, match=words) as e:
        doctor._probe_sets(folders)
    assert "\n" not in str(e.value)
    if not words.startswith("imagenet-r/"):
        with pytest.raises(StudyError, match=words):
            paper.probe_sets(folders, "imagenet")


def test_categories_in_another_spelling_and_stray_files_are_no_matter(folders):
    base = config.settings().benchmarks
    before = paper.probe_sets(folders, "imagenet")
    (base / CATEGORIES).write_text("wnid, category\nn1,Animal\nn2,ANIMAL\nn3,car\n", "utf-8-sig")
    (base / "imagenet-r/n1").rename(base / "imagenet-r/N1")
    (base / "focus/2/notes.txt").write_text("not a category")
    (base / "focus/2/.ipynb_checkpoints").mkdir()
    after = paper.probe_sets(folders, "imagenet")
    assert (after.groupings["context_2"] == before.groupings["context_2"]).all()
    assert after.among["renditions"].tolist() == before.among["renditions"].tolist() == [0, 2]
    assert after.sets["context_2"].labels.tolist() == before.sets["context_2"].labels.tolist()


def test_a_named_checkpoint_is_probed_on_the_folders_that_are_there(folders, tmp_path):
    network = timm.create_model("test_resnet", num_classes=3)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    name = "timm/test_resnet/weights.safetensors"
    table = robustness.run(folders, "supervised", "retrieved", name, 0)
    assert {
        "accuracy",
        "calibration",
        "renditions",
        "corruption",
        "background",
        "context",
        "ood",
        "fgsm",
        "pgd",
    } <= set(table["probe"])
    assert list(table)[:4] == robustness.MODEL
    assert np.isfinite(table["value"]).all()


def test_another_task_has_no_published_probe_sets():
    with pytest.raises(StudyError, match="probe sets of 'imagenet' only"):
        paper.probe_sets(worlds.get("paper"), "cars")
