"""The rare-class intervention: two pools that differ in their rare classes, a generator on each.

Each pool keeps what the other lacks, so that every thinned class has its control in the other
generator; lots repeat this. Autoencoder and starting text encoder are the shipped ones, which saw
the whole pool: what is shown is the effect on the UNet and on the text encoder's training.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.data.subsets import balanced, nested_subset
from helpers.engine import store
from helpers.engine.randomness import entropy, rng
from helpers.measure.folds import LOOKED_AT, VALIDATION
from helpers.models import clip, heads
from helpers.pocket.train import generator, judges, unet, upstream
from helpers.pocket.world.pool import open_pool
from helpers.worlds import World, replace

TASK = "flowers"  # few and simple classes, which a short training learns to draw
SIDES = ("a", "b")  # the two pools of a lot
THINNED = 3  # classes thinned in each pool
KEPT = 8  # pairs left of each thinned class
STEPS = 0.1  # share of the shipped generator's updates, all of them on the task's pairs
CHANNELS = (32, 64, 64)  # width of the UNet
PER_CLASS = 32  # images drawn per class and generator, at most; twice the largest size
SHARD = 56  # images drawn per job


def lots(w: World) -> dict[str, tuple[str, ...]]:
    """Pool ("0a", "0b", "1a" ...) -> classes thinned in it: by lot among the frequent half of them.

    Raises ``StudyError`` when the world does not have the task.
    """
    classes = tables.benchmark(w, TASK).classes
    counts = open_pool(w).truth()["cls"].value_counts()
    counts = counts.reindex(classes, fill_value=0)
    frequent = sorted(counts.index[counts >= counts.median()])
    pools = {}
    for lot in range(w.scaling.lots):
        order = rng(w, "rarity", "lots", lot).permutation(frequent).tolist()
        for i, side in enumerate(SIDES):
            pools[f"{lot}{side}"] = tuple(order[i * THINNED :][:THINNED])
    return pools


def lot_of(pool: str) -> int:
    """The number of a pool's lot: its two pools share seeds and noise."""
    return int(pool[:-1])


def rows_of(w: World, pool: str) -> np.ndarray:
    """Rows of a thinned pool: the task's pairs, of each thinned class only ``KEPT``.

    A pair counts for a class if it shows or names it; what is kept does both.
    """
    truth = open_pool(w).truth()
    kept = (truth["kind"] == TASK).to_numpy()
    for name in lots(w)[pool]:
        shown = (truth["cls"] == name).to_numpy()
        named = (truth["said"] == name).to_numpy()
        both = np.flatnonzero(kept & shown & named)
        spared = rng(w, "rarity", "spared", lot_of(pool), name).permutation(both)[:KEPT]
        kept[shown | named] = False
        kept[spared] = True
    return np.flatnonzero(kept)


def intervention(w: World) -> store.Artifact:
    """Train both generators and measure what they draw.

    ``runs.parquet`` is as in notebook 06. ``classes.parquet`` has a row per pool and class, with
    its ``lot``: ``thinned``, ``pairs`` that show it, ``retrieved`` (rows of notebook 04's choice
    that are in the pool), ``recognizability`` (F1 of a judge), ``hit`` (share drawn recognizably).
    """
    return store.make("rarity", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    for pool in lots(w):
        train(path, w, pool)
    n = min(PER_CLASS, w.pool.benchmark_per_class) * len(tables.benchmark(w, TASK).classes)
    jobs = {}
    for pool in lots(w):
        for start in range(0, n, SHARD):
            stop = min(start + SHARD, n)
            jobs[f"drawn/{pool}-{start:05d}.npy"] = (w, path, pool, start, stop)
    store.fill(path, jobs, draw_shard, "shards drawn by generators of thinned pools")
    jobs = {f"classes/{pool}.parquet": (w, path, pool) for pool in lots(w)}
    files = store.fill(path, jobs, judged, "sets of thinned pools judged")
    store.write(path / "classes.parquet", pd.concat(map(store.read_table, files)))
    jobs = {f"runs/{pool}.parquet": (w, path, pool) for pool in lots(w)}
    files = store.fill(path, jobs, run, "sets of thinned pools trained on")
    store.write(path / "runs.parquet", pd.concat(map(store.read_table, files)))


def train(path: Path, w: World, pool: str) -> None:
    """Train a generator on one pool by the recipe of the shipped ones, smaller and shorter."""
    folder = path / f"generator-{pool}"
    if (folder / "unet-long").exists():
        return
    shipped = upstream.folder(w)
    shutil.copytree(shipped / "generator" / "vae", folder / "vae", dirs_exist_ok=True)
    steps = max(1, round(STEPS * w.upstream.generator_steps))
    upstream_ = {"generator_steps": steps, "unet_channels": CHANNELS}
    shorter = replace(w, upstream=upstream_, pool={"seed": w.pool.seed + lot_of(pool)})
    rows = rows_of(w, pool)
    images = store.write(folder / "images.npy", open_pool(w).fetch(rows))
    captions = list(open_pool(w).captions()["TEXT"].iloc[rows])
    unet.train(shorter, images, captions, shipped, folder)
    images.unlink()
    for part in ("unet", "text_encoder"):
        shutil.rmtree(folder / f"{part}-short")
        shutil.rmtree(folder / f"{part}-middle")


def draw_shard(w: World, path: Path, pool: str, start: int, stop: int) -> np.ndarray:
    """Some of a generator's images, classes in turns, by a template; both take the same seeds."""
    bench = tables.benchmark(w, TASK)
    names = [bench.classes[i % len(bench.classes)] for i in range(start, stop)]
    texts = [bench.templates[0].format(name) for name in names]
    seeds = [entropy(w.seed, "rarity", lot_of(pool), i) for i in range(start, stop)]
    return generator.draw(generator.load(path / f"generator-{pool}"), texts, seeds, w.synthesis)


@functools.lru_cache(maxsize=2)
def drawn(path: Path, pool: str) -> np.ndarray:
    """All images of a generator; the class of the i-th is ``i`` modulo the number of classes."""
    return np.concatenate([np.load(f) for f in sorted((path / "drawn").glob(f"{pool}-*.npy"))])


def judged(w: World, path: Path, pool: str) -> pd.DataFrame:
    """The rows of ``classes`` for one pool."""
    from sklearn.metrics import f1_score

    classes = list(tables.benchmark(w, TASK).classes)
    rows = rows_of(w, pool)
    pairs = open_pool(w).truth().iloc[rows]["cls"].value_counts()
    found = tables.source_set(w, TASK, "retrieved").facts
    retrieved = found[found["row"].isin(rows)]["class"].value_counts()
    images = drawn(path, pool)
    wanted = np.resize(np.array(classes, object), len(images))
    seen = judges.judge(upstream.folder(w), images)["variant"].to_numpy()
    f1 = f1_score(wanted, seen, labels=classes, average=None, zero_division=0)
    return pd.DataFrame(
        {
            "lot": lot_of(pool),
            "pool": pool,
            "class": classes,
            "thinned": [name in lots(w)[pool] for name in classes],
            "pairs": pairs.reindex(classes, fill_value=0).to_numpy(),
            "retrieved": retrieved.reindex(classes, fill_value=0).to_numpy(),
            "recognizability": f1,
            "hit": [float((seen[wanted == name] == name).mean()) for name in classes],
        }
    )


@functools.lru_cache(maxsize=1)
def held_out(w: World) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Embeddings and labels of validation and test images."""
    bench = tables.benchmark(w, TASK)
    splits = {VALIDATION: balanced(bench.val, LOOKED_AT), "test": bench.test}
    model = clip.load(w)
    return {name: (clip.embed_images(model, s.images), s.labels) for name, s in splits.items()}


def run(w: World, path: Path, pool: str) -> pd.DataFrame:
    """Classifiers on growing sets of a generator's images, evaluated on real test images.

    Rows as of notebook 06's runs, of every class, too; ``arm`` is the pool.
    """
    classes = tables.benchmark(w, TASK).classes
    model = clip.load(w)
    images = drawn(path, pool)
    mirrored = images[:, :, ::-1]
    features = np.stack([clip.embed_images(model, images), clip.embed_images(model, mirrored)])
    labels = np.arange(len(images)) % len(classes)
    # one classifier per size, doubling from one image per class to half of them, and seed
    most = len(images) // len(classes) // 2
    sizes = [len(classes) * 2**i for i in range(most.bit_length())]
    members = [(n, seed) for n in sizes for seed in range(w.scaling.seeds)]
    subsets = [nested_subset(labels, n, rng(w, "rarity", "subset", seed)) for n, seed in members]
    seeds = [entropy(w.seed, "head", seed) for _, seed in members]
    trained = heads.train(features, labels, subsets, seeds, len(classes), w.scaling)
    parts = []
    evaluated = heads.evaluate(trained, held_out(w), classes)
    for (n, seed), table in zip(members, evaluated, strict=True):
        parts.append(table.assign(arm=pool, n=n, seed=seed))
    return pd.concat(parts, ignore_index=True)
