"""The text scan: rules by hand, against a naive reference, and as files that resume and repeat."""

import itertools
import sys
import unicodedata

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.data import rules, scan
from helpers.data.rules import Terms
from helpers.engine import store
from helpers.errors import StudyError

CAPTIONS = [
    "an Airbus A320 at dusk",
    "bearing A3200-7",
    "TORNADO over the plains",
    "747-400 and A320 side by side",
    "",
    "primrose",
    "a rose",
    "model 1747-4001",
    "\uff21\uff13\uff12\uff10",
    None,
    "Fokker 100",
    "fokker 1000",
]
CLASSES = ["A320", "Tornado", "747-400", "rose", "Fokker 100"]


@pytest.fixture
def shards(tmp_path):
    half = len(CAPTIONS) // 2
    for i, part in enumerate((CAPTIONS[:half], CAPTIONS[half:])):
        store.write(
            tmp_path / f"{i:05d}.parquet",
            pd.DataFrame({"TEXT": part, "SAMPLE_ID": range(len(part)), "URL": "u"}),
        )
    return sorted(tmp_path.glob("*.parquet"))


def pairs(table):
    return set(zip(table["row"], table["class"], strict=True))


def hits(caption, classes, rule, terms=None):
    """(class, spelling) of every match in one caption."""
    found = scan.matches(pl.Series([caption]), rules.plan(classes, rule, terms))
    assert all(
        caption[o : o + len(s)] == s for s, o in found.select("spelling", "offset").iter_rows()
    )
    return list(found.select("class", "spelling").iter_rows())


def test_substring_rule(shards):
    assert pairs(scan.find(shards, rules.plan(CLASSES, "substring"))) == {
        (0, "A320"),
        (1, "A320"),
        (2, "Tornado"),
        (3, "A320"),
        (3, "747-400"),
        (5, "rose"),
        (6, "rose"),
        (7, "747-400"),
        (10, "Fokker 100"),
        (11, "Fokker 100"),
    }


def test_word_rule(shards):
    assert pairs(scan.find(shards, rules.plan(CLASSES, "word"))) == {
        (0, "A320"),
        (2, "Tornado"),
        (3, "A320"),
        (3, "747-400"),
        (6, "rose"),
        (10, "Fokker 100"),
    }


def test_tokens_rule_is_full_text_search():
    assert hits("A Cessna parked at gate 172", ["Cessna 172"], "tokens") == [
        ("Cessna 172", "Cessna")
    ]  # AND of tokens [C]
    assert hits("200 seats, 737", ["737-200"], "tokens") == []  # a hyphen makes a phrase
    assert hits("a 737 / 200 here", ["737-200"], "tokens") == [("737-200", "737 / 200")]
    assert (
        hits("the A320neo", ["A320"], "tokens") == [] and hits("primrose", ["rose"], "tokens") == []
    )
    assert hits("Benz, a Mercedes", ["Mercedes-Benz"], "tokens", {"*": Terms(any_order=True)}) == [
        ("Mercedes-Benz", "Mercedes")
    ]


@pytest.mark.parametrize("caption", ["F-16A/B", "an f 16a_b.", "F_16A-B", "(F\u201316A B)"])
def test_one_separator_stands_for_another(caption):
    assert [c for c, _ in hits(caption, ["F-16A/B", "F/A-18", "737-200"], "word")] == ["F-16A/B"]
    assert (hits(caption, ["F-16A/B"], "substring") != []) == (
        caption == "F-16A/B"
    )  # the paper's rule knows no other spelling


def test_separators_are_neither_dropped_nor_doubled():
    assert hits("F/A 18, 737 200", ["F/A-18", "737-200"], "word") == [
        ("F/A-18", "F/A 18"),
        ("737-200", "737 200"),
    ]
    assert hits("FA18 737200 737  200", ["F/A-18", "737-200"], "word") == []


def test_synonyms_and_cowords():
    terms = {
        "rose": Terms(cowords=("flower", "bloom")),
        "colt's foot": Terms(synonyms=("coltsfoot",)),
    }
    assert hits("a rose in bloom", ["rose"], "word", terms) == [("rose", "rose")]
    assert hits("rose gold flowerpot", ["rose"], "word", terms) == []  # a co-word is a word
    assert hits("rose gold flowerpot", ["rose"], "substring", terms) == [
        ("rose", "rose")
    ]  # the paper's rule reads no terms
    assert hits("yellow Coltsfoot", ["colt's foot"], "word", terms) == [
        ("colt's foot", "Coltsfoot")
    ]
    assert hits("a foot of Colt's", ["colt's foot"], "tokens", terms) == [("colt's foot", "Colt")]
    assert hits("rose flower", ["rose"], "tokens", rules.TERMS["flowers"]) == [("rose", "rose")]
    assert hits("a rose", ["rose"], "tokens", rules.TERMS["flowers"]) == []


def test_a_class_counts_once_where_it_starts_first():
    found = scan.matches(
        pl.Series(["rose ROSE rose", "x Rose"]), rules.plan(["rose", "ose", "rose"], "substring")
    )
    assert found.rows() == [
        (0, 0, "rose", "rose", 0),
        (0, 1, "ose", "ose", 1),
        (0, 2, "rose", "rose", 0),
        (1, 0, "rose", "Rose", 2),
        (1, 1, "ose", "ose", 3),
        (1, 2, "rose", "Rose", 2),
    ]


def test_unicode():
    citroen = ["Citroën"]
    for text in ("CITROËN", "citroën", "Citroe\u0308n", "CITROE\u0308N"):
        assert hits(f"éé {text}!", citroen, "word") == [("Citroën", text)]
    assert hits("Citroen", citroen, "substring") == []  # accents count
    for rule in rules.RULES:
        assert (
            hits("rosé", ["rose"], rule) == hits("rose\u0301", ["rose"], rule) == []
        )  # composed or not, another letter
        assert (
            hits("\u212a-9", ["k-9"], rule) == hits("\uff4b-9", ["k-9"], rule) == []
        )  # no compatibility characters
    assert hits("花a320花", ["A320"], "substring") == [("A320", "a320")]
    assert hits("花a320花", ["A320"], "word") == [] and hits("🌹A320🌹", ["A320"], "word") == [
        ("A320", "A320")
    ]


NAMES = [
    "A320",
    "a3",
    "737-200",
    "DC-9-30",
    "3 - 3",
    "F/A-18",
    "C++ (x)",
    "rose",
    "o r",
    "Citroën",
    "0",
]
NASTY = [
    "A320",
    "a3",
    "3",
    "737",
    "200",
    "DC-9",
    "30",
    "F",
    "A",
    "18",
    "-",
    "/",
    "_",
    " ",
    "\u2013",
    "C++ (x)",
    "rOSe",
    "o",
    "r",
    "é",
    "e",
    "\u0301",
    "\u0308",
    "Citro",
    "n",
    "Ë",
    "K",
    "\u212a",
    ".*",
    "|",
    "\\",
    "\x00",
    "\n",
    "花",
    "²",
    "0",
    "🌹",
    "ß",
]


def naive(caption, name, rule):
    """Whether a rule finds a name, letter by letter in plain Python."""

    def kind(c):
        return unicodedata.category(c)[0] if c else ""

    def same(part, at):  # part, in one of its spellings, stands at this place of the caption
        forms = {
            unicodedata.normalize(n, f)
            for f in (part, part.lower(), part.upper(), part.title())
            for n in ("NFC", "NFD")
        }
        fold = [(f, caption[at : at + len(f)]) for f in forms]
        return {at + len(f) for f, t in fold if f.encode().lower() == t.encode().lower()}

    def free(start, stop):
        return kind(caption[start - 1 : start] if start else "") not in ("L", "N", "M") and kind(
            caption[stop : stop + 1]
        ) not in ("L", "N", "M")

    def chain(parts, joints):  # all (start, stop) of the parts one after another
        places = [(s, e) for s in range(len(caption)) for e in same(parts[0], s)]
        for part in parts[1:]:
            places = [(s, e) for s, stop in places for j in joints(stop) for e in same(part, j)]
        return places

    if rule == "substring":
        return any(kind(caption[e : e + 1]) != "M" for _, e in chain([name], None))
    if rule == "word":
        parts = "".join(
            "\0" if c in rules.SEPARATORS else c for c in name.replace(" - ", " ")
        ).split("\0")

        def joints(p):
            run = len(caption[p:]) - len(caption[p:].lstrip(rules.SEPARATORS))
            return [p + i for i in range(1, 1 + (run if " - " in name else min(run, 1)))]

        return any(free(s, e) for s, e in chain(parts, joints))
    tokens = [
        "".join(g)
        for word, g in itertools.groupby(name, lambda c: kind(c) in ("L", "N", "M"))
        if word
    ]

    def gaps(p):
        stop = next(
            (i for i in range(p, len(caption)) if kind(caption[i]) in ("L", "N", "M")), len(caption)
        )
        return range(p + 1, stop + 1)

    phrases = [tokens] if "-" in name or "/" in name else [[t] for t in tokens]
    return all(any(free(s, e) for s, e in chain(p, gaps)) for p in phrases)


nasty = st.one_of(
    st.lists(st.sampled_from(NASTY), max_size=9).map("".join),
    st.none(),
    st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=8),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(nasty, min_size=1, max_size=20),
    st.sampled_from(rules.RULES),
    st.sampled_from([2, scan.LAID]),
)
def test_scan_against_a_naive_reference(texts, rule, laid):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "LAID", laid)
        found = scan.matches(pl.Series(texts, dtype=pl.String), rules.plan(NAMES, rule))
    assert set(found.select("at", "class").iter_rows()) == {
        (i, c) for i, t in enumerate(texts) if t is not None for c in NAMES if naive(t, c, rule)
    }


@pytest.mark.parametrize("rule", rules.RULES)
def test_every_name_of_many_is_found(rule):
    names = [
        f"{maker} {i}{end}"
        for maker in ("Saab", "DC", "Il")
        for i in range(100, 900, 25)
        for end in ("", "-B", "/C")
    ]
    found = scan.matches(pl.Series([n.upper() for n in names]), rules.plan(names, rule))
    assert {(i, i) for i in range(len(names))} <= set(found.select("at", "label").iter_rows())


def test_many_classes_give_the_same_pairs():
    names = [
        f"{a}{b} type {i}" for i, (a, b) in enumerate(itertools.product("abcdefghij", repeat=2))
    ] * 12
    texts = pl.Series([n.upper() for n in names[:100]])
    found = scan.matches(texts, rules.plan(names, "substring"))
    want = {
        (i, label) for i, t in enumerate(texts) for label, n in enumerate(names) if n in t.lower()
    }
    assert set(found.select("at", "label").iter_rows()) == want and len(want) == 1_200


def test_files_have_all_columns_and_repeat_on_any_number_of_threads(shards, tmp_path):
    one = scan.write(shards, rules.plan(CLASSES, "word"), tmp_path / "one", threads=1)
    many = scan.write(shards, rules.plan(CLASSES, "word"), tmp_path / "many", threads=4)
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in many]
    table = pd.concat(map(pd.read_parquet, one), ignore_index=True)
    assert list(table) == [
        "row",
        "label",
        "class",
        "spelling",
        "offset",
        "TEXT",
        "SAMPLE_ID",
        "URL",
    ]
    assert table[["row", "label", "class", "spelling", "offset"]].equals(
        scan.find(shards, rules.plan(CLASSES, "word"))
    )
    assert list(table["TEXT"]) == [CAPTIONS[r] for r in table["row"]]


def test_any_row_groups_find_the_same(shards, tmp_path):
    pd.read_parquet(shards[0]).to_parquet(tmp_path / "groups.parquet", row_group_size=2)
    whole = scan.scan_shard(shards[0], rules.plan(CLASSES, "substring"))
    assert scan._layout(tmp_path / "groups.parquet")[-1] == [2, 2, 2]
    assert scan.scan_shard(tmp_path / "groups.parquet", rules.plan(CLASSES, "substring")).equals(
        whole
    )


def test_a_killed_scan_goes_on_where_it_was(shards, tmp_path):
    files = scan.write(shards, rules.plan(CLASSES, "tokens"), tmp_path / "out")
    before, kept = [p.read_bytes() for p in files], files[0].stat().st_mtime_ns
    files[1].unlink()
    assert [
        p.read_bytes() for p in scan.write(shards, rules.plan(CLASSES, "tokens"), tmp_path / "out")
    ] == before
    assert files[0].stat().st_mtime_ns == kept
    with pytest.raises(StudyError, match="another scan"):
        scan.write(shards, rules.plan(CLASSES, "word"), tmp_path / "out")


def test_both_releases_columns(tmp_path):
    for i, column in enumerate(scan.TEXT_COLUMNS):
        store.write(
            tmp_path / f"{i}.parquet",
            pd.DataFrame({"url": ["u", "v"], column: ["nothing", "a rose"]}),
        )
    assert pairs(scan.find(sorted(tmp_path.glob("*.parquet")), rules.plan(["rose"], "word"))) == {
        (1, "rose"),
        (3, "rose"),
        (5, "rose"),
    }


def test_a_shard_of_nothing_but_captions(tmp_path):
    store.write(tmp_path / "0.parquet", pd.DataFrame({"TEXT": ["a rose", "nothing", "rose"]}))
    table = pd.read_parquet(
        scan.write([tmp_path / "0.parquet"], rules.plan(["rose"], "word"), tmp_path / "out")[0]
    )
    assert table["row"].tolist() == [0, 2] and table["TEXT"].tolist() == ["a rose", "rose"]


def test_empty_shard(tmp_path):
    store.write(tmp_path / "0.parquet", pl.DataFrame(schema={"TEXT": pl.String, "URL": pl.String}))
    assert len(scan.find([tmp_path / "0.parquet"], rules.plan(["rose"], "word"))) == 0
    assert (
        len(
            pd.read_parquet(
                scan.write(
                    [tmp_path / "0.parquet"], rules.plan(["rose"], "word"), tmp_path / "out"
                )[0]
            )
        )
        == 0
    )


def test_errors_say_what_to_do(shards, tmp_path):
    with pytest.raises(StudyError, match=r"Did you mean 'word'.*tokens"):
        scan.find(shards, rules.plan(CLASSES, "words"))
    with pytest.raises(StudyError, match="class 1 of 2 has an empty name"):
        scan.find(shards, rules.plan(["rose", " "], "word"))
    with pytest.raises(StudyError, match="no letter or digit"):
        scan.find(shards, rules.plan(["?!"], "tokens"))
    with pytest.raises(StudyError, match="at least one class"):
        scan.find(shards, rules.plan([], "word"))
    with pytest.raises(StudyError, match=r"missing\.parquet"):
        scan.find([tmp_path / "missing.parquet"], rules.plan(CLASSES, "word"))
    store.write(tmp_path / "other.parquet", pd.DataFrame({"words": ["x"]}))
    with pytest.raises(StudyError, match="no text column; it has words"):
        scan.find([tmp_path / "other.parquet"], rules.plan(CLASSES, "word"))
    store.write(tmp_path / "clash.parquet", pd.DataFrame({"TEXT": ["x"], "label": [1]}))
    with pytest.raises(StudyError, match="columns that the scan adds: label"):
        scan.find([tmp_path / "clash.parquet"], rules.plan(CLASSES, "word"))


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_broken_shards_are_named(shards, tmp_path, damage):
    data = shards[0].read_bytes()
    (tmp_path / "broken.parquet").write_bytes(
        data[:200] if damage == "truncated" else data[:4] + b"\xff" * 60 + data[64:]
    )
    with pytest.raises(StudyError, match=r"broken\.parquet"):
        scan.write(
            [shards[1], tmp_path / "broken.parquet"], rules.plan(CLASSES, "word"), tmp_path / "out"
        )


def test_without_hyperscan_the_scan_says_how_to_get_it(shards, monkeypatch):
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    scan._database.cache_clear()
    with pytest.raises(StudyError, match=r"pip install hyperscan.*wheels"):
        scan.find(shards, rules.plan(CLASSES, "word"))
