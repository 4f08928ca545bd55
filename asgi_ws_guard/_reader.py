"""
Reads from the server for one connection, whenever the application does not do so itself (G3, G5).

One pump task at most, in these cases: nobody has received for a while (`_watch.py` starts it), the end is known but
the server's own disconnect is not yet read, or the server loses messages of a cancelled `receive`. What it reads waits
in a buffer that is bounded by messages and by bytes; a message is never handed through a future, so that a cancelled
`receive` loses none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from typing import Protocol

from ._loops import AsyncioLoop, Flag, TrioLoop
from ._types import Message, Receive

MAX_MESSAGES = 1024
"""Messages read ahead. A heartbeat every 30 s, never read, stays within it for eight hours."""
MAX_BYTES = 1024 * 1024
"""Payload bytes read ahead; one message may exceed it, since its size is known only when it was read."""
STOP_S = 1.0
"""Seconds to wait for a server's cancelled `receive`; all that are known return at once."""


class Owner(Protocol):
    """What the reader asks of a session."""

    async def pumped(self, message: Message) -> Message | None:
        """Take in a message of the server; give what the application shall receive of it."""

    def pump_failed(self, error: Exception) -> None:
        """Take what the server's `receive` raised, or the `ProtocolError` about its message."""

    def pumping(self, is_pumping: bool) -> None:
        """Take note of whether the pump runs."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be read."""

    @property
    def is_held(self) -> bool:
        """Whether nothing is to be read for a while."""

    @property
    def context(self) -> Context:
        """The context in which the server's `receive` is to be called."""

    def ahead_full(self, messages: int, size: int) -> None:
        """Take note that the bound is reached."""


class Reader:
    """
    The read side of one connection, beside the direct path.

    Attributes:
        receive: The server's `receive`.
    """

    __slots__ = ("_buffer", "_loop", "_never_direct", "_owner", "_size", "_task", "_told_full", "_waiting", "receive")

    def __init__(self, owner: Owner, loop: AsyncioLoop | TrioLoop, receive: Receive, *, never_direct: bool) -> None:
        """
        Make an idle reader.

        Args:
            owner: The session.
            loop: The connection's loop.
            receive: The server's `receive`.
            never_direct: Go on reading until the end once started, also when the application keeps up.
        """
        self._owner = owner
        self._loop = loop
        self.receive = receive
        self._never_direct = never_direct
        self._buffer: deque[Message | Exception] | None = None
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._told_full = False
        self._waiting: deque[Flag] = deque()

    @property
    def running(self) -> bool:
        """Whether the pump is reading; with an eager task factory (3.12) it may be done before it is known here."""
        return self._task is not None and not self._task.done()

    @property
    def wanted(self) -> bool:
        """Whether a receiver waits."""
        return bool(self._waiting)

    @property
    def buffered(self) -> int:
        """Number of messages that wait for the application."""
        return len(self._buffer or ())

    def take(self) -> Message | None:
        """
        Take the oldest message that waits for the application.

        Raises:
            Exception: What the server's `receive` raised in its place.
        """
        if not self._buffer:
            return None
        item = self._buffer.popleft()
        if isinstance(item, Exception):
            raise item
        self._size -= _size_of(item)
        return item

    def put(self, item: Message | Exception) -> None:
        """
        Let a message, or an exception in the place of one, wait for the application.

        Args:
            item: What `take` shall give or raise.
        """
        if self._buffer is None:
            self._buffer = deque()
        self._buffer.append(item)
        if not isinstance(item, Exception):
            self._size += _size_of(item)
        self._wake_one()

    def forget(self) -> None:
        """Throw away the messages of the client that wait for the application."""
        kept = [one for one in self._buffer or () if isinstance(one, Exception) or one["type"] != "websocket.receive"]
        self._buffer, self._size = deque(kept), 0

    def start(self) -> bool:
        """
        Start the pump, unless it runs, the bound is reached, or the event loop has no tasks for the guard.

        Returns:
            Whether the pump runs now.
        """
        if not self.running and isinstance(self._loop, AsyncioLoop) and self._has_room():
            self._owner.pumping(True)
            self._task = self._loop.start(self._pump(), self._owner.context)
            self._task.add_done_callback(self._stopped, context=Context())
        return self.running

    async def stop(self) -> None:
        """Stop the pump and wait until its read is no longer pending at the server."""
        task = self._task
        if task is None or task is asyncio.current_task():
            return
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_S)

    def cancel(self) -> None:
        """Stop the pump without waiting for it."""
        if self._task is not None:
            self._task.cancel()

    async def wait(self) -> None:
        """Wait until something may have changed for a receiver; looks again are the caller's."""
        flag = self._loop.flag()
        self._waiting.append(flag)
        try:
            await flag.wait()
        except BaseException:
            if flag.is_set():
                self._wake_one()
            else:
                self._waiting.remove(flag)
            raise

    def wake_all(self) -> None:
        """Let every receiver look again."""
        while self._waiting:
            self._waiting.popleft().set()

    def _wake_one(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()

    def _has_room(self) -> bool:
        if self.buffered < MAX_MESSAGES and self._size < MAX_BYTES:
            return True
        if not self._told_full:
            self._told_full = True
            self._owner.ahead_full(self.buffered, self._size)
        return False

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """Take note that the pump was cancelled before it began: nothing of it has run then, not even its `finally`."""
        if self._task is task:
            self._over()

    def _over(self) -> None:
        self._task = None
        self._owner.pumping(False)
        self.wake_all()

    async def _pump(self) -> None:
        try:
            while self._has_room() and not self._owner.is_over and not self._owner.is_held:
                message = await self._owner.pumped(await self.receive())
                if message is None:
                    continue
                was_wanted = bool(self._waiting)
                self.put(message)
                if was_wanted and not self._waiting and not self._never_direct:
                    return
        except Exception as error:  # noqa: BLE001 - it is raised in the application's next receive
            self._owner.pump_failed(error)
        finally:
            self._over()


def _size_of(message: Message) -> int:
    payload = message.get("text") or message.get("bytes")
    return len(payload) if isinstance(payload, str | bytes | bytearray | memoryview) else 0
