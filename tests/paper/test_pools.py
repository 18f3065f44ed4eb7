"""Pools as people have them: what is kept, what is counted as lost, what is refused in one line."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import worlds
from helpers.data import columns, pictures, rules, scan
from helpers.data.shards import Tar
from helpers.errors import StudyError
from helpers.paper import pools
from tests.paper.folders import within

SIDE = 16
COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250), "grey": (90,) * 3}


def encoded(colour="red", kind="png", size=(20, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(buffer, kind)
    return buffer.getvalue()


def tar(path: Path, members: dict[str, bytes], **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def shard(folder: Path, table: dict, names=COLOURS, stem="00000") -> None:
    """A table beside a tar whose pictures have the keys 0, 1, ... and the colours of ``names``."""
    tar(folder / f"{stem}.tar", {f"{i}.png": encoded(name) for i, name in enumerate(names)})
    pd.DataFrame(table).to_parquet(folder / f"{stem}.parquet")


def opened(folder: Path, place: Path):
    """The pool at a place, looked through into a folder: its tables and its losses, as frames."""
    pools._build(folder, place, SIDE)
    kept = [pl.read_parquet(file, glob=False) for file in sorted(folder.glob("?????.parquet"))]
    lost = folder / "lost.parquet"
    losses = pl.read_parquet(lost, glob=False) if lost.exists() else pl.DataFrame({"lost": []})
    images = [
        pools._fetch(place, SIDE, file, np.arange(len(table)))
        for file, table in zip(sorted(folder.glob("?????.parquet")), kept, strict=True)
    ]
    return pl.concat(kept, how="diagonal"), np.concatenate(images), losses


def told(table: pl.DataFrame, images: np.ndarray) -> dict[str, str]:
    """Caption -> the colour that its picture has."""
    means = images.mean((1, 2))
    nearest = [min(COLOURS, key=lambda c: np.abs(np.array(COLOURS[c]) - m).sum()) for m in means]
    return dict(zip(table["TEXT"], nearest, strict=True))


KEYS = ["2", "0", "3", "1"]
TEXTS = ["blue", "red", "grey", "green"]
RIGHT = {name: name for name in COLOURS}


def test_rows_are_matched_by_key(tmp_path):
    shard(tmp_path / "pool", {"TEXT": TEXTS, "key": KEYS})
    table, images, lost = opened(tmp_path / "made", tmp_path / "pool")
    assert told(table, images) == RIGHT and not len(lost)
    assert table["NSFW"].unique().to_list() == ["UNTAGGED"]


@pytest.mark.parametrize(
    ("table", "kept", "reasons"),
    [
        ({"TEXT": [*TEXTS, "gone"], "key": [*KEYS, "9"]}, RIGHT, {pools.NO_PICTURE: 1}),
        (
            {
                "caption": [*TEXTS, "gone"],
                "key": [*KEYS, "9"],
                "status": ["success"] * 4 + ["failed"],
            },
            RIGHT,
            {"failed": 1},
        ),
        (
            {"TEXT": [*TEXTS, "again"], "key": [*KEYS, "1"]},
            {n: n for n in ("red", "blue", "grey")},
            {pools.NO_PICTURE: 2},
        ),
        (
            {"TEXT": [*TEXTS, "gone"], "key": [*KEYS, "9"], "status": ["success"] * 4 + [None]},
            RIGHT,
            {pools.NO_PICTURE: 1},
        ),
        (
            {"TEXT": [*TEXTS, "gone"], "key": [2, 0, 3, 1, 9], "status": [1, 1, 1, 1, 0]},
            RIGHT,
            {"0": 1},
        ),
        (
            {"TEXT": ["x" * 10**6 + "x", *TEXTS[1:]], "key": KEYS},
            {n: n for n in ("red", "green", "grey")},
            {pools.NO_CAPTION: 1},
        ),
        ({"TEXT": list(COLOURS)}, RIGHT, {}),  # without keys: as many, and in order
        ({"TEXT": list(COLOURS), "lost": list("abcd"), "image": [9] * 4, "tar": "x"}, RIGHT, {}),
    ],
)
def test_what_is_lost_is_counted(tmp_path, capsys, table, kept, reasons):
    shard(tmp_path / "pool", table)
    rows, images, lost = opened(tmp_path / "made", tmp_path / "pool")
    assert told(rows, images) == kept
    assert dict(lost["lost"].value_counts().rows() if len(lost) else ()) == reasons
    assert len(rows) + len(lost) == len(next(iter(table.values())))
    said = capsys.readouterr().out
    assert all(f"{n} {reason}" in said for reason, n in reasons.items())


SPELT = {
    "LAION": {"SAMPLE_ID": [5, 6], "URL": ["a", "b"], "TEXT": ["x", "y"], "NSFW": ["NSFW", None]},
    "Re-LAION": {"url": ["a", "b"], "caption": ["x", "y"], "punsafe": [0.9, None]},
    "in capitals": {"Url": ["a", "b"], "CAPTION": ["x", "y"], "Nsfw": ["nsfw", "untagged"]},
    "equal twice": {"url": ["a", "b"], "URL": ["a", "b"], "text": ["x", "y"], "nsfw": [True, None]},
    "null urls and bytes": {"url": [None, None], "TEXT": [b"x", b"y"], "punsafe": [1, 0]},
    "categories": {"TEXT": pd.Categorical(["x", "y"]), "key": pd.Categorical(["0", "1"])},
    "numbers": {"TEXT": [7, 8]},
    "nulls": {"TEXT": ["x", None]},
    "nothing but nulls": {"TEXT": [None, None], "URL": [None, None]},
}


@pytest.mark.parametrize("name", SPELT)
def test_spellings_and_types_of_columns(tmp_path, name):
    given_ = SPELT[name]
    shard(tmp_path / "pool", given_, ["red", "blue"])
    shard(tmp_path / "pool", {"caption": ["other", "columns"]}, ["grey", "grey"], stem="00001")
    table, _, lost = opened(tmp_path / "made", tmp_path / "pool")
    texts = {"numbers": ["7", "8"], "nulls": ["x", ""], "nothing but nulls": ["", ""]}
    assert table["TEXT"].to_list() == [*texts.get(name, ["x", "y"]), "other", "columns"]
    assert not len(lost) and table.null_count().select("URL", "TEXT", "NSFW").row(0) == (0, 0, 0)
    unsafe = any(column.lower() in ("nsfw", "punsafe") for column in given_)
    assert (table["NSFW"][0] == "NSFW") == unsafe and table["NSFW"][1] != "NSFW"
    found = scan.find(sorted((tmp_path / "pool").glob("*.parquet")), rules.plan(["other"], "word"))
    assert found["row"].tolist() == [2]


REFUSED = {
    "lists": ({"TEXT": [["x"], ["y"]]}, "holds List.*Write one text a row"),
    "not UTF-8": ({"TEXT": [b"x", b"\xff"]}, "not UTF-8"),
    "none": ({"words": ["x", "y"]}, "no text column; it has words"),
    "one in JSON": ({"TEXT": ["x", "y"], "key": [{"a": 0}, {"a": 1}]}, "key of .* holds Struct"),
    "outcomes": ({"TEXT": ["x", "y"], "status": [["a"], ["b"]]}, "status of .* holds List"),
    "two that differ": ({"TEXT": ["x", "y"], "url": ["a", "b"], "URL": ["a", "c"]}, "differ"),
    "too few": ({"TEXT": ["x"]}, "nobody knows which is whose"),
    "other keys": ({"TEXT": ["x", "y"], "key": ["8", "9"]}, "nobody knows which is whose"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_cannot_be_right_are_refused(tmp_path, name):
    table, message = REFUSED[name]
    shard(tmp_path / "pool", table, ["red", "blue"])
    with pytest.raises(StudyError, match=message):
        opened(tmp_path / "made", tmp_path / "pool")
    with pytest.raises(StudyError, match=message):
        pools.size(tmp_path / "pool")  # as the check does


TAGS = {  # what people have -> LAION's tags of two pairs
    "texts of numbers": (["0.9", " 0.1"], ["NSFW", "UNLIKELY"]),
    "not a number": ([float("nan"), 0.9], ["UNTAGGED", "NSFW"]),
    "texts of truth": (["True", "false"], ["NSFW", "UNLIKELY"]),
    "spaces": ([" nsfw ", "Unsure"], ["NSFW", "UNSURE"]),
    "nothing in words": (["NaN", "null"], ["UNTAGGED", "UNTAGGED"]),
}


@pytest.mark.parametrize("name", TAGS)
@pytest.mark.parametrize("column", ["punsafe", "NSFW"])
def test_tags_in_any_form(name, column):
    given_, right = TAGS[name]
    table = pl.DataFrame({"TEXT": ["x", "y"], column: given_})
    assert columns.evened(table, "here")["NSFW"].to_list() == right


@pytest.mark.parametrize("prefix", ["0000", "./", "00000/", "a/b/000"])
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "tsv"])
def test_tables_and_keys_that_were_written_again(tmp_path, prefix, kind):
    """Another table format, zeros that a table lost, and folders that a tar was made of."""
    tar(tmp_path / "p" / "0.tar", {f"{prefix}{i}.png": encoded(n) for i, n in enumerate(COLOURS)})
    table = pd.DataFrame({"caption": TEXTS, "key": [int(key) for key in KEYS]})
    file = tmp_path / "p" / f"0.{kind}"
    if kind == "parquet":
        table.to_parquet(file)
    elif kind == "jsonl":
        table.to_json(file, orient="records", lines=True)
    else:
        table.to_csv(file, index=False, sep="\t" if kind == "tsv" else ",")
    rows, images, lost = opened(tmp_path / "made", tmp_path / "p")
    assert told(rows, images) == RIGHT and not len(lost) and pools.size(tmp_path / "p") == 4


def test_keys_of_another_folder_are_no_keys(tmp_path):
    tar(tmp_path / "p" / "0.tar", {f"00000/{i}.png": encoded(n) for i, n in enumerate(COLOURS)})
    table = pd.DataFrame({"TEXT": TEXTS, "key": [f"00001/{key}" for key in KEYS]})
    table.to_parquet(tmp_path / "p" / "0.parquet")
    with pytest.raises(StudyError, match="nobody knows which is whose"):
        pools.size(tmp_path / "p")


def test_a_packed_tar_is_not_taken_for_one_of_the_pool(tmp_path):
    """A table whose pictures are packed, beside a tar that is called as the packed one is."""
    members = {"0.jpg": encoded("blue", "jpeg"), "0.txt": b"blue"}
    members |= {"1.jpg": encoded("grey", "jpeg"), "1.txt": b"grey"}
    tar(tmp_path / "pool" / "pictures" / "00000.tar", members)
    for name in ("red", "green"):
        (tmp_path / "pool" / f"{name}.png").write_bytes(encoded(name))
    rows = [("red.png", "red"), ("green.png", "green")]
    metadata(tmp_path / "pool", "csv", rows)
    table, images, lost = opened(tmp_path / "made", tmp_path / "pool")
    assert told(table, images) == RIGHT and not len(lost)


def test_headers_of_tars_with_tables_are_left_to_the_build(tmp_path, monkeypatch):
    """Of ten thousand shards they would take the check an hour."""
    for i in range(pools.FEW + 3):
        shard(tmp_path, {"TEXT": ["x"]}, ["red"], f"{i:05d}")
    opened_ones = []
    monkeypatch.setattr(pools, "Tar", lambda *given: opened_ones.append(given[0]) or Tar(*given))
    assert pools.size(tmp_path) == pools.FEW + 3
    assert len(set(opened_ones)) == pools.FEW


@pytest.mark.parametrize("beside", [True, False])
def test_laion_may_name_a_tar(tmp_path, beside):
    """Alone with the captions inside, or with the table beside it; other shards do not count."""
    texts = {f"{i}.txt": b"inside" for i in range(4)}
    pictures_ = {f"{i}.png": encoded(name) for i, name in enumerate(COLOURS)}
    for stem in ("00000", "00001"):
        tar(tmp_path / "p" / f"{stem}.tar", pictures_ | texts)
    if beside:
        table = pd.DataFrame({"TEXT": TEXTS, "key": KEYS})
        table.to_parquet(tmp_path / "p" / "00000.parquet")
    file = tmp_path / "p" / "00000.tar"
    rows, images, _ = opened(tmp_path / "made", file)
    assert len(rows) == pools.size(file) == 4
    assert told(rows, images) == (RIGHT if beside else {"inside": "grey"})


def test_a_folder_that_a_link_names_again_counts_once(tmp_path):
    shard(tmp_path / "pool" / "2024", {"TEXT": ["x", "y"]}, ["red", "blue"])
    (tmp_path / "pool" / "latest").symlink_to(tmp_path / "pool" / "2024")
    (tmp_path / "pool" / "2024" / "round").symlink_to(tmp_path / "pool")
    rows, images, _ = opened(tmp_path / "made", tmp_path / "pool")
    assert len(rows) == 2 and told(rows, images) == {"x": "red", "y": "blue"}


@pytest.mark.parametrize("download", [True, False])
def test_only_a_downloads_own_folders_are_no_part_of_the_pool(tmp_path, download):
    for name in ("", "report", "_tmp", "a/report"):
        shard(tmp_path / "pool" / name, {"TEXT": ["x"]}, ["red"])
    if download:
        (tmp_path / "pool" / "report" / "plan.json").write_text("{}")
    assert len(opened(tmp_path / "made", tmp_path / "pool")[0]) == (2 if download else 4)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
NOTHING = {  # files of a pool of which nothing can be kept -> why all is lost
    "no pictures there": ({}, "2 no such file"),
    "pointers": ({"red.png": POINTER, "blue.png": POINTER}, "2 a picture that cannot be read"),
    "captions in JSON": ({"x.tar": {"0.png": encoded(), "0.json": b"{}"}}, f"1 {pools.NO_CAPTION}"),
    "no pictures in a tar": ({"x.tar": {"0.txt": b"x", "1.txt": b"y"}}, f"2 {pools.NO_PICTURE}"),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_a_pool_of_which_nothing_can_be_kept_is_found_out_at_once(tmp_path, kind):
    files, why = NOTHING[kind]
    (tmp_path / "pool").mkdir()
    for name, data in files.items():
        if isinstance(data, dict):
            tar(tmp_path / "pool" / name, data)
        else:
            (tmp_path / "pool" / name).write_bytes(data)
    if "x.tar" not in files:
        metadata(tmp_path / "pool", "csv", [("red.png", "red"), ("blue.png", "blue")])
    message = rf"0 pairs of {why[0]} in .*; lost: {why}\. Name another as laion"
    with pytest.raises(StudyError, match=message):
        pools.size(tmp_path / "pool")  # as the check does
    with pytest.raises(StudyError, match=message):
        opened(tmp_path / "made", tmp_path / "pool")
    (tmp_path / "pool" / "green.png").write_bytes(encoded("green"))
    (tmp_path / "pool" / "more").mkdir()
    metadata(tmp_path / "pool" / "more", "csv", [("../green.png", "no"), ("green.png", "green")])
    (tmp_path / "pool" / "more" / "green.png").write_bytes(encoded("green"))
    listed = pools.size(tmp_path / "pool")
    rows, _, lost = opened(tmp_path / "made again", tmp_path / "pool")
    assert rows["TEXT"].to_list() == ["green"] and len(lost) == listed - 1 == int(why[0]) + 1


LATIN = os.fsdecode(b"caf\xe9")  # as a disk has it that was written in Latin-1


def test_members_named_in_latin_1_are_kept_apart(tmp_path):
    other = os.fsdecode(b"caf\xe8")
    members = {f"{LATIN}.png": encoded("red"), f"{LATIN}.txt": b"red", f"{other}.txt": b"blue"}
    members |= {f"{other}.png": encoded("blue"), f"{LATIN} alone.png": encoded()}
    tar(tmp_path / "pool" / "x.tar", members, format=tarfile.GNU_FORMAT)
    rows, images, lost = opened(tmp_path / "made", tmp_path / "pool")
    assert told(rows, images) == {"red": "red", "blue": "blue"}
    assert lost["lost"].to_list() == [pools.NO_CAPTION] and pools.size(tmp_path / "pool") == 3
    pd.DataFrame({"TEXT": list("abc")}).to_parquet(tmp_path / "pool" / "x.parquet")
    with pytest.raises(StudyError, match="nobody knows which is whose"):
        pools.size(tmp_path / "pool")  # they are not in order


@pytest.mark.parametrize("name", [f"{LATIN}/metadata.csv", f"{LATIN}.tar", f"{LATIN}/0.parquet"])
def test_a_table_or_tar_whose_path_is_not_utf_8_is_refused(tmp_path, name):
    folder = (tmp_path / "pool" / name).parent
    if name.endswith("parquet"):  # nobody can write one there, but such a folder can be moved there
        shard(tmp_path / "before", {"TEXT": ["x"]}, ["red"], "0")
        (tmp_path / "pool").mkdir()
        (tmp_path / "before").rename(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(encoded())
    if name.endswith("csv"):
        metadata(folder, "csv", [("a.png", "x")])
    if name.endswith("tar"):
        tar(folder / f"{LATIN}.tar", {"0.png": encoded(), "0.txt": b"x"})
    for refused in (lambda: pools.size(tmp_path / "pool"), lambda: opened(tmp_path, folder)):
        with pytest.raises(StudyError, match=r"caf\\udce9.* is no name in UTF-8. Rename"):
            refused()
    (tmp_path / "fine").mkdir()
    (tmp_path / "fine" / f"{LATIN}.png").write_bytes(encoded())  # but what no table names may be
    tar(tmp_path / "fine" / "0.tar", {"0.png": encoded(), "0.txt": b"x"})
    assert pools.size(tmp_path / "fine") == 1


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet", "0.tar"])
def test_what_is_no_file_is_not_waited_for(tmp_path, kind, name):
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/null")
    with within(5), pytest.raises(StudyError, match=rf"{name} is not .* folder, pipe or device"):
        pools.size(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_without_rows_says_so(tmp_path, kind):
    metadata(tmp_path, kind, [])
    if kind == "jsonl":
        (tmp_path / "metadata.jsonl").write_text("\n")
    right = "no text column; it has none" if kind == "jsonl" else f"metadata.{kind} has no rows"
    with pytest.raises(StudyError, match=right):
        pools.size(tmp_path)
    shard(tmp_path / "more", {"TEXT": ["x"]}, ["red"])
    if kind != "jsonl":
        assert pools.size(tmp_path) == 1


def test_ids_of_several_kinds_stay_apart(tmp_path):
    for stem, ids in (("0", {"SAMPLE_ID": [1, 2]}), ("1", {"id": ["a", "b"]}), ("2", {})):
        shard(tmp_path / "pool", {"TEXT": ["x", "y"], **ids}, ["red", "blue"], stem)
    rows, _, _ = opened(tmp_path / "made", tmp_path / "pool")
    assert rows["SAMPLE_ID"].to_list() == ["1", "2", "a", "b", "row 4", "row 5"]


def test_pictures_that_cannot_be_read_are_lost_rows(tmp_path):
    cut = encoded("blue")[:40]
    members = {"0.png": encoded("green"), "1.png": cut, "2.png": b"", "3.png": b"<html>"}
    tar(tmp_path / "pool" / "0.tar", members)
    pd.DataFrame({"TEXT": list("abcd")}).to_parquet(tmp_path / "pool" / "0.parquet")
    rows, images, lost = opened(tmp_path / "made", tmp_path / "pool")
    assert told(rows, images) == {"a": "green"} and lost["TEXT"].to_list() == list("bcd")
    assert set(lost["lost"]) == {pools.UNREADABLE}


def test_what_is_left_out_of_a_pool_is_said(tmp_path, capsys):
    shard(tmp_path / "pool", {"TEXT": ["x"]}, ["red"])
    for name in ("00001.tar.gz", "more.zip", "loose.png", "notes.txt"):
        (tmp_path / "pool" / name).write_bytes(b"anything")
    assert pools.size(tmp_path / "pool") == 1
    said = capsys.readouterr().out
    assert "1 pictures that no table names and 2 archives, which have to be unpacked" in said
    (tmp_path / "pool" / "metadata.csv").write_text("file_name,text\nloose.png,one\n")
    assert pools.size(tmp_path / "pool") == 2  # and shards beside it
    assert "pictures" not in capsys.readouterr().out
    (tmp_path / "pool" / "metadata.jsonl").write_text('{"file_name": "loose.png", "text": "one"}')
    with pytest.raises(StudyError, match="2 tables called metadata"):
        pools.size(tmp_path / "pool")


ODD_TABLES = {  # file and content -> caption of a.png, or what is said
    ("metadata.csv", "file_name, text\na.png,x\n"): "x",
    ("Metadata.CSV", "File_Name|Text\na.png|x\n"): "x",
    ("metadata.csv", "file_name,text,text\na.png,x,y\n"): "two columns text",
    ("metadata.jsonl", '{"path": "a.png", "text": ["x", "y"]}'): "holds List",
    ("metadata.jsonl", '{"path": "a.png", "text": {"en": "x"}}'): "holds Struct",
    ("metadata.jsonl", '{"path": "b", "text": "x"}\n{"path": "a.png", "caption": "y"}'): "y",
    ("metadata.jsonl", '{"path": "b", "text": "x"}\n{"path": "a.png", "text": ["y"]}'): "cannot",
    ("metadata.jsonl", '[{"path": "a.png", "text": "x"}]'): "one JSON object a line",
}


@pytest.mark.parametrize("name, text", ODD_TABLES)
def test_tables_as_other_programs_write_them(tmp_path, name, text):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.png").write_bytes(encoded())
    (tmp_path / "pool" / name).write_text(text)
    right = ODD_TABLES[name, text]
    if len(right) > 1:
        with pytest.raises(StudyError, match=right) as e:
            opened(tmp_path / "made", tmp_path / "pool")
        assert "\n" not in str(e.value)
    else:
        assert opened(tmp_path / "made", tmp_path / "pool")[0]["TEXT"].to_list() == [right]


def test_no_caption_is_called_nan(tmp_path):
    """As ``json.dumps`` writes what pandas has for a missing one."""
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.png").write_bytes(encoded())
    lines = '{"file_name": "a.png", "text": NaN}\n{"file_name": "a.png", "text": "x"}'
    (tmp_path / "pool" / "metadata.jsonl").write_text(lines)
    assert opened(tmp_path / "made", tmp_path / "pool")[0]["TEXT"].to_list() == ["", "x"]


def test_a_table_of_captions_and_paths_is_to_be_named(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded())
    pd.DataFrame({"path": ["a.png"], "text": ["x"]}).to_parquet(tmp_path / "captions.parquet")
    with pytest.raises(StudyError, match=r"no captions\.tar .* captions and paths, name it"):
        pools.size(tmp_path)
    assert pools.size(tmp_path / "captions.parquet") == 1


def test_an_endless_table_is_refused(tmp_path):
    with (tmp_path / "metadata.csv").open("wb") as file:
        file.write(b"file_name,text\n")
        file.truncate(pools.TABLE_BYTES + 1)
    with pytest.raises(StudyError, match="over 4,294,967,296 bytes"):
        pools.find(tmp_path)


WRONG = {
    b"": "an empty file",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n": "git lfs pull",
    b"<!DOCTYPE html><html>log in</html>": "HTML",
    b"PK\x03\x04 zip": "zip archive",
    b"\x1f\x8b\x08 gzip": "gunzip",
    b"BZh91AY": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"anything else at all": "cannot read|truncated",
}


@pytest.mark.parametrize("start", WRONG)
@pytest.mark.parametrize("ending", ["tar", "parquet", "csv"])
def test_a_file_that_is_something_else_is_named(tmp_path, start, ending):
    shard(tmp_path / "pool", {"TEXT": ["x"]}, ["red"])
    file = tmp_path / "pool" / ("metadata.csv" if ending == "csv" else f"00000.{ending}")
    file.write_bytes(start)
    with pytest.raises(StudyError, match=WRONG[start] if start[:3] != b"any" else "") as e:
        opened(tmp_path / "made", tmp_path / "pool")
    assert str(file) in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(StudyError, match=str(file)):
        pools.size(tmp_path / "pool")  # as the check does
    if ending == "parquet":
        with pytest.raises(StudyError, match=r"00000\.parquet"):
            scan.find([file], rules.plan(["x"], "word"))


def test_dot_names_and_links(tmp_path):
    shard(tmp_path / "elsewhere", {"TEXT": ["x"]}, ["red"])
    (tmp_path / "pool [v2] a::b").mkdir()
    place = tmp_path / "pool [v2] a::b"
    (place / "linked").symlink_to(tmp_path / "elsewhere")
    (place / "round").symlink_to(place)
    (place / "._00000.parquet").write_bytes(b"junk")
    (place / ".ipynb_checkpoints").mkdir()
    (place / ".ipynb_checkpoints" / "1.parquet").write_bytes(b"junk")
    table, images, _ = opened(tmp_path / "made [1]", place)
    assert told(table, images) == {"x": "red"}


def metadata(folder: Path, kind: str, rows: list[tuple[str, str]]) -> None:
    names = [name for name, _ in rows]
    texts = [text for _, text in rows]
    table = pd.DataFrame({"file_name": names, "text": texts})
    if kind == "jsonl":
        lines = [json.dumps(row) for row in table.to_dict("records")]
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    elif kind == "parquet":
        table.to_parquet(folder / "metadata.parquet")
    else:
        separator = ";" if kind == "semicolons" else ","
        encoding = "utf-8-sig" if kind == "byte-order mark" else "utf-8"
        table.to_csv(folder / "metadata.csv", index=False, sep=separator, encoding=encoding)


@pytest.mark.parametrize("kind", ["csv", "semicolons", "byte-order mark", "jsonl", "parquet"])
def test_a_folder_of_captioned_pictures(tmp_path, monkeypatch, capsys, kind):
    folder = tmp_path / "my pool"
    rows = [
        ("red.png", 'a "red", thing\nof two lines'),
        ("sub folder/blue [1].JPG", "blue 🐦 鳥"),
        ("grey.webp", "x" * 100_000),
        ("gone.png", "gone"),
        ("cut.png", "cut"),
        ("../secret.png", "outside"),
        (str(tmp_path / "secret.png"), "outside as well"),
        ("", "no name"),
    ]
    (folder / "sub folder").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(encoded())
    (folder / "red.png").write_bytes(encoded("red"))
    (folder / "sub folder" / "blue [1].JPG").write_bytes(encoded("blue", "jpeg", (30, 20)))
    (folder / "grey.webp").write_bytes(encoded("grey", "webp"))
    (folder / "cut.png").write_bytes(encoded()[:60])
    metadata(folder, kind, rows)
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    (tmp_path / "paper.toml").write_text(f"laion = 'my pool'\nkept = {SIDE}\ndrawn = {SIDE}")
    w = worlds.get("paper")
    pool = worlds.backend(w).open_pool(w)
    assert len(pool) == 3 and pool.captions()["TEXT"].tolist() == [text for _, text in rows[:3]]
    found = told(pl.from_pandas(pool.captions()), pool.fetch([0, 1, 2]))
    assert list(found.values()) == ["red", "blue", "grey"]
    assert pool.captions([1])["URL"].tolist() == ["sub folder/blue [1].JPG"]
    assert pool.captions()["SAMPLE_ID"].tolist() == [0, 1, 2]
    lost = pl.read_parquet(pool.shards[0].parent / "lost.parquet")
    assert lost["lost"].to_list() == [
        "no such file",
        "a picture that cannot be read",
        *["a path that leads out of the folder"] * 2,
        "a picture that cannot be read",
    ]
    assert "3 pairs of 8" in capsys.readouterr().out
    assert worlds.backend(w).open_pool(w).sizes == (3,) and not capsys.readouterr().out


@pytest.mark.parametrize("name", ["pictures.csv", "pictures.jsonl", "pictures.parquet", "a.zip"])
def test_laion_may_name_a_file(tmp_path, name):
    (tmp_path / "red.png").write_bytes(encoded())
    table = pd.DataFrame({"caption": ["red"], "path": ["red.png"]})
    file = tmp_path / name
    if name.endswith("csv"):
        table.to_csv(file, index=False)
    elif name.endswith("jsonl"):
        table.to_json(file, orient="records", lines=True)
    elif name.endswith("parquet"):
        table.to_parquet(file)
    else:
        file.write_bytes(b"PK")
        with pytest.raises(StudyError, match="archives: unpack them"):
            opened(tmp_path / "made", file)
        return
    rows, images, _ = opened(tmp_path / "made", file)
    assert told(rows, images) == {"red": "red"}


def test_webdataset_tars_bring_their_captions(tmp_path):
    members = {
        "a/1.jpg": encoded("red", "jpeg"),
        "a/1.txt": b"\xef\xbb\xbfred ",
        "a/1.json": b"[" * 100_000,
        "a/2.PNG": encoded("blue"),
        "a/2.txt": b"blue",
        "b/1.webp": encoded("green", "webp", (7, 90)),
        "b/1.txt": b"green",
        "no caption.png": encoded(),
        "latin.png": encoded(),
        "latin.txt": "é".encode("latin-1"),
        "no picture.txt": b"lost",
        "two.png": encoded(),
        "two.jpg": encoded(),
        "two.txt": b"lost",
        "._a.png": b"litter",
    }
    tar(tmp_path / "pool" / "x.tar", members)
    rows, images, lost = opened(tmp_path / "made", tmp_path / "pool")
    assert told(rows, images) == {n: n for n in ("red", "blue", "green")}
    reasons = dict(zip(lost["URL"], lost["lost"], strict=True))
    assert reasons == {
        "no caption": pools.NO_CAPTION,
        "latin": pools.NO_CAPTION,
        "no picture": pools.NO_PICTURE,
        "two": pools.NO_PICTURE,
    }


def test_deeply_nested_json_is_refused_in_one_line(tmp_path):
    deep = '{"file_name": "a.png", "text": ' + "[" * 100_000 + "]" * 100_000 + "}"
    (tmp_path / "metadata.jsonl").write_text(deep)
    with pytest.raises(StudyError, match=r"cannot read .*metadata\.jsonl"):
        pools.find(tmp_path)


def test_nothing_in_a_tar_is_unpacked_or_read_beyond_it(tmp_path):
    """Links, devices, absolute names, names above the folder, and sizes that are claimed."""
    (tmp_path / "secret.png").write_bytes(encoded("blue"))
    path = tmp_path / "pool" / "x.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as file:
        for name, kind, target in (
            ("link.png", tarfile.SYMTYPE, str(tmp_path / "secret.png")),
            ("hard.png", tarfile.LNKTYPE, "../secret.png"),
            ("device.png", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = target
            file.addfile(info)
            file.addfile(tarfile.TarInfo(name.replace("png", "txt")))
        for name in ("../above.png", "/absolute.png"):
            for member, data in ((name, encoded()), (name.replace("png", "txt"), b"red")):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    before = sorted(p for p in tmp_path.rglob("*"))
    rows, images, lost = opened(tmp_path / "made", tmp_path / "pool")
    assert rows["TEXT"].to_list() == ["red", "red"] and told(rows, images) == {"red": "red"}
    assert len(lost) == 3
    left = sorted(p for p in tmp_path.rglob("*") if not p.is_relative_to(tmp_path / "made"))
    assert left == before and not Path("/absolute.png").exists()


def test_a_member_that_claims_ten_gigabytes(tmp_path):
    path = tmp_path / "pool" / "x.tar"
    path.parent.mkdir()
    info = tarfile.TarInfo("huge.png")
    info.size = 10 * 2**30
    header = info.tobuf()
    path.write_bytes(header + bytes(512))
    with pytest.raises(StudyError, match=r"x\.tar"):
        opened(tmp_path / "made", tmp_path / "pool")
    with path.open("r+b") as file:  # really that long, and sparse on the disk
        file.truncate(len(header) + info.size + 1024)
    with pytest.raises(StudyError, match="0 pairs of"):
        opened(tmp_path / "again", tmp_path / "pool")


def test_pools_without_rows_and_with_one(tmp_path):
    shard(tmp_path / "none", {"TEXT": []}, [])
    with pytest.raises(StudyError, match="0 pairs of 0"):
        opened(tmp_path / "made", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="no parquet shards in"):
        pools.find(tmp_path / "empty")
    (tmp_path / "captions").mkdir()
    pd.DataFrame({"TEXT": ["x"]}).to_parquet(tmp_path / "captions" / "0.parquet")
    with pytest.raises(StudyError, match=r"no 0\.tar lies beside it"):
        pools.find(tmp_path / "captions")
    shard(tmp_path / "one", {"TEXT": ["x"]}, ["red"])
    assert told(*opened(tmp_path / "one made", tmp_path / "one")[:2]) == {"x": "red"}


def test_pictures_of_several_sizes_are_fitted(tmp_path):
    sizes = [(20, 20), (50, 30), (10, 60)]
    members = {f"{i}.png": encoded("green", size=size) for i, size in enumerate(sizes)}
    tar(tmp_path / "pool" / "0.tar", members)
    pd.DataFrame({"TEXT": ["a", "b", "c"]}).to_parquet(tmp_path / "pool" / "0.parquet")
    _, images, _ = opened(tmp_path / "made", tmp_path / "pool")
    assert images.shape == (3, SIDE, SIDE, 3) and set(images.mean((0, 1, 2)).round()) == {10, 250}
    with pytest.raises(StudyError, match="several sizes"):
        Tar(tmp_path / "pool" / "0.tar")[np.arange(3)]


names = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12),
    st.binary(min_size=1, max_size=8).map(lambda b: os.fsdecode(b.translate(None, b"/\0") or b"a")),
)
values = st.one_of(
    st.none(), st.text(max_size=20), st.integers(-5, 5), st.binary(max_size=8), st.floats(0, 1)
)
column_names = st.sampled_from(["TEXT", "caption", "url", "URL", "key", "NSFW", "id", "file_name"])


@st.composite
def tables(draw):
    """A table with odd columns: each of one type, or of several."""
    n = draw(st.integers(0, 4))
    kinds = [st.none(), st.text(max_size=9), st.integers(0, 3), st.binary(max_size=4), values]
    kinds += [st.lists(st.text(max_size=2), max_size=2), st.sampled_from(["a.png", "../a", "/x"])]
    return {
        name: draw(st.lists(draw(st.sampled_from(kinds)), min_size=n, max_size=n))
        for name in draw(st.lists(column_names, unique=True, max_size=5))
    }


@st.composite
def webdatasets(draw):
    """Members of a tar: pictures, captions and others under names of any bytes."""
    kinds = {".png": encoded(), ".txt": b"a caption", ".json": b"{}", ".png ": b""}
    endings = st.sampled_from([*kinds])
    parts = draw(st.lists(st.tuples(names, endings), max_size=5))
    return {f"{name}{ending}": kinds[ending] for name, ending in parts}


quick = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(
    tables(),
    st.dictionaries(names, st.binary(max_size=20), max_size=3),
    st.sampled_from(["parquet", "jsonl", "csv"]),
    st.one_of(st.just("."), names),
)
def test_any_folder_is_a_pool_or_an_error(tmp_path_factory, table, others, kind, below):
    """Rows in = rows kept + rows lost, or one line; never another exception."""
    pool = tmp_path_factory.mktemp("any")
    try:
        place = pool / below
        place.mkdir(exist_ok=True)
    except OSError:
        return
    for name, data in others.items():
        try:
            (place / name).write_bytes(data)
        except OSError:
            continue  # "." and what this file system has no name for
    (place / "a.png").write_bytes(encoded())
    frame = pd.DataFrame({k: pd.Series(v, dtype=object) for k, v in table.items()})
    try:
        if kind == "parquet":
            frame.to_parquet(place / "s.parquet")
            keys = [str(k) for k in table.get("key", range(len(frame)))]
            tar(
                place / "s.tar",
                {f"{k}.png": encoded() for k in dict.fromkeys(keys) if "/" not in k},
            )
        elif kind == "jsonl":
            frame.to_json(place / "metadata.jsonl", orient="records", lines=True)
        else:
            frame.to_csv(place / "metadata.csv", index=False)
    except (TypeError, ValueError, OverflowError, UnicodeError):
        return  # nobody can write such a table
    nothing_is_lost(tmp_path_factory.mktemp("made"), pool)


def nothing_is_lost(made: Path, place: Path) -> None:
    try:
        listed = pools.size(place)
    except StudyError as e:
        assert "\n" not in str(e)
        return
    rows, images, lost = opened(made, place)  # what the check finds can be opened
    assert len(rows) == len(images) and len(rows) + len(lost) == listed
    assert rows["TEXT"].null_count() == 0


@quick
@given(webdatasets(), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_any_tar_is_a_pool_or_an_error(tmp_path_factory, members, form):
    place = tmp_path_factory.mktemp("any")
    tar(place / "0.tar", members, format=form)
    nothing_is_lost(tmp_path_factory.mktemp("made"), place)


@quick
@given(st.sampled_from(["png", "jpeg", "gif", "webp", "bmp", "tiff"]), st.data())
def test_any_bytes_are_a_picture_or_an_error(kind, data):
    """Pictures with bytes changed or cut off."""
    whole = bytearray(encoded(kind=kind))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        assert pictures.rgb(cut, "a name", SIDE).shape == (SIDE, SIDE, 3)
    except StudyError as e:
        assert "a name" in str(e) and "\n" not in str(e)


@quick
@given(st.text(max_size=30) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_any_text_is_a_table_or_an_error(tmp_path_factory, text):
    for name in ("metadata.csv", "metadata.jsonl"):
        file = tmp_path_factory.mktemp("text") / name
        file.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        try:
            pools.find(file)
        except StudyError as e:
            assert "\n" not in str(e)
