"""Scaling: fits recover known exponents, ensembles equal single trainings, metrics by hand, shifted sets, arms by one factor."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.data import tables
from helpers.errors import StudyError
from helpers.measure import fits
from helpers.measure.metrics import frechet
from helpers.models import heads
from helpers.pocket.world import rarity, shifts
from helpers.study import arms, pairs, scaling

W = worlds.get("smoke")
SIZES = np.array([12, 24, 48, 96, 192, 384, 768])


def runs_of(curve, noise=0.0, seeds=4):
    rng = np.random.default_rng(0)
    n, seed = np.repeat(SIZES, seeds), np.tile(np.arange(seeds), len(SIZES))
    return n, curve(n) * np.exp(noise * rng.normal(size=len(n))), seed


@pytest.mark.parametrize("k", [0.05, 0.25, 0.53])
def test_power_law_recovers_the_exponent_inside_its_interval(k):
    law = fits.power_law(*runs_of(lambda n: 3.0 * n**-k, 0.03), 24, 384, np.random.default_rng(1))
    assert (
        law.k == pytest.approx(k, abs=0.03)
        and law.k_low <= law.k <= law.k_high
        and law.k_high - law.k_low < 0.1
    )
    assert (law.n_min, law.n_max, law.points) == (24, 384, 5)
    assert law.loss([100])[0] == pytest.approx(3.0 * 100**-k, rel=0.06)


def test_points_outside_the_declared_range_do_not_count():
    n, loss, seed = runs_of(lambda n: 3.0 * n**-0.3)
    bent = np.where((n < 24) | (n > 384), 99.0, loss)
    assert fits.power_law(n, bent, seed, 24, 384, np.random.default_rng(0)).k == pytest.approx(0.3)


def test_saturation_is_preferred_only_where_there_is_a_floor():
    bent = fits.saturating(*runs_of(lambda n: 0.8 + 6.0 * n**-0.7, 0.01)[:2], 12, 768)
    straight = fits.saturating(*runs_of(lambda n: 3.0 * n**-0.3, 0.01)[:2], 12, 768)
    assert (
        bent.preferred
        and bent.floor == pytest.approx(0.8, abs=0.1)
        and bent.k == pytest.approx(0.7, abs=0.12)
    )
    assert not straight.preferred


def test_fits_refuse_what_they_cannot_fit():
    n, loss, seed = runs_of(lambda n: 3.0 * n**-0.3)
    with pytest.raises(StudyError, match="at least 3 sizes"):
        fits.power_law(n, loss, seed, 300, 1_000, np.random.default_rng(0))
    with pytest.raises(StudyError, match="above 0"):
        fits.saturating(n, 0 * loss, 12, 768)
    with pytest.raises(StudyError, match="every seed"):
        fits.power_law(n[1:], loss[1:], seed[1:], 12, 768, np.random.default_rng(0))


def test_rank_correlation_by_hand():
    x = np.arange(20)
    assert fits.rank_correlation(x, x**3, np.random.default_rng(0))[0] == pytest.approx(1)
    rho, low, high = fits.rank_correlation(
        x, np.random.default_rng(3).permutation(20), np.random.default_rng(0)
    )
    assert low <= rho <= high and low < 0 < high
    assert np.isnan(fits.rank_correlation(x, 0 * x, np.random.default_rng(0))[0])


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    x = np.eye(3)[labels] @ rng.normal(size=(3, 16)) + 0.7 * rng.normal(size=(120, 16))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return np.stack([x, x]), labels


def test_a_member_does_not_depend_on_its_neighbours(blobs):
    features, labels = blobs
    subsets, seeds = [np.arange(6), np.arange(60), np.arange(30)], [5, 6, 5]
    together = heads.train(features, labels, subsets, seeds, 3, W.scaling)
    alone = heads.train(features, labels, subsets[1:2], seeds[1:2], 3, W.scaling)
    for a, b in zip(together.parameters, alone.parameters, strict=True):
        assert np.allclose(a[1].numpy(), b[0].numpy(), atol=1e-3)
    untrained = heads.start(16, 3, seeds, 8).parameters[0]
    assert (untrained[0] == untrained[2]).all() and not (untrained[0] == untrained[1]).all()


def test_heads_learn_and_are_measured_per_class(blobs):
    features, labels = blobs
    trained = heads.train(
        features[:, :90], labels[:90], [np.arange(3), np.arange(90)], [0, 0], 3, W.scaling
    )
    loss, top1 = heads.evaluate(trained, features[0, 90:], labels[90:], 3)
    assert (
        loss.shape == top1.shape == (2, 3)
        and loss[1].mean() < loss[0].mean()
        and top1[1].mean() > 0.8
    )
    with pytest.raises(StudyError, match="without images"):
        heads.train(features, labels, [np.zeros(0, int)], [0], 3, W.scaling)


def test_spread_and_pairwise_distance_by_hand():
    assert scaling.spread(np.array([[0.0, 0.0], [2.0, 0.0]])) == pytest.approx(1.0)
    assert scaling.pairwise(np.array([[3.0, 0.0], [0.0, 5.0]])) == pytest.approx(2**0.5)
    assert np.isnan(scaling.spread(np.ones((1, 4)))) and np.isnan(scaling.pairwise(np.ones((1, 4))))


def test_frechet_of_shifted_gaussians():
    rng = np.random.default_rng(0)
    a, b = (
        rng.normal(size=(4_000, 4)).astype(np.float32),
        rng.normal(size=(4_000, 4)).astype(np.float32),
    )
    assert frechet(a, b) < 0.05 and frechet(a, b + [2, 0, 0, 0]) == pytest.approx(4, abs=0.2)


def test_drawn_arms_differ_from_the_default_in_one_factor():
    every = arms.arms(worlds.get("pocket"))
    base = every["synthetic"]
    for arm in arms.drawn(worlds.get("pocket")).values():
        changed = [
            f for f in ("prompt", "guidance", "generator") if getattr(arm, f) != getattr(base, f)
        ]
        assert len(changed) == 1, arm
    guidances = {
        a.guidance for a in every.values() if a.source == "synthetic" and a.prompt == arms.DEFAULT
    }
    assert {1.0, 7.5} <= guidances and len(guidances) >= 5
    keys = [(a.source, a.prompt, a.guidance) for a in every.values()]
    assert len(set(keys)) == len(keys)  # so that a row of the tables names its arm


def test_published_worlds_double_their_sizes():
    for name in ("pocket", "workstation", "paper"):
        sizes = np.array(worlds.get(name).scaling.sizes)
        assert len(sizes) >= 6 and (sizes[1:] == 2 * sizes[:-1]).all()


def test_unseen_keeps_the_object_and_replaces_the_rest():
    w = worlds.replace(W, image_size=64)
    rng = np.random.default_rng(0)
    name, scene, seed = shifts.scene_of(w, "aircraft", "unseen", 3)
    picture = shifts.render(
        shifts.subject("aircraft", name), dataclasses.replace(scene, style="photo"), seed, 64
    )
    dressed = shifts.redressed(picture, rng)
    inside, outside = picture.mask == 255, picture.mask == 0
    assert dressed.shape == picture.pixels.shape and dressed.dtype == np.uint8
    before, after = picture.pixels.max(2)[inside], dressed.max(2)[inside]
    tyres = np.argsort(before)[:10]
    assert after[tyres].mean() < 0.6 * after.mean()  # what is black stays darker than the coat
    assert np.abs(dressed[outside].astype(int) - picture.pixels[outside]).mean() > 20


def test_shifted_sets_are_balanced_and_repeat():
    first, again = (shifts.images_of(W, "aircraft", "sketch", 0, 3) for _ in range(2))
    assert np.array_equal(first, again)
    colour = np.ptp(first.astype(int), axis=3).mean()
    assert (
        colour < np.ptp(shifts.images_of(W, "aircraft", "unseen", 0, 3).astype(int), axis=3).mean()
    )
    with pytest.raises(StudyError, match="task"):
        shifts.shifted(W, "boats")


def test_per_class_slopes_and_totals_from_runs():
    rows = [
        {
            "arm": "synthetic",
            "n": n,
            "seed": s,
            "eval_set": "test",
            "class": c,
            "images": m,
            "loss": 4 * n**-k,
            "top1": 0.5,
        }
        for n in (24, 48, 96)
        for s in (0, 1)
        for c, k, m in (("A320", 0.5, 10), ("A380", 0.0, 30))
    ]
    table = scaling.per_class(pd.DataFrame(rows), "synthetic", 24, 96).set_index("class")
    assert table.loc["A320", "k"] == pytest.approx(0.5) and table.loc["A380", "k"] == pytest.approx(
        0, abs=1e-9
    )
    total = scaling.tidy(W, pd.DataFrame(rows))
    assert len(total) == 6 and total["loss"].iloc[0] == pytest.approx(
        (10 * 4 * 24**-0.5 + 30 * 4) / 40
    )
    assert set(scaling.RUN) <= set(total) and (total["source"] == "synthetic").all()


def test_published_points_are_complete_and_marked_by_family():
    from helpers import paper, pocket

    table = paper.published(worlds.get("paper"))
    assert table.groupby("family").size().to_dict() == {"language-supervised": 12, "supervised": 12}
    one = table[(table["prompt"] == "captions") & (table["n"] == 16_000_000)].iloc[0]
    assert (one["top1"], one["loss"]) == (0.604, 1.81) and table["top1"].between(0, 1).all()
    assert not len(pocket.published(W)) and list(pocket.published(W)) == list(table)


@pytest.fixture(scope="module")
def store_of(tmp_path_factory):
    """A tiny smoke world with a pool of its own in the store."""
    monkey = pytest.MonkeyPatch()
    monkey.setenv("STUDY_RUNS", str(tmp_path_factory.mktemp("runs")))
    tables.benchmark.cache_clear()
    yield worlds.get("smoke", pool={"rows": 400, "shard_rows": 400, "benchmark_per_class": 2})
    monkey.undo()


def test_prompts_with_descriptions_and_train_captions(store_of):
    table = arms.prompts(store_of, "aircraft", "class and description").set_index("class")[
        "caption"
    ]
    assert table["A380"].startswith("A380, 5 axles") and len(table) == 24
    captions = arms.prompts(store_of, "flowers", "training captions")
    assert len(captions) == 28 and all(
        c.lower() in t.lower() for c, t in zip(captions["class"], captions["caption"], strict=True)
    )
    assert set(arms.LEAKS) == {"alt text", "training captions"}
    with pytest.raises(
        StudyError, match="unknown kind of prompt 'template'. Did you mean 'templates'"
    ):
        arms.prompts(store_of, "aircraft", "template")


def test_prompts_nobody_wrote_are_refused(monkeypatch):
    bench = tables.Benchmark(
        "cars",
        ("a",),
        "car",
        "",
        ("{}",),
        (),
        pd.DataFrame(),
        *[tables.Split(np.zeros(0), np.zeros(0))] * 3,
    )
    monkeypatch.setattr(tables, "benchmark", lambda w, task: bench)
    for kind in ("class and description", "training captions"):
        with pytest.raises(StudyError, match="take it out of scaling prompts"):
            arms.prompts(W, "cars", kind)
    assert not {"class and description", "training captions"} & set(
        worlds.get("paper").scaling.prompts
    )


def test_each_thinned_pool_is_the_control_of_the_other(store_of):

    truth, lots = rarity.open_pool(store_of).truth(), rarity.lots(store_of)
    rows = {lot: rarity.rows_of(store_of, lot) for lot in lots}
    counts = {lot: truth.iloc[r]["cls"].value_counts() for lot, r in rows.items()}
    full = truth[truth["kind"] == "flowers"]["cls"].value_counts()
    assert not set(lots["a"]) & set(lots["b"]) and all(
        len(v) == rarity.THINNED for v in lots.values()
    )
    for lot, other in (("a", "b"), ("b", "a")):
        assert all(counts[lot].get(c, 0) <= rarity.KEPT for c in lots[lot])
        assert not set(truth.iloc[rows[lot]].query("said != cls and said != ''")["said"]) & set(
            lots[lot]
        )
        assert all(counts[other][c] > 0.8 * full[c] for c in lots[lot])
    assert set(truth.iloc[rows["a"]]["kind"]) == {"flowers"}


def test_thinning_is_paired_by_class(tmp_path):
    plan = [(p, c, (p, c) in {("a", "x"), ("b", "y")}) for p in "ab" for c in "xyz"]
    classes = pd.DataFrame(
        [
            {
                "pool": p,
                "class": c,
                "thinned": t,
                "pairs": 9,
                "retrieved": 5 - 4 * t,
                "recognizability": 0.8 - 0.5 * t,
                "hit": 0.5,
            }
            for p, c, t in plan
        ]
    )
    runs = pd.DataFrame(
        [
            {
                "arm": p,
                "n": n,
                "seed": s,
                "eval_set": "test",
                "class": c,
                "images": 1,
                "loss": 3 * n ** (-0.1 if t else -0.4),
                "top1": 0.5,
            }
            for p, c, t in plan
            for n in (3, 6, 12)
            for s in (0, 1)
        ]
    )
    for name, table in (("classes", classes), ("runs", runs)):
        table.to_parquet(tmp_path / f"{name}.parquet")
    table, turned = scaling.intervention(W, scaling.store.Artifact("rarity", tmp_path))
    turned = turned.set_index("quantity")["difference"]
    assert (
        len(table) == 6
        and turned["k"] == pytest.approx(-0.3)
        and turned["retrieved"] == -4
        and turned["loss"] > 0
    )


def test_sources_of_pairs_share_their_captions(tmp_path, monkeypatch):
    labels = np.arange(12) % 3
    facts = pd.DataFrame({"caption": [f"text {i}" for i in range(12)], "row": np.arange(12)})
    real, drawn = (tables.Split(np.full((12, 2, 2, 3), v, np.uint8), labels, facts) for v in (1, 2))
    monkeypatch.setattr(pairs, "both", lambda w, path: (real, drawn))
    bench = tables.Benchmark("t", ("a", "b", "c"), "", "", (), (), None, real, real, real)
    monkeypatch.setattr(pairs.tables, "benchmark", lambda w, task: bench)
    monkeypatch.setattr(worlds.backend(W), "shifted", lambda w, task: {"far": drawn})
    seen = {}
    monkeypatch.setattr(pairs.families, "train", lambda w, family, images, *_: images)
    monkeypatch.setattr(
        pairs.evaluation,
        "logits",
        lambda model, images: seen.setdefault("train", []).append(model) or np.eye(3)[labels],
    )
    for source in pairs.SOURCES:
        assert pairs.run(W, tmp_path, source, 6, 0)[
            ["source", "n", "top1", "shifted"]
        ].to_numpy().tolist() == [[source, 6, 1.0, 1.0]]
    texts = [split.facts["caption"].tolist() for split in seen["train"][::2]]
    assert texts[0] == texts[1] == texts[2] and len(set(texts[0])) == 6
    assert [split.images.mean() for split in seen["train"][::2]] == [
        1,
        2,
        1.5,
    ]  # every other call asks about the shifted set
