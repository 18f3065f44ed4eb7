"""The miniature's counterparts of what one downloads in the published setting, trained on exactly its pool.

CLIP, generator (three training budgets), caption model and judges. The pocket world ships them in ``weights/`` with a
card; other rendered worlds train their own on first use, and ``retrain`` makes the shipped ones again.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import shutil
import time
from pathlib import Path

import numpy as np

from helpers import clip, gpu, store
from helpers.pocket import diffusion, judges, language, training
from helpers.pocket.pool import open_pool
from helpers.worlds import StudyError, World, entropy

WEIGHTS = Path(__file__).parent / "weights"
VOCABULARY = 1_000
NOUN = {"aircraft": " aircraft", "cars": " car"}  # appended to class names in prompts [C]
CONTEXT = 32  # tokens of a caption; the longest of the pool has 28
PARTS = ("tokenizer", "clip", "language", "judge-details.safetensors", "judge-variant.safetensors", "generator")


def folder(w: World) -> Path:
    """Where this world's upstream models are; trained first where the world trains its own.

    Raises ``StudyError`` when the shipped weights are missing or were trained on another pool than this world's.
    """
    if w.pool.upstream == "committed":
        _check_card(pool_hash(w), w.name)
        return WEIGHTS
    made = store.folder("upstream", w)
    if not (made / "manifest.json").exists():
        store.make("upstream", w, lambda path: train(w, path))
    return made


@functools.cache
def _check_card(pool: str, world: str) -> None:
    if not (WEIGHTS / "card.json").exists():
        raise StudyError(f"the upstream weights are missing: {WEIGHTS / 'card.json'} not found. "
                         f"Restore them from git, or train them (hours): python -m helpers.run {world} 00 -p retrain=True")
    card = json.loads((WEIGHTS / "card.json").read_text())
    if card["pool"] != pool:
        raise StudyError(f"the shipped upstream weights were trained on pool {card['pool']}, this world's pool is {pool}. Take "
                         f"the pool's settings back, or train: python -m helpers.run {world} 00 -p retrain=True")
    for file, digest in card["files"].items():
        if not (WEIGHTS / file).exists() or hashlib.sha256((WEIGHTS / file).read_bytes()).hexdigest() != digest:
            raise StudyError(f"{WEIGHTS / file} is missing or damaged; restore it from git: git checkout -- helpers/pocket/weights")


@functools.cache
def pool_hash(w: World) -> str:
    """What the pool says, as a short hash: the identity of the data that upstream models were trained on."""
    texts = "\n".join(open_pool(w).captions()["TEXT"])
    return hashlib.sha256(texts.encode()).hexdigest()[:12]


def train(w: World, path: Path) -> None:
    """Train every upstream model of a world into ``path``, skipping what is there."""
    pool = open_pool(w)
    texts = list(pool.captions()["TEXT"])
    if not (path / "images.npy").exists():
        store.write(path / "images.npy", pool.fetch(np.arange(len(pool))))
    if not (path / "tokenizer").exists():
        train_tokenizer(texts, path / "tokenizer")
    train_clip(w, texts, path)
    train_language(w, path)
    for which in ("details", "variant"):
        if not (path / f"judge-{which}.safetensors").exists():
            judges.train(w, which, path)
    train_generator(w, texts, path)
    (path / "images.npy").unlink()


def train_tokenizer(texts: list[str], path: Path) -> None:
    """Train a CLIP tokenizer (byte-pair encoding with word ends, lower case) with a vocabulary as small as the pool's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    raw = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    raw.normalizer = normalizers.Lowercase()
    words = r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"  # the words of CLIP's tokenizer: letters, single digits, signs
    from tokenizers import Regex

    raw.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(words), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, end_of_word_suffix="</w>", show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    raw.train_from_iterator(texts, trainer)
    vocab, merges = _with_word_ends(json.loads(raw.to_str())["model"])
    path.mkdir(parents=True, exist_ok=True)
    store.write(path / "vocab.json", vocab)
    store.write(path / "merges.txt", ("#version: 0.2\n" + "\n".join(merges) + "\n").encode())
    made = CLIPTokenizer(path / "vocab.json", path / "merges.txt", model_max_length=CONTEXT)
    made.save_pretrained(path)


def _with_word_ends(model: dict) -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges as CLIP's tokenizer wants them: every byte with and without a word end, specials last."""
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]
    letters = list(bytes_to_unicode().values())
    names = dict.fromkeys([*letters, *(c + "</w>" for c in letters), *("".join(m.split(" ")) for m in merges),
                           "<|startoftext|>", "<|endoftext|>"])
    return {name: i for i, name in enumerate(names)}, merges


def clip_config(w: World, vocabulary: int) -> dict:
    """open_clip's description of the miniature CLIP: timm's ``test_resnet`` and a two-layer text tower."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"timm_model_name": "test_resnet", "timm_model_pretrained": False, "timm_pool": "avg",
                       "timm_proj": "linear", "image_size": w.image_size},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": vocabulary, "width": 128, "heads": 4, "layers": 2},
    }


def train_clip(w: World, texts: list[str], path: Path) -> None:
    """Contrastive training of the miniature CLIP on the pool's pairs, symmetric InfoNCE as in open_clip."""
    import torch

    if (path / "clip").exists():
        return
    torch.manual_seed(entropy(w.pool.seed, "clip") % 2**31)
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(path / "tokenizer")
    made = clip.build(clip_config(w, len(tokenizer)), path / "tokenizer")
    u, pixels = w.upstream, np.load(path / "images.npy", mmap_mode="r")
    ids = torch.from_numpy(diffusion.tokens(tokenizer, texts)).long().to(gpu.device())
    batch = min(u.clip_batch, len(pixels))
    schedule = training.Schedule(max(1, u.clip_epochs * len(pixels) // batch), batch, u.clip_lr, warmup=0.1, weight_decay=0.1)
    order, log = training.batches(len(pixels), batch, entropy(w.pool.seed, "clip")), training.Log("CLIP", 100, batch)

    def loss_of(model, step):
        chosen = np.sort(next(order))
        with gpu.autocast():
            image, text, scale = model(clip.pixels(made, pixels[chosen]), ids[chosen])
        logits = scale.float() * image.float() @ text.float().T
        same = torch.arange(len(chosen), device=logits.device)
        loss = (torch.nn.functional.cross_entropy(logits, same) + torch.nn.functional.cross_entropy(logits.T, same)) / 2
        log(step, loss.item())
        return loss

    made.model.train()
    training.fit(made.model, loss_of, schedule)
    clip.save(made, path / "clip.tmp", clip_config(w, len(tokenizer)))
    (path / "clip.tmp").rename(path / "clip")


def train_language(w: World, path: Path) -> None:
    """Train the caption model on the pool's captions, as lines ``class, background => caption``."""
    if (path / "language").exists():
        return
    truth = open_pool(w).truth()
    named = truth[truth["said"] != ""]
    subjects, extras = named["said"] + named["kind"].map(NOUN).fillna(""), named["extra"].where(named["extra"] != "", None)
    corpus = list(zip(subjects, extras, named["caption"], strict=True))
    language.train(corpus, w.upstream.language_steps, entropy(w.pool.seed, "language") % 2**31, path / "language.tmp")
    (path / "language.tmp").rename(path / "language")


def train_generator(w: World, texts: list[str], path: Path) -> None:
    """Train autoencoder, text encoder and UNet on the pool's pairs."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(path / "tokenizer")
    diffusion.train(path / "images.npy", texts, tokenizer, w.upstream, w.pool.seed, path / "generator")


def retrain(w: World) -> Path:
    """Train the upstream models anew and put them, with their card, where the shipped weights are.

    Returns that folder. Takes hours on a CPU: ``python -m helpers.run pocket 00 -p retrain=True``.
    """
    from helpers.pocket.calibration import quality
    from helpers.worlds import adapt

    own, start = adapt(w, pool={"upstream": "train"}), time.monotonic()
    made = folder(own)
    shutil.rmtree(WEIGHTS, ignore_errors=True)
    shutil.copytree(made, WEIGHTS, ignore=shutil.ignore_patterns("manifest.json", ".lock"))
    return write_card(w, (time.monotonic() - start) / 60, quality(own))


def write_card(w: World, minutes: float, quality: dict) -> Path:
    """Write ``card.json`` beside the weights: how they were made, on what, and how good they are."""
    files = sorted(f for f in WEIGHTS.rglob("*") if f.is_file() and f.name not in ("card.json", "README.md"))
    store.write(WEIGHTS / "card.json", {
        "command": "python -m helpers.run pocket 00 -p retrain=True", "seed": w.pool.seed, "pool": pool_hash(w),
        "image_size": w.image_size, "steps": {"generator": w.upstream.generator_steps, "batch": w.upstream.generator_batch},
        "minutes": round(minutes), "machine": gpu.describe(), "date": str(datetime.date.today()), "quality": quality,
        "files": {str(f.relative_to(WEIGHTS)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}})
    _check_card.cache_clear()
    return WEIGHTS
