"""The models of notebook 07: training images, the plan, every probe on one model, kept runs."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import pocket, worlds
from helpers.data.subsets import evenly_spread
from helpers.data.tables import Benchmark, Split
from helpers.engine import places, store
from helpers.errors import StudyError
from helpers.measure import metrics
from helpers.measure.folds import fold_of
from helpers.measure.metrics import ProbeSets
from helpers.models import families
from helpers.study import arms, finetune, robustness
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
        captions = np.array([f"a photo of a {name}" for name in CLASSES])[labels]
        return Split(images, labels, pd.DataFrame({"caption": captions}))

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


def test_where_no_image_is_right_none_is_attacked(toy, model, monkeypatch):
    asked = []
    walk = robustness.attacks.pgd
    count = lambda logits, x, *ball: asked.append(len(x)) or walk(logits, x, *ball)  # noqa: E731
    monkeypatch.setattr(robustness.attacks, "pgd", count)
    wrong = 1 - model.image_logits(toy.test.images).argmax(1)
    right = robustness.attack(W, model, dataclasses.replace(toy.test, labels=wrong), 0)
    assert not any(right["pgd", radius].any() for radius in ("0", "1", "4")) and not asked


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
    assert [number for *_, number in robustness.plan(w)] == [0, 0, 1]


def test_the_recipe_leaves_out_which_models_there_are():
    desk = worlds.WORLDS["desk"]
    which = {"seeds": 40, "prompts": ("templates",), "prompted": (240, 480), "mixed": ()}
    same = finetune.recipe(worlds.replace(desk, robustness=which), "robust")
    assert same == finetune.recipe(desk, "robust")
    for content in ({"steps": 7}, {"probe_images": 9}, {"attacked": 9}, {"epsilons": (1,)}):
        changed = worlds.replace(desk, robustness=content)
        assert finetune.recipe(changed, "robust") != same


def test_files_name_what_the_recipe_leaves_out():
    desk = worlds.WORLDS["desk"]
    more = worlds.replace(desk, robustness={"prompted": (480, 960)})
    for kind, differ in (("templates", True), ("language model", False), ("synthetic", False)):
        names = [robustness.file_of(w, "supervised", kind, 480, 3) for w in (desk, more)]
        assert (names[0] != names[1]) == differ
    named = robustness.file_of(desk, "supervised", "retrieved", "timm/vit/a b.safetensors", 0)
    assert named == "runs/supervised-retrieved-timm_vit_a_b.safetensors-0.parquet"


@pytest.fixture
def in_process(toy, probed, monkeypatch, tmp_path):
    """``kept(seeds, store)`` makes the artifact in a store of its own and counts trainings."""
    images = Split(toy.train.images, toy.train.labels, toy.train.facts)
    monkeypatch.setattr(robustness.tables, "source_set", lambda w, task, source: images)
    monkeypatch.setattr(arms, "drawn_from", lambda w, kind: images)
    monkeypatch.setattr(pocket, "clip_folder", lambda w: SHIPPED)
    monkeypatch.setattr(places, "TOP", tmp_path)
    monkeypatch.setattr(store.workers.gpu, "cores", lambda: 1)
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path / "figures"))
    train = families.train
    trained = []

    def counted(*about):
        trained.append(about[1])
        return train(*about)

    monkeypatch.setattr(families, "train", counted)

    def kept(seeds, folder):
        trained.clear()
        monkeypatch.setenv("STUDY_RUNS", str(tmp_path / folder))
        size = {"images": 8, "steps": 2, "batch": 4, "attacked": 4, "pgd_steps": 1}
        which = {"seeds": seeds, "mixed": (), "prompts": (), "prompted": (6,), "epsilons": (1,)}
        w = worlds.replace(W, robustness=size | which)
        w = dataclasses.replace(w, name="desk", keeps_runs=True)
        return robustness.make(w).table("results.parquet"), len(trained)

    return kept


def test_kept_models_are_not_trained_again_and_more_seeds_train_only_the_missing(in_process):
    one, trained = in_process(1, "first")
    assert trained == 7 and set(one["seed"]) == {0}
    two, trained = in_process(2, "second")
    assert trained == 7 and set(two["seed"]) == {0, 1}
    again, trained = in_process(2, "third")
    assert trained == 0
    pd.testing.assert_frame_equal(again, two)
    seeds = two[two["seed"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(seeds, one, check_exact=True)
    rows = pd.read_csv(places.TOP / "figures" / "desk" / "07_runs.csv")
    assert len(rows) == 14 and rows["accuracy"].between(0, 1).all()


def test_messages_say_what_is_valid():
    with pytest.raises(StudyError, match="unknown source 'real'"):
        robustness.training_images(W, "real", 4, 0)
    with pytest.raises(StudyError, match="unknown task in world 'smoke' 'flowers'"):
        robustness.probed_task(worlds.get("smoke", tasks=("cars",)))
