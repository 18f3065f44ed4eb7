"""Captions: prompts by the paper's mix, clean-up by hand, sampling that knows no batch."""

from __future__ import annotations

import dataclasses
import itertools
import types

import numpy as np
import pandas as pd
import pytest

from helpers import pocket, worlds
from helpers.data.tables import Benchmark
from helpers.engine import report, workers
from helpers.errors import StudyError
from helpers.models import sampling
from helpers.pocket.train import language
from helpers.study import captions
from tests.study import cells

W = worlds.get("smoke", tasks=("aircraft",), captions={"per_class": 4})


def bench(task="aircraft", classes=("A320", "737-800"), noun="aircraft"):
    return Benchmark(
        task,
        classes,
        noun,
        f"a photo of {noun}",
        ("a photo of a {}.",),
        ("sky", "sea"),
        pd.DataFrame(),
        None,
        None,
        None,
    )


def fake_backend(write):
    return types.SimpleNamespace(
        SEAM=pocket.SEAM,
        outside=lambda w: {},
        prepare=lambda w: None,
        write_captions=write,
        benchmark=lambda w, task: bench(task),
    )


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """The store in a temporary folder, jobs in this process."""
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    monkeypatch.setattr(
        workers, "starmap", lambda fn, jobs, *_, **__: ((i, fn(*job)) for i, job in enumerate(jobs))
    )
    return monkeypatch


def numbered(w, prompts, rng):
    """A language model that names its subject, with a number, and runs on past the line."""
    return [
        f" {p.splitlines()[-1].split(' aircraft')[0]} no. {rng.integers(6)} \nball => a ball"
        for p in prompts
    ]


def test_prompt_is_example_lines_of_one_form_and_an_open_line():
    rng = np.random.default_rng(0)
    text = captions.few_shot_prompt("A320 aircraft", "background", "sky", rng)
    *examples, last = text.split("\n")
    assert last == "A320 aircraft, sky =>"
    assert len(set(examples)) == 3 and set(examples) <= set(captions.EXAMPLES["background"])


def test_open_line_of_a_class_alone():
    text = captions.few_shot_prompt("boat", "class", "", np.random.default_rng(0))
    assert text.split("\n")[-1] == "boat =>"


def test_model_is_trained_on_the_lines_that_prompts_have():
    for kind, lines in captions.EXAMPLES.items():
        for line in lines:
            subject, caption = line.split(" => ")
            name, _, extra = subject.partition(", ")
            assert line == language.line(name, extra if kind != "class" else None, caption)


def test_noun_follows_aircraft_and_cars_only():
    def subject(benchmark):
        prompt = captions.prompt_row(W, benchmark, 0, 0)["prompt"]
        return prompt.splitlines()[-1].removesuffix(" =>").split(", ")[0]

    assert subject(bench(classes=("Tornado",))) == "Tornado aircraft"
    assert subject(bench("flowers", ("rose",), "flower")) == "rose"


def test_kinds_are_mixed_as_asked_and_extras_fit_them():
    table = pd.DataFrame([captions.prompt_row(W, bench(), 0, i) for i in range(2_000)])
    for kind, share in zip(captions.KINDS, captions.MIX, strict=True):
        got = (table["kind"] == kind).mean()
        assert abs(got - share) < 4 * (share * (1 - share) / 2_000) ** 0.5, (
            f"{kind}: {got:.3f} instead of {share}"
        )
    extras = {kind: set(part["extra"]) for kind, part in table.groupby("kind")}
    assert extras == {
        "class": {""},
        "relation": set(captions.RELATIONS),
        "background": {"sky", "sea"},
    }


def test_example_lines_say_what_stands_before_their_arrow():
    for kind, lines in captions.EXAMPLES.items():
        for line in lines:
            subject, caption = line.split(" => ")
            before = subject.split(", ")
            assert len(before) == (1 if kind == "class" else 2), line
            assert "=>" not in caption and (kind != "relation" or f" {before[1]} " in caption), line


@pytest.mark.parametrize(
    "written, caption",
    [
        (" an A320 \nball => a ball", "an A320"),
        ("an A320", "an A320"),
        ("\nan A320", ""),
        ("  ", ""),
    ],
)
def test_caption_ends_with_its_line(written, caption):
    assert captions.first_line(written) == caption


def test_clean_by_hand():
    table = pd.DataFrame(
        {
            "caption": ["a", "b", "a", "", "c", "b", "d"],
            "label": [0, 0, 0, 0, 0, 1, 1],
            "number": range(7),
        }
    )
    kept = captions.clean(
        table, per_class=2
    )  # "c" is a third one, the second "b" repeats another class's
    assert list(kept["caption"]) == ["a", "b", "d"] and list(kept["label"]) == [0, 0, 1]


def test_mentions_class_ignores_case():
    table = pd.DataFrame(
        {"class": ["A320", "A320"], "caption": ["an a320 in the sky", "a plane in the sky"]}
    )
    assert captions.mentions_class(table).tolist() == [True, False]


def test_missing_classes_are_listed():
    made = pd.DataFrame({"class": ["A320", "A320", "rose"], "keep:word+top": [True, False, False]})
    names = bench(classes=("A320", "rose", "Tornado"))
    assert captions.missing_classes(made[made["keep:word+top"]], names) == ["rose", "Tornado"]


def test_classes_are_asked_again_for_what_duplicates_took(in_process):
    def repetitive(w, prompts, rng):
        texts = numbered(w, prompts, rng)
        return [texts[i - i % 3] for i in range(len(texts))]  # two different ones in six

    in_process.setattr(worlds, "backend", lambda w: fake_backend(repetitive))
    made = captions.make(W)
    table = made.table("aircraft.parquet")
    assert {"caption", "class", "label", "kind", "extra", "mentions_class"} <= set(table)
    assert (
        table["caption"].is_unique
        and table["mentions_class"].all()
        and table["label"].is_monotonic_increasing
    )
    assert (table["label"].value_counts() == 4).all()
    raw = made.table("raw/*.parquet")
    assert raw["caption"].duplicated().any() and made.files("raw/aircraft-1-*.parquet"), (
        "duplicates are made up for in a second round"
    )


def test_a_class_without_captions_is_listed_and_the_run_goes_on(in_process):
    in_process.setattr(
        worlds, "backend", lambda w: fake_backend(lambda w, p, rng: ["the same"] * len(p))
    )
    table = captions.make(W).table("aircraft.parquet")
    assert list(table["caption"]) == ["the same"] and captions.missing_classes(table, bench()) == [
        "737-800"
    ]


def test_the_checkpoint_lists_classes_without_captions():
    one = pd.DataFrame({"class": ["A320"], "caption": ["an A320"]})
    known = {
        "captions": captions,
        "report": report,
        "worlds": types.SimpleNamespace(backend=lambda w: fake_backend(None)),
        "w": W,
    }
    found = cells.run("01", "lost = [captions", **known, tables={"aircraft": one})
    assert found["lost"] == [["737-800"]]
    with pytest.raises(AssertionError, match="some class of every task"):
        cells.run("01", "lost = [captions", **known, tables={"aircraft": one.iloc[:0]})


def test_error_only_when_no_class_got_a_caption(in_process):
    in_process.setattr(worlds, "backend", lambda w: fake_backend(lambda w, p, rng: ["\n"] * len(p)))
    with pytest.raises(StudyError, match="no caption for any class of aircraft"):
        captions.make(W)


def test_killed_run_goes_on_and_ends_the_same(in_process, tmp_path):
    w = worlds.replace(W, captions={"per_class": 6})
    in_process.setattr(worlds, "backend", lambda w: fake_backend(numbered))
    whole = {
        f.relative_to(tmp_path): f.read_bytes() for f in captions.make(w).files("**/*.parquet")
    }
    calls = []

    def dies(w, prompts, rng):
        calls.append(len(prompts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return numbered(w, prompts, rng)

    in_process.setenv("STUDY_RUNS", str(tmp_path / "again"))
    in_process.setattr(worlds, "backend", lambda w: fake_backend(dies))
    with pytest.raises(KeyboardInterrupt):
        captions.make(w)
    again = captions.make(w).files("**/*.parquet")
    assert {f.relative_to(tmp_path / "again"): f.read_bytes() for f in again} == whole


def test_distinct_words_and_pairs_by_hand():
    distinct = cells.run("01", "def distinct(", pairwise=itertools.pairwise)["distinct"]
    found = distinct(["a red car", "a red boat"])
    assert (found["distinct_1"], found["distinct_2"]) == (4 / 6, 3 / 4)


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

    prompts = [captions.prompt_row(W, bench(), 0, i)["prompt"] for i in range(12)]
    seeds = list(range(100, 112))
    state = torch.random.get_rng_state()
    all_at_once = language.write(model, prompts, seeds, dataclasses.replace(W.captions, batch=64))
    assert torch.equal(state, torch.random.get_rng_state()), "the global random state was touched"
    assert (
        language.write(model, prompts, seeds, dataclasses.replace(W.captions, batch=5))
        == all_at_once
    )
    assert language.write(model, prompts[7:8], seeds[7:8], W.captions) == all_at_once[7:8]
    assert language.write(model, prompts[7:8] * 2, [1, 2], W.captions)[0] != all_at_once[7]
    assert language.write(model, [], [], W.captions) == []


def test_nucleus_sampling_by_hand():
    import torch

    settings = dataclasses.replace(W.captions, temperature=1.0, top_p=0.7)
    scores = torch.log(torch.tensor([[0.05, 0.5, 0.15, 0.3]])).repeat(
        4, 1
    )  # nucleus: 0.5 and 0.3, so 5/8 and 3/8
    sampler = sampling.nucleus(torch.tensor([[0.0], [0.62], [0.63], [0.999]]).double(), 2, settings)
    assert sampler(torch.zeros(4, 2, dtype=torch.long), scores).argmax(1).tolist() == [1, 1, 3, 3]


def test_names_of_any_script_are_looked_for():
    pairs = [("鳥", "a boat", False), ("鳥", "a photo of 鳥", True), ("café", "a CAFE\u0301", True),
             ("F-16A", "an f 16 a", True), ("robin", "robins", False)]  # fmt: skip
    table = pd.DataFrame(pairs, columns=["class", "caption", "named"])
    assert captions.mentions_class(table).tolist() == table["named"].tolist()
