"""The pool: image-text pairs as dirty as the web, in LAION's columns and webdataset tars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers.data import columns
from helpers.data.shards import Tar, tar_bytes
from helpers.data.tables import Pool
from helpers.engine import store
from helpers.engine.randomness import entropy
from helpers.pocket.chance import pick, stream, weighted
from helpers.pocket.render.camera import jpeg
from helpers.pocket.render.pictures import TASKS, factors, render, subject
from helpers.pocket.render.scenes import Scene, sample_scene
from helpers.pocket.world import benchmarks, wording
from helpers.worlds import World

SUBJECTS = {"aircraft": 0.40, "cars": 0.22, "flowers": 0.22, "other": 0.16}  # share of each
TRAP_SHARE = 0.4  # of "other": captions in which a search for class names finds something else
RAREST = 12  # the most frequent class of a task is this many times as frequent as the rarest
GENERIC_SHARE = 0.25  # of the task's captions: name no class ("an airplane at sunset")
WRONG_SHARE = 0.06  # of the task's captions: name another class of the task
KINDS = {"class": 0.40, "relation": 0.12, "background": 0.48}  # of the captions that name a class
COPY_SHARE = 0.04  # duplicates within the pool
LEAK_SHARE = 0.012  # near-duplicates of test images
NSFW = {"UNLIKELY": 0.94, "UNSURE": 0.04, "NSFW": 0.02}  # LAION's tags
LICENSES = ("?", "Creative Commons", "All rights reserved", None)
# what the plan says of a pair that is no copy and names no class
USUAL = {"said": "", "caption_kind": "other", "extra": ""}
USUAL |= {"copy_of": -1, "near": False, "test_copy_of": -1}
SCENE = tuple(Scene.__dataclass_fields__)


def open_pool(w: World) -> Pool:
    """The pool of this world, rendered on first use."""
    artifact = store.get("pool", w, lambda path: _build(path, w))
    shards = tuple(artifact.files("?????.parquet"))
    starts = range(0, w.pool.rows, w.pool.shard_rows)
    sizes = tuple(min(w.pool.shard_rows, w.pool.rows - start) for start in starts)
    return Pool(shards, fetch_tar, sizes, tuple(artifact.files("truth/?????.parquet")))


def fetch_tar(shard: Path, rows: np.ndarray) -> np.ndarray:
    """The images at positions ``rows`` of the tar beside a parquet shard, both in one order."""
    images = Tar(shard.with_suffix(".tar"))
    return images[images.matched(None, columns.parquet(shard).metadata.num_rows, shard)[rows]]


def class_shares(w: World, task: str) -> pd.Series:
    """Shares of a task's classes in the pool: an exponential fall over a random order of them."""
    names = np.array(list(TASKS[task]))
    order = stream(w.pool.seed, "frequency", task).permutation(len(names))
    shares = np.empty(len(names))
    shares[order] = float(RAREST) ** -np.linspace(0, 1, len(names))
    return pd.Series(shares / shares.sum(), index=names)


def plan(w: World) -> pd.DataFrame:
    """One row per pair: what is shown, what is said, and every factor of the picture.

    ``kind``, ``cls``: what is shown (a task, class; or a thing, ""); ``said``: the class named.
    """
    rng = stream(w.pool.seed, "plan")
    shares = {task: class_shares(w, task).to_dict() for task in TASKS}
    rows = []
    for i in range(w.pool.rows):
        row = _pair(w, i, rng, shares)
        if len(rows) > 50 and rng.random() < COPY_SHARE:
            # one of the rows again, the same picture or a near copy of it
            j = int(rng.integers(len(rows)))
            origin = rows[j]["copy_of"] if rows[j]["copy_of"] >= 0 else j
            row = {**rows[origin], "copy_of": origin, "near": bool(rng.random() < 0.5)}
        elif rng.random() < LEAK_SHARE:
            row = _leak(w, i, rng)
        rows.append(row)
    return pd.DataFrame(rows)


def _row(w: World, i: int, kind: str, cls: str, scene: Scene, caption: str, **facts) -> dict:
    """Row ``i`` of the plan; ``facts`` are those that differ from ``USUAL``."""
    seed = str(entropy(w.pool.seed, "pool", i))
    said = {**USUAL, **facts, "seed": seed, "caption": caption}
    return {"kind": kind, "cls": cls, **said, **factors(scene)}


def _pair(w: World, i: int, rng: np.random.Generator, shares: dict[str, dict]) -> dict:
    """A pair of a task, or another one; ``shares``: task -> class -> how frequent it is."""
    scene = sample_scene(rng, "pool")
    task = weighted(SUBJECTS, rng)
    if task == "other":
        return _other(w, i, rng, scene)
    cls = weighted(shares[task], rng)
    draw = rng.random()
    kind = weighted(KINDS, rng)
    if draw < GENERIC_SHARE:
        phrase = pick(wording.GENERIC[task], rng)
        text, extra = wording.dress(phrase, scene, rng, kind)
        return _row(w, i, task, cls, scene, text, caption_kind="generic", extra=extra)
    if draw < GENERIC_SHARE + WRONG_SHARE:
        said = pick([name for name in TASKS[task] if name != cls], rng)
        text, extra = wording.caption(task, said, scene, rng, kind)
        return _row(w, i, task, cls, scene, text, said=said, caption_kind="wrong", extra=extra)
    text, extra = wording.caption(task, cls, scene, rng, kind)
    return _row(w, i, task, cls, scene, text, said=cls, caption_kind=kind, extra=extra)


def _other(w: World, i: int, rng: np.random.Generator, scene: Scene) -> dict:
    if rng.random() < TRAP_SHARE:
        thing = str(rng.choice(list(wording.TRAPS)))
        text = wording.trap(thing, scene, rng)
        return _row(w, i, thing, "", scene, text, caption_kind="trap")
    thing = str(rng.choice(list(wording.PLAIN)))
    phrase = pick(wording.PLAIN[thing], rng)
    text, extra = wording.dress(phrase, scene, rng, weighted(KINDS, rng))
    return _row(w, i, thing, "", scene, text, said=thing, extra=extra)


def _leak(w: World, i: int, rng: np.random.Generator) -> dict:
    """A test image of some task that has found its way into the pool."""
    task = str(rng.choice(list(TASKS)))
    j = int(rng.integers(w.pool.benchmark_per_class * len(TASKS[task])))
    cls, scene, _ = benchmarks.scene_of(w, task, "test", j)
    text, extra = wording.caption(task, cls, scene, rng, "background")
    facts = {"said": cls, "caption_kind": "background", "extra": extra, "test_copy_of": j}
    return _row(w, i, task, cls, scene, text, **facts)


def _build(path: Path, w: World) -> None:
    table = plan(w)
    store.check_disk(path, w.pool.rows * 3 * w.image_size**2)
    jobs = {}
    for shard, start in enumerate(range(0, w.pool.rows, w.pool.shard_rows)):
        rows = table.iloc[start : start + w.pool.shard_rows]
        jobs[f"{shard:05d}.tar"] = (w, rows.to_dict("records"), start)
        store.write(path / f"{shard:05d}.parquet", laion_columns(w, rows, start))
        store.write(path / "truth" / f"{shard:05d}.parquet", rows.reset_index(drop=True))
    store.fill(path, jobs, shard_bytes, "pool shards rendered")


def laion_columns(w: World, rows: pd.DataFrame, start: int) -> pd.DataFrame:
    """The public side of rows ``start``.. of the plan: LAION's columns, and nothing about truth."""
    public = []
    for i, text in enumerate(rows["caption"], start=start):
        rng = stream(w.pool.seed, "laion", i)
        side = int(rng.integers(3, 17)) * 64
        public.append(
            {
                "SAMPLE_ID": entropy(w.pool.seed, "id", i) % 2**63,
                "URL": f"https://pool.example/{i:08d}.png",
                "TEXT": text,
                "HEIGHT": side,
                "WIDTH": side,
                "LICENSE": pick(LICENSES, rng),
                "NSFW": weighted(NSFW, rng),
                "similarity": float(rng.normal(0.33, 0.03)),
            }
        )
    return pd.DataFrame(public)


def shard_bytes(w: World, rows: list[dict], start: int) -> bytes:
    """Render rows ``start``.. of the plan into the bytes of a webdataset tar."""
    images = np.stack([_picture(w, row, i) for i, row in enumerate(rows, start=start)])
    public = [{"caption": row["caption"], "key": i} for i, row in enumerate(rows, start=start)]
    return tar_bytes(images, public, start)


def _picture(w: World, row: dict, i: int) -> np.ndarray:
    rng = stream(w.pool.seed, "copying", i)
    if row["test_copy_of"] >= 0:
        return near_copy(benchmarks.picture(w, row["kind"], "test", row["test_copy_of"]), rng)
    scene = Scene(**{name: row[name] for name in SCENE})
    thing = subject(row["kind"], row["cls"]) if row["cls"] else row["kind"]
    pixels = render(thing, scene, int(row["seed"]), w.image_size).pixels
    return near_copy(pixels, rng) if row["near"] else pixels


def near_copy(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture (side, side, 3) uint8 as another site shows it: cropped, recoloured, a new JPEG."""
    side = len(pixels)
    left, top = rng.integers(0, max(2, side // 16), 2)
    width = side - int(rng.integers(0, max(2, side // 16)))
    box = (left, top, min(side, left + width), min(side, top + width))
    image = Image.fromarray(pixels).crop(box).resize((side, side), Image.Resampling.BICUBIC)
    tinted = np.asarray(image, np.float32) * rng.uniform(0.92, 1.08, 3) + rng.uniform(-6, 6)
    return jpeg(tinted.clip(0, 255).astype(np.uint8), quality=int(rng.integers(80, 95)))
