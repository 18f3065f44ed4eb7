"""HTTP connections to public addresses only, with one deadline: what polite.py puts into urllib.

Strangers wrote the addresses, and every redirect. A connection resolves its host once, refuses it
when any of its addresses is not public, and connects to the very address that was checked, so that
a second DNS answer cannot differ. http.client's timeout starts anew with every packet.
"""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import socket
import time

NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv6 addresses that wrap an IPv4 address


class Refusal(Exception):  # an outcome, not always an error
    """Why an address gave no image; the message is the outcome that is recorded."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; one that wraps another counts as it."""
    ip = ipaddress.ip_address(address.split("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    if ip.version == 6 and ip in NAT64:
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast and (inner is None or is_public(str(inner)))


class Guarded:
    """Mixin for http.client's connections: checked addresses, one deadline for all bytes."""

    def __init__(self, host: str, *, allow_private: tuple[str, ...], **settings):
        super().__init__(host, **settings)
        self.allow_private = allow_private
        self.until = time.monotonic() + self.timeout
        # http.client's own seam; TLS is put on top of the socket that it returns.
        self._create_connection = self._connect
        self.response_class = functools.partial(_Response, until=self.until)

    def _connect(self, address, timeout, source) -> socket.socket:
        # All addresses of the name have to be public, and one of these very addresses is taken.
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        for *_, place in found:
            if place[0] not in self.allow_private and not is_public(place[0]):
                raise Refusal("refused: address not public")
        problem = OSError("no address")
        for family, kind, protocol, _, place in found:
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(max(self.until - time.monotonic(), 0.01))
                connection.connect(place)
                return connection
            except OSError as e:
                connection.close()
                problem = e
        raise problem


class Http(Guarded, http.client.HTTPConnection):
    """``http``, guarded."""


class Https(Guarded, http.client.HTTPSConnection):
    """``https``, guarded; certificates are checked against the name, as always."""


class _Response(http.client.HTTPResponse):
    def __init__(self, sock, *args, until: float, **settings):
        super().__init__(sock, *args, **settings)
        self.fp = io.BufferedReader(_Timed(sock, self.fp, until))


class _Timed(io.RawIOBase):
    """A stream that ends with ``TimeoutError`` at a set time, however often something arrives."""

    def __init__(self, sock, stream, until: float):
        self.sock = sock
        self.stream = stream
        self.until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.sock.settimeout(left)
        return self.stream.readinto1(buffer)

    def close(self) -> None:
        self.stream.close()
        super().close()
