"""From retrieved rows to images: img2dataset behind polite.py, as in [C], and what did not come.

Every row ends with an outcome (downloaded, refused: why, failed: why), refusals are never retried,
and what is lost is reported per class.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from helpers.data import columns
from helpers.engine import progress, store, workers
from helpers.errors import StudyError
from helpers.paper.download import shards
from helpers.paper.download.polite import AGENT, NOT_AN_IMAGE, NOT_HTTP, Limits

COLUMNS = ("SAMPLE_ID", "url", "TEXT", "class")
OUTCOME = ["key", "outcome"]  # columns that a download adds
KEPT_BESIDE = ("SAMPLE_ID", "NSFW", "similarity", "LICENSE")  # columns of shards, beside captions
DOWNLOADED = "downloaded"
UNKNOWN = "failed: unknown"
FETCHED = 200_000  # bytes per image, roughly, as the web sends it
KEPT = 25_000  # bytes per image, roughly, at 256 pixels


def download(
    rows: pd.DataFrame, folder: Path, limits: Limits | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Download the images of retrieved ``rows`` into ``folder``, as shards for ``open_pool``.

    ``rows`` has ``COLUMNS``, and perhaps ``KEPT_BESIDE`` and others; an address named by several
    rows is fetched once. A killed download goes on at its first unfinished shard; the bytes of
    shards do not depend on threads or processes. Returns ``rows`` with ``key`` (in the shards) and
    ``outcome``; per class ``wanted, downloaded, lost`` (share) and the most frequent ``reason``.
    Raises ``StudyError`` on rows that ``checked`` refuses, a folder that cannot be written to, is
    in use or holds another download, and a killed process.
    """
    limits = limits or Limits()
    folder = Path(folder)
    rows = checked(rows)
    wanted = plan(rows)
    extra = [c for c in wanted if c not in ("url", "TEXT")]
    with _alone(folder):
        _claim(folder, wanted, limits.shard_rows)
        done = {int(f.name.split("_")[0]) for f in folder.glob("*_stats.json")}
        number = math.ceil(len(wanted) / limits.shard_rows)
        there = f"{len(done)} of {number} shards are there"
        progress.say(f"download: {len(rows):,} rows name {costs(wanted, folder, limits)}; {there}")
        store.check_disk(folder, KEPT * max(len(wanted) - len(done) * limits.shard_rows, 0))
        with store.writing(folder):
            scratch = folder / "_tmp"
            shutil.rmtree(scratch, ignore_errors=True)  # of a download that was killed
            for half_written in folder.rglob("*.tmp"):
                half_written.unlink()
            table = wanted.rename(columns={"TEXT": "caption"})
            size = limits.shard_rows
            jobs = [(i, table[i * size :][:size].reset_index(drop=True)) for i in range(number)]
            jobs = [job for job in jobs if job[0] not in done]
            with tempfile.TemporaryDirectory() as plain:  # img2dataset takes "a::b" for two places
                link = Path(plain, "folder")
                link.symlink_to(folder.resolve())
                work = shards.Downloader(link, extra, limits)
                finished = workers.starmap(work, jobs, uses_gpu=False)
                list(progress.over(finished, "shards downloaded", len(jobs)))
            shutil.rmtree(scratch, ignore_errors=True)
        return _report(rows, folder)


def checked(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with one spelling of columns; ``StudyError`` on a column that is missing or bad."""
    rows = rows.drop(columns=OUTCOME, errors="ignore")  # of an earlier download
    names = columns.named(list(rows))
    missing = ", ".join(c for c in COLUMNS if c.replace("url", "URL") not in (*names, *rows))
    if missing:
        problem = f"the rows to download have no column {missing}; they have {', '.join(rows)}"
        raise StudyError(f"{problem}. Give the table of retrieved rows with {', '.join(COLUMNS)}.")
    if not len(rows):
        advice = "Loosen the retrieval rule, or look whether the pool's captions name the classes."
        raise StudyError(f"there are no rows to download. {advice}")
    where = "the table of rows to download"
    table = columns.of_pandas(rows, where)
    columns.texts(table["class"], where)
    return table.to_pandas().rename(columns={"URL": "url"})


def plan(rows: pd.DataFrame) -> pd.DataFrame:
    """What is asked for: a row per address, in order, but none tagged NSFW ([C]; UNSURE stays).

    Classes are left out, as a pool knows none. Raises ``StudyError`` when nothing is left.
    """
    kept = [c for c in rows if c in ("url", "TEXT", *KEPT_BESIDE)]
    wanted = rows.loc[rows["NSFW"] != "NSFW", kept].drop_duplicates("url", ignore_index=True)
    if not len(wanted):
        problem = f"all {len(rows)} rows are tagged NSFW, so there is nothing to download"
        raise StudyError(f"{problem}. Look at the pool's NSFW column.")
    return wanted


def costs(wanted: pd.DataFrame, folder: Path, limits: Limits) -> str:
    """What a download costs; the time is that of the host that is asked most often."""
    n = len(wanted)
    hosts = wanted["url"].str.extract(r"^\w+://([^/]+)")[0].value_counts()
    minutes = (hosts.max() if len(hosts) else 0) / limits.per_host / 60
    return (
        f"{n:,} images on {len(hosts):,} hosts; about {FETCHED * n / 1e9:.2g} GB to fetch and "
        f"{KEPT * n / 1e9:.2g} GB to keep in {folder}, at least {minutes:.0f} minutes at "
        f"{limits.per_host:g} images/s per host"
    )


def _report(rows: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write down, and return, what became of every row, and what was lost per class."""
    files = sorted((folder / "report").glob("[0-9]*.parquet"))
    parts = pd.concat(map(store.read_table, files), ignore_index=True)
    # What img2dataset's ``status`` and ``error_message`` say in a few words.
    message = parts["error_message"].fillna("").astype(str)
    known = message.str.startswith(("refused: ", "failed: "))
    parts["outcome"] = message.where(known, UNKNOWN)
    parts.loc[message.str.startswith("unknown url type"), "outcome"] = NOT_HTTP  # says urllib
    parts.loc[parts["status"] == "failed_to_resize", "outcome"] = NOT_AN_IMAGE
    parts.loc[parts["status"] == "success", "outcome"] = DOWNLOADED
    rows = rows.merge(parts[["url", *OUTCOME]], on="url", how="left")
    rows["outcome"] = rows["outcome"].fillna(UNKNOWN)
    if "NSFW" in rows:
        rows.loc[rows["NSFW"] == "NSFW", OUTCOME] = None, "refused: tagged NSFW"
    losses = []
    for name, outcomes in rows.groupby("class", dropna=False)["outcome"]:
        lost = outcomes[outcomes != DOWNLOADED]
        n = len(outcomes)
        losses.append((name, n, n - len(lost), len(lost) / n, next(iter(lost.mode()), "")))
    loss = pd.DataFrame(losses, columns=["class", "wanted", "downloaded", "lost", "reason"])
    store.write(folder / "report" / "rows.parquet", rows)
    store.write(folder / "report" / "loss.csv", loss.to_csv(index=False).encode())
    return rows, loss


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which goes with the process when it is killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as e:
        raise StudyError(f"cannot write to {folder}: {e.strerror}. Give another folder.") from e
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise StudyError(f"another process downloads into {folder}. Wait for it.") from e
        yield


def _claim(folder: Path, wanted: pd.DataFrame, shard_rows: int) -> None:
    """Write down what this folder is for. Raises ``StudyError`` when it is for something else."""
    digest = hashlib.sha256("\n".join(wanted["url"]).encode()).hexdigest()
    mine = {"addresses": len(wanted), "sha256": digest, "shard_rows": shard_rows, "agent": AGENT}
    file = folder / "report" / "plan.json"
    found = json.loads(file.read_text()) if file.exists() else None
    if found not in (None, mine):
        there = f"{found['addresses']:,} addresses in shards of {found['shard_rows']:,}"
        asked = f"now {len(wanted):,} in shards of {shard_rows:,} are wanted"
        advice = "Give another folder, or delete that one."
        raise StudyError(f"{folder} holds another download: {there}, {asked}. {advice}")
    if not found and (any(folder.glob("*.tar")) or any(folder.glob("*.parquet"))):
        raise StudyError(f"{folder} has shards that this download did not make. Give another.")
    store.write(file, mine)
