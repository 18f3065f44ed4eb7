"""Images: the same whatever is drawn beside them, shards that survive a killed run, the filter."""

from __future__ import annotations

import dataclasses
import tarfile
import types

import numpy as np
import pandas as pd
import pytest

from helpers import pocket, worlds
from helpers.data import tables
from helpers.data.tables import Benchmark
from helpers.engine import store, workers
from helpers.errors import StudyError
from helpers.models import clip
from helpers.pocket.train import autoencoder, generator, unet, vocabulary
from helpers.pocket.train import clip as miniature
from helpers.study import analysis, finetune, synthesis

W = worlds.get(
    "smoke",
    tasks=("aircraft",),
    image_size=8,
    captions={"per_class": 5},
    synthesis={"shard": 4},
    clip={"top_share": 0.5},
)
CLASSES = ("A320", "737-800")


def painted(w, captions, seeds, images=None, strength=None):
    """A generator whose images say what they were drawn from: seed in red, caption in green."""
    made = np.zeros((len(captions), 8, 8, 3), np.uint8)
    made[..., 0] = (np.array([int(s) % 251 for s in seeds], np.uint8))[:, None, None]
    made[..., 1] = np.array([len(c) for c in captions], np.uint8)[:, None, None]
    made[..., 2] = 0 if images is None else images[:, :1, :1, 2] + round(10 * strength)
    return made


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """A temporary store, jobs in this process, a generator that paints, a CLIP that sees red."""
    bench = Benchmark(
        "aircraft", CLASSES, "aircraft", "", ("{}",), ("sky",), pd.DataFrame(), None, None, None
    )
    backend = types.SimpleNamespace(
        SEAM=pocket.SEAM,
        outside=lambda w: {},
        prepare=lambda w: None,
        draw=painted,
        benchmark=lambda w, task: bench,
    )
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    monkeypatch.setattr(
        workers, "starmap", lambda fn, jobs, *_, **__: ((i, fn(*job)) for i, job in enumerate(jobs))
    )
    monkeypatch.setattr(worlds, "backend", lambda w: backend)
    monkeypatch.setattr(clip, "load", lambda w: None)
    monkeypatch.setattr(
        clip, "embed_images", lambda model, images: images[:, 0, 0, :].astype(np.float32)
    )
    monkeypatch.setattr(clip, "label_scores", lambda model, x, labels, *_: x[:, 0] / 255)
    return backend


def captions(n=10):
    return pd.DataFrame(
        {
            "caption": [f"photo {i} of a plane" for i in range(n)],
            "class": [CLASSES[i % 2] for i in range(n)],
            "label": [i % 2 for i in range(n)],
            "kind": "class",
        }
    )


def drawn_shards(path, w=W, n=10, name="aircraft"):
    return synthesis.draw_table(path, w, captions(n), name)


def test_images_do_not_depend_on_the_shard_size_and_have_seeds_of_their_own(in_process, tmp_path):
    drawn, seeds = [], []
    for size in (3, 10):
        tars = drawn_shards(tmp_path / str(size), worlds.replace(W, synthesis={"shard": size}))
        assert len(tars) == -(-10 // size)
        split = tables.read_tars(tars)
        drawn.append(split.images)
        seeds.append([int(seed) for seed in split.facts["seed"]])
    assert np.array_equal(*drawn) and seeds[0] == seeds[1] and len(set(seeds[0])) == 10
    assert list(drawn[0][:, 0, 0, 0]) == [s % 251 for s in seeds[0]]
    other = tables.read_tars(drawn_shards(tmp_path / "cars", name="cars")).facts["seed"]
    assert not set(map(int, other)) & set(seeds[0])


def test_shards_are_a_webdataset(in_process, tmp_path):
    tars = drawn_shards(tmp_path)
    with tarfile.open(tars[1]) as tar:
        first = tar.getnames()[0].split(".")[0]
        assert {n.split(".")[1] for n in tar.getnames()} == {"png", "txt", "json", "cls"}
        assert tar.extractfile(f"{first}.txt").read() == b"photo 4 of a plane"
        assert tar.extractfile(f"{first}.cls").read() == b"0"


@pytest.fixture
def written(in_process):
    """Captions of notebook 01, as if they had been written."""
    store.make("captions", W, lambda path: store.write(path / "aircraft.parquet", captions()))
    return in_process


def test_artifact_is_a_training_set_after_the_filter(written):
    made = synthesis.make(W)
    table = store.read_table(made.path / "aircraft.parquet")
    assert {"label", "class", "caption", "id", "score", "keep", "seed"} <= set(table)
    assert sorted(table["caption"]) == sorted(captions()["caption"]), "each caption once"
    for _, part in table.groupby("label"):
        assert part["keep"].sum() == 3, "half of five, rounded up"
        assert part.loc[part["keep"], "score"].min() >= part.loc[~part["keep"], "score"].max()
    kept = tables.training_set(made, "aircraft")
    assert len(kept) == 6 and list(kept.images[:][:, 0, 0, 0]) == [
        int(s) % 251 for s in kept.facts["seed"]
    ]


def test_a_class_without_captions_is_left_out_and_all_goes_on(in_process):
    w = worlds.replace(W, seed=1)  # a seed of its own: stages keep sets in memory
    named = captions().query("label == 0")
    store.make("captions", w, lambda path: store.write(path / "aircraft.parquet", named))
    made = tables.training_set(synthesis.make(w), "aircraft")
    assert set(made.facts["class"]) == {"A320"} and len(made) == 3
    run = finetune.Run("aircraft", "synthetic", "keep", 2, 0, 1e-3)
    assert list(finetune.training_images(w, run).labels) == [0, 0]


def test_a_class_that_is_short_of_captions_gets_several_images_of_each(in_process):
    w = worlds.replace(W, seed=2)
    short = captions().iloc[:8].query("label == 0 or caption < 'photo 4'")  # four and two
    store.make("captions", w, lambda path: store.write(path / "aircraft.parquet", short))
    table = store.read_table(synthesis.make(w).path / "aircraft.parquet")
    assert table["label"].value_counts().to_dict() == {0: 5, 1: 5}
    times = table.groupby("label")["caption"].value_counts()
    assert sorted(times[0]) == [1, 1, 1, 2] and sorted(times[1]) == [2, 3]
    assert table["seed"].is_unique


def test_captions_are_missed_with_the_command_that_writes_them(in_process):
    with pytest.raises(store.MissingArtifact, match=r"python -m helpers\.run smoke 01"):
        synthesis.make(W)


def test_killed_run_goes_on_and_ends_the_same(written, tmp_path, monkeypatch):
    whole = {f.name: f.read_bytes() for f in synthesis.make(W).files("**/*.*")}
    drawn = []

    def dies(w, texts, seeds, images=None, strength=None):
        drawn.append(len(texts))
        if len(drawn) == 2:
            drawn.append("killed")
            raise KeyboardInterrupt
        return painted(w, texts, seeds)

    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "again"))
    store.make("captions", W, lambda path: store.write(path / "aircraft.parquet", captions()))
    written.draw = dies
    with pytest.raises(KeyboardInterrupt):
        synthesis.make(W)
    again = synthesis.make(W)
    assert {f.name: f.read_bytes() for f in again.files("**/*.*")} == whole
    assert drawn == [4, 4, "killed", 4, 2], "the shard that was finished is not drawn again"


def test_retrieved_images_are_edited_once_for_all_runs_that_have_them(
    in_process, tmp_path, monkeypatch
):
    """A run's edited images are what it would have drawn itself, in its own order."""
    drawn = []

    def counts(w, texts, seeds, images=None, strength=None):
        drawn.append(len(texts))
        return painted(w, texts, seeds, images, strength)

    in_process.draw = counts
    shown = np.zeros((30, 8, 8, 3), np.uint8)
    shown[..., 2] = 5 * np.arange(30)[:, None, None]
    labels = np.arange(30) % 2
    facts = {"row": 100 + np.arange(30), "class": [CLASSES[label] for label in labels]}
    offered = tables.Split(shown, labels, pd.DataFrame(facts))
    monkeypatch.setattr(tables, "source_set", lambda w, task, source, keep="": offered)
    w = worlds.replace(W, finetune={"seeds": 3}, analysis={"strengths": (0.1, 0.5)})
    analysis.make_edits(tmp_path, w, "aircraft", 8)
    runs = [finetune.Run("aircraft", "sdedit-0.5", "", 8, seed, 1e-3) for seed in range(3)]
    retrieved = [dataclasses.replace(run, source="retrieved") for run in runs]
    rows = [finetune.subset(w, run, offered) for run in retrieved]
    assert sum(drawn) == 2 * len(np.unique(rows)) < 2 * 3 * 8
    for run, of_run in zip(runs, rows, strict=True):
        edited = analysis.edited(w, tmp_path, run)
        assert edited.facts["row"].tolist() == [100 + row for row in of_run]
        assert np.array_equal(edited.images, analysis.edit(w, "aircraft", of_run, 0.5))


def test_guidance_sweep_changes_nothing_but_the_scale(in_process):
    seen = []

    def listens(w, texts, seeds, images=None, strength=None):
        seen.append((w.synthesis.guidance, tuple(texts), tuple(seeds)))
        return painted(w, texts, seeds)

    in_process.draw = listens
    swept = synthesis.sweep(W, ["a", "b"], (1.0, 7.5))
    assert (
        list(swept) == [1.0, 7.5]
        and [s[0] for s in seen] == [1.0, 7.5]
        and seen[0][1:] == seen[1][1:]
    )


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    """A Stable Diffusion pipeline of the real classes with tiny random parts, saved and loaded."""
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTokenizerFast

    folder, u = tmp_path_factory.mktemp("generator"), W.upstream
    vocabulary.train(["a photo of an A320 at sunset", "a boat in the sea"], folder / "tokenizer")
    tokenizer = CLIPTokenizerFast.from_pretrained(folder / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 16, 16),
            layers_per_block=1,
            latent_channels=autoencoder.LATENT_CHANNELS,
            norm_num_groups=8,
            sample_size=32,
        )
        small = unet.build_unet(dataclasses.replace(u, unet_channels=(16, 32)), 8)
        config = miniature.config(W, len(tokenizer))
        clip.save(clip.build(config, folder / "tokenizer"), folder / "clip", config)
        text = unet.text_encoder_of(folder / "clip" / clip.WEIGHTS)
    vae.half().save_pretrained(folder / "vae")
    small.half().save_pretrained(folder / "unet-short")
    text.half().save_pretrained(folder / "text_encoder-short")
    return generator.load(folder, "short")


TEXTS = [f"a photo of an A320 number {i}" for i in range(11)]
FAST = dataclasses.replace(W.synthesis, steps=3)


def test_an_image_depends_on_caption_and_seed_only(pipe):
    import torch

    state = torch.random.get_rng_state()
    everything = generator.draw(pipe, TEXTS, range(11), FAST)
    assert everything.shape == (11, 32, 32, 3) and everything.dtype == np.uint8
    assert torch.equal(state, torch.random.get_rng_state()), "the global random state was touched"
    assert np.array_equal(generator.draw(pipe, TEXTS[9:], range(9, 11), FAST), everything[9:])
    assert np.array_equal(
        generator.draw(pipe, TEXTS[::-1], range(10, -1, -1), FAST), everything[::-1]
    )
    assert not np.array_equal(generator.draw(pipe, TEXTS[:1], [99], FAST)[0], everything[0])
    assert not np.array_equal(generator.draw(pipe, ["a boat"], [0], FAST)[0], everything[0])
    assert generator.draw(pipe, [], [], FAST).shape == (0, 32, 32, 3)


def test_guidance_is_used_and_does_not_couple_images(pipe):
    plain = generator.draw(pipe, TEXTS[:2], [0, 1], FAST)
    settings = dataclasses.replace(FAST, guidance=7.5)
    changed = generator.draw(pipe, TEXTS[:2], [0, 1], settings)
    assert not np.array_equal(plain, changed)
    assert np.array_equal(generator.draw(pipe, TEXTS[1:2], [1], settings), changed[1:])


def test_editing_is_by_image_and_strength(pipe):
    given = generator.draw(pipe, TEXTS, range(11), FAST)
    edited = generator.draw(pipe, TEXTS, range(11), FAST, given, 0.7)
    assert np.array_equal(
        generator.draw(pipe, TEXTS[3:5], [3, 4], FAST, given[3:5], 0.7), edited[3:5]
    )
    slightly = generator.draw(
        pipe, TEXTS[:1], [0], FAST, given[:1], 0.1
    )  # 3 steps do not hold a tenth: more are taken
    assert slightly.shape == (1, 32, 32, 3) and not np.array_equal(slightly, edited[:1])
    for strength in (0, 1.5, None):
        with pytest.raises(StudyError, match=r"must lie in \(0, 1\]"):
            generator.draw(pipe, TEXTS[:1], [0], FAST, given[:1], strength)


def test_editing_adds_no_noise_but_that_of_its_strength(pipe):
    """The encoder's variance is never trained, and image-to-image would draw from it."""
    import torch

    pixels = torch.rand((3, 3, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        posterior = pipe.vae.encode(pixels).latent_dist
    assert posterior.mean.std() > 1e-3 and posterior.std.max() < 1e-6


@pytest.mark.parametrize(
    ("strength", "steps"),
    [(0.1, (10, 1)), (0.5, (6, 3)), (0.6, (10, 6)), (0.29, (24, 7)), (0.01, (100, 1)), (1, (6, 6))],
)
def test_a_strength_is_a_share_of_whole_steps(strength, steps):
    assert generator.edit_steps(strength, 6) == steps


def test_schedule_ends_in_pure_noise(pipe):
    alphas = pipe.scheduler.alphas_cumprod
    assert float(alphas[-1]) == 0 and pipe.scheduler.config.prediction_type == "v_prediction"
    pipe.scheduler.set_timesteps(4)
    assert pipe.scheduler.timesteps.tolist() == [999, 749, 499, 249]


def test_unknown_generator_names_those_there_are(pipe):
    with pytest.raises(StudyError, match=r"unknown generator 'shrot'\. Did you mean 'short'"):
        generator.load(pipe.tokenizer.name_or_path.removesuffix("/tokenizer"), "shrot")
