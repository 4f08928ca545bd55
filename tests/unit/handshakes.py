"""Handshakes made by hand, for policies that are asked without a server."""

from __future__ import annotations

from asgi_ws_guard import Handshake


def handshake(
    *headers: tuple[bytes, bytes],
    query: bytes = b"",
    subprotocols: tuple[str, ...] = (),
    path: str = "/room",
    client: tuple[str, int] | None = ("127.0.0.1", 50_000),
) -> Handshake:
    """
    Make a handshake.

    Args:
        headers: Pairs of lower-case name and value.
        query: Raw query string.
        subprotocols: What the client offers.
        path: Decoded path.
        client: Address and port of the peer.
    """
    return Handshake(path, query, headers, client, None, "ws", "1.1", subprotocols, True)
