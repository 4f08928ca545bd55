"""
The opening handshake of a client of `verify`: what is asked, and what an answer other than 101 means.

Without I/O. Imported by the modules of `verify`.
"""

from __future__ import annotations

import re

from websockets.client import ClientProtocol

from ._address import Address

MAX_HEAD_BYTES = 65536  # of the answer
MAX_MESSAGE_BYTES = 16 * 2**20

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})\b")


class PeerError(Exception):
    """There is no connection; the text says why, in one line."""


class RefusedError(PeerError):
    """
    The service answered the opening handshake with something else than 101.

    Attributes:
        status: Of HTTP.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"the opening handshake was refused with HTTP {status}")
        self.status = status


def begin(address: Address, origin: str | None, cookie: str | None) -> ClientProtocol:
    """
    Ask for a connection.

    Args:
        address: Of the service.
        origin: Header ``Origin``; None: that of the address.
        cookie: Header ``Cookie``, unless the address has one; None: none.

    Returns:
        The protocol, with the request to send.
    """
    protocol = ClientProtocol(address.uri, origin=origin or address.origin, max_size=MAX_MESSAGE_BYTES)  # type: ignore[arg-type]
    request = protocol.connect()
    for name, value in address.headers:
        request.headers[name] = value
    if cookie is not None and "Cookie" not in request.headers:
        request.headers["Cookie"] = cookie
    protocol.send_request(request)
    return protocol


def check_head(head: bytes, *, is_whole: bool) -> None:
    """
    Look at the beginning of an answer, so that nobody waits for the body of a refusal.

    Args:
        head: What has come so far.
        is_whole: Whether the transport has ended.

    Raises:
        PeerError: It is no 101.
    """
    found = _STATUS.match(head)
    if found is not None and found[1] != b"101":
        raise RefusedError(int(found[1]))
    if is_whole and not head:
        raise PeerError("the connection was closed without an answer to the opening handshake")
    if is_whole or (found is None and len(head) > len("HTTP/1.1 101")) or len(head) > MAX_HEAD_BYTES:
        raise PeerError("the answer to the opening handshake is not valid HTTP")
