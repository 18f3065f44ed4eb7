"""Probes against answers known by hand, by scikit-learn and by torchmetrics; probe sets; families; summaries."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from helpers import paper, pocket, worlds
from helpers.data.tables import Benchmark, Split
from helpers.errors import StudyError
from helpers.measure import metrics
from helpers.models import checkpoints, classifier, clip, evaluation, families, weights
from helpers.pocket.train import upstream
from helpers.pocket.world import probes as rendered
from helpers.study import robustness
from tests import tiny

W = worlds.get("smoke", robustness={"steps": 25, "batch": 12, "validation": 20})


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: families.train(W, "supervized", None, None, None, 0), "Did you mean 'supervised'"),
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
    logits = evaluation.logits(model, toy.test.images)
    assert (
        np.array_equal(logits, evaluation.logits(again, toy.test.images))
        and not model.clip.model.training
    )
    assert metrics.accuracy(logits, toy.test.labels) > 0.8
    pixels = torch.from_numpy(toy.test.images).permute(0, 3, 1, 2).float() / 255
    assert np.allclose(
        evaluation.differentiable_logits(model)(pixels).detach().numpy(),
        logits,
        atol=1e-3 * np.abs(logits).max(),
    )


def test_families_start_from_the_same_tower_and_end_with_the_same_architecture(toy):
    towers = [families.untrained(W, seed).model.visual.state_dict() for seed in (0, 0, 1)]
    name = next(k for k, v in towers[0].items() if v.ndim == 4)
    assert torch.equal(towers[0][name], towers[1][name]) and not torch.equal(
        towers[0][name], towers[2][name]
    )


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
    found = evaluation.resized(x, new)
    assert torch.allclose(found, wanted, atol=1e-6)
    gradients = [torch.autograd.grad(made.square().sum(), x)[0] for made in (found, wanted)]
    assert torch.allclose(*gradients, atol=1e-5)


def test_shrunk_images_look_to_a_tower_like_the_full_ones(toy):
    images = np.repeat(np.repeat(toy.test.images, 2, 1), 2, 2)
    model = families.train(W, "supervised", toy.train, toy.train, toy, 0)
    small = evaluation.shrunk(images, 32)
    assert small.shape == toy.test.images.shape and evaluation.shrunk(small, 32) is small
    full = evaluation.logits(model, images)
    assert np.abs(evaluation.logits(model, small) - full).max() < 0.1 * np.abs(full).max()


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
    assert np.abs(evaluation.logits(model, images) - made.eval()(x).detach().numpy()).max() < 0.05
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
    assert evaluation.differentiable_logits(classifier.text_classifier(made, toy))(
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
        len(facts) == 1 and metrics.shape_bias(np.array([1]), facts, made.groups)["shape_bias"] == 1
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


def test_the_probed_task_can_put_cues_in_conflict():
    assert all(worlds.get(name).robustness.task in rendered.PAINT for name in ("smoke", "pocket"))
