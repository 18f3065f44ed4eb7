"""The models of notebook 07: their training images, the plan, and every probe on one model."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import pocket, worlds
from helpers.data.subsets import evenly_spread
from helpers.data.tables import Benchmark, Split
from helpers.errors import StudyError
from helpers.measure import metrics
from helpers.measure.folds import fold_of
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


def test_attack_reports_every_image_at_every_radius_and_clean(toy, model):
    w = worlds.replace(W, robustness={"epsilons": (16, 1, 4)})
    right = robustness.attack(w, model, toy.test, 0)
    radii = ("0", "1", "4", "16")
    assert set(right) == {(a, e) for a in ("fgsm", "pgd") for e in radii}
    clean = model.image_logits(toy.test.images).argmax(1) == toy.test.labels
    assert (right["pgd", "0"] == clean).all() and (right["fgsm", "0"] == clean).all()
    assert all(right["pgd", e].sum() <= right["fgsm", e].sum() for e in radii)
    for smaller, larger in pairwise(radii):
        assert (right["pgd", larger] <= right["pgd", smaller]).all()


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
    columns = [*robustness.MODEL, "probe", "setting", "value", *robustness.WITHOUT]
    assert list(table) == columns
    assert table["value"].dtype == float and len(table) == len(values)
    assert table.loc[table["probe"] != "reliability", robustness.WITHOUT].notna().all(axis=None)


def test_values_leave_out_the_same_images_in_every_set(toy, model, probed):
    w = worlds.replace(W, robustness={"attacked": 15})
    wrong = Split(toy.test.images, 1 - toy.test.labels)
    probed |= {"jpeg-3": toy.test, "renditions": wrong}
    table = robustness.measured(w, model, ("supervised", "mixed", 24, 0))
    table = table.set_index(["probe", "setting"])[robustness.WITHOUT]
    answers = model.image_logits(toy.test.images).argmax(1)
    fold = fold_of(toy.test.labels)
    assert sorted(np.bincount(fold)) == [4] * 10
    kept = [(answers == toy.test.labels)[fold != k].mean() for k in range(10)]
    for key in (("accuracy", "clean"), ("accuracy", "test"), ("corruption", "jpeg-3")):
        assert table.loc[key].to_numpy() == pytest.approx(kept, abs=1e-5)
    assert table.loc["renditions", "accuracy"].to_numpy() == pytest.approx(
        1 - np.array(kept), abs=1e-5
    )
    attacked = evenly_spread(40, 15)
    right = robustness.attack(w, model, toy.test.take(attacked), 0)["pgd", "1"]
    kept = [right[fold[attacked] != k].mean() for k in range(10)]
    assert table.loc["pgd", "1"].to_numpy() == pytest.approx(kept, abs=1e-5)
    warmer = metrics.ece(model.image_logits(toy.test.images)[fold != 3], toy.test.labels[fold != 3])
    assert table.loc["calibration", "ece"]["without_3"] == pytest.approx(warmer, abs=1e-5)


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
        assert values[key] == pytest.approx(1 - right, abs=1e-5)
    assert values["background", "gap"] == pytest.approx(2 * right - 1, abs=3e-5)
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
    assert len(plan) == len(set(plan)) == 9 * 2 + 2 * 3 * 2
    more = robustness.plan(worlds.replace(W, robustness={"seeds": 4}))
    assert set(plan) < set(more)
    few = worlds.replace(W, robustness={"mixed": ("supervised",)})
    assert {m[0] for m in robustness.plan(few) if m[1] == "mixed"} == {"supervised"}
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
