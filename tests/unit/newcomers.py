"""Handshakes made by hand, for tests of policies."""

from __future__ import annotations

from collections.abc import Hashable

from asgi_ws_guard import Handshake, Identity


def handshake(
    connection_id: str = "0",
    *,
    path: str = "/ws",
    client: tuple[str, int] | None = ("192.0.2.1", 50000),
    headers: tuple[tuple[bytes, bytes], ...] = (),
    subject: Hashable = None,
) -> Handshake:
    """Make a handshake; *subject* is who a policy before has found, None: nobody."""
    return Handshake(
        path=path,
        query_string=b"",
        headers=headers,
        client=client,
        server=("127.0.0.1", 80),
        scheme="ws",
        http_version="1.1",
        subprotocols=(),
        can_deny=True,
        connection_id=connection_id,
        identity=None if subject is None else Identity(subject),
    )


class Clock:
    """A clock that stands until it is moved; any number of seconds may be its start."""

    def __init__(self, now_s: float = 1_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        """Give the seconds."""
        return self.now_s
