"""The miniature's counterparts of what one downloads in the published setting, trained on exactly its pool.

CLIP, generator (three training budgets), caption model and judges. The pocket world ships them in ``weights/`` with a
card; other rendered worlds train their own on first use, and ``retrain`` makes the shipped ones again.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import numpy as np

from helpers.engine import gpu, store
from helpers.engine.randomness import entropy
from helpers.errors import StudyError
from helpers.models import clip
from helpers.models import train as training
from helpers.models.augment import augmented
from helpers.pocket.train import diffusion, judges, language
from helpers.pocket.world.pool import open_pool
from helpers.worlds import World

WEIGHTS = Path(__file__).parents[1] / "weights"
VOCABULARY = 1_500
START, END = "<|startoftext|>", "<|endoftext|>"  # CLIP's special tokens
NOUN = {"aircraft": " aircraft", "cars": " car"}  # appended to class names in prompts [C]
CONTEXT = 32  # tokens of a caption; the longest of the pool has 28
PARTS = (
    "tokenizer",
    "clip",
    "language",
    "judge-details.safetensors",
    "judge-variant.safetensors",
    "generator",
)


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
        raise StudyError(
            f"the upstream weights are missing: {WEIGHTS / 'card.json'} not found. "
            f"Restore them from git, or train them (hours): python -m helpers.run {world} 00 -p retrain=True"
        )
    card = json.loads((WEIGHTS / "card.json").read_text())
    if card["pool"] != pool:
        raise StudyError(
            f"the shipped upstream weights were trained on pool {card['pool']}, this world's pool is {pool}. Take "
            f"the pool's settings back, or train: python -m helpers.run {world} 00 -p retrain=True"
        )
    for file, digest in card["files"].items():
        if (
            not (WEIGHTS / file).exists()
            or hashlib.sha256((WEIGHTS / file).read_bytes()).hexdigest() != digest
        ):
            raise StudyError(
                f"{WEIGHTS / file} is missing or damaged; restore it from git: git checkout -- helpers/pocket/weights"
            )


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
    train_clip(w, path)
    train_language(w, path)
    for which in ("details", "variant"):
        if not (path / f"judge-{which}.safetensors").exists():
            judges.train(w, which, path)
    train_generator(w, texts, path)
    for leftover in ("images.npy", "captions.npy"):
        (path / leftover).unlink(missing_ok=True)


def train_tokenizer(texts: list[str], path: Path) -> None:
    """Train a CLIP tokenizer (byte-pair encoding with word ends, lower case) with a vocabulary as small as the pool's.

    CLIP's own cuts "737-800" into seven tokens, and the web taught it to read them; here a name with its digits and
    hyphens is one word, so that a text tower of two layers can.
    """
    from tokenizers import (
        Regex,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import CLIPTokenizerFast

    words = Regex(r"[\p{L}\p{N}]+(?:-[\p{L}\p{N}]+)*|[^\s\p{L}\p{N}]")
    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    raw.normalizer, raw.pre_tokenizer = normalizers.Lowercase(), cut
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            end_of_word_suffix="</w>",
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    vocab, merges = _with_word_ends(json.loads(raw.to_str())["model"])
    made = Tokenizer(models.BPE(vocab, merges, unk_token=END, end_of_word_suffix="</w>"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), cut
    made.post_processor = processors.RobertaProcessing(
        (END, vocab[END]), (START, vocab[START]), False, False
    )
    CLIPTokenizerFast(tokenizer_object=made, model_max_length=CONTEXT).save_pretrained(path)


def _with_word_ends(model: dict) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges as CLIP's tokenizer wants them: every byte with and without a word end, specials last."""
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    letters = list(bytes_to_unicode().values())
    names = dict.fromkeys(
        [*letters, *(c + "</w>" for c in letters), *("".join(m) for m in merges), START, END]
    )
    return {name: i for i, name in enumerate(names)}, merges


def clip_config(w: World, vocabulary: int) -> dict:
    """open_clip's description of the miniature CLIP: timm's ``test_resnet`` and a two-layer text tower."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "timm_model_name": "test_resnet",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": w.image_size,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": vocabulary,
            "width": 128,
            "heads": 4,
            "layers": 2,
        },
    }


def train_clip(w: World, path: Path) -> None:
    """Contrastive training of the miniature CLIP on the pool's pairs, symmetric InfoNCE as in open_clip."""
    if (path / "clip").exists():
        return
    if not (path / "captions.npy").exists():
        from transformers import CLIPTokenizerFast

        tokenizer = CLIPTokenizerFast.from_pretrained(path / "tokenizer")
        store.write(
            path / "captions.npy",
            diffusion.tokens(tokenizer, list(open_pool(w).captions()["TEXT"])),
        )
    training.distribute(_clip, w, path, passes=w.upstream.clip_epochs * w.pool.rows)


def _clip(rank: int, workers: int, w: World, path: Path) -> None:
    import torch

    torch.manual_seed(entropy(w.pool.seed, "clip") % 2**31)
    ids = torch.from_numpy(np.load(path / "captions.npy")).long().to(gpu.device())
    config = clip_config(w, int(ids.max()) + 1)
    made = clip.build(config, path / "tokenizer")
    u, images = w.upstream, np.load(path / "images.npy", mmap_mode="r")
    batch = min(u.clip_batch, len(images) // workers * workers)
    schedule = training.Schedule(
        max(1, u.clip_epochs * len(images) // batch), batch, u.clip_lr, warmup=0.1, weight_decay=0.1
    )
    order = training.batches(len(images), batch, entropy(w.pool.seed, "clip"), rank, workers)
    generator = torch.Generator().manual_seed(entropy(w.pool.seed, "clip", rank) % 2**63)
    contrastive, log = clip.contrastive_loss(rank, workers), training.Log("CLIP", 100, batch, rank)

    def loss_of(model, step):
        chosen = np.sort(next(order))
        x = augmented(
            clip.pixels(made, images[chosen]), generator
        )  # no caption tells left from right
        with gpu.autocast():
            image, text, scale = model(x, ids[chosen])
        loss = contrastive(image.float(), text.float(), scale.float())
        log(step, loss.item())
        return loss

    made.model.train()
    training.fit(made.model, loss_of, schedule, rank, workers)
    if rank == 0:
        clip.save(made, path / "clip.tmp", config)
        (path / "clip.tmp").rename(path / "clip")


def train_language(w: World, path: Path) -> None:
    """Train the caption model on the pool's captions, as lines ``class, background => caption``."""
    if (path / "language").exists():
        return
    truth = open_pool(w).truth()
    named = truth[truth["said"] != ""]
    subjects, extras = (
        named["said"] + named["kind"].map(NOUN).fillna(""),
        named["extra"].where(named["extra"] != "", None),
    )
    corpus = list(zip(subjects, extras, named["caption"], strict=True))
    language.train(
        corpus,
        w.upstream.language_steps,
        entropy(w.pool.seed, "language") % 2**31,
        path / "language.tmp",
    )
    (path / "language.tmp").rename(path / "language")


def train_generator(w: World, texts: list[str], path: Path) -> None:
    """Train autoencoder, text encoder (from CLIP's, as Stable Diffusion has it) and UNet on the pool's pairs."""
    from transformers import CLIPTokenizerFast

    tokenizer = CLIPTokenizerFast.from_pretrained(path / "tokenizer")
    diffusion.train(
        path / "images.npy",
        texts,
        tokenizer,
        path / "clip" / clip.WEIGHTS,
        w.upstream,
        w.pool.seed,
        path / "generator",
    )
