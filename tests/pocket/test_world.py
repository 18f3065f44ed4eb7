"""The pool is as dirty as announced; benchmarks and shifted sets are balanced and follow a seed."""

import dataclasses

import numpy as np
import pytest

from helpers import worlds
from helpers.errors import StudyError
from helpers.pocket.render.blueprints import AIRCRAFT
from helpers.pocket.render.pictures import render, subject
from helpers.pocket.world import benchmarks, pool, shifts

SMOKE = worlds.get("smoke")


def test_plan_is_dirty_as_announced():
    table = pool.plan(worlds.get("pocket", pool={"rows": 4_000}))
    planes = table[table["kind"] == "aircraft"]
    assert 0.37 < len(planes) / len(table) < 0.45
    assert 0.20 < (planes["caption_kind"] == "generic").mean() < 0.30
    wrong = planes[planes["caption_kind"] == "wrong"]
    assert len(wrong) and (wrong["said"] != wrong["cls"]).all()
    right = planes[planes["caption_kind"].isin(["class", "relation", "background"])]
    assert (right["said"] == right["cls"]).all()
    traps = table[table["caption_kind"] == "trap"]
    assert traps["caption"].str.contains("Tornado").any() and (traps["cls"] == "").all()
    assert (table["copy_of"] >= 0).sum() > 50 and (table["test_copy_of"] >= 0).sum() > 20


def test_class_frequencies_fall_by_the_announced_factor():
    shares = pool.class_shares(SMOKE, "aircraft")
    assert shares.sum() == pytest.approx(1)
    assert shares.max() / shares.min() == pytest.approx(pool.RAREST)


def test_public_columns_are_laions_and_tell_nothing_more():
    table = pool.plan(SMOKE).iloc[:50]
    public = pool.laion_columns(SMOKE, table, 0)
    columns = "SAMPLE_ID URL TEXT HEIGHT WIDTH LICENSE NSFW similarity"
    assert list(public) == columns.split()
    assert list(public["TEXT"]) == list(table["caption"]) and public["SAMPLE_ID"].is_unique


def test_near_copies_are_near():
    name, scene, seed = benchmarks.scene_of(SMOKE, "aircraft", "test", 0)
    image = render(subject("aircraft", name), scene, seed).pixels
    copy = pool.near_copy(image, np.random.default_rng(0))
    assert copy.shape == image.shape and not np.array_equal(copy, image)
    assert np.corrcoef(copy.ravel(), image.ravel())[0, 1] > 0.7


def test_pool_and_benchmark_on_disk(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    w = worlds.get("smoke", pool={"rows": 60, "shard_rows": 25, "benchmark_per_class": 2})
    pairs = pool.open_pool(w)
    assert len(pairs) == 60 == len(pairs.captions()) == len(pairs.truth())
    rows = np.array([59, 0, 30])
    assert np.array_equal(pairs.fetch(rows), np.stack([pairs.fetch([r])[0] for r in rows]))
    assert pairs.captions(rows).equals(pairs.captions().iloc[rows].reset_index(drop=True))
    assert len(pairs.captions([])) == 0
    with pytest.raises(StudyError, match=r"0 \.\. 59"):
        pairs.fetch([60])
    assert "pool: made" in capsys.readouterr().out
    pool.open_pool(w)
    assert capsys.readouterr().out == ""
    bench = benchmarks.benchmark(w, "aircraft")
    assert bench.test.images.shape == (48, 32, 32, 3) and len(bench.classes) == 24
    assert np.array_equal(np.bincount(bench.test.labels), np.full(24, 2))
    assert not np.array_equal(bench.train.images, bench.test.images)
    with pytest.raises(StudyError, match="flowers"):
        benchmarks.benchmark(w, "flower")


def test_details_table():
    table = benchmarks.details("aircraft")
    assert list(table.index) == list(AIRCRAFT) and table.loc["A380", "axles"] == 5
    assert {"petals", "shape"} <= set(benchmarks.details("flowers"))
    assert {"body", "doors"} <= set(benchmarks.details("cars"))


def test_unseen_keeps_the_object_and_replaces_the_rest():
    w = worlds.replace(SMOKE, image_size=64)
    rng = np.random.default_rng(0)
    name, scene, seed = benchmarks.scene_of(w, "aircraft", "unseen", 3)
    picture = render(subject("aircraft", name), dataclasses.replace(scene, style="photo"), seed, 64)
    dressed = shifts.redressed(picture, rng)
    inside, outside = picture.mask == 255, picture.mask == 0
    assert dressed.shape == picture.pixels.shape and dressed.dtype == np.uint8
    before, after = picture.pixels.max(2)[inside], dressed.max(2)[inside]
    tyres = np.argsort(before)[:10]
    assert after[tyres].mean() < 0.6 * after.mean()  # what is black stays darker than the coat
    assert np.abs(dressed[outside].astype(int) - picture.pixels[outside]).mean() > 20


def test_shifted_sets_are_balanced_and_repeat():
    first, again, unseen = (
        benchmarks.images(shifts.picture, SMOKE, "aircraft", shift, range(3))
        for shift in ("sketch", "sketch", "unseen")
    )
    assert np.array_equal(first, again)
    colour = np.ptp(first.astype(int), axis=3).mean()
    assert colour < np.ptp(unseen.astype(int), axis=3).mean()
    with pytest.raises(StudyError, match="task"):
        shifts.shifted(SMOKE, "boats")
