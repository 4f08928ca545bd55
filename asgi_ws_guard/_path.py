"""
The two coroutines that every message passes.

A message of an open connection that is in no way special is forwarded here, with no event built, no clock read and
no attribute touched: the state of the path lives in closure cells, because that is what a pure Python wrapper can
afford (``benchmarks/overhead.py`` has the prices). Everything else goes to
the receiving or the sending side, which also open and shut the path. ``tests/unit/test_path.py`` proves it equal to
the tables of ``_state.py``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from types import CellType
from typing import Any, Protocol, cast

from ._types import Message, Receive, Send

GRANT = 64
"""Forwarded messages between two looks at whether the event loop got a turn. A power of two, no more to it."""


class Inbound(Protocol):
    """What the path asks of the receiving side."""

    async def receive(self) -> Message:
        """Read while the path may not."""

    async def arrived(self, message: Message) -> Message:
        """Take a message that the path read and that is special."""

    def read_failed(self, error: BaseException) -> Message:
        """Take what the server's `receive` raised; give the disconnect or raise."""


class Outbound(Protocol):
    """What the path asks of the sending side."""

    async def send(self, message: Message) -> None:
        """Send what the path may not."""

    def send_failed(self, message: Message, error: BaseException) -> None:
        """Take what the server's `send` raised; absorb or raise."""

    async def granted(self) -> None:
        """Take note that `GRANT` messages were forwarded; `Path.take_sent` is due."""


class _Blocked:
    """Stands in for a pending read: nobody may read from the server directly."""


BLOCKED = _Blocked()


class Path:
    """
    The receive and send that the application gets, and the switches on them.

    Attributes:
        receive: The application's `receive`.
        send: The application's `send`.
    """

    __slots__ = ("_gate", "_left", "_reading", "_receivable", "_received", "_sendable", "receive", "send")

    def __init__(self, receive: Receive, send: Send, inbound: Inbound, outbound: Outbound) -> None:
        """
        Make a path on which nothing may pass yet but what both sides are asked about.

        Args:
            receive: The server's `receive`.
            send: The server's `send`.
            inbound: The receiving side.
            outbound: The sending side.
        """
        self.receive = _make_receive(inbound, receive)
        self.send = _make_send(outbound, send)
        cells = _cells(self.receive)
        self._gate, self._reading = cells["gate"], cells["reading"]
        self._receivable, self._received = cells["receivable"], cells["received"]
        cells = _cells(self.send)
        self._sendable, self._left = cells["sendable"], cells["left"]

    @property
    def reading(self) -> Awaitable[Message] | None:
        """The server's awaitable that somebody reads from directly, None when nobody does."""
        reading: Awaitable[Message] | _Blocked | None = self._reading.cell_contents
        return None if isinstance(reading, _Blocked) else reading

    @property
    def received(self) -> int:
        """Messages that were received on this path."""
        return cast(int, self._received.cell_contents)

    def take_received(self) -> int:
        """Give the number of messages received on this path since it was last asked for."""
        received, self._received.cell_contents = self.received, 0
        return received

    def take_sent(self) -> int:
        """Give the number of messages forwarded on this path since it was last asked for, and grant `GRANT` more."""
        left, self._left.cell_contents = self._left.cell_contents, GRANT
        return GRANT - cast(int, left)

    def spend(self) -> bool:
        """Count a message that was forwarded beside this path; tell whether `Outbound.granted` is due."""
        self._left.cell_contents -= 1
        return not self._left.cell_contents

    def open(self) -> None:
        """Let ordinary messages pass in both directions without a question."""
        self._receivable.cell_contents = "websocket.receive"
        self._sendable.cell_contents = "websocket.send"

    def ask_about_sends(self) -> None:
        """Ask the sending side about every message."""
        self._sendable.cell_contents = None

    def ask_about_receives(self) -> None:
        """Ask the receiving side about every message."""
        self._receivable.cell_contents = None

    def block_reads(self) -> None:
        """Let nobody start to read from the server directly; a read that is pending goes on."""
        self._gate.cell_contents = BLOCKED
        self._receivable.cell_contents = None
        if self._reading.cell_contents is None:
            self._reading.cell_contents = BLOCKED

    def unblock_reads(self) -> None:
        """Let the application read from the server directly again."""
        self._gate.cell_contents = None
        if self._reading.cell_contents is BLOCKED:
            self._reading.cell_contents = None


def _make_receive(inbound: Inbound, server_receive: Receive) -> Receive:
    gate: _Blocked | None = None
    reading: Awaitable[Message] | _Blocked | None = None
    receivable: str | None = None
    received = 0

    async def receive() -> Message:
        nonlocal reading, received
        if reading is not None:
            return await inbound.receive()
        reading = awaitable = server_receive()
        try:
            message = await awaitable
        except BaseException as error:  # noqa: BLE001 - the session raises it again, or knows why not
            reading = gate
            return inbound.read_failed(error)
        reading = gate
        try:
            if message["type"] == receivable:
                received += 1
                return message
        except (KeyError, TypeError):
            pass
        return await inbound.arrived(message)

    return receive


def _make_send(outbound: Outbound, server_send: Send) -> Send:
    sendable: str | None = None
    left = GRANT

    async def send(message: Message) -> None:
        nonlocal left
        try:
            plain = message["type"] == sendable and type(message["text"]) is str and "bytes" not in message
        except (KeyError, TypeError):
            plain = False
        if not plain:
            await outbound.send(message)
            return
        try:
            await server_send(message)
        except BaseException as error:  # noqa: BLE001 - the session raises it again, or knows why not
            outbound.send_failed(message, error)
            return
        left -= 1
        if not left:
            await outbound.granted()

    return send


def _cells(function: Any) -> dict[str, CellType]:
    return dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
