"""Rows per second of the text scan against SQLite FTS5, pandas and bare decoding of the captions.

Every method runs in a process of its own, on one core and one thread unless its name says
otherwise, over the same generated shards, which the page cache holds; methods take turns, round by
round. FTS5 and pandas are run on fewer rows, as they are slow; rates are per row. All but "decode"
write or return all columns of the rows they find.

What was tried for the 100 names, in seconds per 500,000 captions, where decoding TEXT takes 0.06 to
0.10 and the other columns 0.05 on the same core. Polars' contains_any takes 0.15, its regular
expressions 0.12 to 0.14, Hyperscan over the bytes of all captions 0.02, and laying these bytes end
to end 0.02. With Hyperscan 0.4 of the decoding rate is reached. What is left is parquet: the
columns of the matched rows alone (row index filter, filter on a column, any of polars' parallel
modes) cost 0.045 to 0.07, no less than all rows at once, as pages are decompressed in any case;
pyarrow reads both twice as slowly as polars.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from helpers.data import rules, scan
from helpers.engine import gpu
from tests.bench import laion

ROWS = 2_000_000
SHARD = 500_000  # rows; real ones have more, and what is paid once per shard counts for less
BASELINES = {"decode": "decode TEXT", "build": "FTS5, build and query", "query": "FTS5, prebuilt"}


def methods(rows: int) -> dict[str, tuple]:
    """Label -> (function, classes, rows it is run on, threads, argument)."""
    threads = gpu.cores()
    found = {
        BASELINES["decode"]: (decode, 100, rows, 1, ("TEXT",)),
        "decode all columns": (decode, 100, rows, 1, ()),
        **{f"scan, {rule}": (run_scan, 100, rows, 1, rule) for rule in rules.RULES},
        f"scan, substring, {threads} threads": (run_scan, 100, rows, threads, "substring"),
        BASELINES["build"]: (fts_build, 100, min(rows, 100_000), 1, None),
        BASELINES["query"]: (fts_query, 100, min(rows, 100_000), 1, None),
        "pandas str.contains": (run_pandas, 100, min(rows, 20_000), 1, None),
    }
    for n in (1_000, 10_000):
        found[f"scan, substring, {n:,} classes"] = (run_scan, n, min(rows, SHARD), 1, "substring")
        found[f"scan, word, {n:,} classes"] = (run_scan, n, min(rows, 200_000), 1, "word")
    return found


def _now() -> np.ndarray:
    """Seconds on the clock, and of processor time, which counts on a machine that others use."""
    return np.array([time.perf_counter(), time.process_time()])


def decode(shards, classes, columns, folder):
    """Read columns of the shards with polars, and do nothing with them."""
    import polars as pl

    start = _now()
    for shard in shards:
        pl.read_parquet(shard, columns=list(columns) or None)
    return _now() - start, None


def run_scan(shards, classes, rule, folder):
    """The scan of this study, all columns of the hits written."""
    import hyperscan  # noqa: F401 - importing it is no part of the scan
    import polars  # noqa: F401
    import pyarrow.parquet as pq

    threads = int(os.environ["POLARS_MAX_THREADS"])
    start = _now()
    plan = rules.plan(classes, rule)
    files = scan.write(shards, plan, folder / "out", threads=threads)
    return _now() - start, sum(pq.ParquetFile(f).metadata.num_rows for f in files)


def _fts_match(name: str) -> str:
    """What is asked for a class, as in [C]: a phrase with "-" or "/", otherwise all its tokens."""
    if "-" in name or "/" in name:
        return f'"{name}"'
    return " ".join(f'"{word}"' for word in name.split())


def _fts_tables(shards, path):
    import polars as pl

    tables = [pl.read_parquet(s) for s in shards]
    names = tables[0].columns
    base = sqlite3.connect(path)
    columns = ", ".join(name if name == "TEXT" else f"{name} UNINDEXED" for name in names)
    values = ", ".join("?" * len(names))
    start = _now()
    base.execute(f"CREATE VIRTUAL TABLE laion USING fts5({columns})")
    for table in tables:
        base.executemany(f"INSERT INTO laion VALUES ({values})", table.iter_rows())
    base.commit()
    return base, _now() - start


def _fts_select(base, classes):
    query = "SELECT * FROM laion WHERE TEXT MATCH ?"
    start = _now()
    found = sum(len(base.execute(query, (_fts_match(c),)).fetchall()) for c in classes)
    return _now() - start, found


def fts_build(shards, classes, _, folder):
    """SQLite FTS5, as [C] does it: build the index, then one MATCH per class, all columns."""
    base, built = _fts_tables(shards, folder / "fts.db")
    seconds, found = _fts_select(base, classes)
    return built + seconds, found


def fts_query(shards, classes, _, folder):
    """One MATCH per class in an FTS5 index that is already there and warm."""
    base, _ = _fts_tables(shards, folder / "fts.db")
    _fts_select(base, classes)
    return _fts_select(base, classes)


def run_pandas(shards, classes, _, folder):
    """pandas: a regular expression of all names finds rows, which are then tested per class."""
    import re

    import pandas as pd

    start = _now()
    pattern = "|".join(map(re.escape, classes))
    found = 0
    for shard in shards:
        table = pd.read_parquet(shard)
        hits = table[table["TEXT"].str.contains(pattern, case=False, na=False)]
        for name in classes:
            found += int(hits["TEXT"].str.contains(name, case=False, regex=False).sum())
    return _now() - start, found


def _child(label: str, rows: int, data: str) -> None:
    fn, n, limit, threads, argument = methods(rows)[label]
    if hasattr(os, "sched_setaffinity") and threads == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(dir=data) as folder:
        shards = sorted((Path(data) / f"{n}-{limit}").glob("*.parquet"))
        for shard in shards:
            shard.read_bytes()  # into the page cache
        seconds, found = fn(shards, laion.class_names(n), argument, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak /= 1e6 if sys.platform == "darwin" else 1e3
    print(json.dumps({"seconds": seconds[0], "cpu": seconds[1], "pairs": found, "peak": peak}))


def _measure(label: str, rows: int, data: str, threads: int) -> dict:
    environment = {
        **os.environ,
        "POLARS_MAX_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "STUDY_HEADLESS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.scan", label, str(rows), data],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main(rows: int | None, rounds: int) -> None:
    """Generate the shards, measure every method ``rounds`` times, print medians and ratios."""
    rows = rows or ROWS
    todo = methods(rows)
    with tempfile.TemporaryDirectory() as data:
        for n, limit in sorted({(n, limit) for _, n, limit, _, _ in todo.values()}):
            folder = Path(data) / f"{n}-{limit}"
            paths = laion.write(folder, limit, laion.class_names(n), max(1, limit // SHARD))
            size = sum(p.stat().st_size for p in paths) / limit
            print(f"{n:,} classes: {limit:,} rows, {size:.0f} bytes per row", flush=True)
        runs: dict[str, list[dict]] = {label: [] for label in todo}
        for _ in range(rounds):
            for label, (_, _, _, threads, _) in todo.items():
                runs[label].append(_measure(label, rows, data, threads))
    _report(todo, runs)


def _report(todo: dict[str, tuple], runs: dict[str, list[dict]]) -> None:
    rate = {
        label: statistics.median(todo[label][2] / r["seconds"] for r in results)
        for label, results in runs.items()
    }
    decoded, built, queried = (rate[BASELINES[b]] for b in ("decode", "build", "query"))
    rounds = len(runs[BASELINES["decode"]])
    print(
        f"\n{gpu.cores()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}, "
        f"{rounds} rounds"
    )
    heads = (
        "classes",
        "rows",
        "Mrows/s",
        "min",
        "max",
        "/ CPU-s",
        "/ decode",
        "/ build",
        "/ query",
        "peak MB",
        "pairs",
    )
    print(f"{'method':36s}" + "".join(f"{h:>10s}" for h in heads))
    for label, results in runs.items():
        _, n, rows, _, _ = todo[label]
        each = [rows / r["seconds"] / 1e6 for r in results]
        busy = statistics.median(rows / r["cpu"] / 1e6 for r in results)
        peak = max(r["peak"] for r in results)
        print(
            f"{label:36s}{n:10,d}{rows:10,d}{rate[label] / 1e6:10.3f}"
            f"{min(each):10.3f}{max(each):10.3f}{busy:10.3f}"
            f"{rate[label] / decoded:10.2f}{rate[label] / built:10.1f}{rate[label] / queried:10.2f}"
            f"{peak:10.0f}{results[0]['pairs'] or '':>10}"
        )
    against = ", ".join(f"/ {short} = against '{label}'" for short, label in BASELINES.items())
    print(f"\nratios of rates: {against} (warm); / CPU-s: Mrows per second of processor time")


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]), sys.argv[3])
