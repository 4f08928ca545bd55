"""
A server with every fault that is known of real ones, which says what it was told and minds what it hears.

What it does is set from outside at any moment. It notes everything and breaks the model at once when the guard does
what no server may see: anything after a close, a close that is not legal, a read that is pending where that deadlocks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from asgi_ws_guard._types import Message

SENDS = ("take", "take", "turn", "stall", "gone", "bug")
"""What `send` does: take at once, take a turn later, wait, say that the peer is gone, raise a real error."""
AFTERWARDS = ("hang", "repeat", "gone", "bug")
"""What `receive` does after it gave the disconnect."""


class Bug(Exception):
    """A real error, which nobody may swallow."""


def gone(which: int) -> Exception:
    """Make one of the exceptions by which servers say that the peer is gone."""
    late = "Unexpected ASGI message 'websocket.send', after sending 'websocket.close' or response already completed."
    return (OSError(), ConnectionResetError("gone"), RuntimeError(late))[which % 3]


class Server:
    """
    The server's side of one connection.

    Attributes:
        now: The clock.
        broken: Told what the guard did wrong.
        loses_messages: Whether it is like granian: `receive` may not be cancelled, no read be pending during a close.
        refuses_codes: Whether it is like daphne, which sends few close codes.
        inbox: What `receive` gives next.
        arrived_s: When the first disconnect came into it, None before.
        read_since_s: Since when somebody reads, where somebody does.
        errored_s: When a real error came out of `receive` last.
        accepted_s: When it took the accept.
        handed: What `receive` gave, in order, disconnects and lost peers left out.
        handed_s: When.
        disconnect: The first disconnect that it gave.
        left: Whether it gave a disconnect, or said in `receive` that the peer is gone.
        begun: Messages that the guard sent.
        taken: Those that were taken, in order.
        raised: Real errors that it raised in `send`, by the tag of the message.
        inside: Tags of messages that wait inside, and since when.
        given_up: Closes of the guard that were cancelled inside: after how many seconds, in which task.
        cancelled: Number of the application's messages that were cancelled inside.
        closing_s: Since when a close waits inside, None: none does.
        closed_s: When the last close left it.
        mode: One of `SENDS`.
        afterwards: One of `AFTERWARDS`.
    """

    def __init__(self, now: Callable[[], float], broken: Callable[[str], None], *, loses: bool, refuses: bool) -> None:
        self.now, self.broken = now, broken
        self.loses_messages, self.refuses_codes = loses, refuses
        self.inbox: deque[Message | Exception] = deque()
        self.arrived_s: float | None = None
        self.accepted_s = self.errored_s = 0.0
        self.handed: list[Message | Exception] = []
        self.handed_s: list[float] = []
        self.disconnect: Message | None = None
        self.left = False
        self.begun: list[Message] = []
        self.taken: list[Message] = []
        self.raised: dict[int | None, Exception] = {}
        self.inside: dict[int | None, float] = {}
        self.given_up: list[tuple[float, object]] = []
        self.cancelled = 0
        self.closing_s: float | None = None
        self.closed_s = 0.0
        self.mode, self.afterwards = "take", "hang"
        self.receives = 0
        self.read_since_s = 0.0
        self._is_over = False
        self._readers: deque[asyncio.Future[None]] = deque()
        self._writers: list[asyncio.Future[None]] = []

    @property
    def accepted(self) -> bool:
        """Whether it took the accept."""
        return any(message["type"] == "websocket.accept" for message in self.taken)

    @property
    def holds_end(self) -> bool:
        """Whether an end, or an error, waits to be read."""
        return any(isinstance(one, Exception) or one["type"] == "websocket.disconnect" for one in self.inbox)

    def deliver(self, item: Message | Exception) -> None:
        """Let something arrive."""
        self.inbox.append(item)
        if not isinstance(item, Exception) and item["type"] == "websocket.disconnect" and self.arrived_s is None:
            self.arrived_s = self.now()
        while self._readers and self._readers[0].done():
            self._readers.popleft()
        if self._readers:
            self._readers.popleft().set_result(None)

    def set_mode(self, mode: str) -> None:
        """Change what `send` does; those that wait inside go on by the new mode."""
        self.mode = mode
        waiting, self._writers = self._writers, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def receive(self) -> Message:
        """Give the next message."""
        if not self.receives:
            self.read_since_s = self.now()
        self.receives += 1
        try:
            while not self.inbox:
                if self.left and self.afterwards != "hang":
                    return self._again()
                reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._readers.append(reader)
                try:
                    await reader
                finally:
                    reader.cancel()  # also where the read is thrown away by hand: it is to take nobody's turn
        finally:
            self.receives -= 1
        item = self.inbox.popleft()
        if isinstance(item, Exception):
            if isinstance(item, OSError | RuntimeError):
                self.left = True
            else:
                self.handed.append(item)
                self.handed_s.append(self.now())
                self.errored_s = self.now()
            raise item
        if item["type"] == "websocket.disconnect":
            self.left, self.disconnect = True, self.disconnect or item
        else:
            self.handed.append(item)
            self.handed_s.append(self.now())
        return item

    async def send(self, message: Message) -> None:
        """Take a message, or do what `mode` says."""
        tag, is_close = message.get("tag"), self._mind(message)
        self.begun.append(message)
        self.inside[tag] = self.now()
        if is_close:
            self.closing_s = self.now()
        try:
            if self.refuses_codes and message["type"] == "websocket.close" and self.accepted:
                self._refuse(message)
            if self.mode == "turn":
                await asyncio.sleep(0)
            while self.mode == "stall":
                writer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._writers.append(writer)
                await writer
            if self.mode == "gone":
                raise gone(len(self.begun))
            if self.mode == "bug":
                self.raised[tag] = Bug(f"send of {message['type']}")
                raise self.raised[tag]
            self.taken.append(message)
            if message["type"] == "websocket.accept":
                self.accepted_s = self.now()
        except asyncio.CancelledError:
            self.cancelled += tag is not None
            if is_close and tag is None:
                self.given_up.append((self.now() - self.inside[tag], asyncio.current_task()))
            raise
        finally:
            self.inside.pop(tag, None)
            if is_close:
                self.closing_s, self.closed_s = None, self.now()

    def _mind(self, message: Message) -> bool:
        """Say what is wrong with a message; tell whether it is the last one."""
        kind = message["type"]
        if self._is_over:
            self.broken(f"G11: the server saw {kind} after a close")
        if kind == "websocket.send" and not any(one["type"] == "websocket.accept" for one in self.begun):
            self.broken("G7: the server saw a send before the accept")
        if kind.endswith("start") and "tag" not in message:
            return True  # the guard's own denial; its body follows
        is_last = kind == "websocket.close" or (kind.endswith("body") and not message.get("more_body"))
        if is_last:
            self._is_over = True
        if kind != "websocket.close":
            return is_last
        if self.loses_messages and self.receives:
            self.broken("G11: a read is pending at the server during a close")
        code = message.get("code", 1000)
        is_legal = (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999
        if self.accepted and not (is_legal and len((message.get("reason") or "").encode()) <= 123):
            self.broken(f"G12: the server saw a close with {code}")
        return is_last

    def _refuse(self, message: Message) -> None:
        code = message.get("code", 1000)
        if code != 1000 and code < 3000:
            self._is_over = False
            raise Exception(f"invalid close code {code}")

    def _again(self) -> Message:
        """Say the end once more, in the way of some server."""
        if self.afterwards == "repeat":
            return {"type": "websocket.disconnect", "code": 1005}
        if self.afterwards == "gone":
            raise OSError("gone")
        raise Bug("receive after the disconnect")
