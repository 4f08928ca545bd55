"""
The client's side of docs/protocol.md: where it is in its streams, what it has seen, and what to answer. Sans-IO.

It opens no connection; `follow` shows with any WebSocket client how it is used. A page does the same with
``examples/hub_client.js``. It imports nothing of the rest.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

VERSION = 1
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class Received:
    """
    Something new of a stream.

    Attributes:
        kind: "message"; "started" or "resumed" after a request; "gone": what was missed is not there any more;
            "unavailable": try again later; "refused": it will never be.
        stream: Such as ``room:lobby``.
        data: The message: an object, text or bytes.
        epoch: Which life of the stream.
        offset: Its place in it, from 1.
    """

    kind: Literal["message", "started", "resumed", "gone", "unavailable", "refused"]
    stream: str
    data: Any = None
    epoch: str = ""
    offset: int = 0


class HubClient:
    """
    The state of a client that outlives its connections.

    Attributes:
        positions: dict: stream -> the last position, to be kept where the client wants to go on from later.
    """

    def __init__(self, streams: Iterable[str], positions: Mapping[str, str] | None = None) -> None:
        """
        Begin.

        Args:
            streams: What it follows, such as ``room:lobby`` and ``user:ann``.
            positions: Positions of an earlier life.
        """
        self._streams = tuple(streams)
        self.positions: dict[str, str] = dict(positions or {})
        self._seen: dict[str, tuple[str, int]] = {}

    def opening(self) -> list[str]:
        """Give what to send on a new connection."""
        return [self._request("resume", stream, self.positions.get(stream)) for stream in self._streams]

    def receive(self, text: str | bytes) -> tuple[Received | None, str | None, bool]:
        """
        Take what came.

        Args:
            text: A message of the server.

        Returns:
            What is new, None for a message that was seen before; what to answer, None for nothing; and whether the
            message was the protocol's: else it is the application's own.
        """
        fields = _fields(text)
        if fields is None:
            return None, None, False
        kind, stream = fields.get("type"), fields.get("stream")
        if fields["hub"] != VERSION or not isinstance(stream, str):
            return None, None, True
        if kind == "message":
            return (*self._message(stream, fields), True)
        if kind in ("started", "resumed", "gone", "unavailable", "refused"):
            if kind == "gone":
                self._seen.pop(stream, None)
            if "position" in fields:
                self.positions[stream] = fields["position"]
            return Received(kind, stream), None, True
        return None, None, True

    def _message(self, stream: str, fields: dict[str, Any]) -> tuple[Received | None, str | None]:
        epoch, offset, position = fields["epoch"], fields["offset"], fields["position"]
        answer = self._request("ack", stream, position) if fields.get("ack") else None
        seen_epoch, seen = self._seen.get(stream, ("", 0))
        if epoch == seen_epoch and offset <= seen:
            return None, answer
        self._seen[stream] = (epoch, offset)
        self.positions[stream] = position
        data = base64.b64decode(fields["base64"]) if "base64" in fields else fields.get("text", fields.get("data"))
        return Received("message", stream, data, epoch, offset), answer

    def _request(self, kind: str, stream: str, position: str | None) -> str:
        fields: dict[str, Any] = {"hub": VERSION, "type": kind, "stream": stream}
        return json.dumps(fields if position is None else {**fields, "position": position})


class Socket(Protocol):
    """What is needed of a WebSocket; those of the ``websockets`` library have it."""

    async def send(self, message: str, /) -> None:
        """Send text."""

    async def recv(self) -> str | bytes:
        """Give the next message, or raise when the connection is over."""


async def follow(
    connect: Callable[[], AbstractAsyncContextManager[Socket]],
    client: HubClient,
    gone: tuple[type[Exception], ...] = (OSError,),
) -> AsyncIterator[Received]:
    """
    Follow streams over as many connections as it takes.

    A message is acknowledged when the next one is asked for: what was not done with comes again.

    Args:
        connect: Opens a connection, such as ``lambda: websockets.connect(url)``.
        client: The state.
        gone: What is raised when a connection cannot be opened or is over: with ``websockets``
            ``(OSError, websockets.WebSocketException)``.

    Yields:
        What is new. Messages that are not the protocol's are left out.
    """
    failures = 0
    while True:
        try:
            async with connect() as socket:
                for text in client.opening():
                    await socket.send(text)
                while True:
                    found, answer, _ = client.receive(await socket.recv())
                    if found is not None:
                        yield found
                        failures = failures + 1 if found.kind == "unavailable" else 0
                        if found.kind == "refused":
                            return
                        if found.kind == "unavailable":
                            break
                    if answer is not None:
                        await socket.send(answer)
        except gone:
            failures += 1
        await asyncio.sleep(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0))


def _fields(text: str | bytes) -> dict[str, Any] | None:
    if not isinstance(text, str) or '"hub"' not in text:
        return None
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) and "hub" in fields else None
