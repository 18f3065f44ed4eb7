"""The published probe sets, from folders in their layouts."""

import json

import numpy as np
import pandas as pd
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from helpers import paper, worlds
from helpers.errors import StudyError
from helpers.measure.metrics import shape_bias
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
