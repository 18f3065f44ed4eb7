"""Probes against answers known by hand, by scikit-learn and by torchmetrics; probe sets; families; summaries."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from helpers import paper, pocket, worlds
from helpers.data.tables import Benchmark, Split
from helpers.errors import StudyError
from helpers.measure import attacks, metrics, probes
from helpers.measure.probes import DEPTH_AWARE, IMAGE_SPACE, SEVERITIES
from helpers.models import checkpoints, clip, families, weights
from helpers.pocket.render.pictures import TASKS
from helpers.pocket.train import upstream
from helpers.pocket.world import corruptions
from helpers.pocket.world import probes as rendered
from helpers.study import robustness
from tests import tiny

W = worlds.get("smoke", robustness={"steps": 25, "batch": 12, "validation": 20})


@pytest.fixture(scope="module")
def guesses():
    """Logits of a calibrated guesser, (n, 5), and labels drawn from its own probabilities."""
    rng = np.random.default_rng(0)
    logits = 1.5 * rng.normal(size=(20_000, 5))
    drawn = (metrics.probabilities(logits).cumsum(1) > rng.random((len(logits), 1))).argmax(1)
    return logits, drawn


def test_ece_by_hand():
    logits = np.log([[0.92, 0.08], [0.92, 0.08], [0.62, 0.38], [0.38, 0.62]])
    assert metrics.ece(logits, np.array([0, 1, 0, 0])) == pytest.approx(
        0.5 * (0.92 - 0.5) + 0.5 * (0.62 - 0.5)
    )
    assert metrics.ece(logits, np.array([0, 0, 0, 1])) == pytest.approx(0.5 * 0.08 + 0.5 * 0.38)


def test_adaptive_and_classwise_ece_by_hand():
    logits, labels = (
        np.log([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]]),
        np.array([0, 1, 0, 0]),
    )
    pairs = abs(0.9 + 0.8 - 1) + abs(0.7 + 0.6 - 1)  # the two most and the two least confident
    assert metrics.adaptive_ece(logits, labels, bins=2) == pytest.approx(pairs / 4)
    mean, share = np.array([0.7, 0.3]), np.array([0.75, 0.25])
    assert metrics.classwise_ece(logits, labels, bins=1) == pytest.approx(
        np.abs(mean - share).mean()
    )


def test_ece_agrees_with_torchmetrics_and_with_a_loop(guesses):
    from torchmetrics.classification import MulticlassCalibrationError

    logits, labels = guesses[0][:500], guesses[1][:500]
    p = metrics.probabilities(logits)
    other = MulticlassCalibrationError(5, n_bins=20, norm="l1")(
        torch.from_numpy(p), torch.from_numpy(labels)
    )
    confidence, right, total = p.max(1), p.argmax(1) == labels, 0.0
    for low in np.arange(20) / 20:
        inside = (confidence > low) & (confidence <= low + 0.05)
        total += abs(confidence[inside].sum() - right[inside].sum()) / len(p)
    assert (
        metrics.ece(logits, labels)
        == pytest.approx(float(other), abs=1e-9)
        == pytest.approx(total, abs=1e-6)
    )


def test_a_calibrated_guesser_has_no_calibration_error(guesses):
    for measure in (metrics.ece, metrics.adaptive_ece, metrics.classwise_ece):
        assert measure(*guesses) < 0.015 < measure(4 * guesses[0], guesses[1])


def test_temperature_undoes_a_wrong_scale(guesses):
    logits, labels = guesses
    assert metrics.temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    made = metrics.calibration(
        3 * logits[:5_000], labels[:5_000], 3 * logits[5_000:], labels[5_000:]
    )
    assert made["ece_scaled"] < 0.03 < made["ece"] and made["nll_scaled"] < made["nll"]
    assert made["error"] == pytest.approx(1 - metrics.accuracy(logits[:5_000], labels[:5_000]))


def test_reliability_diagram_sums_to_the_ece(guesses):
    table = metrics.reliability(*guesses)
    assert table["share"].sum() == pytest.approx(1)
    assert (
        (table["confidence"] - table["accuracy"]).abs() * table["share"]
    ).sum() == pytest.approx(metrics.ece(*guesses), abs=1e-6)


def test_ood_metrics_by_hand_and_against_torchmetrics():
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    rng = np.random.default_rng(1)
    known, unknown = rng.normal(1, 1, 300), rng.normal(0, 1, 200)
    made = metrics.ood_metrics(known, unknown)
    score, truth = torch.from_numpy(np.r_[known, unknown]), torch.tensor([1] * 300 + [0] * 200)
    assert made["auroc"] == pytest.approx(float(binary_auroc(score.sigmoid(), truth)), abs=1e-6)
    assert made["aupr"] == pytest.approx(
        float(binary_average_precision(score.sigmoid(), truth)), abs=1e-6
    )
    assert made["fpr95"] == pytest.approx(
        (unknown >= np.sort(known)[15]).mean()
    )  # 285 of 300 are at or above it
    assert metrics.ood_metrics(np.ones(4), np.zeros(4)) == {"auroc": 1, "aupr": 1, "fpr95": 0}
    same = metrics.ood_metrics(known, known)
    assert same["auroc"] == pytest.approx(0.5) and same["fpr95"] >= 0.95


def test_all_ood_scores_are_higher_for_the_sure():
    for scores in metrics.ood_scores(np.array([[8.0, 0, 0], [1, 1, 1]])).values():
        assert scores[0] > scores[1]
    assert metrics.ood_scores(np.zeros((1, 4)))["entropy"][0] == pytest.approx(-np.log(4))


def line():
    """A linear two-class model, pixels, labels; the worst pixels in the L-inf ball are known."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3 * 6 * 6, generator=generator)
    x, y = (
        torch.rand(40, 3, 6, 6, generator=generator),
        torch.randint(2, (40,), generator=generator),
    )

    def logits_of(pixels):
        score = pixels.flatten(1) @ weight
        return torch.stack([torch.zeros_like(score), score - weight.sum() / 2], 1)

    towards = torch.where(y == 1, -1.0, 1.0)[:, None] * weight.sign()
    return logits_of, x, y, lambda eps: (x.flatten(1) + eps * towards).clamp(0, 1).reshape(x.shape)


@pytest.mark.parametrize("eps", [0.002, 0.02, 0.3])
def test_attacks_find_the_known_optimum_of_a_linear_model(eps):
    logits_of, x, y, optimum = line()
    twice = attacks.fgsm(logits_of, x, y, (eps, 2 * eps))
    assert torch.equal(twice[0], optimum(eps)) and torch.equal(twice[1], optimum(2 * eps))
    found = attacks.pgd(logits_of, x, y, eps, 20, torch.Generator().manual_seed(1))
    assert torch.allclose(logits_of(found), logits_of(optimum(eps)), atol=1e-5)
    assert not torch.allclose(logits_of(found), logits_of(x), atol=1e-3)
    assert (found - x).abs().max() <= eps + 1e-6 and found.min() >= 0 and found.max() <= 1


def test_pgd_is_at_least_as_strong_as_fgsm_where_the_loss_bends():
    generator = torch.Generator().manual_seed(3)
    first, second = (
        torch.randn(48, 64, generator=generator),
        torch.randn(64, 4, generator=generator),
    )
    x = torch.rand(200, 3, 4, 4, generator=generator)

    def logits_of(pixels):
        return torch.sin(2 * pixels.flatten(1) @ first) @ second

    y = logits_of(x).argmax(1)
    for eps in (0.01, 0.03):
        fgsm, pgd = (
            metrics.accuracy(logits_of(a).numpy(), y.numpy())
            for a in (
                attacks.fgsm(logits_of, x, y, [eps])[0],
                attacks.pgd(logits_of, x, y, eps, 20, torch.Generator().manual_seed(0)),
            )
        )
        assert pgd <= fgsm < 1
    assert torch.equal(attacks.pgd(logits_of, x, y, 0.0, 3, torch.Generator()), x)


GROUPS = pd.DataFrame(
    {"shape": ["5", "5", "6"], "texture": ["red", "white", "red"]}, index=["a", "b", "c"]
)


def test_shape_bias_by_hand():
    facts = pd.DataFrame({"shape": ["6"] * 4, "texture": ["white"] * 4})
    assert probes.shape_bias(np.array([2, 2, 2, 1]), facts, GROUPS) == {
        "shape_hits": 0.75,
        "texture_hits": 0.25,
        "shape_bias": 0.75,
    }
    assert "shape_bias" not in probes.shape_bias(np.array([0, 0, 0, 0]), facts, GROUPS)
    with pytest.raises(StudyError, match="no cue conflict"):
        probes.shape_bias(np.array([0]), pd.DataFrame({"shape": ["5"], "texture": ["red"]}), GROUPS)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: metrics.ece(np.zeros((3, 2)), np.array([0, 1, -1])),
            "labels -1 .. 1 were given for 2 classes",
        ),
        (lambda: metrics.accuracy(np.zeros((3, 2)), np.array([0, 1])), r"wants \(n, classes\)"),
        (lambda: metrics.ood_metrics(np.zeros(3), np.zeros(0)), "0 unknown images"),
        (lambda: attacks.pgd(None, None, None, 0.1, 0, None), "at least one step"),
        (
            lambda: corruptions.corrupt(
                np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.uint8), "jpg", 1, None
            ),
            "Did you mean 'jpeg'",
        ),
        (
            lambda: corruptions.corrupt(
                np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.uint8), "jpeg", 6, None
            ),
            "unknown severity",
        ),
        (lambda: families.train(W, "supervized", None, None, None, 0), "Did you mean 'supervised'"),
        (lambda: robustness.training_images(W, "real", 4, 0), "unknown source 'real'"),
        (
            lambda: robustness.task(worlds.get("smoke", tasks=("cars",))),
            "unknown task in world 'smoke' 'flowers'",
        ),
        (lambda: pocket.probe_sets(W, "boats"), "unknown task"),
        (lambda: paper.probe_sets(worlds.get("paper"), "cars"), "probe sets of 'imagenet' only"),
        (
            lambda: checkpoints.load("resnet50", None),
            "checkpoint 'resnet50' is unknown; valid: 'timm/NAME'",
        ),
        (
            lambda: checkpoints.load(
                "timm/test_resnet/nowhere.pt", Benchmark("toy", ("a", "b"), *[None] * 8)
            ),
            "are not on this machine",
        ),
    ],
)
def test_messages_say_what_is_valid(call, message):
    with pytest.raises(StudyError, match=message):
        call()


@pytest.fixture(scope="module")
def plan():
    """(thing, scene, seed, facts) of every rendered set of flowers, and of the originals."""
    names = (*rendered.RENDERED, "cue_conflict")
    return {name: [rendered.changed(W, "flowers", name, i) for i in range(56)] for name in names}


def test_only_the_background_is_swapped(plan):
    for name in ("mixed_same", "mixed_rand"):
        for (thing, scene, seed, facts), (thing0, scene0, seed0, facts0) in zip(
            plan[name], plan["original"], strict=True
        ):
            assert (thing, seed, facts) == (thing0, seed0, facts0)
            assert dataclasses.replace(scene, background=scene0.background) == scene0
    swapped = [
        a[1].background != b[1].background
        for a, b in zip(plan["mixed_rand"], plan["original"], strict=True)
    ]
    assert 0.5 < np.mean(swapped) < 1


def test_context_sets_have_as_many_uncommon_attributes_as_they_say(plan):
    assert rendered.uncommon("weather") == ("rain", "fog") and rendered.uncommon("style") == (
        "poster",
        "faded",
        "sketch",
    )
    for k in range(3):
        counts = [
            sum(getattr(s, f) in rendered.uncommon(f) for f in ("weather", "style"))
            for _, s, _, _ in plan[f"context_{k}"]
        ]
        assert set(counts) == {k}
    which = [s.style in rendered.uncommon("style") for _, s, _, _ in plan["context_1"]]
    assert np.mean(which) == 0.5


def test_cues_are_in_conflict_and_groups_match_the_classes(plan):
    groups = rendered.groups("flowers")
    assert list(groups.index) == list(TASKS["flowers"]) and groups.loc["corn poppy"].tolist() == [
        "4",
        "red",
    ]
    facts = pd.DataFrame([f for _, _, _, f in plan["cue_conflict"]])
    answers = np.arange(len(facts)) % len(groups)
    assert set(probes.shape_bias(answers, facts, groups)) >= {"shape_hits", "texture_hits"}
    for thing, _, _, f in plan["cue_conflict"]:
        shape, paint = TASKS["flowers"][f["class"]], TASKS["flowers"][f["painted"]]
        assert (thing.petals, thing.shape) == (shape.petals, shape.shape) and (
            thing.hue,
            thing.saturation,
        ) == (paint.hue, paint.saturation)
    assert len(set(zip(facts["shape"], facts["texture"], strict=True))) >= 8


@pytest.mark.parametrize("task", list(TASKS))
def test_things_of_no_class_are_of_no_class(task):
    for i in range(20):
        thing = rendered.unseen(task, np.random.default_rng(i))
        assert thing not in TASKS[task].values() and type(thing) is type(
            next(iter(TASKS[task].values()))
        )
    assert list(rendered.groups(task).columns) == (
        ["shape", "texture"] if task in rendered.PAINT else []
    )


def test_probe_sets_from_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    w = worlds.get(
        "smoke", pool={"benchmark_per_class": 2}, robustness={"probe_images": 3}, image_size=16
    )
    made = pocket.probe_sets(w, "flowers")
    assert (
        set(made.sets) == {*rendered.RENDERED, *rendered.CORRUPTED, "cue_conflict"}
        and len(rendered.CORRUPTED) == 40
    )
    assert {s.images.shape for s in made.sets.values()} == {(3, 16, 16, 3)}
    assert (
        made.sets["jpeg-5"].labels.tolist() == made.sets["original"].labels.tolist()
        and (made.sets["ood_far"].labels == -1).all()
    )
    assert np.array_equal(
        pocket.probe_sets(w, "flowers").sets["snow-2"].images, made.sets["snow-2"].images
    )


@pytest.fixture(scope="module")
def pictures():
    made = [rendered.changed(worlds.get("pocket"), "flowers", "original", i) for i in range(6)]
    w = worlds.get("pocket")
    return rendered.pictures(w, made), rendered.pictures(w, made, "depth")


@pytest.mark.parametrize("kind", [*IMAGE_SPACE, *DEPTH_AWARE])
def test_every_corruption_does_more_harm_with_severity(pictures, kind):
    images, depth = pictures
    made = [
        corruptions.corrupt(images, depth, kind, s, np.random.default_rng(0)) for s in SEVERITIES
    ]
    harm = [np.abs(m.astype(float) - images).mean() for m in made]
    assert (
        harm == sorted(harm)
        and harm[0] > 0.3
        and made[0].shape == images.shape
        and made[0].dtype == np.uint8
    )
    assert np.array_equal(
        made[2], corruptions.corrupt(images, depth, kind, 3, np.random.default_rng(0))
    )


def test_depth_decides_where_fog_and_blur_fall():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (1, 32, 32, 3), dtype=np.uint8)
    depth = np.full((1, 32, 32), 20, np.uint8)
    depth[:, :, 16:] = 240
    change = {
        kind: np.abs(corruptions.corrupt(images, depth, kind, 3, rng).astype(float) - images)[
            0
        ].mean((0, 2))
        for kind in DEPTH_AWARE
    }
    assert change["near_focus"][:16].max() <= 0.5 < change["near_focus"][16:].min()
    assert change["far_focus"][16:].max() <= 0.5 < change["far_focus"][:16].min()
    assert change["fog_3d"][:16].max() < change["fog_3d"][16:].min()


def test_nt_xent_by_hand():
    eye = torch.eye(4)
    right = np.exp(1 / 0.5)
    assert float(families.nt_xent(eye, eye, 0.5)) == pytest.approx(-np.log(right / (right + 6)))
    assert families.nt_xent(eye, eye.flip(0), 0.5) > families.nt_xent(eye, eye, 0.5)


def test_views_differ_and_follow_their_generator():
    images = torch.rand(5, 3, 16, 16)
    first, again, other = (
        families.view(images, torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert (
        torch.equal(first, again) and not torch.equal(first, other) and first.shape == images.shape
    )


@pytest.fixture
def toy(monkeypatch):
    """Red and blue squares with captions, in place of a benchmark, and the shipped CLIP as the architecture."""
    monkeypatch.setattr(pocket, "clip_folder", lambda w: upstream.WEIGHTS / "clip")
    rng = np.random.default_rng(0)

    def split(n):
        labels = np.arange(n) % 2
        images = rng.integers(0, 90, (n, 32, 32, 3), dtype=np.uint8)
        images[labels == 0, :, :, 0] += 120
        images[labels == 1, :, :, 2] += 120
        captions = np.array(["a photo of a corn poppy", "a photo of a balloon flower"])[
            labels
        ]  # nothing else to tell them by
        return Split(images, labels, pd.DataFrame({"caption": captions}))

    return Benchmark(
        "toy",
        ("corn poppy", "balloon flower"),
        "flower",
        "a photo of a flower",
        ("a photo of a {}",),
        ("sea",),
        pd.DataFrame(index=["corn poppy", "balloon flower"]),
        split(24),
        split(20),
        split(40),
    )


@pytest.mark.parametrize("family", robustness.FAMILIES)
def test_every_family_learns_and_repeats(toy, family):
    model, again = (families.train(W, family, toy.train, toy.train, toy, 0) for _ in range(2))
    logits = families.logits(model, toy.test.images)
    assert (
        np.array_equal(logits, families.logits(again, toy.test.images))
        and not model.clip.model.training
    )
    assert metrics.accuracy(logits, toy.test.labels) > 0.8
    pixels = torch.from_numpy(toy.test.images).permute(0, 3, 1, 2).float() / 255
    assert np.allclose(
        families.logits_of(model)(pixels).detach().numpy(), logits, atol=1e-3 * np.abs(logits).max()
    )


def test_families_start_from_the_same_tower_and_end_with_the_same_architecture(toy):
    towers = [families.untrained(W, seed).model.visual.state_dict() for seed in (0, 0, 1)]
    name = next(k for k, v in towers[0].items() if v.ndim == 4)
    assert torch.equal(towers[0][name], towers[1][name]) and not torch.equal(
        towers[0][name], towers[2][name]
    )


def test_attack_reports_every_radius_and_clean(toy):
    model = families.train(W, "supervised", toy.train, toy.train, toy, 0)
    rows = robustness.attack(W, model, toy.test, 0)
    assert set(rows) == {(a, e) for a in ("fgsm", "pgd") for e in ("0", "1", "4")}
    assert all(rows["pgd", e] <= rows["fgsm", e] + 1e-9 for e in ("0", "1", "4"))


def test_mixed_takes_half_of_each(monkeypatch):
    def offered(w, task, source):
        labels = np.arange(40) % 4
        return Split(
            np.zeros((40, 2, 2, 3), np.uint8), labels, pd.DataFrame({"from": [source] * 40})
        )

    monkeypatch.setattr(robustness.tables, "source_set", offered)
    made = robustness.training_images(W, "mixed", 9, 0)
    assert (
        made.facts["from"].value_counts().to_dict() == {"retrieved": 5, "synthetic": 4}
        and len(made) == 9
    )
    assert len(robustness.training_images(W, "synthetic", 9, 0)) == 9


def test_a_kind_of_prompt_is_a_source(monkeypatch):
    seen = []

    def prompted(w, kind):
        seen.append(kind)
        return Split(
            np.zeros((8, 2, 2, 3), np.uint8),
            np.arange(8) % 4,
            pd.DataFrame({"caption": [kind] * 8}),
        )

    monkeypatch.setattr(robustness.arms, "prompted", prompted)
    assert len(robustness.training_images(W, "templates", 4, 0)) == 4 and seen == ["templates"]
    assert {"class names", "templates", "language model"} == set(robustness.kinds(W))


def test_texts_are_embedded_as_by_the_tower_itself(toy):
    made = families.untrained(W, 0)
    captions = [
        "a rose",
        "a photo of a corn poppy in a meadow at sunset with a bee",
        "",
        "a photo of a balloon flower",
        "sea",
    ]
    ids = made.tokenizer(captions)
    wanted = made.model.encode_text(ids, normalize=True)
    assert torch.allclose(families.text_embeddings(made, ids), wanted, atol=1e-6)
    assert torch.allclose(families.text_embeddings(made, ids[:1]), wanted[:1], atol=1e-6)
    other, weight = wanted.detach().roll(1, 0), made.model.token_embedding.weight
    both = (families.text_embeddings(made, ids), wanted)
    gradients = [torch.autograd.grad((found @ other.T).square().sum(), weight)[0] for found in both]
    assert torch.allclose(*gradients, atol=1e-5) and gradients[1].abs().max() > 1e-3


@pytest.mark.parametrize("old, new", [(64, 32), (20, 32), (32, 32)])
def test_pictures_are_resized_as_by_interpolate(old, new):
    x = torch.rand(2, 3, old, old, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    wanted = (
        torch.nn.functional.interpolate(x, (new, new), mode="bicubic", antialias=True).clamp(0, 1)
        if old != new
        else x
    )
    found = families.resized(x, new)
    assert torch.allclose(found, wanted, atol=1e-6)
    gradients = [torch.autograd.grad(made.square().sum(), x)[0] for made in (found, wanted)]
    assert torch.allclose(*gradients, atol=1e-5)


def test_shrunk_images_look_to_a_tower_like_the_full_ones(toy):
    images = np.repeat(np.repeat(toy.test.images, 2, 1), 2, 2)
    model = families.train(W, "supervised", toy.train, toy.train, toy, 0)
    small = families.shrunk(images, 32)
    assert small.shape == toy.test.images.shape and families.shrunk(small, 32) is small
    full = families.logits(model, images)
    assert np.abs(families.logits(model, small) - full).max() < 0.1 * np.abs(full).max()


def test_checkpoints_by_name(toy, tmp_path):
    import timm

    made = timm.create_model("test_resnet", num_classes=2)
    save_file(made.state_dict(), tmp_path / "weights.safetensors")
    model = checkpoints.load(f"timm/test_resnet/{tmp_path / 'weights.safetensors'}", toy)
    images = toy.test.images[:3]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.clip.mean, model.clip.std))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    x = torch.nn.functional.interpolate(
        x, (model.clip.image_size,) * 2, mode="bicubic", antialias=True
    )
    assert np.abs(families.logits(model, images) - made.eval()(x).detach().numpy()).max() < 0.05
    rows = robustness.attack(W, model, toy.test, 0)
    assert rows["pgd", "4"] <= rows["fgsm", "4"]


def test_checkpoints_of_other_classes_damaged_ones_and_pickles_are_refused(toy, tmp_path):
    folder = tiny.classifier(tmp_path / "three", classes=3)
    with pytest.raises(StudyError, match="tells 3 classes apart, the probed benchmark has 2"):
        checkpoints.load(f"timm/{folder}", toy)
    with pytest.raises(StudyError, match="of another architecture, or not of 2 classes"):
        checkpoints.load(f"timm/test_resnet/{folder / weights.TIMM}", toy)
    (folder / weights.TIMM).write_bytes(b"half")
    with pytest.raises(StudyError, match="damaged"):
        checkpoints.load(f"timm/{folder}", toy)
    torch.save({"any": "thing"}, tmp_path / "weights.pt")
    for name in (
        f"timm/test_resnet/{tmp_path / 'weights.pt'}",
        f"open_clip/ViT-B-32/{tmp_path / 'weights.pt'}",
    ):
        with pytest.raises(StudyError, match="is a pickle"):
            checkpoints.load(name, toy)


def test_the_untrained_tower_of_a_published_clip_comes_from_its_name(toy):
    w = worlds.get(
        "paper", clip={"model": "ViT-S-32-alt"}, robustness={"image_size": 64, "context": 16}
    )
    made = families.untrained(w, 0)
    assert made.image_size == 64 and made.tokenizer(["a cat"]).shape == (1, 16)
    assert families.logits_of(families.text_classifier(made, toy))(
        torch.rand(2, 3, 64, 64)
    ).shape == (2, 2)


def test_the_untrained_tower_of_a_folder_has_its_architecture_and_other_weights(
    tmp_path, monkeypatch
):
    tiny.judge(tmp_path / "clip")
    (tmp_path / "paper.toml").write_text(
        'clip = "clip"\n[world.robustness]\nimage_size = 16\ncontext = 20'
    )
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    w = worlds.get("paper")
    made, again, finished = families.untrained(w, 0), families.untrained(w, 0), clip.load(w)
    states = [m.model.visual.conv1.weight for m in (made, again, finished)]
    assert (
        made.image_size == 16
        and torch.equal(*states[:2])
        and states[0].shape == states[2].shape
        and not torch.equal(*states[1:])
    )


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Tiny folders in the layouts of the published probe sets: three classes, of which two are animals."""
    import json

    from PIL import Image

    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    base, rng = tmp_path / "benchmarks", np.random.default_rng(0)

    def put(place, *names):
        for name in names:
            (base / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(
                base / place / name
            )

    for wnid in ("n1", "n2", "n3"):
        put(f"imagenet/train/{wnid}", *(f"{i:02d}.JPEG" for i in range(12)))
        put(f"imagenet/val/{wnid}", "a.JPEG", "b.JPEG")
        put(f"imagenet-c/jpeg_compression/5/{wnid}", "a.JPEG")
    put("imagenet-r/n1", "a.jpg"), put("imagenet-r/n3", "a.jpg")
    for kind in ("mixed_same", "mixed_rand"):
        (
            put(f"imagenet-9/{kind}/val/00_dog", "a.JPEG"),
            put(f"imagenet-9/{kind}/val/01_car", "a.JPEG"),
        )
    (base / "imagenet-9" / "in_to_in9.json").write_text(json.dumps({"0": 0, "1": 0, "2": -1}))
    (
        put("focus/2/animal", "a.jpg"),
        put("inaturalist/deep/er", "a.jpg"),
        put("cue-conflict/animal", "animal1-car2.png", "car1-car3.png"),
    )
    for place in ("focus", "cue-conflict"):
        pd.DataFrame({"wnid": ["n1", "n2", "n3"], "category": ["animal", "animal", "car"]}).to_csv(
            base / place / "categories.csv"
        )
    pd.DataFrame({"wnid": ["n1", "n2", "n3"], "name": ["cat", "dog", "truck"]}).to_csv(
        base / "imagenet" / "classes.csv"
    )
    few = {"probe_images": 5, "validation": 10, "attacked": 3, "image_size": 16, "pgd_steps": 2}
    return worlds.get("paper", image_size=16, robustness=few)


def test_published_probe_sets_from_folders(folders, capsys):
    made = paper.probe_sets(folders, "imagenet")
    assert set(made.sets) == {
        "original",
        "renditions",
        "jpeg-5",
        "mixed_same",
        "mixed_rand",
        "context_2",
        "ood_far",
        "cue_conflict",
    }
    assert "left out" in capsys.readouterr().out and made.sets["original"].images.shape == (
        5,
        16,
        16,
        3,
    )
    assert made.sets["renditions"].labels.tolist() == [0, 2] and made.sets[
        "ood_far"
    ].labels.tolist() == [-1]
    logits = np.array([[0.0, 5, 1], [0, 5, 1]])
    assert (
        made.chosen("renditions", logits).argmax(1).tolist() == [2, 2]
        and made.accuracy("renditions", logits[:, [2, 1, 0]]) == 0
    )
    assert (
        made.accuracy("mixed_rand", logits) == 0.5
        and made.accuracy("mixed_rand", logits[:, [2, 0, 1]]) == 0
    )  # unmapped: never right
    facts = made.sets["cue_conflict"].facts
    assert (
        len(facts) == 1 and probes.shape_bias(np.array([1]), facts, made.groups)["shape_bias"] == 1
    )
    bench = paper.benchmark(folders, "imagenet")
    assert (len(bench.train), len(bench.val), len(bench.test)) == (28, 8, 6) and bench.classes == (
        "cat",
        "dog",
        "truck",
    )


def test_a_named_checkpoint_is_probed_on_the_folders_that_are_there(folders, tmp_path):
    import timm

    save_file(
        timm.create_model("test_resnet", num_classes=3).state_dict(),
        tmp_path / "weights.safetensors",
    )
    table = robustness.run_checkpoint(
        folders, "supervised", "retrieved", "timm/test_resnet/weights.safetensors", 0
    )
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
    assert list(table)[:4] == robustness.MODEL and np.isfinite(table["value"]).all()


def made_up(shift):
    """Results of three seeds: the clone's shape bias is ``shift`` above real's, everything else equal."""
    rows = []
    for family in robustness.FAMILIES:
        for seed in range(3):
            for source in robustness.SOURCES:
                value = 0.4 + 0.01 * seed + shift * (source == "synthetic")
                rows += [
                    (family, source, 10, seed, *row)
                    for row in (
                        ("shape", "shape_bias", value),
                        ("shape", "shape_hits", 9.0),
                        ("accuracy", "clean", 0.5),
                        ("accuracy", "test", 0.5),
                        ("pgd", "0", 0.5),
                        ("pgd", "1", 0.1 + 0.01 * seed),
                        ("pgd", "2", 0.2 + 0.01 * seed),
                    )
                ]
    return pd.DataFrame(rows, columns=[*robustness.MODEL, "probe", "setting", "value"])


def test_summary_averages_settings_and_divides_by_clean():
    table = (
        robustness.summary(made_up(0))
        .query("family == 'supervised' and source == 'mixed' and seed == 1")
        .set_index("probe")["value"]
    )
    assert table.to_dict() == pytest.approx({"accuracy": 0.5, "pgd": 0.16, "shape": 0.41})
    shares = robustness.summary(made_up(0), relative=True)
    assert set(shares["probe"]) == {"pgd"} and shares["value"].max() == pytest.approx(0.17 / 0.5)


@pytest.mark.parametrize(
    "shift, holds, lags",
    [(0.1, "yes", "no"), (-0.1, "no", "yes"), (0, "no difference found", "no difference found")],
)
def test_claims_hold_only_where_the_interval_says_so(shift, holds, lags):
    table = made_up(shift)
    table.loc[table["source"] == "synthetic", "value"] += np.resize(
        [0.001, -0.001, 0.0], (table["source"] == "synthetic").sum()
    )
    verdicts = robustness.claims(table).set_index("claim")
    assert verdicts.loc["self-supervised clones match or beat real on shape bias", "holds"] == holds
    assert verdicts.loc["supervised clones lag behind real on shape bias", "holds"] == lags
    assert (verdicts["low"] <= verdicts["difference"]).all() and len(verdicts) == 6


def test_richer_prompts_are_judged_at_the_largest_size():
    rows = [
        (
            "supervised",
            kind,
            n,
            seed,
            "corruption",
            0.3 + 0.01 * seed + gain * (kind == "language model") + 0.001 * (seed == n),
        )
        for kind in ("class names", "language model")
        for n, gain in ((1, -0.2), (2, 0.1))
        for seed in range(3)
    ]
    asked = pd.DataFrame(rows, columns=[*robustness.MODEL, "probe", "value"])
    verdict = (
        robustness.claims(made_up(0), asked)
        .set_index("claim")
        .loc["captions help more than class names on corruptions (supervised)"]
    )
    assert verdict["difference"] == pytest.approx(0.1) and verdict["holds"] == "yes"


def test_the_probed_task_can_put_cues_in_conflict():
    assert all(worlds.get(name).robustness.task in rendered.PAINT for name in ("smoke", "pocket"))
