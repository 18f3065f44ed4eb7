"""The recipe: schedule, text head, crops, linear probe against scikit-learn, best state kept, selection helpers."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import worlds
from helpers.data import shards
from helpers.data.tables import Benchmark, Split
from helpers.errors import StudyError
from helpers.models import augment, classifier, clip, linear
from helpers.models.linear import accuracy_of
from helpers.models.train import rate
from helpers.pocket.train import upstream
from helpers.study import finetune

S = worlds.get("smoke").finetune


def test_schedule_by_hand():
    rates = [rate(i, 10, 1.0, 0.2) for i in range(10)]
    assert rates[:2] == [0.5, 1.0] and rates[2] == 1.0
    assert rates[6] == pytest.approx(0.5) and rates[9] == pytest.approx(
        0.5 * (1 + np.cos(np.pi * 7 / 8))
    )


def test_warmup_is_a_share_or_a_number_of_steps():
    assert (
        [rate(i, 2_000, 1.0, 500) for i in (0, 249, 499)]
        == [1 / 500, 0.5, 1.0]
        == [rate(i, 2_000, 1.0, 0.25) for i in (0, 249, 499)]
    )
    paper = worlds.get("paper").finetune
    assert classifier.steps_of(51_200, paper, "imagenet") == (1_000, 512) and classifier.steps_of(
        51_200, paper, "dtd"
    ) == (3_000, 512)


def test_small_sets_take_as_many_steps_as_announced():
    s = worlds.get("pocket").finetune
    assert classifier.steps_of(1, s) == (s.min_steps, 1)
    assert classifier.steps_of(10 * s.batch, s) == (max(s.min_steps, s.epochs * 10), s.batch)


def test_crops_stay_inside_and_follow_their_generator():
    images = torch.rand(4, 3, 16, 16)
    first, again = (
        augment.random_crops(images, torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, again) and not torch.equal(first, images)
    assert first.min() >= images.min() - 1e-6 and first.max() <= images.max() + 1e-6
    assert torch.allclose(
        augment.random_crops(images, torch.Generator(), low=1.0), images, atol=1e-5
    )


@pytest.mark.parametrize("penalty", [1e-3, 1e-2])
def test_linear_probe_agrees_with_scikit_learn(penalty):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=150)
    x = (np.eye(3)[labels] @ rng.normal(size=(3, 8)) + rng.normal(size=(150, 8))).astype(np.float32)
    weight, bias = linear.linear_probe(x, labels, 3, penalty)
    other = LogisticRegression(C=1 / (150 * penalty), max_iter=2_000, tol=1e-8).fit(x, labels)
    centred = weight - weight.mean(0)
    assert np.allclose(centred, other.coef_ - other.coef_.mean(0), atol=5e-3)
    assert np.allclose(bias - bias.mean(), other.intercept_ - other.intercept_.mean(), atol=5e-3)
    assert accuracy_of(x, weight, bias, labels) == pytest.approx(other.score(x, labels), abs=0.01)


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):

    folder = tmp_path_factory.mktemp("tokenizer")
    upstream.train_tokenizer(["a red image", "a blue image", "photo of a red thing"], folder)
    from transformers import CLIPTokenizerFast

    torch.manual_seed(0)
    config = upstream.clip_config(
        worlds.get("smoke"), len(CLIPTokenizerFast.from_pretrained(folder))
    )
    return clip.build(config, folder), config


@pytest.fixture(scope="module")
def bench():
    rng = np.random.default_rng(0)

    def split(n):
        labels = np.arange(n) % 2
        images = rng.integers(0, 90, (n, 32, 32, 3), dtype=np.uint8)
        images[labels == 0, :, :, 0] += 120
        images[labels == 1, :, :, 2] += 120
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


def test_head_is_the_mean_unit_text_embedding(tiny_clip, bench):
    made = tiny_clip[0]
    head = clip.head(made, bench.classes, bench.templates)
    texts = clip.embed_texts(made, bench.texts("blue"))
    assert np.allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    mean = texts.mean(0)
    assert np.allclose(head[1], mean / np.linalg.norm(mean), atol=1e-5)


def test_label_scores_take_the_best_template(tiny_clip, bench):
    made = tiny_clip[0]
    images = clip.embed_images(made, bench.test.images[:4])
    scores = clip.label_scores(made, images, np.array([0, 1, 0, 1]), bench.classes, bench.templates)
    by_hand = [
        max(images[i] @ t for t in clip.embed_texts(made, bench.texts(bench.classes[i % 2])))
        for i in range(4)
    ]
    assert np.allclose(scores, by_hand, atol=1e-5)


def test_clip_survives_saving(tiny_clip, bench, tmp_path):
    made, config = tiny_clip
    clip.save(made, tmp_path, config)
    again = clip.load_folder(tmp_path)
    assert (
        np.abs(
            clip.embed_images(again, bench.test.images) - clip.embed_images(made, bench.test.images)
        ).max()
        < 5e-3
    )
    with pytest.raises(StudyError, match="notebook 00"):
        clip.load_folder(tmp_path / "nothing")


def test_finetuning_learns_leaves_the_original_alone_and_repeats(tiny_clip, bench):
    made = tiny_clip[0]
    before = clip.embed_images(made, bench.test.images)
    s = worlds.replace(worlds.get("smoke"), finetune={"min_steps": 20, "evaluations": 2}).finetune
    model, kept = classifier.finetune(made, bench.train, bench, 1e-3, 7, s)
    again, _ = classifier.finetune(made, bench.train, bench, 1e-3, 7, s)
    assert np.array_equal(clip.embed_images(made, bench.test.images), before)
    assert (
        torch.equal(model.weight, again.weight) and kept["steps"] == 20 and kept["step"] in (10, 20)
    )
    scores = classifier.measure(model, bench, s)
    assert scores["zero_shot"] > 0.8 and scores["linear_probe"] > 0.8


class Failing:
    """Images of which a disk gives a few batches before it fails, once."""

    def __init__(self, images, batches):
        self.images, self.left = images, batches

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        self.left -= 1
        if self.left == 0:
            raise OSError("the disk is gone")
        return self.images[rows]


@pytest.mark.parametrize("batches", [3, 9])
def test_an_interrupted_run_goes_on_to_the_same_bytes(tiny_clip, bench, tmp_path, batches):
    made = tiny_clip[0]
    s = worlds.replace(
        worlds.get("smoke"),
        finetune={"min_steps": 12, "batch": 10, "evaluations": 3, "checkpoint_minutes": 0.0},
    ).finetune
    whole, scores = classifier.finetune(made, bench.train, bench, 1e-3, 7, s)
    train = Split(shards.Lazy(Failing(bench.train.images, batches)), bench.train.labels)
    with pytest.raises(OSError, match="disk"):
        classifier.finetune(made, train, bench, 1e-3, 7, s, tmp_path / "state.pt")
    assert (tmp_path / "state.pt").exists()
    again, resumed = classifier.finetune(made, train, bench, 1e-3, 7, s, tmp_path / "state.pt")
    assert (
        resumed == scores
        and torch.equal(again.weight, whole.weight)
        and torch.equal(again.bias, whole.bias)
    )
    states = again.clip.model.visual.state_dict(), whole.clip.model.visual.state_dict()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[1]) and not list(
        tmp_path.iterdir()
    )


def test_a_batch_in_parts_has_the_gradient_of_the_whole(tiny_clip, bench, monkeypatch):
    made = tiny_clip[0]
    weight, bias = (
        torch.nn.Parameter(torch.tensor(clip.head(made, bench.classes, bench.templates))),
        torch.nn.Parameter(torch.zeros(2)),
    )
    x, wanted = (
        clip.pixels(made, bench.train.images[:10]),
        torch.from_numpy(bench.train.labels[:10]),
    )
    encode, sizes = made.model.encode_image, []

    def short_of_memory(images, normalize):
        sizes.append(len(images))
        if len(images) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return encode(images, normalize=normalize)

    gradients = []
    for fn in (encode, short_of_memory):
        monkeypatch.setattr(made.model, "encode_image", fn)
        weight.grad = bias.grad = None
        part = classifier._backward(made, weight, bias, x, wanted, 1_000, "fp32", 10)
        gradients.append(weight.grad.clone())
    assert (
        part == 2
        and sizes == [10, 5, 2, 2, 2, 2, 2]
        and torch.allclose(*gradients, rtol=1e-4, atol=1e-6)
    )


def test_training_on_nothing_says_so(tiny_clip, bench):
    empty = bench.train.take([])
    with pytest.raises(StudyError, match="colours"):
        classifier.finetune(tiny_clip[0], empty, bench, 1e-3, 0, S)


def test_matching_size_interpolates_in_log_size():
    rows = [
        ("t", "synthetic", n, 0, "zero_shot", a) for n, a in ((100, 0.2), (200, 0.4), (400, 0.5))
    ]
    table = pd.DataFrame(rows, columns=["task", "source", "n", "seed", "metric", "accuracy"])
    assert finetune.matching_size(table, "t", "zero_shot", 0.3) == pytest.approx(100 * 2**0.5)
    assert finetune.matching_size(table, "t", "zero_shot", 0.6) == float("inf")


@pytest.mark.parametrize("far", [0, 30])
def test_the_whole_path_is_optimal_however_badly_scaled_the_features_are(far):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    labels = rng.integers(4, size=200)
    x = far + (rng.normal(size=(4, 12))[labels] + rng.normal(size=(200, 12))) * np.logspace(
        0, -1.5, 12
    )

    def objective(weight, bias, penalty):
        logits = x @ weight.T + bias
        return (
            np.logaddexp.reduce(logits, 1) - logits[np.arange(200), labels]
        ).mean() + penalty / 2 * np.square(weight).sum()

    penalties = (1e-2, 1e-3, 1e-4, 1e-5)
    for penalty, solution in zip(
        penalties, linear.linear_probes(x.astype(np.float32), labels, 4, penalties), strict=True
    ):
        other = LogisticRegression(
            C=1 / (200 * penalty), max_iter=20_000, tol=1e-9, solver="newton-cg"
        ).fit(x, labels)
        assert (
            objective(*solution, penalty) < objective(other.coef_, other.intercept_, penalty) + 1e-5
        )
