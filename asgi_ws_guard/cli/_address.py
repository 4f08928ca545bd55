"""
The one address that `verify` speaks to: its parts, what is sent along, and whether somebody answers there.

The name is looked up once, and every connection goes to the place that was found: no proxy is asked, and no redirect
followed. Imported by the modules of `verify`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

# What makes the opening handshake, and what has an option of its own.
_OWN_HEADERS = ("host", "upgrade", "connection", "origin", "content-length", "transfer-encoding")


class VerifyError(Exception):
    """What was given cannot be verified; the text says why, in one line."""


@dataclass(frozen=True)
class Address:
    """
    Where the service is.

    Attributes:
        uri: The parsed address.
        family: Of the socket.
        place: What the name stands for, as `socket.connect` takes it.
        tls: How to check the certificate; None without TLS.
        origin: The header ``Origin`` of ordinary connections; None: none.
        headers: More headers of every opening handshake.
    """

    uri: WebSocketURI
    family: int
    place: Any
    tls: ssl.SSLContext | None = None
    origin: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> str:
        """Return the address for people: without the query and the password, where tokens live."""
        return f"{'wss' if self.uri.secure else 'ws'}://{self.netloc}{self.uri.path or '/'}"

    @property
    def netloc(self) -> str:
        """Return host and port as a URL has them."""
        host = f"[{self.uri.host}]" if ":" in self.uri.host else self.uri.host
        return f"{host}:{self.uri.port}"


def find_address(url: str, *, timeout_s: float, origin: str | None = None, headers: Sequence[str] = ()) -> Address:
    """
    Take an address apart, look its name up, and see that somebody accepts TCP connections there.

    Args:
        url: ``ws://host:port/path`` or ``wss://``.
        timeout_s: How long each place that the name stands for may take to answer, in seconds.
        origin: Of ordinary connections; None: no such header.
        headers: Each ``Name: value``.

    Raises:
        VerifyError: It is no such address, a header has another form, or nobody answers.
    """
    try:
        uri = parse_uri(url)
        uri.resource_name.encode("ascii")
    except (InvalidURI, ValueError):  # the library's text repeats the whole address, with its query
        raise VerifyError(f"{_without_query(url)!r} is no address: expected ws://host:port/path or wss://") from None
    pairs = tuple(map(_pair, headers))
    if origin is not None:
        _pair(f"Origin-Value: {origin}")  # the same characters are allowed
    family, place = _reach(uri, timeout_s)
    tls = ssl.create_default_context() if uri.secure else None
    return Address(uri, family, place, tls, origin, pairs)


def _reach(uri: WebSocketURI, timeout_s: float) -> tuple[int, Any]:
    where = f"{uri.host}:{uri.port}"
    try:
        places = socket.getaddrinfo(uri.host, uri.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise VerifyError(f"{uri.host} cannot be found: {getattr(error, 'strerror', None) or error}") from None
    why = ""
    for family, kind, protocol, _, place in places:
        with contextlib.closing(socket.socket(family, kind, protocol)) as attempt:
            attempt.settimeout(timeout_s)
            try:
                attempt.connect(place)
            except TimeoutError:
                why = f"no answer within {timeout_s:g} s"
            except OSError as error:
                why = error.strerror or str(error)
            else:
                return family, place
    raise VerifyError(f"{where} does not answer: {why}")


def _pair(header: str) -> tuple[str, str]:
    name, colon, value = header.partition(":")
    name, value = name.strip(), value.strip()
    is_token = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    if not colon or not is_token or not (value.isascii() and value.isprintable()):
        raise VerifyError("--header and --origin take visible ASCII characters: --header 'Name: value'")
    if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
        raise VerifyError(f"--header {name}: the opening handshake has its own (for the origin there is --origin)")
    return name, value


def _without_query(url: str) -> str:
    """Leave out what may hold a token."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.username is not None:
            return f"{parts.scheme}://..."
    return url.partition("?")[0]
