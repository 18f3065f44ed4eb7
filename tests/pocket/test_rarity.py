"""The rare-class intervention: each pool keeps what the other lacks."""

import pytest

from helpers import worlds
from helpers.data import tables
from helpers.pocket.world import rarity


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny smoke world with a pool of its own in the store."""
    monkey = pytest.MonkeyPatch()
    monkey.setenv("STUDY_RUNS", str(tmp_path_factory.mktemp("runs")))
    tables.benchmark.cache_clear()
    pool = {"rows": 400, "shard_rows": 400, "benchmark_per_class": 2}
    yield worlds.get("smoke", pool=pool, scaling={"lots": 3})
    monkey.undo()


def test_each_thinned_pool_is_the_control_of_the_other(world):
    truth = rarity.open_pool(world).truth()
    lots = rarity.lots(world)
    rows = {lot: rarity.rows_of(world, lot) for lot in lots}
    counts = {lot: truth.iloc[r]["cls"].value_counts() for lot, r in rows.items()}
    full = truth[truth["kind"] == "flowers"]["cls"].value_counts()
    assert list(lots) == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert not set(lots["0a"]) & set(lots["0b"])
    assert len({frozenset(lots[f"{lot}a"]) for lot in range(3)}) > 1  # another lot, other classes
    assert all(len(names) == rarity.THINNED for names in lots.values())
    for lot, other in (("0a", "0b"), ("0b", "0a"), ("1a", "1b")):
        assert all(counts[lot].get(c, 0) <= rarity.KEPT for c in lots[lot])
        misnamed = truth.iloc[rows[lot]].query("said != cls and said != ''")["said"]
        assert not set(misnamed) & set(lots[lot])
        assert all(counts[other][c] > 0.8 * full[c] for c in lots[lot])
    assert set(truth.iloc[rows["0a"]]["kind"]) == {"flowers"}
