"""An opener for addresses that strangers wrote: public hosts, bounded, asked politely.

img2dataset fetches with ``urllib.request.urlopen``; ``install_opener`` puts these rules there:

- *address*: http(s) to public hosts (guard.py), redirects too; no proxy, as it resolves names
- *size*: a limit on the time of the whole answer and on its bytes; pixels counted in its header
- *consent*: X-Robots-Tag and robots.txt (RFC 9309, no wildcards), for our name and img2dataset's
- *rate*: requests per second and host over all processes, slower where robots.txt asks for it
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.client
import io
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.robotparser import RobotFileParser

from helpers.data.pictures import FORMATS
from helpers.engine.randomness import entropy
from helpers.paper.download.guard import Http, Https, Refusal

NAMES = ("retrieve-or-generate", "img2dataset")  # what a site may call us; many know the second
AGENT = f"{NAMES[0]}/1.0 (research on retrieved training images; {NAMES[1]})"
# img2dataset's words, and "none", which implies "noindex"; then directives that have a colon.
OPT_OUT = {"noai", "noimageai", "noindex", "noimageindex", "none"}
VALUED = ("max-image-preview", "max-snippet", "max-video-preview", "unavailable_after")
ROBOTS_BYTES = 512_000  # RFC 9309: at least 500 KiB have to be read
LONGEST_DELAY = 30.0  # seconds; a site whose robots.txt asks for more is left alone
REDIRECTS = 10
NOT_HTTP = "refused: not http(s)"
ROBOTS = "refused: robots.txt"
TOO_LARGE = "refused: too many bytes"
TOO_MANY_PIXELS = "refused: too many pixels"
NOT_AN_IMAGE = "failed: not an image"
REASONS = (  # what went wrong -> the outcome that is recorded; the first that fits
    (TimeoutError, "failed: timeout"),
    (socket.gaierror, "failed: host not found"),
    (ssl.SSLError, "failed: TLS"),
    ((ValueError, http.client.InvalidURL), "refused: malformed address"),
    (http.client.IncompleteRead, "failed: cut short"),
    (object, "failed: no connection"),
)


@dataclass(frozen=True)
class Limits:
    """What one image may cost, how often a host is asked, and how a download is cut up."""

    seconds: float = 10.0  # of a whole answer; img2dataset's default, there between two packets
    bytes: int = 20_000_000
    pixels: int = 50_000_000
    per_host: float = 5.0  # requests per second, over all processes
    shard_rows: int = 1_000  # addresses
    threads: int = 32
    allow_private: tuple[str, ...] = ()  # addresses let through although not public: for tests only


def take_turn(turns: Path, host: str, interval: float) -> None:
    """Sleep until it is this caller's turn at a host; the next comes ``interval`` seconds later.
    Threads and processes share the turns through a locked file per host.
    """
    turns.mkdir(parents=True, exist_ok=True)
    with (turns / f"{entropy(host):016x}").open("a+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.seek(0)
        now = time.monotonic()
        turn = max(now, float(f.read() or 0))
        f.truncate(0)
        f.write(f"{turn + interval:.6f}")
    time.sleep(turn - now)


class Opener:
    """Fetches pictures by the rules above, hosts' turns in a folder; failures are ``Refusal``s."""

    def __init__(self, limits: Limits, turns: Path):
        self.limits = limits
        self.turns = turns
        self.locks: dict[str, threading.Lock] = {}  # of each host
        self.known: dict[str, RobotFileParser | str] = {}

    @functools.cached_property
    def tls(self) -> ssl.SSLContext:
        """How certificates are checked, read from disk once."""
        return ssl.create_default_context()

    def open(self, address: Any, data: None = None, timeout: float = 0) -> io.BytesIO:
        """The picture at an address or ``Request``, its body already read, at its redirect's end.

        ``data`` and ``timeout`` are urllib's; the time is that of ``Limits``.
        """
        from PIL import Image

        body = self.get(getattr(address, "full_url", address), images=True)
        try:
            with Image.open(io.BytesIO(body), formats=FORMATS) as image:  # nothing is decoded
                pixels = image.width * image.height
        except Image.DecompressionBombError:
            raise Refusal(TOO_MANY_PIXELS) from None
        except (OSError, ValueError):
            raise Refusal(NOT_AN_IMAGE) from None
        if pixels > self.limits.pixels:
            raise Refusal(TOO_MANY_PIXELS)
        return io.BytesIO(body)

    def get(self, url: str, images: bool) -> bytes:
        """What is at an address; of ``images``, not of a robots.txt itself, consent is asked."""
        status = 0
        try:
            for _ in range(REDIRECTS):
                address = urlsplit(url)
                if address.scheme not in ("http", "https"):
                    raise Refusal(NOT_HTTP)
                interval = self.consented(address, url) if images else 0
                take_turn(self.turns, address.netloc, max(interval, 1 / self.limits.per_host))
                status, found = self.answer(address, images)
                if isinstance(found, bytes):
                    return found
                url = urljoin(url, found)
        except (OSError, ValueError, http.client.HTTPException) as e:
            raise Refusal(next(why for kind, why in REASONS if isinstance(e, kind))) from e
        raise Refusal(f"failed: HTTP {status}")

    def consented(self, address: SplitResult, url: str) -> float:
        """Seconds that robots.txt asks for between requests; ``Refusal`` where it forbids them."""
        origin = f"{address.scheme}://{address.netloc}"
        with self.locks.setdefault(origin, threading.Lock()):
            rules = self.known.get(origin) or self.ask(origin)
            self.known[origin] = rules
        if isinstance(rules, str):
            raise Refusal(rules)
        asked = float(rules.crawl_delay(NAMES[0]) or 0)
        if asked > LONGEST_DELAY or not all(rules.can_fetch(name, url) for name in NAMES):
            raise Refusal(ROBOTS)
        return asked

    def ask(self, origin: str) -> RobotFileParser | str:
        """The rules of a host, or the outcome of all its images (RFC 9309: on 4xx all is free)."""
        parser = RobotFileParser()
        try:
            page = self.get(f"{origin}/robots.txt", images=False)
            parser.parse(page.decode("utf-8", "replace").splitlines())
        except Refusal as e:
            if str(e).startswith("failed: HTTP 5") or str(e) in ("failed: HTTP 429", TOO_LARGE):
                return ROBOTS
            if not str(e).startswith("failed: HTTP"):
                return str(e)  # the host cannot be reached: neither can its images
            parser.allow_all = True
        return parser

    def answer(self, address: SplitResult, images: bool) -> tuple[int, bytes | str]:
        """The status of an answer, and its body or where it sends us; the body is bounded."""
        host = address.netloc.rpartition("@")[2]
        options = {"timeout": self.limits.seconds, "allow_private": self.limits.allow_private}
        secure = address.scheme == "https"
        connection = Https(host, context=self.tls, **options) if secure else Http(host, **options)
        with contextlib.closing(connection):
            query = f"?{address.query}" if address.query else ""
            headers = {"User-Agent": AGENT, "Connection": "close"}
            connection.request("GET", (address.path or "/") + query, headers=headers)
            response = connection.getresponse()
            if images and opted_out(response.headers.get_all("X-Robots-Tag", [])):
                raise Refusal("refused: opt-out header")
            location = response.headers.get("location")
            if 300 <= response.status < 400 and location:
                return response.status, location
            if not 200 <= response.status < 300:
                raise Refusal(f"failed: HTTP {response.status}")
            most = self.limits.bytes if images else ROBOTS_BYTES
            body = response.read(most + 1) if (response.length or 0) <= most else b""
            if len(body) > most or (response.length or 0) > most:
                raise Refusal(TOO_LARGE)
            if response.length:  # bytes that were announced and did not come
                raise http.client.IncompleteRead(b"", response.length)
            return response.status, body


def opted_out(values: list[str]) -> bool:
    """Whether X-Robots-Tag headers forbid the use of an image, to everybody or to one of our names.

    img2dataset's own reading misses "noai, max-image-preview:large": before a colon is a robot.
    """
    for value in values:
        robot, colon, rest = (part.strip().lower() for part in value.partition(":"))
        named = colon and "," not in robot and robot not in VALUED
        directives = (rest if named else value.lower()).split(",")
        if (not named or robot in NAMES) and OPT_OUT & {part.strip() for part in directives}:
            return True
    return False


opener = functools.cache(Opener)  # one in a process, which asks for each robots.txt once
