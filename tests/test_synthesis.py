"""Images: the same whatever is drawn beside them, shards that survive a killed run, the filter's share per class."""

from __future__ import annotations

import dataclasses
import tarfile
import types

import numpy as np
import pandas as pd
import pytest

from helpers import clip, drawing, gpu, pools, store, synthesis, worlds
from helpers.pocket import diffusion, generator, upstream
from helpers.pools import Benchmark
from helpers.worlds import StudyError

W = worlds.get("smoke", tasks=("aircraft",), image_size=8, synthesis={"shard": 4}, clip={"top_share": 0.5})
CLASSES = ("A320", "737-800")


def painted(w, captions, seeds, images=None, strength=None):
    """A generator whose images say what they were drawn from: seed in red, length of the caption in green."""
    made = np.zeros((len(captions), 8, 8, 3), np.uint8)
    made[..., 0] = (np.array([int(s) % 251 for s in seeds], np.uint8))[:, None, None]
    made[..., 1] = np.array([len(c) for c in captions], np.uint8)[:, None, None]
    made[..., 2] = 0 if images is None else images[:, :1, :1, 2] + round(10 * strength)
    return made


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """The store in a temporary folder, jobs in this process, a painting generator and a CLIP that scores by redness."""
    bench = Benchmark("aircraft", CLASSES, "aircraft", "", ("{}",), ("sky",), pd.DataFrame(), None, None, None)
    backend = types.SimpleNamespace(draw=painted, benchmark=lambda w, task: bench)
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    monkeypatch.setattr(gpu, "starmap", lambda fn, jobs, parallel=True: ((i, fn(*job)) for i, job in enumerate(jobs)))
    monkeypatch.setattr(worlds, "backend", lambda w: backend)
    monkeypatch.setattr(clip, "load", lambda w: None)
    monkeypatch.setattr(clip, "embed_images", lambda model, images: images[:, 0, 0, :].astype(np.float32))
    monkeypatch.setattr(clip, "label_scores", lambda model, x, labels, classes, templates: x[:, 0] / 255)
    return backend


def captions(n=10):
    return pd.DataFrame({"caption": [f"photo {i} of a plane" for i in range(n)], "class": [CLASSES[i % 2] for i in range(n)],
                         "label": [i % 2 for i in range(n)], "kind": "class"})


def test_seeds_differ_and_depend_on_position_and_name():
    one = drawing.seeds(W, 100, "aircraft")
    assert len(set(one.tolist())) == 100 and one.dtype == np.uint64
    assert np.array_equal(one[:10], drawing.seeds(W, 10, "aircraft"))
    assert not set(one.tolist()) & set(drawing.seeds(W, 100, "cars").tolist())
    assert not set(one.tolist()) & set(drawing.seeds(worlds.adapt(W, seed=1), 100, "aircraft").tolist())


def test_images_do_not_depend_on_the_shard_size(in_process, tmp_path):
    table = synthesis.to_draw(W, "aircraft", captions())
    drawn = []
    for size in (3, 10):
        w = worlds.adapt(W, synthesis={"shard": size})
        tars = drawing.draw_shards(tmp_path / str(size), w, table, "aircraft")
        assert [t.name for t in tars] == [f"aircraft-{k:05d}.tar" for k in range(-(-10 // size))]
        drawn.append(drawing.collect(tars, 10, tmp_path / f"{size}.npy"))
    assert np.array_equal(*drawn) and list(drawn[0][:, 0, 0, 0]) == [s % 251 for s in table["seed"].tolist()]


def test_shards_are_a_webdataset_and_an_image_folder(in_process, tmp_path):
    table = synthesis.to_draw(W, "aircraft", captions())
    tars = drawing.draw_shards(tmp_path, W, table, "aircraft")
    with tarfile.open(tars[1]) as tar:
        assert tar.getnames()[:4] == [f"000000004.{ending}" for ending in ("png", "txt", "json", "cls")]
        assert tar.extractfile("000000005.txt").read() == b"photo 5 of a plane"
        assert tar.extractfile("000000005.cls").read() == b"1"
    _, rows = pools.read_tar(tars[1])
    assert [r["seed"] for r in rows] == table["seed"].tolist()[4:8]
    pools.to_image_folder(tars, CLASSES, tmp_path / "folder")
    assert {f.name: len(list(f.glob("*.png"))) for f in (tmp_path / "folder").iterdir()} == {"A320": 5, "737-800": 5}


def test_strength_and_images_reach_the_generator_row_by_row(in_process, tmp_path):
    table = synthesis.to_draw(W, "aircraft", captions(6))
    given = np.zeros((6, 8, 8, 3), np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None, None]
    tars = drawing.draw_shards(tmp_path, W, table, "edited", given, strength=0.5)
    assert list(drawing.collect(tars, 6, tmp_path / "e.npy")[:, 0, 0, 2]) == [5, 6, 7, 8, 9, 10]


def test_a_table_without_seeds_and_a_wrong_number_of_images_are_said(in_process, tmp_path):
    with pytest.raises(StudyError, match="no column seed.*drawing.seeds"):
        drawing.draw_shards(tmp_path, W, captions(), "aircraft")
    tars = drawing.draw_shards(tmp_path, W, synthesis.to_draw(W, "aircraft", captions()), "aircraft")
    with pytest.raises(StudyError, match="do not hold 11 images"):
        drawing.collect(tars, 11, tmp_path / "x.npy")


def test_artifact_is_a_training_set_after_the_filter(in_process):
    made = synthesis.make(W, {"aircraft": captions()}, prompts="handmade")
    table = store.read_table(made.path / "aircraft.parquet")
    assert {"label", "class", "caption", "id", "score", "keep", "seed", "kind"} <= set(table)
    for _, part in table.groupby("label"):
        assert part["keep"].sum() == 3, "half of five, rounded up"
        assert part.loc[part["keep"], "score"].min() >= part.loc[~part["keep"], "score"].max()
    kept = pools.training_set(made, "aircraft")
    assert len(kept) == 6 and list(kept.images[:, 0, 0, 0]) == [s % 251 for s in kept.facts["seed"].tolist()]
    images, rows = synthesis.samples(made, "aircraft", 1, 2, order="-score")
    assert list(rows["label"]) == [1, 1] and images[0, 0, 0, 0] >= images[1, 0, 0, 0]
    best = table[table["label"] == 1]["score"].nlargest(2)
    assert np.allclose(rows["score"], best) and np.allclose(images[:, 0, 0, 0] / 255, best)


def test_killed_run_goes_on_and_ends_the_same(in_process, tmp_path, monkeypatch):
    whole = {f.name: f.read_bytes() for f in synthesis.make(W, {"aircraft": captions()}).files("**/*.*")}
    drawn = []

    def dies(w, texts, seeds, images=None, strength=None):
        drawn.append(len(texts))
        if len(drawn) == 3:  # the first one looks whether the models are there
            raise KeyboardInterrupt
        return painted(w, texts, seeds)

    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "again"))
    in_process.draw = dies
    with pytest.raises(KeyboardInterrupt):
        synthesis.make(W, {"aircraft": captions()})
    again = synthesis.make(W, {"aircraft": captions()})
    assert {f.name: f.read_bytes() for f in again.files("**/*.*")} == whole
    assert drawn == [1, 4, 4, 1, 4, 2], "the shard that was finished is not drawn again"


def test_guidance_sweep_changes_nothing_but_the_scale(in_process):
    seen = []

    def listens(w, texts, seeds, images=None, strength=None):
        seen.append((w.synthesis.guidance, tuple(texts), tuple(seeds)))
        return painted(w, texts, seeds)

    in_process.draw = listens
    swept = synthesis.guidance_sweep(W, ["a", "b"], (1, 7.5))
    assert list(swept) == [1, 7.5] and [s[0] for s in seen] == [1.0, 7.5] and seen[0][1:] == seen[1][1:]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    """A Stable Diffusion pipeline of the real classes with tiny random parts, saved and loaded as the shipped one is."""
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTokenizer

    folder, u = tmp_path_factory.mktemp("generator"), W.upstream
    upstream.train_tokenizer(["a photo of an A320 at sunset", "a boat in the sea"], folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
                            block_out_channels=(8, 16, 16), layers_per_block=1, latent_channels=u.latent_channels,
                            norm_num_groups=8, sample_size=32)
        unet = diffusion.build_unet(dataclasses.replace(u, unet_channels=(16, 32)), 8)
        text = diffusion.build_text_encoder(len(tokenizer), tokenizer.model_max_length, tokenizer.eos_token_id)
    vae.half().save_pretrained(folder / "vae")
    unet.half().save_pretrained(folder / "unet-short")
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
    assert np.array_equal(generator.draw(pipe, TEXTS[::-1], range(10, -1, -1), FAST), everything[::-1])
    assert not np.array_equal(generator.draw(pipe, TEXTS[:1], [99], FAST)[0], everything[0])
    assert not np.array_equal(generator.draw(pipe, ["a boat"], [0], FAST)[0], everything[0])
    assert generator.draw(pipe, [], [], FAST).shape == (0, 32, 32, 3)


def test_guidance_and_eta_are_used(pipe):
    plain = generator.draw(pipe, TEXTS[:2], [0, 1], FAST)
    for change in ({"guidance": 7.5}, {"eta": 1.0}):
        settings = dataclasses.replace(FAST, **change)
        changed = generator.draw(pipe, TEXTS[:2], [0, 1], settings)
        assert not np.array_equal(plain, changed), change
        assert np.array_equal(generator.draw(pipe, TEXTS[1:2], [1], settings), changed[1:]), f"{change} couples images"


def test_editing_is_by_image_and_strength(pipe):
    given = generator.draw(pipe, TEXTS, range(11), FAST)
    edited = generator.draw(pipe, TEXTS, range(11), FAST, given, 0.7)
    assert np.array_equal(generator.draw(pipe, TEXTS[3:5], [3, 4], FAST, given[3:5], 0.7), edited[3:5])
    slightly = generator.draw(pipe, TEXTS[:1], [0], FAST, given[:1], 0.1)  # 3 steps do not hold a tenth: more are taken
    assert slightly.shape == (1, 32, 32, 3) and not np.array_equal(slightly, edited[:1])
    for strength in (0, 1.5, None):
        with pytest.raises(StudyError, match=r"must lie in \(0, 1\]"):
            generator.draw(pipe, TEXTS[:1], [0], FAST, given[:1], strength)


def test_schedule_ends_in_pure_noise(pipe):
    alphas = pipe.scheduler.alphas_cumprod
    assert float(alphas[-1]) == 0 and pipe.scheduler.config.prediction_type == "v_prediction"
    pipe.scheduler.set_timesteps(4)
    assert pipe.scheduler.timesteps.tolist() == [999, 749, 499, 249]


def test_unknown_generator_names_those_there_are(pipe):
    with pytest.raises(StudyError, match="unknown generator 'shrot'. Did you mean 'short'"):
        generator.load(pipe.tokenizer.name_or_path.removesuffix("/tokenizer"), "shrot")
