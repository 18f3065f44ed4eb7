"""Captions and images from tiny models in the real formats: the published recipe, plainly."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

from helpers import worlds
from helpers.data.tables import Benchmark
from helpers.engine import gpu, randomness
from helpers.errors import StudyError
from helpers.models import clip, sampling, weights
from helpers.paper import doctor, generator, language
from helpers.study import captions
from tests import tiny
from tests.bench import __main__ as bench_command
from tests.bench import _models
from tests.paper.folders import within

W = worlds.get("paper", synthesis={"steps": 8, "batch": 3}, captions={"batch": 16})
TEXTS = ["a boat at sea", "an old house", "a boat at sea", "A320 on the runway", "a rose"]
SEEDS = [11, 12, 13, 14, 2**63 + 15]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """$STUDY_PAPER with a language model, a Stable Diffusion and an XL, and the paper.toml that
    names them.
    """
    top = tmp_path_factory.mktemp("paper")
    for make in (tiny.language_model, tiny.generator, tiny.sdxl):
        make(top / make.__name__)
    (top / "paper.toml").write_text(
        f'language_model = "language_model"\ndrawn = {tiny.SIDE}\nkept = {tiny.SIDE // 2}\n'
        '[generators]\n"1.5" = "generator"\nxl = "sdxl"\n'
    )
    return top


@pytest.fixture
def paper(folders, monkeypatch):
    monkeypatch.setenv("STUDY_PAPER", str(folders))
    monkeypatch.setattr(gpu, "_FITTED", {})
    return worlds.backend(W)


@pytest.fixture(scope="module")
def prompts():
    bench = Benchmark(
        "aircraft",
        ("A320", "737-800"),
        "aircraft",
        "",
        (),
        ("sky", "sea"),
        pd.DataFrame(),
        None,
        None,
        None,
    )
    return [captions.prompt_row(W, bench, i % 2, i)["prompt"] for i in range(40)]


# captions


def one_at_a_time(model, tokenizer, prompt, seed, settings):
    """What ``generate`` writes for one whole prompt, to the last token that is allowed."""
    given = tokenizer(prompt, return_tensors="pt")
    length = given["input_ids"].shape[1]
    uniform = torch.from_numpy(np.random.default_rng(seed).random((1, settings.max_new_tokens)))
    out = model.generate(
        **given,
        max_new_tokens=settings.max_new_tokens,
        do_sample=False,
        pad_token_id=0,
        logits_processor=[sampling.nucleus(uniform, length, settings)],
    )
    return captions.first_line(tokenizer.decode(out[0, length:], skip_special_tokens=True))


def test_captions_are_those_of_one_prompt_at_a_time(folders, prompts):
    model, tokenizer = language.load(str(folders / "language_model"))
    state = torch.random.get_rng_state()
    made = language.continued(model, tokenizer, prompts, range(40), W.captions)
    assert torch.equal(state, torch.random.get_rng_state()), "the global random state was touched"
    assert len(set(made)) > 20, "hardly any variety: the comparison would say little"
    few = dataclasses.replace(W.captions, max_new_tokens=40)
    assert [captions.first_line(t) for t in made[:16]] == [
        one_at_a_time(model, tokenizer, p, s, few) for s, p in enumerate(prompts[:16])
    ]


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_caption_depends_on_prompt_and_seed_only(folders, prompts, batch):
    model, tokenizer = language.load(str(folders / "language_model"))
    whole = language.continued(model, tokenizer, prompts, range(40), W.captions)
    again = language.continued(
        model,
        tokenizer,
        prompts[::-1],
        range(39, -1, -1),
        dataclasses.replace(W.captions, batch=batch),
    )
    assert again[::-1] == whole
    assert (
        language.continued(model, tokenizer, prompts[:8], range(100, 108), W.captions) != whole[:8]
    )


@contextlib.contextmanager
def hooked(module, before):
    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    yield
    handle.remove()


def test_lines_end_where_llama_has_its_newline(folders):
    tokenizer = language.load(str(folders / "language_model"))[1]
    assert language.line_ends(tokenizer) == {13, tokenizer.eos_token_id}
    tokenizer = type(tokenizer).from_pretrained(folders / "language_model")
    tokenizer.add_tokens([".\n", "\n\n"])  # other vocabularies have such
    assert language.line_ends(tokenizer) == {
        13,
        tokenizer.eos_token_id,
        len(tokenizer) - 2,
        len(tokenizer) - 1,
    }


def test_captions_through_the_seam(paper, prompts):
    made = paper.write_captions(W, prompts, randomness.rng(W, "captions"))
    assert (
        made
        == paper.write_captions(W, prompts, randomness.rng(W, "captions"))
        != paper.write_captions(W, prompts, randomness.rng(W, "b"))
    )
    assert paper.write_captions(W, [], randomness.rng(W, "captions")) == []


# images


def published_alphas():
    """Stable Diffusion's noise schedule: betas that are linear in their square roots, from 0.00085
    to 0.012.
    """
    return np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1_000) ** 2)


@pytest.mark.parametrize(
    "shipped",
    [
        {},
        {
            "clip_sample": True,
            "set_alpha_to_one": True,
            "steps_offset": 0,
            "timestep_spacing": "trailing",
        },
    ],
)
def test_sampler_is_the_published_one_whatever_the_weights_come_with(folders, tmp_path, shipped):
    """CompVis' DDIM: steps 1, 21, ..., 981; after the last, the noise of step 0; latents are not
    clipped.
    """
    shutil.copytree(folders / "generator", tmp_path / "copy")
    file = tmp_path / "copy" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **shipped}))
    scheduler, alphas = generator.load(str(tmp_path / "copy")).scheduler, published_alphas()
    scheduler.set_timesteps(50)
    assert scheduler.timesteps.tolist() == list(range(981, 0, -20))
    assert np.allclose(scheduler.alphas_cumprod, alphas, rtol=1e-4)
    x, noise = (
        torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(i)) * 3 for i in range(2)
    )
    for t, before in ((981, alphas[961]), (1, alphas[0])):
        clean = (x - (1 - alphas[t]) ** 0.5 * noise) / alphas[t] ** 0.5
        expected = before**0.5 * clean + (1 - before) ** 0.5 * noise
        assert torch.allclose(
            scheduler.step(noise, t, x, eta=0.0).prev_sample,
            expected.float(),
            atol=1e-3 * float(expected.abs().max()),
        )


def plain(pipe, settings, **extra):
    """diffusers' own pipeline, one caption at a time."""
    pipe.set_progress_bar_config(disable=True)
    made = [
        pipe(
            text,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            output_type="np",
            generator=torch.Generator().manual_seed(seed % 2**63),
            **{k: v[i] if isinstance(v, list) else v for k, v in extra.items()},
        ).images[0]
        for i, (text, seed) in enumerate(zip(TEXTS, SEEDS, strict=True))
    ]
    return (np.stack(made) * 255).round().astype(np.uint8)


def furthest(a, b):
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("name", ["generator", "sdxl"])
@pytest.mark.parametrize("changes", [{}, {"guidance": 1.0}, {"guidance": 7.5}])
def test_images_are_those_of_the_plain_pipeline(folders, name, changes):
    pipe, settings = (
        generator.load(str(folders / name)),
        dataclasses.replace(W.synthesis, **changes),
    )
    made = generator.sample(pipe, TEXTS, SEEDS, settings, tiny.SIDE, tiny.SIDE)
    assert furthest(made, plain(pipe, settings, height=tiny.SIDE, width=tiny.SIDE)) <= 1
    assert furthest(made[0], made[2]) > 50 and made.std() > 20, "another seed, another image"


@pytest.mark.parametrize("name", ["generator", "sdxl"])
def test_sdedit_is_that_of_the_plain_pipeline(folders, name):
    pipe = generator.load(str(folders / name))
    edit = {"generator": StableDiffusionImg2ImgPipeline, "sdxl": StableDiffusionXLImg2ImgPipeline}[
        name
    ].from_pipe(pipe)
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)
    squashed = [Image.fromarray(image).resize((tiny.SIDE, tiny.SIDE)) for image in images]
    for strength in (0.3, 1.0):
        made = generator.sample(
            pipe, TEXTS, SEEDS, W.synthesis, tiny.SIDE, tiny.SIDE, images, strength
        )
        assert furthest(made, plain(edit, W.synthesis, image=squashed, strength=strength)) <= 1


def test_effective_steps_by_hand():
    assert [generator.effective_steps(50, s) for s in (0.1, 0.3, 0.5, 0.7, 1.0)] == [
        5,
        15,
        25,
        35,
        50,
    ]
    for strength in (0, 0.01, 1.1, None):
        with pytest.raises(StudyError, match=r"with 50 steps; it must lie between 0.02 and 1"):
            generator.effective_steps(50, strength)


def test_an_image_depends_on_caption_and_seed_only(folders):
    pipe = generator.load(str(folders / "generator"))
    whole = generator.sample(pipe, TEXTS, SEEDS, W.synthesis, tiny.SIDE, 32)
    alone = generator.sample(
        pipe, TEXTS[::-1], SEEDS[::-1], dataclasses.replace(W.synthesis, batch=1), tiny.SIDE, 32
    )[::-1]
    assert whole.shape == (5, 32, 32, 3) and furthest(whole, alone) <= 1


@pytest.mark.parametrize(
    "name, encoders",
    [("generator", ["text_encoder"]), ("sdxl", ["text_encoder", "text_encoder_2"])],
)
def test_a_caption_is_read_once(folders, name, encoders):
    pipe, rows = generator.load(str(folders / name)), []
    with contextlib.ExitStack() as stack:
        for encoder in encoders:
            stack.enter_context(
                hooked(
                    getattr(pipe, encoder), lambda module, args, given: rows.append(len(args[0]))
                )
            )
        generator.sample(pipe, TEXTS * 3, SEEDS * 3, W.synthesis, tiny.SIDE, tiny.SIDE)
    assert sum(rows) <= (4 + 2) * len(encoders), "four different captions, and the empty one"


def test_images_through_the_seam_are_reduced(paper, folders):
    made = paper.draw(W, TEXTS, SEEDS)
    large = generator.sample(
        generator.load(str(folders / "generator")), TEXTS, SEEDS, W.synthesis, tiny.SIDE, tiny.SIDE
    )
    assert np.array_equal(
        made,
        np.stack(
            [
                np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BICUBIC))
                for i in large
            ]
        ),
    )
    assert np.array_equal(made, paper.draw(W, TEXTS, SEEDS)), (
        "the same on the same machine, to the last bit"
    )
    assert paper.draw(
        worlds.replace(W, synthesis={"generator": "xl"}), TEXTS[:1], SEEDS[:1]
    ).shape == (1, 32, 32, 3)
    assert paper.draw(W, [], []).shape == (0, 32, 32, 3)


# failures


def test_bfloat16_and_images_that_are_not_numbers(folders, monkeypatch, capsys):
    reference = generator.sample(
        generator.load(str(folders / "generator")), TEXTS, SEEDS, W.synthesis, tiny.SIDE, tiny.SIDE
    )
    generator.load.cache_clear()
    monkeypatch.setattr(gpu, "precision", lambda: torch.bfloat16)  # as on a GPU
    pipe = generator.load(str(folders / "generator"))
    generator.load.cache_clear()
    assert pipe.unet.dtype == torch.bfloat16
    assert pipe.vae.dtype == pipe.text_encoder.dtype == torch.float32
    healthy = generator.sample(pipe, TEXTS, SEEDS, W.synthesis, tiny.SIDE, tiny.SIDE)
    assert 0 < np.abs(healthy.astype(int) - reference).mean() < 8

    def overflow(module, args, out):  # the second of each batch, in half precision only
        if out[0].dtype == torch.bfloat16 and len(out[0]) > 1:
            out[0][1] = torch.inf
        return out

    handle = pipe.unet.register_forward_hook(overflow)
    made = generator.sample(
        pipe, TEXTS, SEEDS, dataclasses.replace(W.synthesis, guidance=1.0), tiny.SIDE, tiny.SIDE
    )
    handle.remove()
    said = capsys.readouterr().out
    assert (
        "drawn again in float32" in said
        and "'an old house' (seed 12)" in said
        and "seed 11" not in said
    )
    right = generator.sample(
        pipe, TEXTS, SEEDS, dataclasses.replace(W.synthesis, guidance=1.0), tiny.SIDE, tiny.SIDE
    )
    assert made.std() > 20 and np.abs(made.astype(int) - right).mean() < 8
    assert pipe.unet.dtype == torch.bfloat16, "back in half precision"


def test_damaged_weights_are_an_error_with_caption_and_seed(folders):
    pipe = generator.load(str(folders / "generator"))
    generator.load.cache_clear()
    torch.nn.init.constant_(pipe.unet.conv_out.bias, torch.nan)
    with pytest.raises(
        StudyError,
        match=r"5 images are not numbers, even in float32; the first is 'a boat at sea' with seed "
        "11",
    ):
        generator.sample(pipe, TEXTS, SEEDS, W.synthesis, tiny.SIDE, tiny.SIDE)


def test_batches_are_halved_until_they_fit(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "_FITTED", {})
    tried = []

    def work(part, room=3):
        tried.append(len(part))
        if len(part) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return [2 * i for i in part]

    assert [
        x for _, made in gpu.fitting_batches(work, range(20), 16, "doubling") for x in made
    ] == list(range(0, 40, 2))
    assert (
        tried == [16, 8, 4] + [2] * 10
        and "doubling: out of memory with 16 at a time; going on with 8" in capsys.readouterr().out
    )
    tried.clear()
    assert sum(
        len(part) for part, _ in gpu.fitting_batches(work, range(4), 16, "doubling")
    ) == 4 and tried == [2, 2], "remembered"
    with pytest.raises(StudyError, match=r"tripling: the memory of .* does not hold a single one"):
        list(gpu.fitting_batches(lambda part: work(part, room=0), [1, 2], 2, "tripling"))


def test_drawing_and_writing_go_on_where_memory_is_short(paper, folders, prompts, capsys):
    pipe = generator.load(str(folders / "generator"))
    whole = generator.sample(pipe, TEXTS, SEEDS, W.synthesis, tiny.SIDE, tiny.SIDE)

    def short(module, args, given):
        if (
            len(args[0] if args else given["input_ids"]) > 4
        ):  # two images with guidance, four prompts
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with hooked(pipe.unet, short):
        assert (
            furthest(generator.sample(pipe, TEXTS, SEEDS, W.synthesis, tiny.SIDE, tiny.SIDE), whole)
            <= 1
        )
    model, tokenizer = language.load(str(folders / "language_model"))
    captioned = language.continued(model, tokenizer, prompts, range(40), W.captions)
    with hooked(model.model, short):
        assert language.continued(model, tokenizer, prompts, range(40), W.captions) == captioned
    said = capsys.readouterr().out
    assert "drawing at 64 pixels" in said and "captions: out of memory with 16 at a time" in said


def test_errors_say_what_to_do(paper, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        StudyError,
        match=r"language model '.*' is not on this machine.*Accept its licence.*hf download.*"
        r"paper\.toml",
    ):
        weights.folder("language model", "meta-llama/Llama-2-7b-hf")
    for what, key in (("language model", "language_model"), ("generator 1.5", r"\[generators\]")):
        with pytest.raises(
            StudyError,
            match=rf"{what} '.*nowhere' is a path, but .*no such folder.*under {key} in paper\."
            "toml",
        ) as e:
            weights.folder(what, str(tmp_path / "nowhere"))
        assert "licence" not in str(e.value) and "download" not in str(e.value)
    with pytest.raises(StudyError, match=r"unknown generator '1.4'\. .*Valid: .*1\.5"):
        paper.draw(worlds.replace(W, synthesis={"generator": "1.4"}), TEXTS, SEEDS)
    with pytest.raises(StudyError, match="drawn must be a multiple of 8 pixels"):
        generator.sample(
            generator.load(str(folders / "generator")), TEXTS, SEEDS, W.synthesis, 60, 30
        )


def changed(file, change):
    """A file of weights with its tensors changed by ``change``."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def pointer(file):
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def one_of_two(file):
    """The weights in two files with their index, as large ones come; the second is missing."""
    tensors = load_file(file)
    names = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for part in set(names.values()):
        some = {name: tensors[name] for name in tensors if names[name] == part}
        save_file(some, file.with_name(part), {"format": "pt"})
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": names})
    file.with_name(f"{file.name}.index.json").write_text(index)
    file.with_name("model-00002-of-00002.safetensors").unlink()
    file.unlink()


TORN = [
    (lambda f: changed(f, lambda t: t.pop(sorted(t)[5])), "missing weights in .*1 in all"),
    (lambda f: changed(f, lambda t: t.update(other=t[sorted(t)[5]] + 0)), "unexpected weights"),
    (lambda f: changed(f, lambda t: t.update({sorted(t)[5]: torch.zeros(3, 3)})), "shape"),
    (lambda f: os.truncate(f, 1_000), "is no safetensors file .damaged or cut"),
    (lambda f: f.write_bytes(b""), "is no safetensors file .damaged or cut"),
    (lambda f: f.write_text("<!DOCTYPE html>"), "is no safetensors file .damaged or cut"),
    (pointer, "is no safetensors file .a pointer of git-lfs: run git lfs pull"),
    (lambda f: f.unlink(), "cannot be loaded from .*no file named"),
    (lambda f: f.rename(f.with_suffix(".gguf")), "cannot be loaded from .*no file named"),
    (lambda f: f.rename(f.with_suffix(".bin")), r"\.bin is a pickle, .*any code.*convert it"),
    (lambda f: (f.parent / "config.json").unlink(), "holds no whole model|cannot be loaded"),
    (lambda f: (f.parent / "config.json").write_text("[" * 100_000), "cannot be loaded from"),
]  # fmt: skip
WHERE = {
    "language_model": "model.safetensors",
    "generator": "unet/diffusion_pytorch_model.safetensors",
}


@pytest.mark.parametrize("kind", WHERE)
@pytest.mark.parametrize("tear, words", TORN)
def test_torn_weights_are_one_line_before_anything_is_loaded(folders, tmp_path, kind, tear, words):
    """The check says what loading would say, in one line, and nobody is told to download a path."""
    shutil.copytree(folders / kind, tmp_path / "torn")
    tear(tmp_path / "torn" / WHERE[kind])
    opening = {
        "language_model": (language.checked, language.load),
        "generator": (lambda name: generator.checked("generator", name), generator.load),
    }[kind]
    said = []
    for fn in opening:
        with pytest.raises(StudyError, match=words) as e:
            fn(str(tmp_path / "torn"))
        said.append(str(e.value))
    assert said[0] == said[1] and "\n" not in said[0] and "hf download /" not in said[0]


def test_a_missing_part_of_weights_is_missed(folders, tmp_path):
    shutil.copytree(folders / "language_model", tmp_path / "half")
    one_of_two(tmp_path / "half" / "model.safetensors")
    with pytest.raises(StudyError, match="cannot be loaded from"):
        language.checked(str(tmp_path / "half"))


def test_fp16_files_alone_are_taken(folders, tmp_path):
    shutil.copytree(folders / "generator", tmp_path / "half")
    for file in [*(tmp_path / "half").rglob("*.safetensors")]:
        file.rename(file.with_suffix(".fp16.safetensors"))
    pipe = generator.load(str(tmp_path / "half"))
    whole = generator.load(str(folders / "generator"))
    assert torch.equal(pipe.unet.conv_in.weight, whole.unet.conv_in.weight)


def rewritten(file, **changes):
    """A table in JSON with some values changed."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_configuration_has_limits(folders, tmp_path, monkeypatch):
    """A network of endless layers is not begun; what is endless itself is not read."""
    shutil.copytree(folders / "language_model", tmp_path / "deep")
    shutil.copytree(folders / "generator", tmp_path / "long")
    rewritten(tmp_path / "deep" / "config.json", num_hidden_layers=10**9)
    with pytest.raises(StudyError, match="has 1,000,000,000 layers, but there are 21 tensors"):
        language.checked(str(tmp_path / "deep"))
    with (tmp_path / "long" / "vae" / "config.json").open("r+b") as file:
        file.truncate(weights.CONFIGURATION + 1)
    with pytest.raises(StudyError, match=r"config\.json has over 10,000,000 bytes"):
        generator.checked("generator", str(tmp_path / "long"))
    tiny.clip(tmp_path / "clip")
    text = json.loads((tmp_path / "clip" / "config.json").read_text())["text_cfg"]
    rewritten(tmp_path / "clip" / "config.json", text_cfg={**text, "layers": 10**9})
    with pytest.raises(StudyError, match="has 1,000,000,000 layers, but there are"):
        clip.checked(str(tmp_path / "clip"))


def test_keys_that_published_weights_have_besides_are_no_matter(folders, tmp_path):
    """LLaMA-2's files hold inverse frequencies, Stable Diffusion's positions and old names."""
    shutil.copytree(folders / "language_model", tmp_path / "llama")
    shutil.copytree(folders / "generator", tmp_path / "sd")
    name = "model.layers.{}.self_attn.rotary_emb.inv_freq"
    more = {name.format(i): torch.zeros(8) for i in range(2)}
    changed(tmp_path / "llama" / "model.safetensors", lambda t: t.update(more))
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    changed(tmp_path / "sd/text_encoder/model.safetensors", lambda t: t.update(positions))
    old = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}

    def renamed(tensors):
        for key in [key for key in tensors if ".attentions." in key]:
            other = key
            for now, before in old.items():
                other = other.replace(now, before)
            tensors[other] = tensors.pop(key)

    changed(tmp_path / "sd/vae/diffusion_pytorch_model.safetensors", renamed)
    assert language.checked(str(tmp_path / "llama")) and language.load(str(tmp_path / "llama"))
    assert generator.checked("generator", str(tmp_path / "sd"))
    again, before = (generator.load(str(f)) for f in (tmp_path / "sd", folders / "generator"))
    key = "decoder.mid_block.attentions.0.to_q.weight"
    assert torch.equal(again.vae.state_dict()[key], before.vae.state_dict()[key])


@pytest.mark.parametrize("part", ["tokenizer", "scheduler", "text_encoder", "vae", "unet"])
def test_a_missing_part_of_a_generator_is_named(folders, tmp_path, part):
    shutil.copytree(folders / "generator", tmp_path / "torn")
    shutil.rmtree(tmp_path / "torn" / part)
    with pytest.raises(StudyError, match=f"it has no folder {part}"):
        generator.checked("generator", str(tmp_path / "torn"))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "more/a.json"])
def test_a_pipe_among_weights_is_not_waited_for(folders, tmp_path, file):
    shutil.copytree(folders / "language_model", tmp_path / "m")
    (tmp_path / "m" / "more").mkdir()
    (tmp_path / "m" / file).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "m" / file)
    with within(20), pytest.raises(StudyError, match=f"{file} is a pipe or device"):
        language.checked(str(tmp_path / "m"))


def test_adapters_files_and_other_systems_paths_are_no_models(folders, tmp_path):
    shutil.copytree(folders / "language_model", tmp_path / "beside")
    (tmp_path / "beside" / "adapter_config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for name in ("beside", "empty"):
        with pytest.raises(StudyError, match=r"holds no whole model.*adapters merged"):
            language.checked(str(tmp_path / name))
    with pytest.raises(StudyError, match=r"a single file, no folder: MODEL\.save_pretrained"):
        language.checked(str(tmp_path / "beside" / "model.safetensors"))
    with pytest.raises(StudyError, match="is a path, but there is no such folder"):
        language.checked("C:\\models\\llama")
    with pytest.raises(StudyError, match="is a file; name it with its model, as MODEL/FILE"):
        clip.checked(str(tmp_path / "beside" / "model.safetensors"))


@pytest.mark.parametrize("kind", ["tokenizer", "text tower", "pipeline", "scheduler"])
def test_nobody_is_asked_whether_code_may_run(folders, tmp_path, capfd, monkeypatch, kind):
    """Code beside weights is refused at once: no prompt, at which somebody might say yes."""
    monkeypatch.setattr("builtins.input", lambda _="": pytest.fail("asked"))
    ran = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil:\n    pass\n"
    folder = tmp_path / "folder"
    if kind in ("pipeline", "scheduler"):
        shutil.copytree(folders / "generator", folder)
        place = folder if kind == "pipeline" else folder / "scheduler"
        named = "_class_name" if kind == "pipeline" else "scheduler"
        rewritten(folder / "model_index.json", **{named: ["evil", "Evil"]})
    else:
        tiny.clip(folder)
        place = folder if kind == "tokenizer" else folder / "tower"
        place.mkdir(exist_ok=True)
        if kind == "tokenizer":
            code = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
            rewritten(folder / "tokenizer_config.json", **code)
        else:
            code = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}
            (place / "config.json").write_text(json.dumps(code))
            text = json.loads((folder / "config.json").read_text())["text_cfg"]
            rewritten(folder / "config.json", text_cfg={**text, "hf_model_name": str(place)})
    (place / "evil.py").write_text(ran)
    with pytest.raises(StudyError, match="custom code"):
        if kind in ("pipeline", "scheduler"):
            generator.load(str(folder))
        else:
            clip.by_name(str(folder))
    assert not (tmp_path / "ran").exists() and "Do you wish" not in "".join(capfd.readouterr())


def test_no_code_of_a_folder_runs(folders, tmp_path):
    """A model that brings its own code is refused at once, without a question."""
    shutil.copytree(folders / "language_model", tmp_path / "own")
    file = tmp_path / "own" / "config.json"
    about = {**json.loads(file.read_text()), "model_type": "evil"}
    about["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    file.write_text(json.dumps(about))
    (tmp_path / "own" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(StudyError, match=r"cannot be loaded from .*contains custom code"):
        language.checked(str(tmp_path / "own"))
    assert not (tmp_path / "ran").exists()


def test_generators_of_other_kinds_are_refused(folders, tmp_path):
    shutil.copytree(folders / "generator", tmp_path / "inpainting")
    unet = tmp_path / "inpainting" / "unet"
    changed(
        unet / "diffusion_pytorch_model.safetensors",
        lambda t: t.update({"conv_in.weight": torch.zeros(16, 9, 3, 3)}),
    )
    about = json.loads((unet / "config.json").read_text())
    (unet / "config.json").write_text(json.dumps({**about, "in_channels": 9}))
    with pytest.raises(StudyError, match="reads 9 channels, not 4, so it is one for inpainting"):
        generator.checked("generator 1.5", str(tmp_path / "inpainting"))
    (tmp_path / "single.safetensors").write_bytes(b"")
    with pytest.raises(StudyError, match=r"is a single file, no folder: .*from_single_file"):
        generator.checked("generator 1.5", str(tmp_path / "single.safetensors"))


TINY_LM = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OTHERS = {  # type -> its configuration
    "mpt": {"d_model": 32, "n_heads": 2, "n_layers": 2, "max_seq_len": 512},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
}
TOLD_POSITIONS = {  # and they read padding, too
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "ctrl": {"n_embd": 32, "n_layer": 2, "n_head": 2, "dff": 64},
    "recurrent_gemma": {
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 16},
        **{"num_attention_heads": 2, "num_key_value_heads": 2, "lru_width": 32},
    },
}


def other(folder, source, kind, auto=AutoModelForCausalLM, **changes):
    """A tiny random model of a type in a folder, with the tokenizer of ``source``."""
    shutil.copytree(source, folder, ignore=lambda _, names: [n for n in names if "token" not in n])
    sizes = {**(OTHERS | TOLD_POSITIONS).get(kind, TINY_LM), "vocab_size": 420, **changes}
    with tiny.seeded():
        auto.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", TOLD_POSITIONS)
def test_kinds_that_read_padding_are_not_padded(folders, tmp_path, kind):
    model, tokenizer = language.load(other(tmp_path / kind, folders / "language_model", kind))
    texts = ["a house => ", "an old house in a field => a photo", "a rose"]
    together = language.continued(model, tokenizer, texts, range(3), W.captions)
    for i, text in enumerate(texts):
        assert language.continued(model, tokenizer, [text], [i], W.captions) == [together[i]]


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_write_in_a_batch_what_they_write_alone(folders, tmp_path, kind):
    name = other(tmp_path / kind, folders / "language_model", kind)
    assert language.checked(name) == tmp_path / kind
    model, tokenizer = language.load(name)
    texts = ["a house => ", "an old house in a field => a photo", "a rose"]
    assert len({*map(len, tokenizer(texts)["input_ids"])}) == 3
    together = language.continued(model, tokenizer, texts, range(3), W.captions)
    alone = [
        language.continued(model, tokenizer, [t], [i], W.captions)[0] for i, t in enumerate(texts)
    ]
    assert together == alone and len(set(together)) == 3
    tokenizer.eos_token = None  # lines end in newlines then
    language.line_ends.cache_clear()
    longer = language.continued(model, tokenizer, texts, range(3), W.captions)
    assert all(text.startswith(line) for text, line in zip(longer, together, strict=True))
    if kind == "gpt2":
        with pytest.raises(StudyError, match="100 new ones do not fit into the 128 that"):
            language.continued(model, tokenizer, ["a house " * 30], [0], W.captions)


def test_a_model_that_fails_when_it_writes_is_one_line(folders):
    model, tokenizer = language.load(str(folders / "language_model"))

    def fail(*_):
        raise IndexError("index out of range in self")

    with hooked(model.model, fail), pytest.raises(StudyError, match="of type llama, writes no tex"):
        language.continued(model, tokenizer, ["a house"], [0], W.captions)


@pytest.mark.parametrize(
    "kind, auto, words",
    [
        ("bart", AutoModelForSeq2SeqLM, "a model of type bart does not continue texts"),
        ("bert", AutoModelForMaskedLM, "a model of type bert does not continue texts"),
        ("gpt2", AutoModelForCausalLM, "it has no tokenizer that transformers reads"),
        ("gpt2", AutoModelForCausalLM, "its tokenizer has more tokens than the model"),
    ],
)
def test_what_writes_no_captions_is_one_line(folders, tmp_path, kind, auto, words):
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1} if kind == "bart" else {}
    few = {"vocab_size": 20} if "more tokens" in words else {}
    name = other(tmp_path / kind, folders / "language_model", kind, auto, **sizes, **few)
    if "no tokenizer" in words:
        for file in (tmp_path / kind).glob("*token*"):
            file.unlink()
    with pytest.raises(StudyError, match=words):
        language.checked(name)


def test_benchmarks_know_the_ceiling_count_the_arithmetic_and_keep_rates(monkeypatch, tmp_path):
    assert {"caption", "synthesis", "embed"} <= set(bench_command.benchmarks())
    assert _models.ceiling(1) > 1e9
    layer = torch.nn.Linear(30, 20, bias=False)
    assert (
        _models.flops(_models.Method(lambda n: layer(torch.zeros(n, 30)), items=8, counted=4))
        == 2 * 30 * 20
    )
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path))
    for rate in (3.0, 0.5):
        _models.keep("synthesis", rate)
    _models.keep("caption", 20.0)
    assert doctor.measured(W)["per_second"].to_dict() == {"caption": 20.0, "synthesis": 0.5}
