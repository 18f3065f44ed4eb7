"""Generated image-text metadata with LAION's columns and LAION-like captions, for benchmarks."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

AIRCRAFT = (  # FGVC-Aircraft's 100 variants
    "707-320",
    "727-200",
    "737-200",
    "737-300",
    "737-400",
    "737-500",
    "737-600",
    "737-700",
    "737-800",
    "737-900",
    "747-100",
    "747-200",
    "747-300",
    "747-400",
    "757-200",
    "757-300",
    "767-200",
    "767-300",
    "767-400",
    "777-200",
    "777-300",
    "A300B4",
    "A310",
    "A318",
    "A319",
    "A320",
    "A321",
    "A330-200",
    "A330-300",
    "A340-200",
    "A340-300",
    "A340-500",
    "A340-600",
    "A380",
    "ATR-42",
    "ATR-72",
    "An-12",
    "BAE 146-200",
    "BAE 146-300",
    "BAE-125",
    "Beechcraft 1900",
    "Boeing 717",
    "C-130",
    "C-47",
    "CRJ-200",
    "CRJ-700",
    "CRJ-900",
    "Cessna 172",
    "Cessna 208",
    "Cessna 525",
    "Cessna 560",
    "Challenger 600",
    "DC-10",
    "DC-3",
    "DC-6",
    "DC-8",
    "DC-9-30",
    "DH-82",
    "DHC-1",
    "DHC-6",
    "DHC-8-100",
    "DHC-8-300",
    "DR-400",
    "Dornier 328",
    "E-170",
    "E-190",
    "E-195",
    "EMB-120",
    "ERJ 135",
    "ERJ 145",
    "Embraer Legacy 600",
    "Eurofighter Typhoon",
    "F-16A/B",
    "F/A-18",
    "Falcon 2000",
    "Falcon 900",
    "Fokker 100",
    "Fokker 50",
    "Fokker 70",
    "Global Express",
    "Gulfstream IV",
    "Gulfstream V",
    "Hawk T1",
    "Il-76",
    "L-1011",
    "MD-11",
    "MD-80",
    "MD-87",
    "MD-90",
    "Metroliner",
    "Model B200",
    "PA-28",
    "SR-20",
    "Saab 2000",
    "Saab 340",
    "Spitfire",
    "Tornado",
    "Tu-134",
    "Tu-154",
    "Yak-42",
)
FOREIGN = (
    "café",
    "naïve",
    "Übersee",
    "garçon",
    "piñata",
    "фото",
    "самолёт",
    "飛行機",
    "写真",
    "꽃",
    "🌹",
    "\N{EN DASH}",
    "№",
    "½",
)
NSFW = np.array(["UNLIKELY", "UNSURE", "NSFW"])


def vocabulary() -> list[str]:
    """The whole words of CLIP's byte-pair vocabulary, most frequent merges first.

    The file ships with open_clip.
    """
    folder = Path(importlib.util.find_spec("open_clip").origin).parent
    with gzip.open(folder / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as f:
        merges = f.read().split("\n")[1:48_895]
    words = ["".join(m.split()).removesuffix("</w>") for m in merges if m.endswith("</w>")]
    return [w for w in dict.fromkeys(words) if w.isascii() and w.isalnum()]


def class_names(n: int) -> list[str]:
    """``n`` class names: the 100 aircraft, or two-word names of rare words, all different."""
    if n == len(AIRCRAFT):
        return list(AIRCRAFT)
    rare = [w for w in vocabulary()[4_000:] if len(w) > 3]
    rng = np.random.default_rng(n)
    names = {f"{rare[a]} {rare[b]}": None for a, b in rng.integers(len(rare), size=(2 * n, 2))}
    return list(names)[:n]


def captions(rows: int, classes: list[str], rng: np.random.Generator, planted: float = 1e-4):
    """Arrow array of ``rows`` captions: words by Zipf's law, 65 bytes on average.

    Of 1,000 captions 2 are null, and of the words 1.5 % are not ASCII. Each class stands in a share
    ``planted`` of the rows (all classes together in at most a tenth), in mixed case.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    words = vocabulary()
    share = min(planted * len(classes), 0.1)
    names = [f(c) for c in classes for f in (str, str.lower, str.upper)]
    values = pa.array([*words, *FOREIGN, *names])
    frequency = 1 / (np.arange(len(words)) + 10.0)
    length = np.clip(rng.lognormal(2.4, 0.55, rows), 1, 60).astype(np.int64)
    ends = np.cumsum(length)
    index = rng.choice(len(words), ends[-1], p=frequency / frequency.sum())
    foreign = rng.random(len(index)) < 0.015
    index[foreign] = len(words) + rng.integers(len(FOREIGN), size=foreign.sum())
    hit = np.flatnonzero(rng.random(rows) < share)
    index[(ends - length)[hit] + rng.integers(length[hit])] = (
        len(words) + len(FOREIGN) + rng.integers(len(names), size=len(hit))
    )
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, values.take(pa.array(index)))
    null = pa.array(rng.random(rows) < 0.002)
    return pc.if_else(null, pa.scalar(None, pa.string()), pc.binary_join(lists, " "))


def write(
    folder: Path, rows: int, classes: list[str], shards: int = 4, seed: int = 0
) -> list[Path]:
    """``rows`` in parquet shards with LAION's columns (snappy, row groups of at most 250,000).

    One shard is in memory at a time.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"part-{i:05d}.snappy.parquet" for i in range(shards)]
    parts = np.array_split(np.arange(rows), shards)
    for i, (path, part) in enumerate(zip(paths, parts, strict=True)):
        rng = np.random.default_rng((seed, i))
        n = len(part)
        ids = rng.integers(2**60, size=n)
        urls = [
            f"https://cdn{a % 97}.example.com/media/{a:015x}/picture-{a % 9_973:09d}.jpg"
            for a in ids.tolist()
        ]
        columns = {
            "SAMPLE_ID": ids,
            "URL": urls,
            "TEXT": captions(n, classes, rng),
            "HEIGHT": rng.integers(200, 2_000, n, np.int32),
            "WIDTH": rng.integers(200, 2_000, n, np.int32),
            "LICENSE": pa.array(["?"] * n),
            "NSFW": NSFW[rng.choice(3, n, p=(0.95, 0.03, 0.02))],
            "similarity": rng.uniform(0.28, 0.5, n),
        }
        pq.write_table(pa.table(columns), path, row_group_size=250_000)
    return paths
