"""Tables of rows that come from elsewhere: to be downloaded, or from an index; one line each."""

import numpy as np
import pandas as pd
import pytest

from helpers.engine import store
from helpers.errors import StudyError
from helpers.paper import config, index
from helpers.paper.download import laion
from helpers.study import embeddings
from tests.paper.folders import folders

ROWS = {"SAMPLE_ID": [1, 2], "url": ["http://a", "http://b"], "TEXT": ["x", "y"], "class": "c"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"TEXT": [b"x", b"y"], "url": [b"http://a", b"http://b"]},
        {"TEXT": pd.Categorical(["x", "y"]), "license": pd.Categorical(["?", None])},
        {"URL": ["http://a", "http://b"]},
        {"punsafe": [0.1, 0.2], "extra": [None, None]},
    ],
)
def test_rows_to_download_are_evened_out(changes):
    rows = laion.plan(laion.checked(pd.DataFrame(ROWS | changes)))
    assert rows["url"].tolist() == ["http://a", "http://b"] and rows["TEXT"].tolist() == ["x", "y"]
    assert "URL" not in rows and set(rows["NSFW"]) <= {"UNTAGGED", "UNLIKELY"}
    kinds = rows.dtypes.astype(str)
    assert not kinds.isin(["category"]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"URL": ["http://a", "http://other"]}, "differ"),
        ({"TEXT": ["x", 3]}, "one type"),
        ({"TEXT": [["x"], ["y"]]}, "holds List"),
        ({"url": [b"\xff", b"b"]}, "not UTF-8"),
        ({"class": [["c"], ["d"]]}, "column class of .* holds List"),
        ({"TEXT": ["\ud800", "y"]}, "cannot be read: .*surrogates"),
    ],
)
def test_rows_that_cannot_be_downloaded_are_refused_before_the_first_request(changes, message):
    with pytest.raises(StudyError, match=message) as e:
        laion.checked(pd.DataFrame(ROWS | changes))
    assert "\n" not in str(e.value)


def test_rows_of_an_index_without_id_or_similarity_are_left_out_and_counted(capsys):
    whole = {"id": 3, "similarity": 0.5, "url": "a"}
    broken = [{"id": None, "similarity": 1}, {"id": 4}, {"similarity": 1}, {}, {"id": "x"}]
    broken += [whole | {"id": odd} for odd in (1.5, -1, 2**70, 1e300, float("inf"))]
    rows = [whole, whole | {"similarity": 0.7}, *broken, {"id": 5, "similarity": float("nan")}]
    found = index._united(pd.DataFrame(rows), "the index")
    assert found["id"].tolist() == [3] and found["similarity"].tolist() == [0.7]
    assert "11 rows without id or similarity" in capsys.readouterr().out
    assert not len(index._united(pd.DataFrame([]), "the index"))


def test_of_an_answer_only_numbers_and_texts_are_kept(tmp_path, monkeypatch):
    pair = {"similarity": 0.5, "url": "u"}
    odd = [{"caption": {"a": 1}}, {"caption": ["x"]}, {"caption": 3}, {"caption": "\ud800"}]
    odd += [{"width": 1}, {"width": "x"}, {"caption": None}]
    rows = [{"id": i, **pair, **extra} for i, extra in enumerate(odd)] + [[], "x", None, 7]
    monkeypatch.setattr(index, "_query", lambda *_: rows)
    found = index.ask_back_end("http://nobody", ["a"], ("image",), 3)
    kept = store.read_table(store.write(tmp_path / "a.parquet", found))
    assert kept["id"].tolist() == list(range(len(odd)))
    assert kept["caption"].fillna("").tolist() == ["", "", "3", "?", "", "", ""]


@pytest.mark.parametrize("name", ["My Study [v2]", "a::b", "50% off #1"])
def test_an_index_is_built_in_any_folder(tmp_path, name):
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    made = []
    for folder in (tmp_path / name, tmp_path / "plain"):
        folder.mkdir()
        np.save(folder / "img_emb_0.npy", vectors)
        made.append(embeddings.build_index(folder))
    assert made[0] == made[1]


def test_more_pictures_behind_a_link_are_other_data(tmp_path):
    folders(tmp_path / "elsewhere", ("train",), ("rose",), 3)
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "train").symlink_to(tmp_path / "elsewhere" / "train")
    before = config.identity(str(tmp_path / "task"))
    (tmp_path / "elsewhere" / "train" / "rose" / "4.jpg").write_bytes(b"another")
    config._listing.cache_clear()  # of another process
    assert config.identity(str(tmp_path / "task")) != before
