"""Whatever people have in folders, names and tables: the right result, or one line; no traceback.

No picture and no class is lost without a word.
"""

import contextlib
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image
from safetensors.numpy import save_file

from helpers.data import columns
from helpers.data.shards import tar_bytes
from helpers.engine import store
from helpers.errors import StudyError
from helpers.models import weights
from helpers.paper import benchmarks, config, index, pools, probes

ODD = [
    *(
        "nan",
        "None",
        "True",
        "A/B",
        "A_B",
        "a b",
        " a",
        "737-200",
        "{}",
        "%s",
        "x" * 120,
        "",
        "a\0b",
    ),
    *(
        "\ufeffb",
        "e\u0301",
        "\u00e9",
        "it\u2019s",
        "it's",
        "\U0001f426",
        "\u9ce5",
        "\u00a0",
        "\udcff",
    ),
]
names = some.one_of(some.sampled_from(ODD), some.text(max_size=8))
file_names = names.map(lambda name: re.sub(r"[/\0]", "_", name)[:60]).filter(
    lambda name: name.strip(".") and name.isprintable()
)
quick = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def outcome(fn, *arguments):
    """What ``fn`` returns, or the one line that it refuses with; anything else fails the test."""
    try:
        return fn(*arguments)
    except StudyError as e:
        assert str(e) and "\n" not in str(e)
        return e


@quick
@given(some.lists(names, max_size=8))
def test_class_lists_are_kept_as_a_whole_or_refused(given_names):
    found = outcome(config.class_names, given_names, "here")
    if not isinstance(found, StudyError):
        assert len(found) == len(given_names) == len({*map(config.identifier, found)})
        assert config.class_names(found, "again") == found


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    top = tmp_path_factory.mktemp("strange")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_PAPER", str(top))
        yield top


values = some.recursive(
    some.one_of(some.none(), some.booleans(), some.integers(), some.floats(), names),
    lambda inner: some.lists(inner, max_size=3),
    max_leaves=4,
)
KEYS = ["folder", "classes", "noun", "templates", "backgrounds"]


@quick
@given(
    file_names,
    some.dictionaries(some.sampled_from([*KEYS, "nouns"]), values),
    some.binary(max_size=9),
)
def test_task_tables(top, name, table, junk):
    table = {key: value for key, value in table.items() if value is not None}
    lines = [f"[tasks.{json.dumps(name)}]", "folder = 'x'" * ("folder" not in table)]
    lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    text = "\n".join(lines).encode(errors="surrogateescape")
    for content in (text, text + junk):
        (top / config.FILE).write_bytes(content)
        config._read.cache_clear()
        found = outcome(config.settings)
    (top / config.FILE).unlink()
    if not isinstance(found, StudyError):
        assert all(task.noun and task.templates for task in found.tasks.values())


trees = some.dictionaries(
    some.tuples(
        some.sampled_from(["train", "Train", "test", "TEST", "val", "dev", ".git"]),
        some.one_of(file_names, some.sampled_from(["rose", "Rose", "tree"])),
        some.sampled_from(["", "deep/", ".hidden/"]),
    ),
    some.integers(0, 3),
    max_size=9,
)


@quick
@given(trees, some.booleans())
def test_folders_lose_nothing(top, tree, listed):
    folder = top / "t"
    shutil.rmtree(folder, ignore_errors=True)
    pictures = 0
    for (split, name, deep), count in tree.items():
        inside = folder / split / name / deep
        with contextlib.suppress(OSError):
            inside.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                (inside / f"{i}.jpg").touch()
            hidden = {".git", ".hidden"} & {split, deep.strip("/")} or name.startswith((".", "__M"))
            pictures += 0 if hidden else count
    (top / config.FILE).write_text(
        "[tasks.t]\nfolder = 't'\n" + "classes = ['rose', 'tree']\n" * listed
    )
    config._read.cache_clear()
    benchmarks._benchmark.cache_clear()
    bench = outcome(benchmarks._benchmark, top, "t", 8)
    if not isinstance(bench, StudyError):
        splits = [bench.train, bench.val, bench.test]
        assert sum(map(len, splits)) == pictures
        assert set(bench.train.labels) == set(range(len(bench.classes)))


cells = some.one_of(names, some.sampled_from(["n1", "n2", "wnid", "category", '"', ";", ","]))


@quick
@given(some.lists(some.lists(cells, max_size=3), max_size=4), some.sampled_from([",", ";", "\t"]))
def test_tables_and_probe_sets(top, rows, separator):
    base = top / "benchmarks"
    for wnid in ("n1", "n2"):
        (base / "imagenet" / "val" / wnid).mkdir(parents=True, exist_ok=True)
    for category in ("animal", "car"):
        picture = base / "focus" / "0" / category / "a.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(picture)
    shutil.rmtree(base / "imagenet" / "val")
    text = "\n".join(map(separator.join, [["wnid", "category"], *rows]))
    good = b"wnid,category,name\nn1,animal,cat\nn2,car,truck\n"
    for odd, fine in (
        ("focus/categories", "imagenet/classes"),
        ("imagenet/classes", "focus/categories"),
    ):
        (base / f"{odd}.csv").write_bytes(text.encode(errors="surrogateescape"))
        (base / f"{fine}.csv").write_bytes(good)
        found = outcome(probes.listed, "imagenet")
        if not isinstance(found, StudyError):
            assert set(found[3]["context_0"]) == {0, 1} and len(found[0]["context_0"][0]) == 2


@quick
@given(some.binary(max_size=40), some.sampled_from(["cut", "junk", "json", "whole"]))
def test_weight_folders(top, junk, kind):
    folder = top / "weights"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "config.json").write_bytes(junk if kind == "json" else b"{}")
    save_file({"a": np.zeros(4)}, folder / "model.safetensors")
    whole = (folder / "model.safetensors").read_bytes()
    content = {"cut": whole[: len(junk)], "junk": junk}.get(kind, whole)
    (folder / "model.safetensors").write_bytes(content)
    found = outcome(weights.folder, "language model", str(folder))
    assert isinstance(found, StudyError) == (content != whole)
    refused = outcome(weights.load, "language model", str(folder), lambda f: json.loads(junk))
    assert isinstance(refused, StudyError) or content == whole


answers = some.recursive(
    some.one_of(
        some.none(), some.booleans(), some.integers(), some.floats(), some.text(max_size=5)
    ),
    lambda inner: some.one_of(
        some.lists(inner, max_size=3),
        some.dictionaries(some.sampled_from(["id", "similarity", "caption", "\udcff"]), inner),
    ),
    max_leaves=6,
)


@quick
@given(some.lists(answers, max_size=6))
def test_answers_of_a_back_end_lose_nothing_without_a_word(top, rows):
    with pytest.MonkeyPatch.context() as patch:
        counted = []
        patch.setattr(index, "_query", lambda *_: rows)
        patch.setattr(index.progress, "say", lambda line: counted.append(line))
        found = index.ask_back_end("http://nobody", ["a"], ("image",), 3)
    store.write(top / "answers.parquet", found)
    columns.of_pandas(found.assign(TEXT=""), "here")
    left_out = int(re.findall(r": (\d+) rows", counted[0])[0]) if counted else 0
    assert found["id"].is_unique and (len(found) > 0) == (len(rows) > left_out)


PAIRS = 5
TAR = tar_bytes(np.zeros((PAIRS, 4, 4, 3), np.uint8), [{"caption": c} for c in "abcde"])


@quick
@given(
    some.lists(some.tuples(some.integers(0, len(TAR) - 1), some.integers(0, 255)), max_size=1),
    some.sampled_from([1, 1, 1, 2]),
    some.one_of(some.just(2 * len(TAR)), some.integers(0, len(TAR)).map(lambda n: n // 256 * 256)),
)
def test_tars_with_damage(top, damage, copies, length):
    """Another byte somewhere, two joined, or a piece: all pairs are kept or counted, or one line.

    More than one other byte could spell another member, which nobody can tell.
    """
    whole = bytearray(TAR)
    for position, value in damage:
        whole[position] = value
    place = top / "tars"
    place.mkdir(exist_ok=True)
    (place / "0.tar").write_bytes((bytes(whole) * copies)[:length])
    shutil.rmtree(top / "made", ignore_errors=True)
    listed = outcome(pools.size, place)
    if not isinstance(listed, StudyError):
        assert listed == PAIRS
        assert not isinstance(outcome(pools._build, top / "made", place, 4), StudyError)
        tables = [store.read_table(file) for file in (top / "made").glob("*.parquet")]
        assert sum(map(len, tables)) == PAIRS
