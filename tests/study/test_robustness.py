"""The models of notebook 07: their training images, the plan, and every probe on one model."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import pocket, worlds
from helpers.data.tables import Benchmark, Split
from helpers.errors import StudyError
from helpers.measure.metrics import ProbeSets
from helpers.models import families
from helpers.study import arms, robustness
from tests import tiny

W = worlds.get("smoke", robustness={"steps": 25, "batch": 12, "validation": 20})
SHIPPED = Path(pocket.__file__).parent / "weights" / "clip"
CLASSES = ("corn poppy", "balloon flower")


@pytest.fixture(scope="module")
def toy():
    """Red and blue squares, in place of a benchmark."""
    rng = np.random.default_rng(0)

    def split(n):
        images, labels = tiny.red_and_blue(n, rng)
        return Split(images, labels)

    facts = pd.DataFrame(index=CLASSES)
    templates = ("a photo of a {}",)
    splits = (split(24), split(20), split(40))
    return Benchmark("toy", CLASSES, "flower", "", templates, ("sea",), facts, *splits)


@pytest.fixture(scope="module")
def model(toy):
    """The shipped CLIP's architecture, trained on the toy benchmark."""
    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(pocket, "clip_folder", lambda w: SHIPPED)
        return families.train(W, "supervised", toy.train, toy.train, toy, 0)


def test_attack_reports_every_radius_and_clean(toy, model):
    values = robustness.attack(W, model, toy.test, 0)
    assert set(values) == {(a, e) for a in ("fgsm", "pgd") for e in ("0", "1", "4")}
    assert all(values["pgd", e] <= values["fgsm", e] + 1e-9 for e in ("0", "1", "4"))


@pytest.fixture
def probed(toy, monkeypatch):
    """A few probe sets of the toy benchmark; ``put(name, split)`` adds one."""
    sets = {"original": toy.test}
    groups = pd.DataFrame({"shape": ["5", "6"], "texture": ["red", "blue"]}, index=CLASSES)
    monkeypatch.setattr(robustness, "probe_sets", lambda w: ProbeSets(sets, groups))
    monkeypatch.setattr(robustness.tables, "benchmark", lambda w, task: toy)
    robustness.small_sets.cache_clear()
    yield sets
    robustness.small_sets.cache_clear()


def values_of(table):
    """(probe, setting) -> value, in the order of the table."""
    return table.set_index(["probe", "setting"])["value"].to_dict()


def test_measure_asks_the_probes_whose_sets_are_there(toy, model, probed):
    table = robustness.measured(W, model, ("supervised", "mixed", 24, 0))
    values = values_of(table)
    assert {probe for probe, _ in values} == {
        "accuracy",
        "calibration",
        "reliability",
        "fgsm",
        "pgd",
    }
    assert list(values) == sorted(values)
    assert values["accuracy", "clean"] == values["accuracy", "test"] == values["fgsm", "0"] > 0.8
    assert list(table) == [*robustness.MODEL, "probe", "setting", "value"]
    assert table["value"].dtype == float and len(table) == len(values)


def test_measure_on_every_kind_of_set(toy, model, probed):
    nothing = Split(toy.test.images[:8], np.full(8, -1))
    facts = pd.DataFrame({"shape": ["5"] * 4, "texture": ["blue"] * 4})
    swapped = Split(toy.test.images, 1 - toy.test.labels)
    probed |= {
        "jpeg-3": toy.test,
        "fog_3d-1": swapped,
        "renditions": toy.test,
        "context_0": toy.test,
        "context_2": swapped,
        "mixed_same": toy.test,
        "mixed_rand": swapped,
        "ood_near": nothing,
        "cue_conflict": Split(toy.test.images[:4], np.zeros(4, int), facts),
    }
    values = values_of(robustness.measured(W, model, ("supervised", "mixed", 24, 0)))
    right = values["accuracy", "clean"]
    assert right > 0.8
    for key in (("corruption", "jpeg-3"), ("renditions", "accuracy"), ("context", "P0")):
        assert values[key] == right
    for key in (("corruption_3d", "fog_3d-1"), ("context", "P2"), ("background", "mixed_rand")):
        assert values[key] == pytest.approx(1 - right)
    assert values["background", "gap"] == pytest.approx(2 * right - 1)
    assert values["calibration", "ece_renditions"] == values["calibration", "ece"]
    assert {s for p, s in values if p == "ood"} == {
        f"near-{score}-{metric}"
        for score in ("entropy", "max_softmax", "energy")
        for metric in ("auroc", "aupr", "fpr95")
    }
    assert values["shape", "shape_hits"] + values["shape", "texture_hits"] == 1


def test_mixed_takes_half_of_each(monkeypatch):
    def offered(w, task, source):
        labels = np.arange(40) % 4
        return Split(
            np.zeros((40, 2, 2, 3), np.uint8), labels, pd.DataFrame({"from": [source] * 40})
        )

    monkeypatch.setattr(robustness.tables, "source_set", offered)
    images = robustness.training_images(W, "mixed", 9, 0)
    assert images.facts["from"].value_counts().to_dict() == {"retrieved": 5, "synthetic": 4}
    assert len(images) == 9
    assert len(robustness.training_images(W, "synthetic", 9, 0)) == 9


def test_a_kind_of_prompt_is_a_source(monkeypatch):
    asked = []

    def drawn_from(w, kind):
        asked.append(kind)
        return Split(
            np.zeros((8, 2, 2, 3), np.uint8),
            np.arange(8) % 4,
            pd.DataFrame({"caption": [kind] * 8}),
        )

    monkeypatch.setattr(arms, "drawn_from", drawn_from)
    assert len(robustness.training_images(W, "templates", 4, 0)) == 4 and asked == ["templates"]
    assert {"class names", "templates", "language model"} == set(robustness.kinds(W))


def test_the_plan_compares_every_family_and_source_once_per_seed(monkeypatch):
    offered = {"retrieved": range(30), "synthetic": range(50)}
    monkeypatch.setattr(robustness.tables, "source_set", lambda w, task, source: offered[source])
    plan = robustness.plan(W)
    assert len(plan) == len(set(plan)) == 9 * 2 + 2 * 3 * 2 + 3 * 2
    compared = [model for model in plan if model[2] == 30]  # what both sources can offer
    assert {model[:2] for model in compared} == {
        (family, source) for family in robustness.FAMILIES for source in robustness.SOURCES
    }
    assert {m[1] for m in plan if m[0] == "supervised" and m[2] in W.robustness.prompted} == set(
        robustness.kinds(W)
    )


def test_checkpoints_of_one_family_and_source_are_counted():
    names = [
        ("supervised", "retrieved", "a"),
        ("supervised", "synthetic", "b"),
        ("supervised", "retrieved", "c"),
    ]
    w = worlds.get("smoke", robustness={"checkpoints": tuple(names)})
    assert [number for *_, number in robustness.finished(w)] == [0, 0, 1]


def test_messages_say_what_is_valid():
    with pytest.raises(StudyError, match="unknown source 'real'"):
        robustness.training_images(W, "real", 4, 0)
    with pytest.raises(StudyError, match="unknown task in world 'smoke' 'flowers'"):
        robustness.probed_task(worlds.get("smoke", tasks=("cars",)))
