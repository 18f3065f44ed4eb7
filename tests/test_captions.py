"""Captions: prompts by the paper's mix, clean-up by hand-checked rules, sampling that does not depend on the batch."""

from __future__ import annotations

import dataclasses
import types

import pandas as pd
import pytest

from helpers import captions, gpu, store, worlds
from helpers.pocket import language
from helpers.pools import Benchmark
from helpers.worlds import StudyError

W = worlds.get("smoke", tasks=("aircraft",), captions={"per_class": 4})


def bench(task="aircraft", classes=("A320", "737-800"), noun="aircraft"):
    return Benchmark(task, classes, noun, f"a photo of {noun}", ("a photo of a {}.",), ("sky", "sea"), pd.DataFrame(),
                     None, None, None)


def fake_backend(write):
    return types.SimpleNamespace(write_captions=write, benchmark=lambda w, task: bench(task))


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """The store in a temporary folder, jobs in this process."""
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    monkeypatch.setattr(gpu, "starmap", lambda fn, jobs, parallel=True: ((i, fn(*job)) for i, job in enumerate(jobs)))
    return monkeypatch


def numbered(w, prompts, rng):
    """A language model that names what it was asked for, with a number, and runs on past the line."""
    return [f" {p.splitlines()[-1].split(' aircraft')[0]} no. {rng.integers(6)} \nball => a ball" for p in prompts]


def test_prompt_is_three_lines_and_an_open_one():
    text = captions.few_shot([("dog", "", "a good dog"), ("boat", "sea", "a boat at the sea")], "A320 aircraft", "sky")
    assert text == "dog => a good dog\nboat, sea => a boat at the sea\nA320 aircraft, sky =>"


@pytest.mark.parametrize("extra", ["", "sea"])
def test_model_was_trained_on_the_lines_that_prompts_have(extra):
    assert captions.line("boat", extra, "a boat") == language.line("boat", extra, "a boat")


def test_noun_follows_aircraft_and_cars_only():
    assert captions.subject("Tornado", bench()) == "Tornado aircraft"
    assert captions.subject("rose", bench("flowers", ("rose",), "flower")) == "rose"


def test_mix_examples_and_extras_are_as_asked():
    table = captions.prompts(W, bench(), 0, 0, 2_000)
    for kind, share in zip(captions.KINDS, W.captions.mix, strict=True):
        got = (table["kind"] == kind).mean()
        assert abs(got - share) < 4 * (share * (1 - share) / 2_000) ** 0.5, f"{kind}: {got:.3f} instead of {share}"
    lines = table["prompt"].str.split("\n")
    assert (lines.str.len() == 4).all() and lines.map(lambda x: len(set(x)) == 4).all(), "examples must differ"
    relation = table[table["kind"] == "relation"]
    assert set(relation["extra"]) == set(captions.RELATIONS)
    assert relation["prompt"].map(lambda p: all(", " in x.split(" =>")[0] for x in p.split("\n"))).all()


def test_a_prompt_depends_on_its_number_only():
    pd.testing.assert_frame_equal(captions.prompts(W, bench(), 1, 3, 7),
                                  captions.prompts(W, bench(), 1, 0, 9).iloc[3:7].reset_index(drop=True))


def test_example_lines_name_their_subject():
    for kind, rows in captions.EXAMPLES.items():
        for subject, extra, caption in rows:
            assert bool(extra) == (kind != "class") and caption and captions.ARROW not in caption
            assert kind != "relation" or f" {extra} " in caption, f"{caption!r} does not say {extra!r}"
            assert subject in caption or kind == "background" and subject == "boat", f"{caption!r} does not say {subject!r}"


@pytest.mark.parametrize("written, caption", [
    (" an A320 \nball => a ball", "an A320"), ("an A320", "an A320"), ("\nan A320", ""), ("a => b", ""), ("  ", "")])
def test_caption_ends_with_its_line(written, caption):
    assert captions.clean(written) == caption


@pytest.mark.parametrize("caption, name, named", [
    ("a Boeing 737 800 at dusk", "737-800", True), ("2012 Audi S5 Coupe", "Audi S5 Coupe 2012", True),
    ("an a320 in the sky", "A320", True), ("an A320neo", "A320", False), ("a primrose", "rose", False)])
def test_mentions_compares_words(caption, name, named):
    assert captions.mentions(caption, name) == named


def test_outcomes_by_hand():
    asked = pd.DataFrame({"caption": ["a", "b", "a", "", "c", "b", "d"], "label": [0, 0, 0, 0, 0, 1, 1]})
    got = captions.judge_outcomes(asked, per_class=2)["outcome"]
    assert list(got) == ["kept", "kept", "duplicate", "malformed", "surplus", "duplicate", "kept"]


def test_asks_again_for_what_duplicates_took_and_reports_what_stays_short(in_process, capsys):
    in_process.setattr(worlds, "backend", lambda w: fake_backend(numbered))
    made = captions.make(W)
    table = made.table("aircraft.parquet")
    assert list(table) == ["kind", "extra", "class", "label", "caption", "mentions_class"]
    assert table["caption"].is_unique and table["mentions_class"].all() and table["label"].is_monotonic_increasing
    assert (table["label"].value_counts() == 4).all()
    asked = made.table("asked/*.parquet")
    assert len(asked) > 10 and set(asked["outcome"]) >= {"kept", "duplicate"}
    in_process.setattr(worlds, "backend", lambda w: fake_backend(lambda w, p, rng: ["the same"] * len(p)))
    captions.make(worlds.adapt(W, seed=1))
    assert "A320 (1), 737-800 (0)" in capsys.readouterr().out.replace("captions for ", "")


def test_error_only_when_no_class_got_a_caption(in_process):
    in_process.setattr(worlds, "backend", lambda w: fake_backend(lambda w, p, rng: [" => "] * len(p)))
    with pytest.raises(StudyError, match="no caption for any class of 'aircraft'"):
        captions.make(W)


def test_killed_run_goes_on_and_ends_the_same(in_process, tmp_path):
    in_process.setattr(worlds, "backend", lambda w: fake_backend(numbered))
    whole = {f.relative_to(tmp_path): f.read_bytes() for f in captions.make(W).files("**/*.parquet")}
    calls = []

    def dies(w, prompts, rng):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return numbered(w, prompts, rng)

    in_process.setenv("STUDY_RUNS", str(tmp_path / "again"))
    in_process.setattr(worlds, "backend", lambda w: fake_backend(dies))
    with pytest.raises(KeyboardInterrupt):
        captions.make(W)
    again = captions.make(W).files("**/*.parquet")
    assert {f.relative_to(tmp_path / "again"): f.read_bytes() for f in again} == whole


def test_growth_and_diversity_by_hand():
    grown = captions.growth(["a red car", "a red boat", "a red car"], [1, 2, 3])
    assert list(grown["pairs"]) == [2, 3, 3]
    table = pd.DataFrame({"caption": ["a red car", "a red boat"], "mentions_class": [True, False]})
    table = table.assign(kind="class", task="cars")
    row = captions.diversity(table).iloc[0]
    assert (row["distinct_1"], row["distinct_2"], row["words"]) == (4 / 6, 3 / 4, 3)
    assert captions.coverage(table)["mentions_class"].item() == 0.5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A caption model of the real classes, trained for a moment."""
    things, places = ("boat", "house", "A320 aircraft", "737-800 aircraft"), ("sea", "sky", "city")
    corpus = [(t, p, f"a photo of a {t} in the {p}") for t in things for p in (*places, None) if p]
    corpus += [(t, None, f"{a} {t}") for t in things for a in ("a small", "an old", "a red")]
    folder = tmp_path_factory.mktemp("language")
    language.train(corpus, steps=12, seed=0, folder=folder)
    return folder


def test_model_is_small_and_offline(model):
    assert (model / "model.safetensors").stat().st_size < 3e6


def test_a_caption_depends_on_prompt_and_seed_only(model):
    import torch

    prompts = list(captions.prompts(W, bench(), 0, 0, 12)["prompt"])
    seeds = list(range(100, 112))
    state = torch.random.get_rng_state()
    all_at_once = language.write(model, prompts, seeds, dataclasses.replace(W.captions, batch=64))
    assert torch.equal(state, torch.random.get_rng_state()), "the global random state was touched"
    assert language.write(model, prompts, seeds, dataclasses.replace(W.captions, batch=5)) == all_at_once
    assert language.write(model, prompts[7:8], seeds[7:8], W.captions) == all_at_once[7:8]
    assert language.write(model, prompts[7:8] * 2, [1, 2], W.captions)[0] != all_at_once[7]
    assert not any("\n" in caption or "<" in caption for caption in all_at_once)
    assert language.write(model, [], [], W.captions) == []


def test_nucleus_sampling_by_hand():
    import torch

    settings = dataclasses.replace(W.captions, temperature=1.0, top_p=0.7)
    scores = torch.log(torch.tensor([[0.05, 0.5, 0.15, 0.3]])).repeat(4, 1)  # nucleus: 0.5 and 0.3, so 5/8 and 3/8
    sampler = language._nucleus_sampler(torch.tensor([[0.0], [0.62], [0.63], [0.999]]).double(), 2, settings)
    assert sampler(torch.zeros(4, 2, dtype=torch.long), scores).argmax(1).tolist() == [1, 1, 3, 3]


def test_store_key_depends_on_the_seed():
    assert store.key("captions", W) != store.key("captions", worlds.adapt(W, seed=1))
