"""Class names in captions, at LAION's scale: every caption of a pool that a text rule matches, one pass for all classes.

Three rules, as paper and code disagree: ``substring`` ([P]: the caption contains the name), ``word`` (the name with no letter
or digit beside it, any separator for any other: "F-16A/B" is "f 16a_b") and ``tokens`` (as [C]'s full-text search: the
name's tokens anywhere in the caption, consecutive if the name has "-" or "/"). Letters of ASCII match in either case, others
as written, in lower, upper and title case, composed (NFC) and decomposed (NFD); what compatibility equates (fullwidth "Ａ",
the Kelvin sign) stays different, accents count, and a match ends before a combining mark never: "rose" is not in "rosé".
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from helpers import gpu, store
from helpers.worlds import StudyError, unknown

RULES = ("substring", "word", "tokens")
SEPARATORS = " -_/\u2013\u2011"  # one stands for any other in ``word``; the last two are en dash and no-break hyphen
TEXT_COLUMNS = ("TEXT", "caption", "text")  # LAION, Re-LAION and img2dataset
WINDOW = 500_000  # captions held in memory at a time, per thread, unless a row group is larger
LITERALS = 48  # of at least 3 bytes: as many as the regex engine searches at once with vector instructions (Teddy)


@dataclass(frozen=True)
class Terms:
    """What else a class is called, and what must stand beside its name; read by ``word`` and ``tokens``."""

    synonyms: tuple[str, ...] = ()
    cowords: tuple[str, ...] = ()  # at least one of them, as a word, anywhere in the caption
    any_order: bool = False  # ``tokens``: a name with "-" or "/" is no phrase


TERMS: dict[str, dict[str, Terms]] = {  # task -> class, or "*" for all others; after [C]'s class maps
    "flowers": {"rose": Terms(cowords=("flower",)), "lotus": Terms(cowords=("flower",)), "colt's foot": Terms(("coltsfoot",))},
    "cars": {"*": Terms(any_order=True)},
    "dtd": {"*": Terms(cowords=("texture", "pattern", "thing", "object"))},
}


@dataclass(frozen=True)
class Form:
    """One way to name a class. Without ``pattern`` a key is the match; with it, what the pattern finds where a key is."""

    label: int
    keys: tuple[str, ...]  # every match contains one of them, ASCII letters in either case
    pattern: str | None = None
    needs: tuple[str, ...] = ()  # patterns that must be found as well


@dataclass(frozen=True)
class Plan:
    """A rule applied to class names: what to look for. Made once by ``plan``, used on every shard."""

    rule: str
    classes: tuple[str, ...]
    forms: tuple[Form, ...]
    literals: tuple[tuple[str, ...], ...] = field(default=())  # cheap prefilter: every key contains one of these

    @property
    def keys(self) -> list[str]:
        """All keys, each once."""
        return list(dict.fromkeys(k for form in self.forms for k in form.keys))


@functools.cache
def _marks() -> str:
    """All combining marks, as the inside of a regular expression's character class."""
    found = [c for c in range(0x300, 0xE01F0) if unicodedata.category(chr(c))[0] == "M"]
    runs = [list(g) for _, g in itertools.groupby(enumerate(found), lambda p: p[1] - p[0])]
    return "".join(f"\\U{r[0][1]:08x}-\\U{r[-1][1]:08x}" for r in runs)


def _bounded(core: str) -> str:
    return rf"(?<![^\W_])(?<![{_marks()}]){core}(?![^\W_])(?![{_marks()}])"


def _ascii_lower(text: str) -> str:
    return text.encode().lower().decode()


def _spellings(text: str) -> tuple[str, ...]:
    """Cases and Unicode normal forms of a text; ASCII letters in lower case, as they match in either."""
    cased = dict.fromkeys((text, text.lower(), text.upper(), text.title()))
    return tuple(dict.fromkeys(_ascii_lower(unicodedata.normalize(n, t)) for t in cased for n in ("NFC", "NFD")))


def _any_of(text: str) -> str:
    return f"(?ai:{'|'.join(map(re.escape, _spellings(text)))})"


def _word_form(label: int, name: str, needs: tuple[str, ...]) -> Form:
    parts = [p for p in re.split(f"[{re.escape(SEPARATORS)}]+", name) if p]
    pairs = list(itertools.pairwise(parts)) or [(name,)]
    best = max(pairs, key=lambda p: len("".join(p)))  # its spellings are the keys
    keys = tuple(dict.fromkeys(s.join(p) for p in itertools.product(*map(_spellings, best)) for s in SEPARATORS))
    if len(parts) <= 2 and not needs:
        return Form(label, keys)
    joint = f"[{re.escape(SEPARATORS)}]"
    return Form(label, keys, _bounded(joint.join(map(_any_of, parts)) or _any_of(name)), needs)


def _tokens(text: str) -> list[str]:
    return re.findall(rf"(?:[^\W_]|[{_marks()}])+", text)


def _token_form(label: int, name: str, needs: tuple[str, ...], any_order: bool) -> Form:
    tokens = _tokens(name)
    if not tokens:
        raise StudyError(f"class name {name!r} has no letter or digit; the rule 'tokens' cannot find it. Give it a synonym.")
    longest = max(tokens, key=len)
    if len(tokens) == 1 and not needs:
        return Form(label, _spellings(longest))
    if not any_order and re.search("[-/]", name):
        gap = rf"(?:(?![{_marks()}])[\W_])+"
        return Form(label, _spellings(longest), _bounded(gap.join(map(_any_of, tokens))), needs)
    others = tuple(_bounded(_any_of(t)) for t in dict.fromkeys(tokens) if t != longest)
    return Form(label, _spellings(longest), _bounded(_any_of(longest)), needs + others)


def plan(classes: Sequence[str], rule: str, terms: Mapping[str, Terms] | None = None) -> Plan:
    """What to look for: ``rule`` applied to the class names, with a task's ``terms`` (``TERMS[task]``; not for ``substring``).

    Raises ``StudyError`` on an unknown rule, an empty name, or a name without a token in ``tokens``.
    """
    if rule not in RULES:
        raise unknown("text rule", rule, RULES)
    if not classes:
        raise StudyError("a scan needs at least one class name; none was given.")
    forms = []
    for label, name in enumerate(classes):
        if not name.strip():
            raise StudyError(f"class {label} of {len(classes)} has an empty name, which every caption contains. Name it.")
        known = (terms or {}).get(name) or (terms or {}).get("*", Terms())
        needs = (_bounded(f"(?:{'|'.join(map(_any_of, known.cowords))})"),) if known.cowords else ()
        if rule == "substring":
            forms.append(Form(label, _spellings(name)))
        elif rule == "word":
            forms += [_word_form(label, n, needs) for n in (name, *known.synonyms)]
        else:
            forms += [_token_form(label, n, needs, known.any_order) for n in (name, *known.synonyms)]
    made = Plan(rule, tuple(classes), tuple(forms))
    return Plan(rule, made.classes, made.forms, _literals(made.keys))


def _cost(piece: str) -> float:
    """What looking for a piece costs, in about ns per caption: its variants, and the captions it lets through for nothing."""
    letters = sum(c.isalpha() for c in piece)
    likely = math.prod(0.16 if c == " " else 0.05 if c.isalpha() else 0.006 for c in piece)  # at a place in English text
    return 0.7 * 2**letters + 65 * 1_500 * likely


def _literals(keys: list[str]) -> tuple[tuple[str, ...], ...]:
    """Pieces of 3 or 4 characters, in all cases, such that every key contains one: greedy set cover, cheapest first.

    Up to some hundred literals are scanned several times faster than the keys' automaton; () where it takes more.
    """
    if len(keys) > 1_000 or min(map(len, keys)) < 3:
        return ()
    holds, picked = defaultdict(set), []
    for i, key in enumerate(keys):
        for piece in (key[j : j + n] for n in (3, 4) for j in range(len(key) - n + 1)):
            holds[piece].add(i)
    left = set(range(len(keys)))
    while left and len(picked) <= 3 * LITERALS:
        piece = max(holds, key=lambda p: (len(holds[p] & left) / _cost(p), p))
        picked += ["".join(c) for c in itertools.product(*((c, c.upper()) if "a" <= c <= "z" else c for c in piece))]
        left -= holds.pop(piece)
    parts = -(-len(picked) // LITERALS)
    return () if left or parts > 3 else tuple(tuple(sorted(picked)[i::parts]) for i in range(parts))


def matches(texts, made: Plan):
    """The classes that a plan finds in a polars series of captions: a polars frame ``at, label, class, spelling, offset``.

    ``at`` is the position in the series. A class counts once per caption, where it starts first: ``spelling`` is the stretch
    of the caption that matched, from its character ``offset`` on (of tokens in any order, the longest).
    """
    import polars as pl

    text, keys, how = pl.col("text"), made.keys, {"ascii_case_insensitive": True}
    found = pl.DataFrame({"at": pl.int_range(len(texts), eager=True), "text": texts})
    if made.literals:
        found = found.filter(pl.any_horizontal(text.str.contains("|".join(map(re.escape, part))) for part in made.literals))
    found = found.filter(text.str.contains_any(keys, **how))
    found = found.with_columns(spelling=text.str.extract_many(keys, overlapping=True, **how),
                               byte=text.str.find_many(keys, overlapping=True, **how))
    found = found.explode("spelling", "byte").join(_lookup(made), left_on=pl.col("spelling").str.to_lowercase(), right_on="key")
    chosen = pl.concat([_free(found.filter(~pl.col("searched")), made.rule), _searched(found.filter("searched"), made)])
    length = pl.col("spelling").str.len_chars().cast(pl.Int64)
    return chosen.sort("at", "label", "offset", -length).unique(["at", "label"], keep="first", maintain_order=True)


def _lookup(made: Plan):
    """Which forms a key belongs to: columns key (lower case), form, searched, label, class."""
    import polars as pl

    rows = [(k, i, f.pattern is not None, f.label, made.classes[f.label]) for i, f in enumerate(made.forms) for k in f.keys]
    table = pl.DataFrame(rows, ["key", "form", "searched", "label", "class"], orient="row")
    return table.with_columns(pl.col("key").str.to_lowercase()).unique()


COLUMNS = ("at", "label", "class", "spelling", "offset")


def _free(found, rule: str):
    """The keys that are matches as they stand: no mark behind, and but for ``substring`` no letter or digit beside them."""
    import polars as pl

    before = pl.col("text").cast(pl.Binary).bin.slice(0, pl.col("byte")).cast(pl.String)
    found = found.with_columns(before=before, offset=before.str.len_chars().cast(pl.Int64))
    after = pl.col("text").str.slice(pl.col("offset") + pl.col("spelling").str.len_chars(), 1)
    beside = r"[\p{L}\p{N}\p{M}]"
    free = ~after.str.contains(r"\p{M}") if rule == "substring" else ~(
        after.str.contains(beside) | pl.col("before").str.tail(1).str.contains(beside))
    return found.filter(free).select(COLUMNS)


def _searched(found, made: Plan):
    """The forms with a pattern, searched for in the captions where one of their keys was seen."""
    import polars as pl

    compiled = [(re.compile(f.pattern), [re.compile(n) for n in f.needs]) if f.pattern else None for f in made.forms]
    rows = []
    for at, text, form, label, name in found.select("at", "text", "form", "label", "class").unique().iter_rows():
        pattern, needs = compiled[form]
        match = pattern.search(text)
        if match and all(n.search(text) for n in needs):
            rows.append((at, label, name, match.group(), match.start()))
    schema = dict(zip(COLUMNS, (pl.Int64, pl.Int64, pl.String, pl.String, pl.Int64), strict=True))
    return pl.DataFrame(rows, schema, orient="row")


@contextlib.contextmanager
def _reading(shard: Path) -> Iterator[None]:
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, OSError, ValueError) as e:
        raise StudyError(f"cannot read {shard}: {e}. It is missing, truncated or not parquet; delete it and make or download it "
                         "again.") from e


def _layout(shard: Path) -> tuple[str, list[int]]:
    """The name of a shard's text column, and the rows of its windows: whole row groups, ``WINDOW`` rows where they allow it."""
    import pyarrow.parquet as pq

    with _reading(shard):
        file = pq.ParquetFile(shard)
    names = file.schema_arrow.names
    text = next((c for c in TEXT_COLUMNS if c in names), None)
    if text is None:
        raise StudyError(f"{shard} has no text column; it has {', '.join(names)}. Valid: {', '.join(TEXT_COLUMNS)}. Rename one.")
    clash = {"row", *COLUMNS[1:]} & set(names)
    if clash:
        raise StudyError(f"{shard} has columns that the scan adds: {', '.join(sorted(clash))}. Rename them.")
    windows = []
    for i in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(i).num_rows
        if windows and windows[-1] + rows <= WINDOW:
            windows[-1] += rows
        else:
            windows.append(rows)
    return text, windows


def scan_shard(shard: Path, made: Plan, start: int = 0, columns: bool = True):
    """The matches in one parquet shard, as a polars frame in order of row and label.

    Columns ``row`` (position in the pool, where the shard's first row is ``start``), ``label``, ``class``, ``spelling``,
    ``offset`` and, with ``columns``, all of the shard's own, which are decoded for matched rows only. Raises ``StudyError``
    when the shard is damaged or has no text column.
    """
    import polars as pl

    (text, windows), first, parts = _layout(shard), 0, []
    for rows in windows or [0]:
        with _reading(shard):
            lazy = pl.scan_parquet(shard, glob=False, row_index_name="row").slice(first, rows)
            found = matches(lazy.select(text).collect()[text], made).rename({"at": "row"})
            found = found.with_columns(pl.col("row") + first)
            if columns:
                hits = found["row"].unique().implode()
                own = lazy.with_columns(pl.col("row").cast(pl.Int64)).filter(pl.col("row").is_in(hits)).collect()
                found = found.join(own, on="row", how="left", maintain_order="left")
        parts.append(found.with_columns(pl.col("row") + start))
        first += rows
    return pl.concat(parts, rechunk=True)


def find(shards: Sequence[Path], classes: Sequence[str], rule: str, terms: Mapping[str, Terms] | None = None):
    """All matches of a pool that fits in memory: a pandas table with ``row`` (position in the pool), ``label, class, spelling, offset``."""
    import pandas as pd

    made, start, found = plan(classes, rule, terms), 0, []
    for shard in shards:
        found.append(scan_shard(shard, made, start, columns=False).to_pandas())
        start += sum(_layout(shard)[1])
    return pd.concat(found, ignore_index=True)


def write(shards: Sequence[Path], folder: Path, classes: Sequence[str], rule: str, terms: Mapping[str, Terms] | None = None,
          threads: int | None = None) -> list[Path]:
    """Scan the shards into ``folder``, one parquet file of matches with all columns for each, those that are there left alone.

    ``threads`` shards (default: one per core) are in work at a time; memory is bounded by them, and what is written does not
    depend on how many. A folder holds one scan, described in ``scan.json``; for another one ``StudyError`` is raised.
    """
    made = plan(classes, rule, terms)
    sizes = [sum(_layout(s)[1]) for s in shards]
    about = {"rule": rule, "classes": list(classes), "forms": [repr(f) for f in made.forms],
             "shards": [[s.name, n] for s, n in zip(shards, sizes, strict=True)]}
    _same_scan(folder / "scan.json", about)
    jobs = {folder / f"matches-{i:05d}.parquet": (shard, made, sum(sizes[:i])) for i, shard in enumerate(shards)}
    with ThreadPoolExecutor(threads or gpu.cores()) as pool:
        futures = [pool.submit(_write_shard, path, *job) for path, job in jobs.items() if not path.exists()]
        try:
            for future in store.progress(as_completed(futures), "shards scanned", total=len(futures)):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return list(jobs)


def _write_shard(path: Path, *job) -> None:
    store.write(path, scan_shard(*job))


def _same_scan(path: Path, about: dict) -> None:
    if not path.exists():
        store.write(path, about)
    elif json.loads(path.read_text()) != about:
        raise StudyError(f"{path.parent} holds another scan (other shards, classes or rule: see {path.name}). Delete it or name "
                         "another folder.")
