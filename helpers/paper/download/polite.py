"""A urllib opener for addresses that strangers wrote: public hosts, bounded, asked politely.

img2dataset fetches with ``urllib.request.urlopen``; ``install_opener`` puts these rules there:

- *address*: http and https only, to public hosts (guard.py), redirects too. No proxy is used: it
  would look names up itself.
- *size*: a limit on the time of the whole answer and on its bytes; pixels counted in its header.
- *consent*: X-Robots-Tag and robots.txt (RFC 9309; urllib.robotparser knows no wildcards), for our
  name and img2dataset's.
- *rate*: requests per second and host over all processes, slower where robots.txt asks for it.
"""

from __future__ import annotations

import fcntl
import functools
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.request
import urllib.response
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

from helpers.engine.randomness import entropy
from helpers.paper.download.guard import Http, Https, Refusal

NAMES = ("retrieve-or-generate", "img2dataset")  # what a site may call us; many know the second
AGENT = f"{NAMES[0]}/1.0 (research on retrieved training images; {NAMES[1]})"
# img2dataset's words, and "none", which implies "noindex"; then directives that have a colon.
OPT_OUT = {"noai", "noimageai", "noindex", "noimageindex", "none"}
VALUED = ("max-image-preview", "max-snippet", "max-video-preview", "unavailable_after")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
ROBOTS_BYTES = 512_000  # RFC 9309: at least 500 KiB have to be read
LONGEST_DELAY = 30.0  # seconds; a site whose robots.txt asks for more is left alone
NOT_HTTP = "refused: not http(s)"
ROBOTS = "refused: robots.txt"
TOO_LARGE = "refused: too many bytes"
TOO_MANY_PIXELS = "refused: too many pixels"
NOT_AN_IMAGE = "failed: not an image"
REASONS = (  # what went wrong -> the outcome that is recorded; the first that fits
    (TimeoutError, "failed: timeout"),
    (socket.gaierror, "failed: host not found"),
    (ssl.SSLError, "failed: TLS"),
    ((str, ValueError, http.client.InvalidURL), "refused: malformed address"),
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


class _Polite(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Guarded connections, our name, our turn, and bodies that are read only up to the limit; for
    ``images``, not for a robots.txt itself, also consent and a look at their header.
    """

    handler_order = 400  # before urllib turns an answer into a redirect or an error

    def __init__(self, limits: Limits, turns: Path, images: bool):
        super().__init__()
        self.limits = limits
        self.turns = turns
        self.most = limits.bytes if images else ROBOTS_BYTES
        self.pages = Opener(_Polite(limits, turns, images=False)) if images else None
        self.tls = ssl.create_default_context()  # read from disk once, not per request
        self.locks: dict[str, threading.Lock] = {}  # of each host
        self.known: dict[str, RobotFileParser | str] = {}

    def http_open(self, request):
        return self.do_open(Http, request, allow_private=self.limits.allow_private)

    def https_open(self, request):
        allowed = self.limits.allow_private
        return self.do_open(Https, request, allow_private=allowed, context=self.tls)

    def http_request(self, request):
        interval = 1 / self.limits.per_host
        if self.pages:
            rules = self.rules(f"{request.type}://{request.host}")
            asked = float(rules.crawl_delay(NAMES[0]) or 0)
            allowed = all(rules.can_fetch(name, request.full_url) for name in NAMES)
            if not allowed or asked > LONGEST_DELAY:
                raise Refusal(ROBOTS)
            interval = max(asked, interval)
        request.add_header("User-agent", AGENT)
        take_turn(self.turns, request.host, interval)
        return self.do_request_(request)

    def http_response(self, request, response):
        if self.pages and opted_out(response.headers.get_all("X-Robots-Tag", [])):
            raise Refusal("refused: opt-out header")
        location = response.headers.get("location")
        if 300 <= response.status < 400 and location:
            _check(urljoin(request.full_url, location))
        body = io.BytesIO(self.body(response) if 200 <= response.status < 300 else b"")
        answer = urllib.response.addinfourl(body, response.headers, response.url, response.status)
        answer.msg = response.msg
        response.close()
        return answer

    https_request = http_request
    https_response = http_response

    def body(self, response) -> bytes:
        """The whole body. Raises ``Refusal`` when it is too large, or an error when cut short."""
        from PIL import Image

        body = bytearray()
        if (response.length or 0) > self.most:
            raise Refusal(TOO_LARGE)
        while part := response.read(1 << 16):
            body += part
            if len(body) > self.most:
                raise Refusal(TOO_LARGE)
        if response.length:  # bytes that were announced and did not come
            raise http.client.IncompleteRead(b"", response.length)
        if not self.pages:
            return bytes(body)
        try:
            with Image.open(io.BytesIO(body), formats=FORMATS) as image:  # nothing is decoded
                pixels = image.width * image.height
        except Image.DecompressionBombError:
            raise Refusal(TOO_MANY_PIXELS) from None
        except (OSError, ValueError):
            raise Refusal(NOT_AN_IMAGE) from None
        if pixels > self.limits.pixels:
            raise Refusal(TOO_MANY_PIXELS)
        return bytes(body)

    def rules(self, origin: str) -> RobotFileParser:
        """The robots.txt of a host, asked for once. Raises ``Refusal`` where it cannot be known."""
        with self.locks.setdefault(origin, threading.Lock()):
            rules = self.known.get(origin) or self.ask(origin)
            self.known[origin] = rules
        if isinstance(rules, str):
            raise Refusal(rules)
        return rules

    def ask(self, origin: str) -> RobotFileParser | str:
        """The rules of a host, or the outcome of all its images (RFC 9309: on 4xx all is free)."""
        parser = RobotFileParser()
        try:
            with self.pages.open(f"{origin}/robots.txt", timeout=self.limits.seconds) as page:
                parser.parse(page.read().decode("utf-8", "replace").splitlines())
        except Refusal as e:
            if str(e).startswith("failed: HTTP 5") or str(e) in ("failed: HTTP 429", TOO_LARGE):
                return ROBOTS
            if not str(e).startswith("failed: HTTP"):
                return str(e)  # the host cannot be reached: neither can its images
            parser.allow_all = True
        return parser


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


class Opener(urllib.request.OpenerDirector):
    """urllib's opener for http(s) and nothing else; what goes wrong leaves it as ``Refusal``."""

    def __init__(self, handler: urllib.request.BaseHandler):
        super().__init__()
        self.add_handler(handler)
        for name in ("HTTPRedirectHandler", "HTTPErrorProcessor", "HTTPDefaultErrorHandler"):
            self.add_handler(getattr(urllib.request, name)())

    def open(self, fullurl, data=None, timeout=10.0):
        """The answer to a ``Request`` or address, its body already read; so are redirects'."""
        try:
            request = urllib.request.Request(fullurl) if isinstance(fullurl, str) else fullurl
            _check(request.full_url)
            return super().open(request, data, timeout)
        except HTTPError as e:
            raise Refusal(f"failed: HTTP {e.code}") from None
        except (OSError, ValueError, http.client.HTTPException) as e:
            problem = e.reason if isinstance(e, URLError) else e
            raise Refusal(next(why for kind, why in REASONS if isinstance(problem, kind))) from e


def _check(url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise Refusal(NOT_HTTP)


@functools.cache  # one per process, so that robots.txt is read once per host and process
def opener(limits: Limits, turns: Path) -> Opener:
    """The opener for images; ``turns`` is the folder in which hosts' turns are kept."""
    return Opener(_Polite(limits, turns, images=True))
