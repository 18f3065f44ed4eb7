"""Choosing rates, taking committed ones, and runs whose rows are kept beside the figures."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.engine import store
from helpers.errors import StudyError
from helpers.study import finetune, runs


@pytest.mark.parametrize(
    ("best", "further"), [(1e-4, {3e-5}), (3e-4, set()), (1e-3, {3e-3}), (5e-3, set())]
)
def test_a_grid_is_extended_at_its_edges_only(best, further):
    assert finetune.beyond((1e-3, 1e-4, 3e-4), best) == further
    assert finetune.beyond((best,), best) == set(), "one rate has no steps"


def test_where_every_rate_harms_lower_ones_are_tried(tmp_path, monkeypatch):
    """Validation accuracy by rate: at 240 images the grid's middle is best, and yet harmful."""
    harmful = {1e-3: 0.3, 3e-4: 0.45, 1e-4: 0.44, 3e-5: 0.43, 9e-6: 0.51, 3e-6: 0.5}
    asked = []

    def measured(path, w, wanted, held_out, label):
        assert held_out == "val"
        asked.extend(wanted)
        rows = []
        for run in wanted:
            known = harmful if run.n == 240 else {3e-4: 0.7}
            value = 0.5 if run.source == "clip" else known.get(run.lr, 0.495)
            scores = dict.fromkeys(finetune.METRICS, value)
            rows.append({**dataclasses.asdict(run), **scores})
        return pd.DataFrame(rows)

    monkeypatch.setattr(finetune, "measured", measured)
    w = worlds.get("desk", finetune={"lrs": (1e-3, 3e-4, 1e-4), "selection_seeds": 2})
    cells = [("cars", "synthetic", "keep", n) for n in (240, 480)]
    chosen = finetune.choose_rates(tmp_path, w, cells)
    assert set(chosen[chosen["n"] == 240]["lr"]) == {9e-6}
    assert set(chosen[chosen["n"] == 480]["lr"]) == {3e-4}
    tried = {run.n: {r.lr for r in asked if r.n == run.n} for run in asked if run.n}
    assert tried[240] == set(harmful) and tried[480] == {1e-3, 3e-4, 1e-4}


def test_selection_has_seeds_of_its_own():
    desk = worlds.WORLDS["desk"]
    assert len(finetune.selection(desk.finetune)) == 5
    assert not set(finetune.selection(desk.finetune)) & set(range(1_000))


def test_sizes_stop_where_a_task_is_told_to():
    desk = worlds.WORLDS["desk"]
    assert finetune.sizes_of(desk, "aircraft")[-1] == 3_840
    assert finetune.sizes_of(desk, "cars")[-1] == 960


def test_the_recipe_leaves_out_which_runs_there_are():
    desk = worlds.WORLDS["desk"]
    more = worlds.replace(desk, finetune={"seeds": 40, "sizes": (30, 60)})
    other = worlds.replace(desk, finetune={"epochs": 7})
    assert finetune.recipe(more) == finetune.recipe(desk) != finetune.recipe(other)


RATES = pd.DataFrame(
    [
        (task, source, keep, n, metric, lr, 0.5)
        for task in ("aircraft",)
        for source, keep in (("retrieved", "keep:word+top"), ("synthetic", "keep"))
        for n, lr in ((30, 1e-4), (480, 3e-4))
        for metric in finetune.METRICS
    ],
    columns=[*finetune.CELL, "metric", "lr", "val"],
)


@pytest.fixture
def offered(monkeypatch, tmp_path):
    """Committed rates, and enough images of both sources, without drawing any."""
    monkeypatch.setattr(finetune, "RATES", tmp_path / "rates.csv")
    store.write(finetune.RATES, RATES.to_csv(index=False).encode())
    monkeypatch.setattr(finetune.tables, "source_set", lambda *about: range(2_000))


def test_committed_rates_are_those_of_the_nearest_size(offered, tmp_path):
    w = worlds.get("pocket", tasks=("aircraft",), finetune={"sizes": (40, 130, 400)})
    chosen = finetune.committed(tmp_path, w)
    rates = chosen[chosen["metric"] == "zero_shot"].set_index(["source", "n"])["lr"]
    assert rates["retrieved"].to_dict() == {40: 1e-4, 130: 3e-4, 400: 3e-4}
    assert rates["synthetic", 800] == 3e-4
    variant = store.read_table(tmp_path / "variants.parquet").iloc[0]
    assert variant["keep"] == "keep:word+top" and variant["chosen"]


def test_a_task_without_committed_rates_says_what_to_do(offered, tmp_path):
    w = worlds.get("pocket", tasks=("cars",))
    with pytest.raises(StudyError, match=r"no learning rates for 'cars'.*selection_seeds"):
        finetune.committed(tmp_path, w)


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """Store and figures in a folder of their own, jobs in this process."""
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(finetune.places, "TOP", tmp_path)
    monkeypatch.setattr(store.workers.gpu, "cores", lambda: 1)


KEEPING = dataclasses.replace(worlds.WORLDS["smoke"], name="desk", keeps_runs=True)


def squared(number):
    """A run that leaves a row, with classes packed."""
    with (squared.calls).open("a") as file:
        file.write("x")
    return pd.DataFrame(
        [{"n": number, "value": number**2 / 3, "answers": runs.packed([number, 1])}]
    )


def test_kept_runs_are_not_run_again_and_new_ones_are_added(in_process, tmp_path):
    squared.calls = tmp_path / "calls"

    def collected(folder, numbers, recipe="a"):
        squared.calls.write_text("")
        jobs = {f"runs/{i}.parquet": (i,) for i in numbers}
        table = runs.collect(tmp_path / folder, KEEPING, "04", recipe, jobs, squared, "runs")
        return table, len(squared.calls.read_text())

    first, ran = collected("first", range(3))
    assert ran == 3
    again, ran = collected("second", range(5))
    assert ran == 2, "on another machine only what is missing"
    assert np.array_equal(again["value"][:3], first["value"])
    assert [runs.unpacked(x).tolist() for x in again["answers"]] == [[i, 1] for i in range(5)]
    _, ran = collected("third", range(2), recipe="b")
    assert ran == 2, "rows of another recipe do not count"
    kept = runs.kept(KEEPING, "04")
    assert kept["n"].dtype == int, "whole numbers stay whole"
    assert kept.groupby("recipe").size().to_dict() == {"1-a": 5, "1-b": 2}


def test_what_is_missing_is_known_before_it_is_run(in_process, tmp_path):
    squared.calls = tmp_path / "calls"
    jobs = {f"runs/{i}.parquet": (i,) for i in range(3)}
    runs.collect(tmp_path / "first", KEEPING, "04", "a", jobs, squared, "runs")
    more = [*jobs, "runs/3.parquet"]
    assert runs.missing(tmp_path / "second", KEEPING, "04", "a", more) == ["runs/3.parquet"]
    written = pd.read_parquet(tmp_path / "second/runs/2.parquet")
    pd.testing.assert_frame_equal(written, pd.read_parquet(tmp_path / "first/runs/2.parquet"))
    assert runs.missing(tmp_path / "third", KEEPING, "04", "b", more) == more
    w = dataclasses.replace(KEEPING, keeps_runs=False)
    assert runs.missing(tmp_path / "first", w, "04", "a", more) == ["runs/3.parquet"]


def test_other_worlds_keep_no_rows(in_process, tmp_path):
    squared.calls = tmp_path / "calls"
    w = dataclasses.replace(KEEPING, keeps_runs=False)
    runs.collect(tmp_path / "only", w, "05", "a", {"1.parquet": (1,)}, squared, "runs")
    assert not len(runs.kept(KEEPING, "05"))


def meanwhile(number):
    """A run during which another one of the same notebook ends, and keeps its row."""
    if number == 1:
        jobs = {"runs/7.parquet": (7,)}
        runs.collect(meanwhile.folder / "other", KEEPING, "04", "b", jobs, meanwhile, "runs")
    return pd.DataFrame([{"n": number, "value": number / 3, "answers": runs.packed([number])}])


def test_two_runs_at_once_keep_the_rows_of_both(in_process, tmp_path):
    meanwhile.folder = tmp_path
    jobs = {f"runs/{i}.parquet": (i,) for i in range(3)}
    runs.collect(tmp_path / "one", KEEPING, "04", "a", jobs, meanwhile, "runs")
    kept = runs.kept(KEEPING, "04")
    assert kept.groupby("recipe")["n"].agg(list).to_dict() == {"1-a": [0, 1, 2], "1-b": [7]}
