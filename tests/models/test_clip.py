"""CLIP through open_clip: tokenizer, pixels, embeddings, weights, errors that say what to do."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizerFast

from helpers import worlds
from helpers.errors import StudyError
from helpers.models import clip, weights
from helpers.pocket.train import clip as miniature
from helpers.pocket.train import unet, vocabulary
from tests import tiny

TEXTS = ["a red image", "a blue image", "an image of the sea"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary.train(TEXTS, folder)
    torch.manual_seed(0)
    return clip.build(
        miniature.config(worlds.get("smoke"), len(CLIPTokenizerFast.from_pretrained(folder))),
        folder,
    )


def changed(folder, change):
    """A CLIP in a folder with its tensors changed by ``change``."""
    tensors = load_file(folder / clip.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / clip.WEIGHTS)


def test_text_tower_pools_at_the_end_token(made):
    """open_clip takes the position of the largest id, so the end token has to be the last word of
    the vocabulary.
    """
    ids = made.tokenizer(TEXTS)
    end = made.tokenizer.tokenizer.eos_token_id
    assert (
        ids.shape == (3, 32)
        and end == len(made.tokenizer.tokenizer) - 1
        and (ids.amax(1) == end).all()
    )
    padded = ids.clone()
    padded[0, ids[0].argmax() + 1 :] = 0  # what follows the end token does not count
    with torch.inference_mode():
        assert torch.allclose(
            made.model.encode_text(ids)[0], made.model.encode_text(padded)[0], atol=1e-5
        )


def test_the_generator_reads_with_the_same_text_tower(made, tmp_path):

    config = miniature.config(worlds.get("smoke"), made.model.token_embedding.num_embeddings)
    clip.save(made, tmp_path / "clip", config)
    kept, ids = clip.by_name(str(tmp_path / "clip")), made.tokenizer(TEXTS)
    encoder = unet.text_encoder_of(tmp_path / "clip" / clip.WEIGHTS).eval()
    with torch.inference_mode():
        pooled = encoder(ids).pooler_output
        assert torch.allclose(
            kept.model.encode_text(ids), pooled @ kept.model.text_projection, atol=1e-5
        )


def test_names_with_digits_and_hyphens_are_words(made, tmp_path):

    vocabulary.train(
        ["a 737-800 at noon", "one 737-800", "a 737-200", "the 737-200 box"] * 3, tmp_path / "words"
    )
    words = CLIPTokenizerFast.from_pretrained(tmp_path / "words")
    assert words.tokenize("A 737-800, boxed")[:3] == ["a</w>", "737-800</w>", ",</w>"]
    ids = words(
        "été ☂"
    ).input_ids  # letters that the pool never showed are spelled in bytes, none is lost
    assert (
        words.unk_token_id not in ids[1:-1]
        and ids[0] == words.bos_token_id
        and ids[-1] == words.eos_token_id
    )


def test_pixels_by_hand(made):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    x = clip.pixels(made, images)
    by_hand = (images[1, 5, 7] / 255 - np.array(made.mean)) / np.array(made.std)
    assert x.shape == (2, 3, 32, 32) and np.allclose(x[1, :, 5, 7].cpu(), by_hand, atol=1e-5)
    assert torch.equal(clip.pixels(made, torch.from_numpy(images)), x)
    larger = np.repeat(np.repeat(images, 2, 1), 2, 2)
    assert clip.pixels(made, larger).shape == (2, 3, 32, 32)


@pytest.mark.usefixtures("float32")
def test_embeddings_do_not_depend_on_the_batch(made):
    images = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    whole = clip.embed_images(made, images)
    parts = clip.embed_images(made, images, batch=3)
    assert whole.dtype == np.float32
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    assert np.allclose(whole, parts, atol=1e-5)
    one_by_one = clip.embed_texts(made, TEXTS, batch=1)
    assert np.allclose(clip.embed_texts(made, TEXTS), one_by_one, atol=1e-5)
    assert len(clip.embed_images(made, images[:0])) == 0


@pytest.mark.parametrize("old, new", [(64, 32), (20, 32), (32, 32)])
def test_images_are_resized_as_by_interpolate(old, new):
    x = torch.rand(2, 3, old, old, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    wanted = x
    if old != new:
        wanted = torch.nn.functional.interpolate(x, (new, new), mode="bicubic", antialias=True)
        wanted = wanted.clamp(0, 1)
    found = clip.resized(x, new)
    assert torch.allclose(found, wanted, atol=1e-6)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (found, wanted)]
    assert torch.allclose(*gradients, atol=1e-5)


def test_unknown_names_are_answered_with_valid_ones():
    wrong = worlds.get("smoke", clip={"model": "ViT-B-61", "pretrained": "laion2b_s34b_b88k"})
    with pytest.raises(StudyError, match="Did you mean 'ViT-B-16'"):
        clip.load(wrong)
    with pytest.raises(StudyError, match="laion2b_s34b_b88k"):
        clip.load(worlds.replace(wrong, clip={"model": "ViT-B-16", "pretrained": "laion3b"}))


def test_weights_get_the_activation_they_were_trained_with():
    assert clip.quick_gelu("ViT-L-14", "openai") and clip.quick_gelu("ViT-L-14-quickgelu", "openai")
    assert not clip.quick_gelu("ViT-B-16", "laion2b_s34b_b88k") and not clip.quick_gelu(
        "ViT-L-14", "weights.safetensors"
    )


def test_a_folder_as_the_hub_has_it_is_the_model_that_was_saved(tmp_path):
    folder = tiny.judge(tmp_path / "judge")
    told = json.loads((folder / "open_clip_config.json").read_text())
    told["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    with tiny.seeded(1):
        same = clip.build(tiny.CLIP, folder)
    loaded = clip.by_name(str(folder))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert (
        loaded.mean == (0.1, 0.2, 0.3)
        and loaded.std == same.std
        and weights.clip_file(str(folder)).name == clip.WEIGHTS
    )
    assert np.allclose(clip.embed_texts(loaded, TEXTS), clip.embed_texts(same, TEXTS), atol=1e-5)
    x = clip.pixels(same, images)
    with torch.inference_mode():
        assert torch.equal(loaded.model.encode_image(x), same.model.encode_image(x))


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda top: (top / clip.WEIGHTS).unlink(), "is missing"),
        (lambda top: (top / clip.WEIGHTS).write_bytes(b"half"), "damaged"),
        (lambda top: (top / "open_clip_config.json").write_text("{}"), "configuration"),
        (lambda top: changed(top, lambda t: t.pop("ln_final.bias")), "Missing key.*ln_final.bias"),
        (lambda top: changed(top, lambda t: t.update(x=t["ln_final.bias"] + 0)), "Unexpected key"),
        (lambda top: [file.unlink() for file in top.glob("*o*en*zer*")], "without its tokenizer"),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(tmp_path, damage, words):
    damage(tiny.judge(tmp_path / "judge"))
    for opened in (clip.checked, clip.by_name):
        with pytest.raises(StudyError, match=words) as e:
            opened(str(tmp_path / "judge"))
        assert "\n" not in str(e.value)


def test_a_tokenizer_that_is_not_here_is_missed_with_the_way_to_get_it(tmp_path):
    """SigLIP's weights can be here while its tokenizer, of another repository, is not."""
    save_file({"any": torch.zeros(1)}, tmp_path / "siglip.safetensors")
    fetch = r"open_clip.get_tokenizer\('ViT-B-16-SigLIP'\)"
    with pytest.raises(StudyError, match=fetch):
        clip.checked(f"ViT-B-16-SigLIP/{tmp_path / 'siglip.safetensors'}")


@pytest.mark.parametrize(
    "name, words",
    [
        ("ViT-L-14", "'MODEL/FILE.safetensors'"),
        ("weights/synclip", "unknown folder or CLIP model"),
        ("ViT-L-14/weights.safetensors", "unknown weights of CLIP ViT-L-14"),
    ],
)
def test_names_of_finished_clips(name, words):
    with pytest.raises(StudyError, match=words):
        weights.clip_file(name)
