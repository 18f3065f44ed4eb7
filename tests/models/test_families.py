"""Three families from scratch: losses by hand, learning, one start; finished models by name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from helpers import pocket, worlds
from helpers.data.tables import Benchmark, Split
from helpers.errors import StudyError
from helpers.measure import metrics
from helpers.models import classifier, clip, families, weights
from helpers.study import robustness
from tests import tiny

W = worlds.get("smoke", robustness={"steps": 25, "batch": 12, "validation": 20})
SHIPPED = Path(pocket.__file__).parent / "weights" / "clip"
CLASSES = ("corn poppy", "balloon flower")


@pytest.fixture
def toy(monkeypatch):
    """Red and blue squares with captions, for the shipped CLIP's architecture."""
    monkeypatch.setattr(pocket, "clip_folder", lambda w: SHIPPED)
    rng = np.random.default_rng(0)

    def split(n):
        images, labels = tiny.red_and_blue(n, rng)
        captions = np.array([f"a photo of a {name}" for name in CLASSES])[labels]
        return Split(images, labels, pd.DataFrame({"caption": captions}))

    facts = pd.DataFrame(index=CLASSES)
    templates = ("a photo of a {}",)
    splits = (split(24), split(20), split(40))
    return Benchmark("toy", CLASSES, "flower", "", templates, ("sea",), facts, *splits)


def test_an_unknown_family_is_answered_with_valid_ones():
    with pytest.raises(StudyError, match="Did you mean 'supervised'"):
        families.train(W, "supervized", None, None, None, 0)


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
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_learns_and_repeats(toy, family):
    model, again = (families.train(W, family, toy.train, toy.train, toy, 0) for _ in range(2))
    logits = model.image_logits(toy.test.images)
    assert np.array_equal(logits, again.image_logits(toy.test.images))
    assert not model.clip.model.training
    assert metrics.accuracy(logits, toy.test.labels) > 0.8


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("family", families.FAMILIES)
def test_logits_of_pixels_are_those_of_images(toy, family):
    model = families.train(W, family, toy.train, toy.train, toy, 0)
    logits = model.image_logits(toy.test.images)
    pixels = torch.from_numpy(toy.test.images).permute(0, 3, 1, 2).float() / 255
    found = model.pixel_logits(pixels).detach().numpy()
    assert np.allclose(found, logits, atol=1e-3 * np.abs(logits).max())


def test_shrunk_images_look_to_a_tower_like_the_full_ones(toy):
    images = np.repeat(np.repeat(toy.test.images, 2, 1), 2, 2)
    model = families.train(W, "supervised", toy.train, toy.train, toy, 0)
    small = clip.shrunk(images, 32)
    assert small.shape == toy.test.images.shape
    assert clip.shrunk(small, 32) is small
    full = model.image_logits(images)
    assert np.abs(model.image_logits(small) - full).max() < 0.1 * np.abs(full).max()


@pytest.mark.usefixtures("toy")
def test_families_start_from_the_same_tower():
    towers = [families.untrained(W, seed).model.visual.state_dict() for seed in (0, 0, 1)]
    name = next(k for k, v in towers[0].items() if v.ndim == 4)
    assert torch.equal(towers[0][name], towers[1][name])
    assert not torch.equal(towers[0][name], towers[2][name])


@pytest.mark.usefixtures("toy")
def test_texts_are_embedded_as_by_the_tower_itself():
    tower = families.untrained(W, 0)
    captions = [
        "a rose",
        "a photo of a corn poppy in a meadow at sunset with a bee",
        "",
        "a photo of a balloon flower",
        "sea",
    ]
    ids = tower.tokenizer(captions)
    wanted = tower.model.encode_text(ids, normalize=True)
    found = families.text_embeddings(tower, ids)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert torch.allclose(families.text_embeddings(tower, ids[:1]), wanted[:1], atol=1e-6)
    other = wanted.detach().roll(1, 0)
    weight = tower.model.token_embedding.weight
    gradients = [
        torch.autograd.grad((texts @ other.T).square().sum(), weight)[0]
        for texts in (found, wanted)
    ]
    assert torch.allclose(*gradients, atol=1e-5)
    assert gradients[1].abs().max() > 1e-3


def test_the_untrained_tower_of_a_published_clip_comes_from_its_name(toy):
    size = {"image_size": 64, "context": 16}
    w = worlds.get("paper", clip={"model": "ViT-S-32-alt"}, robustness=size)
    tower = families.untrained(w, 0)
    assert tower.image_size == 64
    assert tower.tokenizer(["a cat"]).shape == (1, 16)
    model = classifier.text_classifier(tower, toy)
    assert model.pixel_logits(torch.rand(2, 3, 64, 64)).shape == (2, 2)


def test_the_untrained_tower_of_a_folder_has_its_architecture_and_other_weights(
    tmp_path, monkeypatch
):
    tiny.judge(tmp_path / "clip")
    settings = 'clip = "clip"\n[world.robustness]\nimage_size = 16\ncontext = 20'
    (tmp_path / "paper.toml").write_text(settings)
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    w = worlds.get("paper")
    towers = [families.untrained(w, 0), families.untrained(w, 0), clip.load(w)]
    first, again, finished = (tower.model.visual.conv1.weight for tower in towers)
    assert towers[0].image_size == 16
    assert torch.equal(first, again)
    assert first.shape == finished.shape
    assert not torch.equal(again, finished)


def test_finished_models_by_name(toy, tmp_path):
    network = timm.create_model("test_resnet", num_classes=2)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    model = families.finished(f"timm/test_resnet/{tmp_path / 'weights.safetensors'}", toy)
    images = toy.test.images[:3]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.clip.mean, model.clip.std))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    size = (model.clip.image_size, model.clip.image_size)
    x = torch.nn.functional.interpolate(x, size, mode="bicubic", antialias=True)
    assert np.abs(model.image_logits(images) - network.eval()(x).detach().numpy()).max() < 0.05
    right = robustness.attack(W, model, toy.test, 0)
    assert right["pgd", "4"].sum() <= right["fgsm", "4"].sum()


@pytest.mark.parametrize(
    "name, words",
    [
        ("resnet50", "checkpoint 'resnet50' is unknown; valid: 'timm/NAME'"),
        ("timm/test_resnet/nowhere.pt", "are not on this machine"),
    ],
)
def test_names_of_finished_models(toy, name, words):
    with pytest.raises(StudyError, match=words):
        families.finished(name, toy)


def test_finished_models_of_other_classes_damaged_ones_and_pickles_are_refused(toy, tmp_path):
    folder = tiny.classifier(tmp_path / "three", classes=3)
    with pytest.raises(StudyError, match="tells 3 classes apart, the probed benchmark has 2"):
        families.finished(f"timm/{folder}", toy)
    with pytest.raises(StudyError, match="of another architecture, or not of 2 classes"):
        families.finished(f"timm/test_resnet/{folder / weights.TIMM}", toy)
    (folder / weights.TIMM).write_bytes(b"half")
    with pytest.raises(StudyError, match="damaged"):
        families.finished(f"timm/{folder}", toy)
    pickle = tmp_path / "weights.pt"
    torch.save({"any": "thing"}, pickle)
    for name in (f"timm/test_resnet/{pickle}", f"open_clip/ViT-B-32/{pickle}"):
        with pytest.raises(StudyError, match="is a pickle"):
            families.finished(name, toy)
