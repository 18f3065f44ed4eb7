"""Downloads from a hostile server on 127.0.0.1: what is refused and why, limits, pace, resuming,
and rows to filtered images.
"""

import dataclasses
import functools
import hashlib
import importlib
import io
import multiprocessing
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import worlds
from helpers.data import copies, rules, scan, shards
from helpers.engine import store
from helpers.errors import StudyError
from helpers.models import clip
from helpers.paper import benchmarks
from helpers.paper.download import guard, laion, polite
from helpers.study import retrieval

HERE = ("127.0.0.1",)
LIMITS = polite.Limits(  # patient: on a busy machine an answer takes its time
    seconds=20.0, bytes=200_000, pixels=1_000_000, per_host=500, allow_private=HERE
)
SOON = 2.0  # seconds, for what never ends


def picture(i: int, kind: str = "jpeg", size=(90, 60)) -> bytes:
    pixels = np.random.default_rng(i).integers(0, 256, (4, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A tiny PNG whose header promises far more pixels than its bytes can hold."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


PAGES = {  # path -> status, headers, body
    "/robots.txt": (
        200,
        {"X-Robots-Tag": "noindex"},
        b"User-agent: *\nDisallow: /private\n\nUser-agent: img2dataset\nDisallow: /unset\n",
    ),
    "/png": (200, {}, picture(1, "png")),
    "/webp": (200, {}, picture(2, "webp")),
    "/text": (200, {"Content-Type": "image/jpeg"}, b"<html>no image</html>"),
    "/empty": (200, {}, b""),
    "/bomb": (200, {}, bomb(50_000, 50_000)),
    "/wide": (200, {}, bomb(1_100, 1_000)),
    "/svg": (200, {"Content-Type": "image/svg+xml"}, b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "/noai": (200, {"X-Robots-Tag": "noai"}, picture(3)),
    "/preview": (200, {"X-Robots-Tag": "noai, max-image-preview:large"}, picture(3)),
    "/other": (200, {"X-Robots-Tag": "otherbot: noindex"}, picture(3)),
    "/named": (200, {"X-Robots-Tag": "IMG2dataset: NoIndex"}, picture(3)),
    "/announced": (200, {"Content-Length": "10000000000"}, b"x"),
    "/short": (200, {"Content-Length": "5000"}, picture(4)[:500]),
    "/gone": (404, {}, b"x" * 100),
    "/broken": (500, {}, b""),
    "/file": (302, {"Location": "file:///etc/passwd"}, b""),
    "/ftp": (301, {"Location": "ftp://127.0.0.1/x"}, b""),
    "/metadata": (302, {"Location": "http://169.254.169.254/latest"}, b""),
    "/lan": (307, {"Location": "http://10.0.0.1/x.jpg"}, b""),
    "/loopback": (302, {"Location": "http://[::1]:9/x.jpg"}, b""),
    "/loop": (302, {"Location": "/loop"}, b""),
    "/moved": (301, {"Location": "/good/7"}, b""),
    "/hidden": (302, {"Location": "/private/1"}, b""),
}


class Hostile(BaseHTTPRequestHandler):
    """Serves ``PAGES``, pictures under /good/, and bodies that never end."""

    def do_GET(self):
        self.server.seen.append((time.monotonic(), self.path, self.headers["User-Agent"]))
        if self.path in ("/endless", "/drip", "/tarpit", "/swollen"):
            self.never_end(self.path)
            return
        time.sleep(self.server.delay)
        status, headers, body = PAGES.get(self.path) or (
            200,
            {},
            picture(int(self.path.rsplit("/", 1)[1])),
        )
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def never_end(self, path):
        try:
            if path == "/tarpit":  # a header, one byte at a time
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"z" * 100_000:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.2)
            self.send_response(
                302 if path == "/swollen" else 200
            )  # a redirect that urllib would read to its end
            self.send_header("Location", "/good/8")
            self.end_headers()
            until = time.monotonic() + 20
            while time.monotonic() < until:
                self.wfile.write(b"x" * (10 if path == "/drip" else 1 << 16))
                time.sleep(0.2 if path == "/drip" else 0)
        except OSError:
            self.server.hung_up.add(path)

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture(scope="module")
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    made.seen, made.hung_up, made.delay, made.daemon_threads = [], set(), 0.0, True
    made.url = f"http://127.0.0.1:{made.server_port}"
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()


def ask(url, folder, limits=LIMITS, **changes):
    """What one address gives: "came", or the reason why not."""
    limits = dataclasses.replace(limits, **changes)
    try:
        with polite.opener(limits, folder).open(url, timeout=limits.seconds) as answer:
            assert Image.open(io.BytesIO(answer.read())).size == (90, 60)
        return "came"
    except polite.Refusal as e:
        return str(e)


OUTCOMES = {
    "came": ("/good/1", "/png", "/webp", "/moved", "/other", "/swollen"),
    "refused: not http(s)": ("/file", "/ftp"),
    "refused: address not public": ("/metadata", "/lan", "/loopback"),
    "refused: opt-out header": ("/noai", "/preview", "/named"),
    "refused: robots.txt": ("/private/1", "/unset/1", "/hidden"),
    "refused: too many bytes": ("/endless", "/announced"),
    "refused: too many pixels": ("/bomb", "/wide"),
    "failed: not an image": ("/text", "/empty", "/svg"),
    "failed: timeout": ("/drip", "/tarpit"),
    "failed: cut short": ("/short",),
    "failed: HTTP 404": ("/gone",),
    "failed: HTTP 500": ("/broken",),
    "failed: HTTP 302": ("/loop",),
    "refused: malformed address": ("/good/a b",),
}


@pytest.mark.parametrize(
    ("path", "outcome"), [(p, o) for o, paths in OUTCOMES.items() for p in paths]
)
def test_outcome_of_one_address(server, tmp_path_factory, path, outcome):
    start = time.monotonic()
    seconds = SOON if outcome == "failed: timeout" else LIMITS.seconds
    turns = tmp_path_factory.getbasetemp() / "turns"
    assert ask(server.url + path, turns, seconds=seconds) == outcome
    assert time.monotonic() - start < LIMITS.seconds


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes its certificate with openssl")
def test_certificates_are_checked(server, tmp_path, monkeypatch):
    """A certificate that nobody signed is refused; the same server is read once its certificate is
    known.
    """
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            key,
            "-out",
            cert,
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    made = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    made.seen, made.hung_up, made.delay, made.daemon_threads = [], set(), 0.0, True
    made.socket = context.wrap_socket(made.socket, server_side=True)
    made.handle_error = lambda *_: None  # a client that hangs up during the handshake
    threading.Thread(target=made.serve_forever, daemon=True).start()
    url = f"https://127.0.0.1:{made.server_port}"
    assert ask(url + "/good/1", tmp_path / "before") == "failed: TLS"
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    assert ask(url + "/good/1", tmp_path / "after") == "came"
    assert ask(url + "/drip", tmp_path / "after", seconds=SOON) == "failed: timeout"
    assert (
        ask(url + "/good/1", tmp_path / "after", allow_private=()) == "refused: address not public"
    )
    made.shutdown()


def test_only_http_to_public_addresses(server, tmp_path):
    before = len(server.seen)
    assert ask(server.url + "/good/1", tmp_path, allow_private=()) == "refused: address not public"
    number = int.from_bytes(socket.inet_aton("127.0.0.1"), "big")
    for host in (
        "localhost",
        "127.1",
        str(number),
        "0x7f000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ):
        assert (
            ask(f"http://{host}:{server.server_port}/good/1", tmp_path, allow_private=())
            == "refused: address not public"
        ), host
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/x", "data:image/png;base64,AAAA"):
        assert ask(url, tmp_path) == "refused: not http(s)"
    assert len(server.seen) == before
    private = (
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "fe80::1%eth0",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    )
    assert not any(map(guard.is_public, private)) and all(
        map(guard.is_public, ("8.8.8.8", "2606:4700::1", "64:ff9b::808:808"))
    )


def test_a_name_is_resolved_once_and_all_its_addresses_count(server, tmp_path, monkeypatch):
    """A hostile name server: two addresses of which one is private, and another answer at the
    second question.
    """
    answers = []

    def resolve(host, port, **_):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, server.server_port))
            for ip in answers.pop(0)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    answers += [["8.8.8.8", "10.0.0.1"]]
    assert ask("http://both.example/good/1", tmp_path) == "refused: address not public"
    answers += [
        ["127.0.0.1"],
        ["127.0.0.1"],
        ["10.0.0.1"],
    ]  # for robots.txt, for the image, and one that nobody asks for
    assert ask("http://rebinding.example/good/1", tmp_path) == "came" and answers == [["10.0.0.1"]]


def test_endless_bodies_are_hung_up_on(server, tmp_path):
    for path in ("/endless", "/swollen", "/drip"):
        ask(server.url + path, tmp_path, seconds=SOON if path == "/drip" else LIMITS.seconds)
    until = time.monotonic() + 30
    while not {"/endless", "/swollen", "/drip"} <= server.hung_up and time.monotonic() < until:
        time.sleep(0.05)
    assert {"/endless", "/swollen", "/drip"} <= server.hung_up


def test_a_host_is_asked_in_turns_with_one_robots_and_our_name(server, tmp_path):
    before = len(server.seen)
    slow = polite.Limits(seconds=20, per_host=10, allow_private=HERE)
    start = time.monotonic()
    threads = [
        threading.Thread(target=ask, args=(f"{server.url}/good/{i}", tmp_path, slow))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times, paths, agents = zip(*sorted(server.seen[before:]), strict=True)
    # the n-th request waits for n turns of a tenth of a second; a busy machine only adds to that
    assert (np.array(times) - start >= np.arange(7) / 10 - 1e-3).all()
    assert paths[0] == "/robots.txt" and len(set(paths)) == 7 and set(agents) == {polite.AGENT}


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        ((404, {}, b""), "came"),
        ((403, {}, b""), "came"),
        ((503, {}, b""), "refused: robots.txt"),
        ((200, {}, b"\xff\xfe<html>"), "came"),
        ((200, {}, b"User-agent: *\nCrawl-delay: 3600\n"), "refused: robots.txt"),
        ((200, {}, b"#" * 600_000), "refused: robots.txt"),
        ((302, {"Location": "http://10.0.0.1/robots.txt"}, b""), "refused: address not public"),
    ],
)
def test_answers_to_robots(server, tmp_path, monkeypatch, rules, outcome):
    monkeypatch.setitem(PAGES, "/robots.txt", rules)
    assert ask(server.url + "/good/1", tmp_path) == outcome


def table(server, paths, **columns):
    return pd.DataFrame(
        {
            "SAMPLE_ID": range(len(paths)),
            "url": [server.url + p if p.startswith("/") else p for p in paths],
            "TEXT": [f"caption {i}" for i in range(len(paths))],
            "class": "A320",
            **columns,
        }
    )


def test_shards_outcomes_and_loss_per_class(server, tmp_path, capsys):
    paths = [
        "/good/1",
        "/gone",
        "/png",
        "file:///etc/passwd",
        "/noai",
        "/gone",
        "/good/1",
        "/bomb",
        "/good/9",
        "not an address",
    ]
    classes = ["A320"] * 6 + ["rose"] * 3 + ["Tornado"]
    rows = table(server, paths, NSFW=["UNLIKELY"] * 8 + ["NSFW", None]).assign(**{"class": classes})
    tmp_path /= "My Study [v2] a::b"
    told, lost = laion.download(rows, tmp_path / "laion", dataclasses.replace(LIMITS, shard_rows=3))
    assert "10 rows name 7 images" in capsys.readouterr().out
    assert told["outcome"].tolist() == [
        "downloaded",
        "failed: HTTP 404",
        "downloaded",
        "refused: not http(s)",
        "refused: opt-out header",
        "failed: HTTP 404",
        "downloaded",
        "refused: too many pixels",
        "refused: tagged NSFW",
        "refused: not http(s)",
    ]
    assert lost.to_dict("records") == [
        {
            "class": "A320",
            "wanted": 6,
            "downloaded": 2,
            "lost": pytest.approx(2 / 3),
            "reason": "failed: HTTP 404",
        },
        {
            "class": "Tornado",
            "wanted": 1,
            "downloaded": 0,
            "lost": 1.0,
            "reason": "refused: not http(s)",
        },
        {
            "class": "rose",
            "wanted": 3,
            "downloaded": 1,
            "lost": pytest.approx(2 / 3),
            "reason": "refused: tagged NSFW",
        },
    ]
    names = sorted(f.name for f in (tmp_path / "laion").glob("0*"))
    assert names == [
        "00000.parquet",
        "00000.tar",
        "00000_stats.json",
        "00001_stats.json",
        "00002_stats.json",
    ]  # nothing else came
    assert (
        not (tmp_path / "laion" / "_tmp").exists()
        and (tmp_path / "laion" / "report" / "loss.csv").exists()
    )
    tar = shards.Tar(tmp_path / "laion" / "00000.tar")
    images = tar[np.arange(len(tar))]
    assert images.shape == (2, 256, 256, 3) and [f["caption"] for f in tar.rows()] == [
        "caption 0",
        "caption 2",
    ]
    kept = store.read_table(tmp_path / "laion" / "00000.parquet")
    assert kept["TEXT"].tolist() == ["caption 0", "caption 2"] and list(kept["sha256"]) == [
        hashlib.sha256(b).hexdigest() for b in (picture(1), picture(1, "png"))
    ]


def digests(folder):
    return {
        f.name: hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.glob("0*"))
        if f.suffix != ".json"
    }


def kill_after_first_shard(folder):
    until = time.monotonic() + 60
    while not list(folder.glob("*_stats.json")) and time.monotonic() < until:
        time.sleep(0.02)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)


def settled(server):
    """How many requests a server has seen, once those of killed clients have arrived, too."""
    counts = [-1, len(server.seen)]
    while counts[-1] != counts[-2]:
        time.sleep(0.5)
        counts.append(len(server.seen))
    return counts[-1]


def test_a_killed_download_goes_on(server, tmp_path, monkeypatch):
    """The bytes are those of a download that was not killed and had another number of threads."""
    rows = table(server, [f"/good/{i}" for i in range(48)])
    limits = functools.partial(dataclasses.replace, LIMITS, shard_rows=4)
    laion.download(rows, tmp_path / "whole", limits(threads=8))
    monkeypatch.setattr(server, "delay", 0.1)
    killer = threading.Thread(target=kill_after_first_shard, args=(tmp_path / "killed",))
    killer.start()
    with pytest.raises(StudyError, match="run the same command again"):
        laion.download(rows, tmp_path / "killed", limits(threads=2))
    killer.join()
    before = {f: d for f, d in digests(tmp_path / "killed").items() if not f.endswith(".tmp")}
    asked = settled(server)
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / "killed").glob("*.tar")}
    assert 0 < len(list((tmp_path / "killed").glob("*_stats.json"))) < 12
    monkeypatch.setattr(server, "delay", 0.0)
    told, _ = laion.download(rows, tmp_path / "killed", limits(threads=3))
    assert (told["outcome"] == "downloaded").all() and digests(tmp_path / "killed") == digests(
        tmp_path / "whole"
    )
    done = {f: s for f, s in times.items() if f.stat().st_mtime_ns == s}
    assert done and before.items() <= digests(tmp_path / "killed").items()
    assert len([p for _, p, _ in server.seen[asked:] if p.startswith("/good")]) <= 48 - 4 * len(
        done
    )


def test_rows_to_filtered_images(server, tmp_path, monkeypatch):
    """LAION's shards, text scan, download, pool of images, CLIP filter and cap: the way of notebook
    03 on 127.0.0.1.
    """
    captions = [
        "an A320 at dusk",
        "a red rose",
        "two A320s",
        "nothing of use",
        "a rose in the sun",
        "A320 with its door open",
    ]
    urls = ["/good/1", "/good/2", "/gone", "/good/4", "/good/5", "/good/6"]
    meta = pd.DataFrame(
        {
            "SAMPLE_ID": range(6),
            "URL": [server.url + u for u in urls],
            "TEXT": captions,
            "NSFW": "UNLIKELY",
        }
    )
    parts = [
        store.write(tmp_path / "meta" / f"{i}.parquet", meta.iloc[3 * i : 3 * i + 3])
        for i in range(2)
    ]
    found = scan.find(parts, rules.plan(["A320", "rose"], "substring"))
    rows = found[["class"]].join(meta.iloc[found["row"]].reset_index(drop=True))
    _, lost = laion.download(rows, tmp_path / "laion", dataclasses.replace(LIMITS, shard_rows=4))
    assert lost.set_index("class")["downloaded"].to_dict() == {"A320": 2, "rose": 2}

    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    w = worlds.get("paper", clip={"top_share": 0.5})
    pool = benchmarks.open_pool(w)
    made = scan.find(pool.shards, rules.plan(["A320", "rose"], "substring"))
    images = pool.fetch(made["row"].to_numpy())
    assert pool.captions()["TEXT"].tolist() == [
        captions[i] for i in (0, 1, 4, 5)
    ] and images.shape == (4, 256, 256, 3)
    middle = np.asarray(
        Image.open(io.BytesIO(picture(6))).resize((256, 171))
    )  # padded above and below
    assert np.abs(images[3][43:213].astype(int) - middle[:170]).mean() < 12
    small = clip.load(worlds.get("pocket"))
    score = clip.label_scores(
        small,
        clip.embed_images(small, images),
        made["label"].to_numpy(),
        ["A320", "rose"],
        ["a photo of a {}."],
    )
    made = made.assign(
        substring=True,
        nsfw=pool.captions()["NSFW"].iloc[made["row"]].to_numpy(),
        score=score,
        in_domain=True,
        copy=copies.nearest(copies.descriptor(images), copies.descriptor(images[:1])) > 0.99,
    )
    why = retrieval.drop_reasons(w, made, "substring", "top")
    best = made["score"].groupby(made["label"]).transform("max") == made["score"]
    assert (
        ((why == "CLIP filter") == ~best).all()
        and set(why[best]) <= {"kept", "near-duplicate"}
        and (why == "kept").any()
    )
    store.write(tmp_path / "laion" / "00000.parquet", pool.captions().iloc[:1])
    with pytest.raises(StudyError, match="nobody knows which is whose"):
        benchmarks.open_pool(w).fetch([0])


def test_errors_say_what_to_do(server, tmp_path, monkeypatch):
    rows = table(server, ["/good/1"])
    with pytest.raises(StudyError, match="no rows to download"):
        laion.download(rows.iloc[:0], tmp_path)
    with pytest.raises(StudyError, match="no column url, class"):
        laion.download(rows.drop(columns=["url", "class"]), tmp_path)
    with pytest.raises(StudyError, match="tagged NSFW"):
        laion.download(rows.assign(NSFW="NSFW"), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"cannot write to .*Give another folder"):
        laion.download(rows, tmp_path / "file" / "laion")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "00000.tar").write_text("")
    with pytest.raises(StudyError, match="did not make"):
        laion.download(rows, tmp_path / "foreign")
    with laion._alone(tmp_path / "busy"), pytest.raises(StudyError, match="another process"):
        laion.download(rows, tmp_path / "busy")
    laion._claim(tmp_path / "taken", laion.plan(laion.checked(rows)), 1_000)
    with pytest.raises(StudyError, match="holds another download: 1 addresses"):
        laion.download(table(server, ["/good/1", "/good/2"]), tmp_path / "taken")
    monkeypatch.setitem(sys.modules, "img2dataset", None)
    with pytest.raises(StudyError, match=r"pip install -r requirements\.txt"):
        importlib.reload(laion.shards)


def test_nothing_but_tests_lets_private_addresses_through():
    top = Path(__file__).parents[2]
    sources = (*top.glob("helpers/**/*.py"), *top.glob("notebooks/*.ipynb"))
    assert not [p for p in sources if re.search(r"allow_private=['\"(\[T]", p.read_text())]
