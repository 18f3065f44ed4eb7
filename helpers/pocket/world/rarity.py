"""The rare-class intervention: two pools that differ in which classes are rare, and a generator trained on each.

Each pool keeps what the other lacks, so that every thinned class has its control in the other generator, and both saw as many updates.
Autoencoder and starting text encoder are the shipped ones, which saw the whole pool: what is shown is the effect on the UNet
and on the text encoder's further training, no more.
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
from helpers.errors import unknown
from helpers.models import clip, heads
from helpers.pocket.train import generator, judges, unet, upstream
from helpers.pocket.world.pool import open_pool
from helpers.worlds import World, replace

TASK = "flowers"  # few and simple classes, which a short training learns to draw
LOTS, THINNED, KEPT = (
    ("a", "b"),
    3,
    8,
)  # pools, classes thinned in each, pairs left of each such class
STEPS, CHANNELS = (
    0.1,
    (32, 64, 64),
)  # share of the shipped generator's updates, all of them on the task's pairs; width of the UNet
PER_CLASS = 32  # images drawn per class and generator, at most
SHARD = 56  # images drawn per job


def lots(w: World) -> dict[str, tuple[str, ...]]:
    """Pool -> the classes that are thinned in it: drawn by lot among the frequent half of the task's classes.

    Raises ``StudyError`` when the world does not have the task.
    """
    if TASK not in w.tasks:
        raise unknown(f"task in world {w.name!r}", TASK, w.tasks)
    counts = (
        open_pool(w)
        .truth()["cls"]
        .value_counts()
        .reindex(tables.benchmark(w, TASK).classes, fill_value=0)
    )
    frequent = sorted(counts.index[counts >= counts.median()])
    order = rng(w, "rarity", "lots").permutation(frequent)
    return {
        lot: tuple(order[i * THINNED : (i + 1) * THINNED].tolist()) for i, lot in enumerate(LOTS)
    }


def rows_of(w: World, lot: str) -> np.ndarray:
    """Rows of the thinned pool: pairs of the task, of each thinned class only ``KEPT`` of those that show or name it."""
    truth = open_pool(w).truth()
    left = (truth["kind"] == TASK).to_numpy()
    for name in lots(w)[lot]:
        about = np.flatnonzero(left & ((truth["cls"] == name) | (truth["said"] == name)).to_numpy())
        spared = rng(w, "rarity", "spared", name).permutation(
            about[(truth["cls"] == truth["said"]).to_numpy()[about]]
        )[:KEPT]
        left[np.setdiff1d(about, spared)] = False
    return np.flatnonzero(left)


def intervention(w: World) -> store.Artifact:
    """Train both generators and measure what they draw: ``runs.parquet``, as in notebook 06, and ``classes.parquet``.

    ``classes`` has a row per pool and class: ``thinned``, ``pairs`` that show it, ``retrieved`` (rows of notebook 04's choice that
    are still in the pool), ``recognizability`` (F1 of a judge) and ``hit`` (share drawn recognizably).
    """
    return store.make("rarity", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    for lot in LOTS:
        train(path, w, lot)
    n = min(PER_CLASS, w.pool.benchmark_per_class) * len(tables.benchmark(w, TASK).classes)
    store.fill(
        path,
        {
            f"drawn/{lot}-{i:05d}.npy": (w, path, lot, i, min(i + SHARD, n))
            for lot in LOTS
            for i in range(0, n, SHARD)
        },
        draw_shard,
        "shards drawn by two generators",
    )
    store.write(
        path / "classes.parquet",
        pd.concat([judged(w, path, lot) for lot in LOTS], ignore_index=True),
    )
    runs = store.fill(
        path,
        {f"runs/{lot}.parquet": (w, path, lot) for lot in LOTS},
        run,
        "sets of two generators trained on",
    )
    store.write(
        path / "runs.parquet", pd.concat([store.read_table(f) for f in runs], ignore_index=True)
    )


def train(path: Path, w: World, lot: str) -> None:
    """Train a generator on one pool by the recipe of the shipped ones, smaller and shorter, into ``generator-{lot}``."""
    folder, pool, rows = path / f"generator-{lot}", open_pool(w), rows_of(w, lot)
    if (folder / "unet-long").exists():
        return
    shutil.copytree(upstream.folder(w) / "generator" / "vae", folder / "vae", dirs_exist_ok=True)
    tokenizer = generator.load(upstream.folder(w) / "generator").tokenizer
    u = replace(
        w,
        upstream={
            "generator_steps": max(1, round(STEPS * w.upstream.generator_steps)),
            "unet_channels": CHANNELS,
        },
    ).upstream
    images = store.write(folder / "images.npy", pool.fetch(rows))
    unet.train(
        images,
        list(pool.captions()["TEXT"].iloc[rows]),
        tokenizer,
        upstream.folder(w) / "clip" / clip.WEIGHTS,
        u,
        w.pool.seed,
        folder,
    )
    for leftover in [
        images,
        *(
            folder / f"{part}-{budget}"
            for part in ("unet", "text_encoder")
            for budget in ("short", "middle")
        ),
    ]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def draw_shard(w: World, path: Path, lot: str, start: int, stop: int) -> np.ndarray:
    """Some of a generator's images, classes in turns, by a template; the same seeds for both generators."""
    bench = tables.benchmark(w, TASK)
    texts = [
        bench.templates[0].format(bench.classes[i % len(bench.classes)]) for i in range(start, stop)
    ]
    seeds = [entropy(w.seed, "rarity", i) for i in range(start, stop)]
    return generator.draw(generator.load(path / f"generator-{lot}"), texts, seeds, w.synthesis)


@functools.lru_cache(maxsize=2)
def drawn(path: Path, lot: str) -> np.ndarray:
    """All images that a generator drew; the class of the i-th is ``i`` modulo the number of classes."""
    return np.concatenate([np.load(f) for f in sorted((path / "drawn").glob(f"{lot}-*.npy"))])


def judged(w: World, path: Path, lot: str) -> pd.DataFrame:
    """The rows of ``classes`` for one pool."""
    from sklearn.metrics import f1_score

    bench, truth, rows = tables.benchmark(w, TASK), open_pool(w).truth(), rows_of(w, lot)
    wanted = np.resize(np.array(bench.classes, object), len(drawn(path, lot)))
    seen = judges.judge(upstream.folder(w), drawn(path, lot))["variant"].to_numpy()
    found = tables.source_set(w, TASK, "retrieved").facts
    counts = {
        "pairs": truth.iloc[rows]["cls"].value_counts(),
        "retrieved": found[found["row"].isin(rows)]["class"].value_counts(),
    }
    return pd.DataFrame(
        {
            "pool": lot,
            "class": bench.classes,
            "thinned": [c in lots(w)[lot] for c in bench.classes],
            **{
                name: count.reindex(bench.classes, fill_value=0).to_numpy()
                for name, count in counts.items()
            },
            "recognizability": f1_score(
                wanted, seen, labels=list(bench.classes), average=None, zero_division=0
            ),
            "hit": [float((seen[wanted == c] == c).mean()) for c in bench.classes],
        }
    )


def run(w: World, path: Path, lot: str) -> pd.DataFrame:
    """Classifiers on growing sets of a generator's images, evaluated on real test images: ``arm, n, seed, class, images, loss, top1``."""
    bench, s, made = tables.benchmark(w, TASK), w.scaling, clip.load(w)
    images, classes = drawn(path, lot), bench.classes
    features = np.stack(
        [clip.embed_images(made, images), clip.embed_images(made, images[:, :, ::-1])]
    )
    sizes = [len(classes) * 2**i for i in range((len(images) // len(classes)).bit_length())]
    members = [(n, seed) for n in sizes for seed in range(s.seeds)]
    labels = np.arange(len(images)) % len(classes)
    subsets = [nested_subset(labels, n, rng(w, "rarity", "subset", seed)) for n, seed in members]
    trained = heads.train(
        features,
        labels,
        subsets,
        [entropy(w.seed, "head", seed) for _, seed in members],
        len(classes),
        s,
    )
    loss, top1 = heads.evaluate(
        trained, clip.embed_images(made, bench.test.images), bench.test.labels, len(classes)
    )
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "arm": lot,
                    "n": n,
                    "seed": seed,
                    "eval_set": "test",
                    "class": classes,
                    "images": np.bincount(bench.test.labels),
                    "loss": loss[i],
                    "top1": top1[i],
                }
            )
            for i, (n, seed) in enumerate(members)
        ],
        ignore_index=True,
    )
