"""The shipped upstream models: hashes, sizes, their pool, and the quality on their card."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from helpers import worlds
from helpers.data.tables import Split
from helpers.engine.randomness import entropy
from helpers.errors import StudyError
from helpers.models import clip
from helpers.models.linear import accuracy_of
from helpers.pocket.train import card as cards
from helpers.pocket.train import generator, judges, upstream, vocabulary
from helpers.pocket.world import benchmarks, pool

W = worlds.get("pocket")


@pytest.fixture(scope="module")
def card():
    return json.loads((upstream.WEIGHTS / "card.json").read_text())


@pytest.fixture(scope="module")
def renderings():
    """240 test images of aircraft, ten of each class, and their labels."""
    images = benchmarks.images(benchmarks.picture, W, "aircraft", "test", range(240))
    return Split(images, np.arange(240) % 24)


def test_files_are_the_ones_on_the_card(card):
    for file, digest in card["files"].items():
        assert hashlib.sha256((upstream.WEIGHTS / file).read_bytes()).hexdigest() == digest, file
    on_disk = [f for f in upstream.WEIGHTS.rglob("*") if f.is_file()]
    assert len(on_disk) == len(card["files"]) + 1 and sum(f.stat().st_size for f in on_disk) < 30e6
    assert not [f for f in on_disk if f.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_card_belongs_to_this_pool_and_says_how_it_was_made(card):
    texts = "\n".join(pool.plan(W)["caption"])
    assert hashlib.sha256(texts.encode()).hexdigest()[:12] == card["pool"]
    assert {"command", "seed", "training", "minutes", "machine", "quality"} <= set(card)
    training = {**dataclasses.asdict(W.upstream), **cards.CONSTANTS}
    assert card["training"] == json.loads(json.dumps(training))


def test_another_pool_is_refused():
    upstream.check_card.cache_clear()
    with pytest.raises(StudyError, match="retrain=True"):
        upstream.check_card("somethingelse", "pocket")


def test_judges_are_as_good_as_the_card_says(card, renderings):
    seen = judges.judge(upstream.WEIGHTS, renderings.images)
    table = benchmarks.details("aircraft")
    axles = (seen["axles"].to_numpy() == table["axles"].to_numpy()[renderings.labels]).mean()
    assert axles > 0.9 and axles == pytest.approx(card["quality"]["judge_axles"], abs=0.05)
    assert (seen["is_aircraft"] > 0.5).mean() > 0.95


@pytest.mark.parametrize("task", W.tasks)
def test_variants_are_recognised_as_often_as_the_card_says(card, task):
    names = np.array(benchmarks.details(task).index)
    images = benchmarks.images(benchmarks.picture, W, task, "test", range(10 * len(names)))
    right = judges.judge(upstream.WEIGHTS, images)["variant"] == np.tile(names, 10)
    assert right.mean() == pytest.approx(card["quality"]["judge_variants"][task], abs=0.05)


def test_generators_draw_as_well_as_the_card_says(card):
    """Every third of the card's pictures: the same captions and seeds, judged again."""
    names = [name for name in benchmarks.details("aircraft").index for _ in range(cards.PER_CLASS)]
    rows = range(0, len(names), 3)
    captions = [f"a photo of a {names[i]} aircraft" for i in rows]
    seeds = [entropy(W.seed, "quality", i) for i in rows]
    for budget in ("short", "long"):
        wanted = card["quality"]["generator"][budget]
        pipe = generator.load(upstream.WEIGHTS / "generator", budget)
        drawn = generator.draw(pipe, captions, seeds, W.synthesis)
        seen = judges.judge(upstream.WEIGHTS, drawn)
        right = (seen["variant"] == [names[i] for i in rows]).mean()
        assert right == pytest.approx(wanted["variant"], abs=0.08), budget
        assert (seen["is_aircraft"] > 0.5).mean() == pytest.approx(wanted["aircraft"], abs=0.06)


def test_autoencoder_keeps_the_wheels(card, renderings):
    rebuilt = cards.reconstruct(upstream.WEIGHTS / "generator", renderings.images)
    wanted = benchmarks.details("aircraft")["axles"].to_numpy()[renderings.labels]
    right = (judges.judge(upstream.WEIGHTS, rebuilt)["axles"].to_numpy() == wanted).mean()
    assert right == pytest.approx(card["quality"]["autoencoder_axles"], abs=0.07)


def test_clip_baseline_is_reproduced(card, renderings):
    model = clip.by_name(str(upstream.WEIGHTS / "clip"))
    names = tuple(benchmarks.details("aircraft").index)
    head = clip.head(model, names, ("a photo of a {}, a type of aircraft.", "a photo of the {}."))
    embedded = clip.embed_images(model, renderings.images)
    right = accuracy_of(embedded, head, np.zeros(24, np.float32), renderings.labels)
    assert right == pytest.approx(card["quality"]["clip"]["aircraft"]["zero_shot"], abs=0.1)


def test_the_tokenizer_is_trained_again_to_the_byte(tmp_path):
    vocabulary.train(list(pool.plan(W)["caption"]), tmp_path)
    for name in ("tokenizer.json", "merges.txt", "vocab.json"):
        shipped = upstream.WEIGHTS / "tokenizer" / name
        assert (tmp_path / name).read_bytes() == shipped.read_bytes(), name


def test_three_budgets_draw_and_repeat():
    few = worlds.replace(W, synthesis={"steps": 2}).synthesis
    drawn = {}
    for budget in generator.BUDGETS:
        pipe = generator.load(upstream.WEIGHTS / "generator", budget)
        drawn[budget] = generator.draw(pipe, ["an A380 at sunset"], [1], few)
        assert drawn[budget].shape == (1, 64, 64, 3)
    assert not np.array_equal(drawn["short"], drawn["long"])
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"
    assert np.array_equal(generator.draw(pipe, ["an A380 at sunset"], [1], few), drawn["long"])


def test_retrain_replaces_the_shipped_weights_and_their_card(smoke, monkeypatch, tmp_path):
    shipped = tmp_path / "weights"
    monkeypatch.setattr(upstream, "WEIGHTS", shipped)
    w = worlds.get("smoke", pool={"upstream": "committed"})
    upstream.check_card.cache_clear()
    with pytest.raises(StudyError, match=r"weights are missing.*retrain=True"):
        upstream.folder(w)
    # what the smoke world has trained is taken over
    assert cards.retrain(w) == shipped == upstream.folder(w)
    card = json.loads((shipped / "card.json").read_text())
    assert {"clip/config.json", "judge-details.safetensors"} <= set(card["files"])
    assert card["quality"]["generator"].keys() == {"short", "middle", "long"}
    (shipped / "judge-details.safetensors").write_bytes(b"half")
    upstream.check_card.cache_clear()
    with pytest.raises(StudyError, match="damaged; restore it from git"):
        upstream.folder(w)
    with pytest.raises(StudyError, match=r"trains its own.*delete"):
        cards.retrain(worlds.get("smoke"))
    upstream.check_card.cache_clear()
