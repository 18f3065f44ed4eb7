"""Low-rank adapters on the shipped miniature and on a tiny Stable Diffusion in its real format."""

import contextlib
import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from helpers import worlds
from helpers.engine import gpu
from helpers.errors import StudyError
from helpers.models import lora
from helpers.paper import generator as published
from helpers.pocket.train import generator, upstream
from helpers.pocket.world import benchmarks
from helpers.settings import AdapterSettings
from tests import tiny

W = worlds.get("pocket", synthesis={"steps": 2})
S = AdapterSettings(rank=2, steps=2, batch=2, lr=1e-2, warmup=1)


@pytest.fixture(scope="module")
def pipe():
    return generator.load(upstream.WEIGHTS / "generator", "long")


@pytest.fixture(scope="module")
def pictures():
    """Four training images (4, 64, 64, 3) uint8 of as many aircraft, and their captions."""
    names = list(benchmarks.details("aircraft").index)[:4]
    images = benchmarks.images(benchmarks.picture, W, "aircraft", "train", range(4))
    return images, [f"a photo of a {name} aircraft" for name in names]


@pytest.fixture(scope="module")
def tuned(pipe, pictures, tmp_path_factory):
    """Three adapters: ``a`` and ``b`` of two seeds, and ``fresh`` ones, which never moved."""
    top = tmp_path_factory.mktemp("adapters")
    lora.tune(pipe, *pictures, S, 0, top / "a")
    lora.tune(pipe, *pictures, S, 1, top / "b")
    lora.tune(pipe, *pictures, dataclasses.replace(S, lr=0.0), 0, top / "fresh")
    return top


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A ``$STUDY_PAPER`` with a tiny Stable Diffusion and a tiny XL."""
    folder = tmp_path_factory.mktemp("paper")
    tiny.generator(folder / "sd")
    tiny.sdxl(folder / "sdxl")
    names = '[generators]\n"1.5" = "sd"\nxl = "sdxl"\n'
    (folder / "paper.toml").write_text(f"drawn = {tiny.SIDE}\nkept = 32\n{names}")
    return folder


@pytest.fixture
def paper(top, monkeypatch):
    monkeypatch.setenv("STUDY_PAPER", str(top))
    return worlds.get("paper", synthesis={"steps": 2, "batch": 2})


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def draw(pipe, folder=None):
    """Two images, with the adapters in ``folder`` if one is given."""
    with lora.adapted(pipe, folder) if folder else contextlib.nullcontext():
        return generator.draw(pipe, ["a DC-3 aircraft", "a rose"], [1, 2], W.synthesis)


def latents_of(pipe, images):
    pixels = torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        return pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor


def digest(pipe):
    """The hash of every weight of a generator, and of its name."""
    total = hashlib.sha256()
    for part in (pipe.unet, pipe.text_encoder, pipe.vae):
        for name, value in part.state_dict().items():
            total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


def test_fresh_adapters_change_no_bit(pipe, tuned):
    assert np.array_equal(draw(pipe, tuned / "fresh"), draw(pipe))


def test_adapters_learn_and_nothing_else(pipe, pictures):
    config = LoraConfig(r=2, target_modules=lora.UNET + lora.TEXT_ENCODER)
    with lora._adapters(pipe, config) as model:
        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for name, p in learning.items():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1)
        z = latents_of(pipe, pictures[0])
        lora.denoising_loss(pipe, z, pictures[1], seeded(0)).backward()
        others = [p for name, p in model.named_parameters() if name not in learning]
        assert all(float(p.grad.abs().sum()) > 0 for p in learning.values())
        assert all("lora_" in name for name in learning)
        assert all(p.grad is None and not p.requires_grad for p in others)
    attention = sum(name.endswith(tuple(lora.UNET)) for name, _ in pipe.unet.named_modules())
    assert len(learning) == 2 * (attention + 4 * pipe.text_encoder.config.num_hidden_layers)
    assert attention % 8 == 0, "self and cross attention, four projections each"


def test_what_is_loaded_is_what_was_tuned(pipe, pictures, tmp_path, monkeypatch):
    drawn = []
    write = lora.store.write

    def draw_and_write(path, value):
        drawn.append(draw(pipe))
        return write(path, value)

    monkeypatch.setattr(lora.store, "write", draw_and_write)
    lora.tune(pipe, *pictures, S, 0, tmp_path)
    assert np.array_equal(draw(pipe, tmp_path), drawn[0])
    assert not np.array_equal(drawn[0], draw(pipe))


def test_seeds_decide_every_byte(pipe, pictures, tuned, tmp_path):
    before = torch.random.get_rng_state()
    lora.tune(pipe, *pictures, S, 0, tmp_path)
    assert torch.equal(before, torch.random.get_rng_state()), "the global random state was touched"
    first = (tuned / "a" / lora.FILE).read_bytes()
    assert (tmp_path / lora.FILE).read_bytes() == first
    assert not np.array_equal(draw(pipe, tuned / "a"), draw(pipe, tuned / "b"))


def test_alpha_is_kept_apart_from_the_rank(pipe, tuned, tmp_path):
    """Half of alpha with twice the second matrices is the same adapter."""
    file = tuned / "a" / lora.FILE
    with safe_open(file, "pt") as opened:
        config = json.loads(opened.metadata()["peft"])
    assert config["lora_alpha"] == config["r"] == S.rank
    header = {"peft": json.dumps(config | {"lora_alpha": 2 * S.rank})}
    weights = load_file(file)
    halved = {k: x / 2 if "lora_B" in k else x for k, x in weights.items()}
    for name, values in (("doubled", weights), ("same", halved)):
        (tmp_path / name).mkdir()
        save_file(values, tmp_path / name / lora.FILE, header)
    assert np.array_equal(draw(pipe, tmp_path / "same"), draw(pipe, tuned / "a"))
    assert not np.array_equal(draw(pipe, tmp_path / "doubled"), draw(pipe, tuned / "a"))


def test_switching_leaves_no_trace(pipe, tuned):
    before, bare = digest(pipe), draw(pipe)
    a, b, again = (draw(pipe, tuned / name) for name in ("a", "b", "a"))
    assert np.array_equal(a, again) and not np.array_equal(a, b)
    with pytest.raises(KeyError), lora.adapted(pipe, tuned / "a"):
        raise KeyError("while drawing")
    assert digest(pipe) == before
    assert np.array_equal(draw(pipe), bare)
    assert not [m for m in pipe.unet.modules() if "lora" in type(m).__module__]


def test_one_image_is_learnt_by_heart(pipe, pictures, tmp_path):
    """The loss falls below the base's, and samples come nearer to the only image."""
    image, caption = pictures[0][:1], pictures[1][0]
    z = latents_of(pipe, image).repeat(32, 1, 1, 1)

    def state():
        with torch.no_grad():
            loss = float(lora.denoising_loss(pipe, z, [caption] * 32, seeded(5)))
        drawn = generator.draw(pipe, [caption] * 8, list(range(8)), W.synthesis)
        return loss, np.abs(drawn.astype(float) - image).mean()

    loss, distance = state()
    many = AdapterSettings(rank=16, steps=60, batch=4, lr=1e-2, warmup=5)
    assert len(lora.tune(pipe, image, [caption], many, 0, tmp_path)) == 60
    with lora.adapted(pipe, tmp_path):
        tuned_loss, tuned_distance = state()
    assert tuned_loss < 0.9 * loss
    assert tuned_distance < 0.5 * distance


def test_the_text_encoder_is_a_switch(pipe, pictures, tmp_path, tuned):
    lora.tune(pipe, *pictures, dataclasses.replace(S, text_encoder=False), 0, tmp_path)
    names = list(load_file(tmp_path / lora.FILE))
    assert names and not [name for name in names if ".text_encoder." in name]
    assert [name for name in load_file(tuned / "a" / lora.FILE) if ".text_encoder." in name]


def test_the_target_is_the_generators_own(pipe, pictures, paper, float32):
    """Velocity of the miniature, whose last step is pure noise, and noise of Stable Diffusion."""
    small = worlds.backend(paper).pipeline(paper)
    alphas = pipe.scheduler.alphas_cumprod
    assert alphas[-1] < 1e-6 and pipe.scheduler.config.prediction_type == "v_prediction"
    asked = []
    for each in (pipe, small):
        z = torch.randn(2, each.unet.config.in_channels, 8, 8, generator=seeded(1))
        handle = each.unet.register_forward_hook(lambda _, args, out: asked.append((args, out)))
        loss = float(lora.denoising_loss(each, z, pictures[1][:2], seeded(3)).detach())
        handle.remove()
        (noisy, t, _), out = asked.pop()
        noise = torch.randn(z.shape, generator=seeded(3))
        level = each.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        assert torch.allclose(noisy.float(), level.sqrt() * z + (1 - level).sqrt() * noise)
        velocity = level.sqrt() * noise - (1 - level).sqrt() * z
        target = velocity if each is pipe else noise
        assert loss == pytest.approx(float((out.sample.float() - target).square().mean()), rel=1e-5)


def test_the_miniature_draws_with_the_pipeline_at_its_seam(pipe, tuned, monkeypatch):
    monkeypatch.setattr(upstream, "folder", lambda w: upstream.WEIGHTS)  # no pool is rendered
    backend = worlds.backend(W)
    assert backend.pipeline(W) is pipe
    bare = backend.draw(W, ["a DC-3 aircraft", "a rose"], [1, 2])
    with lora.adapted(backend.pipeline(W), tuned / "a"):
        assert np.array_equal(backend.draw(W, ["a DC-3 aircraft", "a rose"], [1, 2]), draw(pipe))
        assert not np.array_equal(draw(pipe), bare)


def test_stable_diffusion_draws_with_adapters(paper, pictures, tmp_path):
    backend, texts = worlds.backend(paper), pictures[1][:3]
    pipe = backend.pipeline(paper)
    before = digest(pipe)
    bare = backend.draw(paper, texts, [1, 2, 3])
    for seed in (0, 1):
        lora.tune(pipe, *pictures, S, seed, tmp_path / str(seed))
    drawn = []
    for seed in (0, 1, 0):
        with lora.adapted(backend.pipeline(paper), tmp_path / str(seed)):
            drawn.append(backend.draw(paper, texts, [1, 2, 3]))
    assert np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], bare)
    assert np.array_equal(backend.draw(paper, texts, [1, 2, 3]), bare) and digest(pipe) == before


def test_what_was_compiled_is_not_used_stale(paper, pictures, tmp_path):
    """The guards of torch.compile see adapters come and go, here on one block of attention."""
    pipe = worlds.backend(paper).pipeline(paper)
    block = pipe.unet.down_blocks[0].attentions[0]
    compiled = torch.compile(block, backend="eager")
    x = torch.randn(1, 16, 8, 8, generator=seeded(0))
    text = torch.randn(1, 77, 32, generator=seeded(1))
    results = []
    for seed in (0, 1):
        lora.tune(pipe, *pictures, S, seed, tmp_path / str(seed))
    for seed in ("", "0", "1", "", "1"):
        on = lora.adapted(pipe, tmp_path / seed) if seed else contextlib.nullcontext()
        with on, torch.no_grad():
            plain, fast = (each(x, text)[0] for each in (block, compiled))
        assert torch.equal(plain, fast)
        results.append(plain)
    assert torch.equal(results[0], results[3]) and torch.equal(results[2], results[4])
    assert not torch.equal(results[0], results[1]) and not torch.equal(results[1], results[2])


def test_adapters_of_a_network_in_bfloat16_are_in_float32(paper, pictures, tmp_path, monkeypatch):
    """A step of 1e-4 would be lost in bfloat16, which has three digits."""
    published.load.cache_clear()
    monkeypatch.setattr(gpu, "precision", lambda: torch.bfloat16)  # as on a GPU
    pipe = worlds.backend(paper).pipeline(paper)
    published.load.cache_clear()
    few = dataclasses.replace(S, lr=1e-4, warmup=1)
    lora.tune(pipe, *pictures, few, 0, tmp_path / "a")
    lora.tune(pipe, *pictures, dataclasses.replace(few, lr=0.0), 0, tmp_path / "fresh")
    assert pipe.unet.dtype == torch.bfloat16
    a, fresh = (load_file(tmp_path / name / lora.FILE) for name in ("a", "fresh"))
    for name, x in a.items():
        assert x.dtype == torch.float32
        assert 0 < float((x - fresh[name]).abs().max()) < 3e-4
    with lora.adapted(pipe, tmp_path / "a"):
        assert pipe.unet.dtype == torch.bfloat16
        args = (pipe, pictures[1][:1], [1], paper.synthesis, tiny.SIDE, 32)
        assert published.sample(*args).std() > 5


def test_errors_say_what_to_do(pipe, pictures, paper, tuned, tmp_path):
    images, captions = pictures
    with pytest.raises(StudyError, match=r"4 images, 1 captions were given"):
        lora.tune(pipe, images, captions[:1], S, 0, tmp_path)
    with pytest.raises(StudyError, match=r"0 images and a StableDiffusionPipeline.*an image or mo"):
        lora.tune(pipe, images[:0], [], S, 0, tmp_path)
    with pytest.raises(StudyError, match=r"diverged in step \d+ at lr 1e\+20; lower adapter lr"):
        lora.tune(pipe, images, captions, dataclasses.replace(S, steps=9, lr=1e20), 0, tmp_path)
    assert not any(tmp_path.iterdir()), "no half of it is written"
    small = worlds.backend(paper).pipeline(paper)
    for other, folder, advice in (
        (small, tuned / "a", "is of another generator; tune adapters of this one"),
        (pipe, tmp_path / "nowhere", "cannot read .*nowhere"),
    ):
        with pytest.raises(StudyError, match=advice), lora.adapted(other, folder):
            pass
    (tmp_path / lora.FILE).write_bytes((tuned / "a" / lora.FILE).read_bytes()[:5_000])
    with pytest.raises(StudyError, match="cannot read"), lora.adapted(pipe, tmp_path):
        pass
    xl = worlds.replace(paper, synthesis={"generator": "xl"})
    with pytest.raises(StudyError, match=r"StableDiffusionXLPipeline .*Stable Diffusion 1 or 2"):
        lora.tune(worlds.backend(xl).pipeline(xl), images, captions, S, 0, tmp_path)
    assert not hasattr(pipe.unet, "peft_config")
