"""The rare-class intervention: two pools that differ in their rare classes, a generator on each.

Each pool keeps what the other lacks, so that every thinned class has its control in the other
generator, and both saw as many updates. Autoencoder and starting text encoder are the shipped ones,
which saw the whole pool: what is shown is the effect on the UNet and on the text encoder's further
training, no more.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.data.subsets import nested_subset
from helpers.engine import store
from helpers.engine.randomness import entropy, rng
from helpers.models import clip, heads
from helpers.pocket.train import generator, judges, unet, upstream
from helpers.pocket.world.pool import open_pool
from helpers.worlds import World, replace

TASK = "flowers"  # few and simple classes, which a short training learns to draw
LOTS = ("a", "b")  # the two pools
THINNED = 3  # classes thinned in each pool
KEPT = 8  # pairs left of each thinned class
STEPS = 0.1  # share of the shipped generator's updates, all of them on the task's pairs
CHANNELS = (32, 64, 64)  # width of the UNet
PER_CLASS = 32  # images drawn per class and generator, at most
SHARD = 56  # images drawn per job


def lots(w: World) -> dict[str, tuple[str, ...]]:
    """Pool -> classes thinned in it: drawn by lot among the frequent half of the task's classes.

    Raises ``StudyError`` when the world does not have the task.
    """
    classes = tables.benchmark(w, TASK).classes
    counts = open_pool(w).truth()["cls"].value_counts()
    counts = counts.reindex(classes, fill_value=0)
    frequent = sorted(counts.index[counts >= counts.median()])
    order = rng(w, "rarity", "lots").permutation(frequent).tolist()
    return {lot: tuple(order[i * THINNED :][:THINNED]) for i, lot in enumerate(LOTS)}


def rows_of(w: World, lot: str) -> np.ndarray:
    """Rows of a thinned pool: the task's pairs, of each thinned class only ``KEPT``.

    A pair counts for a class if it shows or names it; what is kept does both.
    """
    truth = open_pool(w).truth()
    kept = (truth["kind"] == TASK).to_numpy()
    for name in lots(w)[lot]:
        shown = (truth["cls"] == name).to_numpy()
        named = (truth["said"] == name).to_numpy()
        both = np.flatnonzero(kept & shown & named)
        spared = rng(w, "rarity", "spared", name).permutation(both)[:KEPT]
        kept[shown | named] = False
        kept[spared] = True
    return np.flatnonzero(kept)


def intervention(w: World) -> store.Artifact:
    """Train both generators and measure what they draw.

    ``runs.parquet`` is as in notebook 06. ``classes.parquet`` has a row per pool and class:
    ``thinned``, ``pairs`` that show it, ``retrieved`` (rows of notebook 04's choice that are still
    in the pool), ``recognizability`` (F1 of a judge) and ``hit`` (share drawn recognizably).
    """
    return store.make("rarity", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    for lot in LOTS:
        train(path, w, lot)
    n = min(PER_CLASS, w.pool.benchmark_per_class) * len(tables.benchmark(w, TASK).classes)
    jobs = {}
    for lot in LOTS:
        for start in range(0, n, SHARD):
            stop = min(start + SHARD, n)
            jobs[f"drawn/{lot}-{start:05d}.npy"] = (w, path, lot, start, stop)
    store.fill(path, jobs, draw_shard, "shards drawn by two generators")
    classes = pd.concat([judged(w, path, lot) for lot in LOTS], ignore_index=True)
    store.write(path / "classes.parquet", classes)
    jobs = {f"runs/{lot}.parquet": (w, path, lot) for lot in LOTS}
    files = store.fill(path, jobs, run, "sets of two generators trained on")
    runs = pd.concat([store.read_table(file) for file in files], ignore_index=True)
    store.write(path / "runs.parquet", runs)


def train(path: Path, w: World, lot: str) -> None:
    """Train a generator on one pool by the recipe of the shipped ones, smaller and shorter."""
    folder = path / f"generator-{lot}"
    if (folder / "unet-long").exists():
        return
    shipped = upstream.folder(w)
    shutil.copytree(shipped / "generator" / "vae", folder / "vae", dirs_exist_ok=True)
    steps = max(1, round(STEPS * w.upstream.generator_steps))
    shorter = replace(w, upstream={"generator_steps": steps, "unet_channels": CHANNELS})
    rows = rows_of(w, lot)
    images = store.write(folder / "images.npy", open_pool(w).fetch(rows))
    captions = list(open_pool(w).captions()["TEXT"].iloc[rows])
    unet.train(shorter, images, captions, shipped, folder)
    images.unlink()
    for part in ("unet", "text_encoder"):
        shutil.rmtree(folder / f"{part}-short")
        shutil.rmtree(folder / f"{part}-middle")


def draw_shard(w: World, path: Path, lot: str, start: int, stop: int) -> np.ndarray:
    """Some of a generator's images, classes in turns, by a template; both take the same seeds."""
    bench = tables.benchmark(w, TASK)
    names = [bench.classes[i % len(bench.classes)] for i in range(start, stop)]
    texts = [bench.templates[0].format(name) for name in names]
    seeds = [entropy(w.seed, "rarity", i) for i in range(start, stop)]
    return generator.draw(generator.load(path / f"generator-{lot}"), texts, seeds, w.synthesis)


@functools.lru_cache(maxsize=2)
def drawn(path: Path, lot: str) -> np.ndarray:
    """All images of a generator; the class of the i-th is ``i`` modulo the number of classes."""
    return np.concatenate([np.load(f) for f in sorted((path / "drawn").glob(f"{lot}-*.npy"))])


def judged(w: World, path: Path, lot: str) -> pd.DataFrame:
    """The rows of ``classes`` for one pool."""
    from sklearn.metrics import f1_score

    classes = list(tables.benchmark(w, TASK).classes)
    rows = rows_of(w, lot)
    pairs = open_pool(w).truth().iloc[rows]["cls"].value_counts()
    found = tables.source_set(w, TASK, "retrieved").facts
    retrieved = found[found["row"].isin(rows)]["class"].value_counts()
    images = drawn(path, lot)
    wanted = np.resize(np.array(classes, object), len(images))
    seen = judges.judge(upstream.folder(w), images)["variant"].to_numpy()
    f1 = f1_score(wanted, seen, labels=classes, average=None, zero_division=0)
    return pd.DataFrame(
        {
            "pool": lot,
            "class": classes,
            "thinned": [name in lots(w)[lot] for name in classes],
            "pairs": pairs.reindex(classes, fill_value=0).to_numpy(),
            "retrieved": retrieved.reindex(classes, fill_value=0).to_numpy(),
            "recognizability": f1,
            "hit": [float((seen[wanted == name] == name).mean()) for name in classes],
        }
    )


def run(w: World, path: Path, lot: str) -> pd.DataFrame:
    """Classifiers on growing sets of a generator's images, evaluated on real test images.

    A row per size, seed and class: ``arm, n, seed, eval_set, class, images, loss, top1``.
    """
    test = tables.benchmark(w, TASK).test
    classes = tables.benchmark(w, TASK).classes
    model = clip.load(w)
    images = drawn(path, lot)
    mirrored = images[:, :, ::-1]
    features = np.stack([clip.embed_images(model, images), clip.embed_images(model, mirrored)])
    labels = np.arange(len(images)) % len(classes)
    # one classifier per size, doubling from one image per class, and seed
    sizes = [len(classes) * 2**i for i in range((len(images) // len(classes)).bit_length())]
    members = [(n, seed) for n in sizes for seed in range(w.scaling.seeds)]
    subsets = [nested_subset(labels, n, rng(w, "rarity", "subset", seed)) for n, seed in members]
    seeds = [entropy(w.seed, "head", seed) for _, seed in members]
    trained = heads.train(features, labels, subsets, seeds, len(classes), w.scaling)
    embedded = clip.embed_images(model, test.images)
    loss, top1 = heads.evaluate(trained, embedded, test.labels, len(classes))
    parts = []
    for i, (n, seed) in enumerate(members):
        part = {"arm": lot, "n": n, "seed": seed, "eval_set": "test", "class": classes}
        part |= {"images": np.bincount(test.labels), "loss": loss[i], "top1": top1[i]}
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)
