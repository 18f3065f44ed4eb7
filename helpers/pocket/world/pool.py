"""The pool: image-text pairs as dirty as the web, in LAION's columns, parquet shards and webdataset tars."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers.data.shards import fetch_tar, tar_bytes
from helpers.data.tables import Pool
from helpers.engine import store
from helpers.engine.randomness import entropy
from helpers.pocket.render.pictures import TASKS, factors, render, subject
from helpers.pocket.render.scenes import Scene, sample_scene
from helpers.pocket.world import wording
from helpers.pocket.world.benchmarks import scene_of
from helpers.worlds import World

TASK_SHARES = {"aircraft": 0.40, "cars": 0.22, "flowers": 0.22}  # the rest: other things and traps
TRAP_SHARE = 0.4  # of the rest
RAREST = 12  # the most frequent class of a task is this many times as frequent as the rarest
KINDS = {"class": 0.40, "relation": 0.12, "background": 0.48}  # of the captions that name a class
COPIES = {
    "copy_of": 0.04,
    "test_copy_of": 0.012,
}  # duplicates within the pool, near-duplicates of test images
NSFW = {"UNLIKELY": 0.94, "UNSURE": 0.04, "NSFW": 0.02}  # LAION's tags
LICENSES = ("?", "Creative Commons", "All rights reserved", None)
SCENE = tuple(Scene.__dataclass_fields__)


def open_pool(w: World) -> Pool:
    """The pool of this world, rendered on first use."""
    made = store.folder("pool", w)
    done = (made / "manifest.json").exists()
    artifact = (
        store.load("pool", w) if done else store.make("pool", w, lambda path: _build(path, w))
    )
    shards = tuple(artifact.files("?????.parquet"))
    sizes = tuple(
        min(w.pool.shard_rows, w.pool.rows - i * w.pool.shard_rows) for i in range(len(shards))
    )
    return Pool(shards, fetch_tar, sizes, tuple(artifact.files("truth/?????.parquet")))


def class_shares(w: World, task: str) -> pd.Series:
    """How frequent each class of a task is in the pool, summing to 1: an exponential fall over a random order."""
    names = np.array(list(TASKS[task]))
    order = np.random.default_rng(entropy(w.pool.seed, "frequency", task)).permutation(len(names))
    shares = np.empty(len(names))
    shares[order] = float(RAREST) ** -np.linspace(0, 1, len(names))
    return pd.Series(shares / shares.sum(), index=names)


def plan(w: World) -> pd.DataFrame:
    """One row per pair: what is shown, what is said, and every factor of the picture. Nothing is rendered yet."""
    rng = np.random.default_rng(entropy(w.pool.seed, "plan"))
    shares = {task: class_shares(w, task) for task in TASKS}
    rows = []
    for i in range(w.pool.rows):
        row = _pair(w, i, rng, shares)
        if len(rows) > 50 and rng.random() < COPIES["copy_of"]:
            row = _copy(rows, i, rng)
        elif rng.random() < COPIES["test_copy_of"]:
            row = _leak(w, i, rng)
        rows.append(row)
    return pd.DataFrame(rows)


def _row(kind: str, cls: str, scene: Scene, i: int, w: World, **said) -> dict:
    base = {
        "kind": kind,
        "cls": cls,
        "said": "",
        "caption_kind": "other",
        "extra": "",
        "copy_of": -1,
        "near": False,
        "test_copy_of": -1,
        "seed": str(entropy(w.pool.seed, "pool", i)),
    }
    return {**base, **said, **factors(scene)}


def _pair(w: World, i: int, rng: np.random.Generator, shares: dict) -> dict:
    scene = sample_scene(rng, "pool")
    task = rng.choice(
        [*TASK_SHARES, "other"], p=[*TASK_SHARES.values(), 1 - sum(TASK_SHARES.values())]
    )
    if task == "other":
        return _other(w, i, rng, scene)
    cls = str(rng.choice(shares[task].index, p=shares[task].to_numpy()))
    draw, kind = rng.random(), str(rng.choice(list(KINDS), p=list(KINDS.values())))
    if draw < w.pool.generic:
        ways = wording.GENERIC[task]
        text, extra = wording.dress(ways[rng.integers(len(ways))], scene, rng, kind)
        return _row(task, cls, scene, i, w, caption=text, caption_kind="generic", extra=extra)
    said = cls
    if draw < w.pool.generic + w.pool.wrong:
        others = [c for c in TASKS[task] if c != cls]
        said, kind_told = others[rng.integers(len(others))], "wrong"
    else:
        kind_told = kind
    text, extra = wording.caption(task, said, scene, rng, kind)
    return _row(
        task, cls, scene, i, w, said=said, caption=text, caption_kind=kind_told, extra=extra
    )


def _other(w: World, i: int, rng: np.random.Generator, scene: Scene) -> dict:
    if rng.random() < TRAP_SHARE:
        thing = str(rng.choice(list(wording.TRAPS)))
        return _row(
            thing, "", scene, i, w, caption=wording.trap(thing, scene, rng), caption_kind="trap"
        )
    thing = str(rng.choice(list(wording.PLAIN)))
    ways = wording.PLAIN[thing]
    text, extra = wording.dress(
        ways[rng.integers(len(ways))],
        scene,
        rng,
        str(rng.choice(list(KINDS), p=list(KINDS.values()))),
    )
    return _row(thing, "", scene, i, w, said=thing, caption=text, extra=extra)


def _copy(rows: list[dict], i: int, rng: np.random.Generator) -> dict:
    j = int(rng.integers(len(rows)))
    origin = rows[j]["copy_of"] if rows[j]["copy_of"] >= 0 else j
    return {**rows[origin], "copy_of": origin, "near": bool(rng.random() < 0.5)}


def _leak(w: World, i: int, rng: np.random.Generator) -> dict:
    task = str(rng.choice(list(TASKS)))
    j = int(rng.integers(w.pool.benchmark_per_class * len(TASKS[task])))
    cls, scene, _ = scene_of(w, task, "test", j)
    text, extra = wording.caption(task, cls, scene, rng, "background")
    return _row(
        task,
        cls,
        scene,
        i,
        w,
        said=cls,
        caption=text,
        caption_kind="background",
        extra=extra,
        test_copy_of=j,
    )


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
    """The public side of some rows of the plan: LAION's columns, and nothing about what is really shown."""
    out = []
    for i, text in enumerate(rows["caption"], start=start):
        rng = np.random.default_rng(entropy(w.pool.seed, "laion", i))
        side = int(rng.integers(3, 17)) * 64
        out.append(
            {
                "SAMPLE_ID": entropy(w.pool.seed, "id", i) % 2**63,
                "URL": f"https://pool.example/{i:08d}.png",
                "TEXT": text,
                "HEIGHT": side,
                "WIDTH": side,
                "LICENSE": LICENSES[rng.integers(len(LICENSES))],
                "NSFW": str(rng.choice(list(NSFW), p=list(NSFW.values()))),
                "similarity": float(rng.normal(0.33, 0.03)),
            }
        )
    return pd.DataFrame(out)


def shard_bytes(w: World, rows: list[dict], start: int) -> bytes:
    """Render some rows of the plan into the bytes of a webdataset tar."""
    images = np.stack([_picture(w, row, start + i) for i, row in enumerate(rows)])
    return tar_bytes(
        images, [{"caption": row["caption"], "key": start + i} for i, row in enumerate(rows)], start
    )


def _picture(w: World, row: dict, i: int) -> np.ndarray:
    rng = np.random.default_rng(entropy(w.pool.seed, "copying", i))
    if row["test_copy_of"] >= 0:
        name, scene, seed = scene_of(w, row["kind"], "test", row["test_copy_of"])
        return near_copy(render(subject(row["kind"], name), scene, seed, w.image_size).pixels, rng)
    scene = Scene(**{name: row[name] for name in SCENE})
    thing = subject(row["kind"], row["cls"]) if row["cls"] else row["kind"]
    pixels = render(thing, scene, int(row["seed"]), w.image_size).pixels
    return near_copy(pixels, rng) if row["near"] else pixels


def near_copy(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same picture as another site shows it: cropped by up to 6 %, recoloured, and encoded as JPEG again."""
    side = len(pixels)
    left, top = rng.integers(0, max(2, side // 16), 2)
    width = side - int(rng.integers(0, max(2, side // 16)))
    box = (left, top, min(side, left + width), min(side, top + width))
    image = Image.fromarray(pixels).crop(box).resize((side, side), Image.Resampling.BICUBIC)
    tinted = np.asarray(image, np.float32) * rng.uniform(0.92, 1.08, 3) + rng.uniform(-6, 6)
    buffer = io.BytesIO()
    Image.fromarray(tinted.clip(0, 255).astype(np.uint8)).save(
        buffer, "jpeg", quality=int(rng.integers(80, 95))
    )
    return np.asarray(Image.open(buffer))
