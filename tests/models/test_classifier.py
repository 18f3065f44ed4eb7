"""Finetuning: text head, crops, schedule, probes, resumption, gradients in parts."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import CLIPTokenizerFast

from helpers import worlds
from helpers.data import shards
from helpers.data.tables import Benchmark, Split
from helpers.errors import StudyError
from helpers.models import classifier, clip
from helpers.models.train import cropped
from helpers.pocket.train import clip as miniature
from helpers.pocket.train import vocabulary
from tests import tiny

SMOKE = worlds.get("smoke")


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary.train(["a red image", "a blue image", "photo of a red thing"], folder)
    torch.manual_seed(0)
    config = miniature.config(SMOKE, len(CLIPTokenizerFast.from_pretrained(folder)))
    return clip.build(config, folder), config


@pytest.fixture(scope="module")
def bench():
    """Red and blue pictures."""
    rng = np.random.default_rng(0)

    def split(n):
        images, labels = tiny.red_and_blue(n, rng)
        return Split(images, labels, pd.DataFrame({"class": np.array(["red", "blue"])[labels]}))

    return Benchmark(
        "colours",
        ("red", "blue"),
        "thing",
        "a photo of a thing",
        ("a {} image", "photo of a {} thing"),
        ("sea",),
        pd.DataFrame(index=["red", "blue"]),
        split(24),
        split(20),
        split(40),
    )


def finetune_settings(**settings):
    return worlds.replace(SMOKE, finetune=settings).finetune


def test_warmup_is_a_share_or_a_number_of_steps():
    share = finetune_settings(min_steps=2_000, warmup=0.25)
    number = finetune_settings(min_steps=2_000, warmup=500.0)
    for s in (share, number):
        schedule = classifier.schedule(1, 1.0, s)
        assert [schedule.rate(i) for i in (0, 249, 499)] == [1 / 500, 0.5, 1.0]


def test_tasks_have_epochs_of_their_own():
    paper = worlds.get("paper").finetune
    schedules = [classifier.schedule(51_200, 1.0, paper, task) for task in ("imagenet", "dtd")]
    assert [(s.steps, s.batch) for s in schedules] == [(1_000, 512), (3_000, 512)]


def test_small_sets_take_as_many_steps_as_announced():
    s = worlds.get("pocket").finetune
    few, many = (classifier.schedule(n, 1.0, s) for n in (1, 10 * s.batch))
    assert (few.steps, few.batch) == (s.min_steps, 1)
    assert (many.steps, many.batch) == (max(s.min_steps, s.epochs * 10), s.batch)


def test_crops_stay_inside_and_follow_their_generator():
    images = torch.rand(4, 3, 16, 16)
    first, again = (cropped(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, images)
    assert first.min() >= images.min() - 1e-6
    assert first.max() <= images.max() + 1e-6
    assert torch.allclose(cropped(images, torch.Generator(), low=1.0), images, atol=1e-5)


@pytest.mark.usefixtures("float32")
def test_head_is_the_mean_unit_text_embedding(tiny_clip, bench):
    model = tiny_clip[0]
    head = clip.head(model, bench.classes, bench.templates)
    texts = clip.embed_texts(model, bench.texts("blue"))
    assert np.allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    mean = texts.mean(0)
    assert np.allclose(head[1], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.usefixtures("float32")
def test_label_scores_take_the_best_template(tiny_clip, bench):
    model = tiny_clip[0]
    images = clip.embed_images(model, bench.test.images[:4])
    labels = np.array([0, 1, 0, 1])
    scores = clip.label_scores(model, images, labels, bench.classes, bench.templates)
    by_hand = [
        max(images[i] @ t for t in clip.embed_texts(model, bench.texts(bench.classes[i % 2])))
        for i in range(4)
    ]
    assert np.allclose(scores, by_hand, atol=1e-5)


def test_clip_survives_saving(tiny_clip, bench, tmp_path):
    model, config = tiny_clip
    clip.save(model, tmp_path, config)
    again = clip.by_name(str(tmp_path))
    embeddings = [clip.embed_images(m, bench.test.images) for m in (again, model)]
    assert np.abs(embeddings[0] - embeddings[1]).max() < 5e-3
    with pytest.raises(StudyError, match="notebook 00"):
        clip.by_name(str(tmp_path / "nothing"))


def test_finetuning_learns_leaves_the_original_alone_and_repeats(tiny_clip, bench, tmp_path):
    original = tiny_clip[0]
    before = clip.embed_images(original, bench.test.images)
    s = finetune_settings(min_steps=20)
    file = tmp_path / "state.pt"
    model, steps = classifier.finetune(original, bench.train, bench, 1e-3, 7, s, file)
    again, _ = classifier.finetune(original, bench.train, bench, 1e-3, 7, s, file)
    assert np.array_equal(clip.embed_images(original, bench.test.images), before)
    assert torch.equal(model.weight, again.weight)
    assert steps == 20
    found = classifier.measure(model, bench, s)
    assert set(found) == {"zero_shot", "linear_probe", "probe_2"}
    assert all((answers == bench.test.labels).mean() > 0.8 for answers in found.values())


def test_probes_see_as_many_labelled_images_of_every_class(tiny_clip, bench, monkeypatch):
    counts = []

    def spy(labelled, held, classes, s):
        counts.append((np.bincount(labelled[1]).tolist(), np.bincount(held[1]).tolist()))
        return np.zeros((classes, labelled[0].shape[1])), np.zeros(classes)

    monkeypatch.setattr(classifier, "chosen_probe", spy)
    images = np.zeros((40, *bench.train.images.shape[1:]), np.uint8)
    skewed = Split(images, np.repeat([0, 1], [30, 10]))
    skewed = dataclasses.replace(bench, train=skewed, val=skewed)
    s = finetune_settings(probe_images=20, few_labels=())
    classifier.measure(classifier.text_classifier(tiny_clip[0], bench), skewed, s)
    assert counts == [([10, 10], [10, 10])]


def test_few_labels_are_drawn_by_seed_and_probes_on_validation_do_not_see_it(tiny_clip, bench):
    s = finetune_settings(few_labels=(1,), probe_on="both")
    model = classifier.text_classifier(tiny_clip[0], bench)
    noise = np.random.default_rng(0).integers(0, 256, bench.train.images.shape, dtype=np.uint8)
    split = Split(noise, bench.train.labels)
    noisy = dataclasses.replace(bench, train=split, test=split)
    found = [classifier.measure(model, noisy, s, seed=seed)["probe_1"] for seed in (0, 0, 1, 2, 3)]
    assert np.array_equal(found[0], found[1])
    assert any(not np.array_equal(found[0], other) for other in found[2:])
    # where validation images are held out, their labels cannot be learned; else they count, too
    train = Split(bench.train.images[:4], np.ones(4, np.int64))
    val = Split(bench.val.images, np.zeros(len(bench.val), np.int64))
    alone = dataclasses.replace(bench, train=train, val=val)
    held_out = classifier.measure(model, alone, s, "val")
    assert set(held_out["linear_probe"]) == {1} and len(held_out["zero_shot"]) == len(val)
    assert set(classifier.measure(model, alone, s)["linear_probe"]) == {0}


class Failing:
    """Images of which a disk gives a few batches before it fails, once."""

    def __init__(self, images, batches):
        self.images = images
        self.left = batches

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        self.left -= 1
        if self.left == 0:
            raise OSError("the disk is gone")
        return self.images[rows]


@pytest.mark.parametrize("batches", [3, 9])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    tiny_clip, bench, tmp_path, monkeypatch, batches
):
    monkeypatch.setattr(classifier, "CHECKPOINT_MINUTES", 0.0)
    original, file = tiny_clip[0], tmp_path / "state.pt"
    s = finetune_settings(min_steps=12, batch=10)
    whole, steps = classifier.finetune(original, bench.train, bench, 1e-3, 7, s, tmp_path / "whole")
    train = Split(shards.Lazy(Failing(bench.train.images, batches)), bench.train.labels)
    with pytest.raises(OSError, match="disk"):
        classifier.finetune(original, train, bench, 1e-3, 7, s, file)
    assert file.exists()
    again, resumed = classifier.finetune(original, train, bench, 1e-3, 7, s, file)
    assert resumed == steps
    assert torch.equal(again.weight, whole.weight)
    assert torch.equal(again.bias, whole.bias)
    states = [m.clip.model.visual.state_dict() for m in (again, whole)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[1])
    assert not list(tmp_path.iterdir())


def test_a_batch_in_parts_has_the_gradient_of_the_whole(tiny_clip, bench, monkeypatch):
    tiny = tiny_clip[0]
    head = torch.tensor(clip.head(tiny, bench.classes, bench.templates))
    model = classifier.Classifier(
        tiny, torch.nn.Parameter(head), torch.nn.Parameter(torch.zeros(2))
    )
    x = clip.pixels(tiny, bench.train.images[:10])
    labels = torch.from_numpy(bench.train.labels[:10])
    encode, sizes = tiny.model.encode_image, []

    def short_of_memory(images, normalize):
        sizes.append(len(images))
        if len(images) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return encode(images, normalize=normalize)

    gradients = []
    for fn in (encode, short_of_memory):
        monkeypatch.setattr(tiny.model, "encode_image", fn)
        model.weight.grad = None
        at_once = classifier.accumulate(model, x, labels, 10, "fp32")
        gradients.append(model.weight.grad.clone())
    assert at_once == 2
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6)


def test_training_on_nothing_says_so(tiny_clip, bench, tmp_path):
    empty = bench.train.take([])
    with pytest.raises(StudyError, match="colours"):
        classifier.finetune(tiny_clip[0], empty, bench, 1e-3, 0, SMOKE.finetune, tmp_path / "s")
