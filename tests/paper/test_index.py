"""Search through an index that is there: a folder, clip-retrieval's back end, a stumbling one."""

import contextlib
import functools
import gzip
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import types
import urllib.request
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pytest

from helpers import worlds
from helpers.data import tables
from helpers.engine import gpu, store
from helpers.errors import StudyError
from helpers.models import clip
from helpers.paper import index
from helpers.study import embeddings
from tests import tiny

N, K = 200, 7
CLASSES = ("A320", "rose", "Tornado")
BENCH = tables.Benchmark(
    "aircraft",
    CLASSES,
    "",
    "",
    ("a photo of a {}.", "the {}"),
    (),
    pd.DataFrame(),
    None,
    None,
    None,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of clip-retrieval over 200 pairs of which 8 and 9 show the same, and a tiny CLIP."""
    top = tmp_path_factory.mktemp("index")
    rng = np.random.default_rng(0)
    for kind in ("img", "text"):
        vectors = rng.normal(size=(N, 32)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[9] = vectors[8]
        for i in range(2):
            store.write(
                top / "found" / f"{kind}_emb" / f"{kind}_emb_{i}.npy", np.split(vectors, 2)[i]
            )
    for i in range(2):
        rows = range(i * N // 2, (i + 1) * N // 2)
        table = {
            "url": [f"https://pool.example/{r}" for r in rows],
            "caption": [f"pair {r}" for r in rows],
            "NSFW": "UNLIKELY",
        }
        store.write(top / "found" / "metadata" / f"metadata_{i}.parquet", pd.DataFrame(table))
    for name, kind in (("image", "img"), ("text", "text")):
        index_bytes = embeddings.build_index(top / "found" / f"{kind}_emb")
        store.write(top / "found" / f"{name}.index", index_bytes)
    tiny.clip(top / "clip")
    return top


@pytest.fixture
def w(made, tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_PAPER", str(made))
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    monkeypatch.setattr(index, "WAIT", 0)
    monkeypatch.setattr(index, "PER_SECOND", 1_000)
    # In float32, as back ends compute, also where a processor has bfloat16.
    monkeypatch.setattr(gpu, "autocast", lambda precision="": contextlib.nullcontext())
    world = worlds.get("paper", clip={"model": "upstream"}, retrieval={"k": K})
    monkeypatch.setattr(worlds.backend(world), "clip_folder", lambda _: made / "clip")
    index._folder.cache_clear()
    return world


def search(w, address):
    """What ``search_index`` finds through the index at an address."""
    file = Path(os.environ["STUDY_PAPER"]) / "paper.toml"
    file.write_text(f"index = {json.dumps(address)}\n")
    return index.search_index(w, BENCH)


def exact(made, w, label):
    """Brute force: rows near any text of a class, by picture or by caption."""
    queries = clip.embed_texts(clip.load(w), BENCH.texts(CLASSES[label]))
    parts = [
        embeddings.embeddings(store.Artifact("found", made / "found"), kind) @ queries.T
        for kind in ("img", "text")
    ]
    return {int(r) for s in parts for r in np.argsort(-s, axis=0, kind="stable")[:K].ravel()}


def test_a_folder_against_brute_force(made, w):
    found = search(w, str(made / "found"))
    for label, rows in found.groupby("label"):
        assert (
            set(rows["SAMPLE_ID"]) == exact(made, w, label)
            and (rows["class"] == CLASSES[label]).all()
        )
        assert list(rows["TEXT"]) == [f"pair {i}" for i in rows["SAMPLE_ID"]]
    assert not found.duplicated(["SAMPLE_ID", "label"]).any() and {
        "url",
        "NSFW",
        "similarity",
    } <= set(found)
    assert search(w, str(made / "found")).equals(found)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def back_end(made):
    """clip-retrieval's own server on the folder, with the same CLIP; its address."""
    config = json.loads((made / "clip" / "config.json").read_text())
    config["text_cfg"]["hf_tokenizer_name"] = str(made / "clip")
    store.write(made / "models" / "tinyclip.json", config)
    store.write(made / "indices.json", {"pool": str(made / "found")})
    port = free_port()
    code = (
        f"import open_clip; open_clip.add_model_config({str(made / 'models')!r}); "
        "from clip_retrieval.clip_back import clip_back; "
        f"clip_back({str(made / 'indices.json')!r}, {port}, "
        f"clip_model='open_clip:tinyclip/{made / 'clip' / clip.WEIGHTS}', "
        "use_jit=False, enable_mclip_option=False, provide_aesthetic_embeddings=False)"
    )
    with (made / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=log,
            stderr=log,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
    try:
        for _ in range(1_200):
            assert server.poll() is None, (made / "log").read_text()[-2_000:]
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/indices-list", timeout=5).close()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/knn-service"
    finally:
        server.terminate()
        server.wait()


def test_the_back_end_of_clip_retrieval_finds_the_same(made, w, back_end):
    found = search(w, back_end)
    for label, rows in found.groupby("label"):
        want = exact(made, w, label)
        assert (
            want - set(rows["SAMPLE_ID"]) <= {8, 9} and set(rows["SAMPLE_ID"]) <= want
        )  # what repeats in an answer is dropped [C]
        assert list(rows["url"]) == [f"https://pool.example/{i}" for i in rows["SAMPLE_ID"]]
    assert found.equals(search(w, f"{back_end}#pool")) and set(found["NSFW"]) == {"UNLIKELY"}
    with pytest.raises(StudyError, match="Internal Server Error"):
        search(w, f"{back_end}#another")


@contextlib.contextmanager
def stumbling(fails, captions=True):
    """A back end that speaks the protocol; query number ``i`` fails if ``fails(i)``.

    Yields its address and the list of queries.
    """
    seen, lock = [], threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                seen.append(asked)
                bad = fails(len(seen)) or (asked["modality"] == "text" and not captions)
            first = len(asked["text"])
            rows = [
                {"id": first + i, "url": f"u{first + i}", "caption": "c", "similarity": 0.5}
                for i in range(asked["num_images"])
            ]
            body = json.dumps({"message": "Internal Server Error"} if bad else rows).encode()
            self.send_response(500 if bad else 200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/knn-service", seen
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["endless", "packed"])
def test_an_answer_is_read_to_its_limit_and_as_it_is(w, monkeypatch, kind):
    """Whatever is sent, no more than ``ANSWER`` is held, and nothing that is packed is unpacked."""

    body = gzip.compress(bytes(2**27)) if kind == "packed" else b"[" + bytes(2**22)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            if kind == "packed":
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    monkeypatch.setattr(index, "ANSWER", 1)
    monkeypatch.setattr(index, "TRIES", 1)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tracemalloc.start()
        with pytest.raises(StudyError, match="gave no answer"):
            search(w, f"http://127.0.0.1:{server.server_port}/knn-service")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        server.shutdown()
    assert peak < 2**25


def test_queries_that_fail_are_repeated_and_paced(w, monkeypatch):
    monkeypatch.setattr(index, "PER_SECOND", 40)
    start = time.monotonic()
    with stumbling(lambda i: i % 2) as (address, seen):
        found = search(w, address)
    assert (
        set(found["label"]) == {0, 1, 2}
        and len(seen) >= 14
        and time.monotonic() - start > (len(seen) - 1) / 40
    )
    assert {(q["num_images"], q["indice_name"], q["aesthetic_score"]) for q in seen} == {
        (1, None, ""),
        (K, None, ""),
    }


def test_a_search_goes_on_where_the_back_end_left(w):
    with stumbling(lambda i: i > 6) as (address, seen):
        with pytest.raises(StudyError, match=r"gave no answer to .*what was found is kept"):
            search(w, address)
        assert len(list(Path(os.environ["STUDY_RUNS"]).rglob("0000?.parquet"))) == 1
        before = len(seen)
        seen.clear()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(StudyError):
            patch.setattr(index, "_answers", lambda *_: True)
            patch.setattr(index, "TRIES", 1)
            search(w, address)
        assert before > 6 and all("A320" not in q["text"] for q in seen)


def test_without_an_index_of_captions_only_pictures_are_searched(w, capsys):
    with stumbling(lambda i: False, captions=False) as (address, _):
        assert len(search(w, address)) > 0
    assert "captions are not searched" in capsys.readouterr().out


def test_errors_say_what_to_do(made, w, tmp_path):
    with pytest.raises(StudyError, match=r"gave no answer.*refused.*clip-retrieval back"):
        search(w, f"http://127.0.0.1:{free_port()}/knn-service")
    with pytest.raises(StudyError, match=r"no index of clip-retrieval in .*Valid: such a folder"):
        search(w, str(tmp_path / "nowhere"))
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "metadata").symlink_to(made / "found" / "metadata")
    with pytest.raises(StudyError, match=r"no index .*it should hold image.index"):
        search(w, str(tmp_path / "part"))
    (tmp_path / "part" / "image.index").write_bytes(b"nothing")
    with pytest.raises(StudyError, match="cannot read the index"):
        search(w, str(tmp_path / "part"))
    narrow = faiss.IndexFlatIP(16)
    narrow.add(np.zeros((N, 16), np.float32))
    faiss.write_index(narrow, str(tmp_path / "part" / "image.index"))
    with pytest.raises(StudyError, match="vectors of 16 numbers"):
        search(w, str(tmp_path / "part"))


def test_an_index_of_distances_is_refused(made, w, tmp_path):
    """They are small where pairs are alike, and would be sorted as similarities."""
    (made / "paper.toml").write_text('clip = "clip"\n')
    shutil.copytree(made / "found", tmp_path / "found", symlinks=True)
    vectors = faiss.IndexFlatL2(32)
    vectors.add(np.ones((N, 32), np.float32))
    (tmp_path / "found" / "image.index").unlink()
    faiss.write_index(vectors, str(tmp_path / "found" / "image.index"))
    with pytest.raises(StudyError, match=r"image\.index has distances, .* metric ip"):
        index.located(worlds.get("paper"), str(tmp_path / "found"))


def test_what_could_not_be_searched_is_found_before(made, w, tmp_path):
    """Vectors of another length, captions that are no texts, an address where nobody answers."""
    (made / "paper.toml").write_text('clip = "clip"\n')
    w = worlds.get("paper")
    assert index.located(w, str(made / "found")) == str(made / "found")
    (tmp_path / "other" / "metadata").mkdir(parents=True)
    table = pd.DataFrame({"url": ["a", "b"]})
    table.to_parquet(tmp_path / "other" / "metadata" / "0.parquet")
    for length in (7, 32):
        vectors = faiss.IndexFlatIP(length)
        vectors.add(np.ones((2, length), np.float32))
        faiss.write_index(vectors, str(tmp_path / "other" / "image.index"))
        index._folder.cache_clear()
        if length == 7:
            with pytest.raises(StudyError, match="vectors of 7 numbers, clip makes 32"):
                index.located(w, str(tmp_path / "other"))
    assert index.located(w, str(tmp_path / "other"))  # one without captions can be searched
    table.assign(caption=[["x"], ["y"]]).to_parquet(tmp_path / "other" / "metadata" / "0.parquet")
    with pytest.raises(StudyError, match=r"column TEXT of .*0\.parquet holds List"):
        index.located(w, str(tmp_path / "other"))
    with stumbling(lambda i: False) as (address, seen):
        assert index.located(w, address) == address and len(seen) == 1
    with stumbling(lambda i: True) as (address, seen):
        with pytest.raises(StudyError, match="gave no answer to 'a photo'"):
            index.located(w, address)
        assert len(seen) == 1
    with pytest.raises(
        StudyError, match=r"http://127\.0\.0\.1:\d+/knn-service gave no answer.*refus"
    ):
        index.located(w, f"http://127.0.0.1:{free_port()}/knn-service")


def test_the_named_index_serves_the_semantic_rule(made, w, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    (tmp_path / "paper.toml").write_text(f'index = "{made / "found"}"\n')
    urls = [f"https://pool.example/{i}" for i in range(0, N, 2)]  # half of them were downloaded
    shards = [
        store.write(tmp_path / "laion" / f"{i}.parquet", pd.DataFrame({"URL": part}))
        for i, part in enumerate(np.split(np.array(urls, object), 2))
    ]
    pool = tables.Pool(tuple(shards), None, (N // 4, N // 4))
    backend = types.SimpleNamespace(
        open_pool=lambda _: pool,
        search_index=worlds.backend(w).search_index,
        clip_folder=lambda _: made / "clip",
    )
    want = {(i // 2, label) for label in range(3) for i in exact(made, w, label) if i % 2 == 0}
    monkeypatch.setattr(worlds, "backend", functools.partial(lambda made, _: made, backend))
    found = embeddings.search(w, None, BENCH)
    assert set(zip(found["row"], found["label"], strict=True)) == want
    assert f"search: {len(want)} of" in capsys.readouterr().out
