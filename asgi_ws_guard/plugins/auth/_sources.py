"""
Where a client shows its token: a header, a cookie, the subprotocols, the query.

A source finds one token or none, and denies what is ambiguous; it does not look into it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from ..._events import Handshake
from ..._exceptions import ConfigurationError
from ..._plugin import Deny
from ._denials import unclear


@dataclass(frozen=True, slots=True)
class Found:
    """
    A token, and what is to become of the place where it was found.

    Attributes:
        token: What the client showed.
        subprotocol: What it is to be answered when the application names none.
        hidden_subprotocols: Offers that the application is not to see.
    """

    token: str = field(repr=False)
    subprotocol: str | None = None
    hidden_subprotocols: tuple[str, ...] = field(default=(), repr=False)


Source = Callable[[Handshake], Found | Deny | None]
"""From a handshake to a token; None when there is none, a denial when it is not clear which."""

_LONG = 65_536
"""Beyond any token that is accepted: not worth decoding."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110, section 5.6.2


def bearer_header() -> Source:
    """Look for ``Authorization: Bearer <token>`` (RFC 6750, section 2.1); a browser's WebSocket cannot send one."""

    def find(handshake: Handshake) -> Found | Deny | None:
        values = [value for name, value in handshake.headers if name == b"authorization"]
        if len(values) > 1:
            return unclear("several_tokens")
        scheme, _, token = values[0].strip().partition(b" ") if values else (b"", b"", b"")
        return _one([token.strip()]) if scheme.lower() == b"bearer" else None

    return find


def cookie(name: str) -> Source:
    """
    Look for a cookie. Browsers send it for the pages of any site: use it with `Origin`.

    Args:
        name: Its name. Two different ones of a name, as a page of a sibling domain can bring about, are a denial.
    """
    wanted = _name("name", name)

    def find(handshake: Handshake) -> Found | Deny | None:
        pairs = (pair for key, value in handshake.headers if key == b"cookie" for pair in value.split(b";"))
        named = ((key.strip(), value.strip()) for key, _, value in (pair.partition(b"=") for pair in pairs))
        return _one([_unquoted(value) for key, value in named if key == wanted])

    return find


def query(name: str) -> Source:
    """
    Look for a parameter of the query string. It stands in the access logs of servers and proxies: for tickets alone.

    Args:
        name: Its name.
    """
    wanted = _name("name", name)

    def find(handshake: Handshake) -> Found | Deny | None:
        pairs = (pair.partition(b"=") for pair in handshake.query_string.split(b"&"))
        values = [value for key, _, value in pairs if key == wanted]
        return _one([value if len(value) > _LONG else unquote_to_bytes(value) for value in values])

    return find


def subprotocol(prefix: str = "bearer") -> Source:
    """
    Look for ``Sec-WebSocket-Protocol: bearer, <token>``, all that a page can send beside the query.

    The application does not see the token. A client gets `prefix` as its answer, for browsers fail a connection without
    one, unless the application chooses another offer.

    Args:
        prefix: What stands before the token.
    """
    _name("prefix", prefix)

    def find(handshake: Handshake) -> Found | Deny | None:
        offers = handshake.subprotocols
        at = [index for index, offer in enumerate(offers) if offer == prefix]
        if not at:
            return None
        shown = [offer for index in at for offer in offers[index + 1 : index + 2]]
        found = _one([offer.encode("utf-8", "surrogatepass") for offer in shown])
        if not isinstance(found, Found):
            return found
        if len(at) > 1:
            return unclear("malformed")
        return Found(found.token, prefix, (found.token,))

    return find


def _one(values: list[bytes]) -> Found | Deny | None:
    if not values:
        return None
    value = values[0]
    if any(other != value for other in values[1:]):
        return unclear("several_tokens")
    if not value:
        return None
    try:
        return Found(value.decode("ascii"))
    except UnicodeDecodeError:
        return unclear("malformed")


def _unquoted(value: bytes) -> bytes:
    return value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value


def _name(option: str, value: object) -> bytes:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ConfigurationError(option, value, "letters, digits and the marks of a token (RFC 9110)")
    return value.encode("ascii")
