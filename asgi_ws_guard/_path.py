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
from types import CellType, CodeType
from typing import Any, Protocol, cast

from ._types import Message, Receive, Send

GRANT = 1024
"""Forwarded messages between two looks at whether the event loop got a turn. Rarely enough to cost nothing."""


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

    __slots__ = ("receive", "send")

    def __init__(
        self,
        receive: Receive,
        send: Send,
        inbound: Inbound,
        outbound: Outbound,
        in_flight: set[Awaitable[None]] | None = None,
    ) -> None:
        """
        Make a path on which nothing may pass yet but what both sides are asked about.

        Args:
            receive: The server's `receive`.
            send: The server's `send`.
            inbound: The receiving side.
            outbound: The sending side.
            in_flight: Holds what the server has not finished of the messages that pass here; None: nobody asks.
        """
        self.receive = _make_receive(inbound, receive)
        self.send = _make_send(outbound, send) if in_flight is None else _make_tracked_send(outbound, send, in_flight)

    @property
    def reading(self) -> Awaitable[Message] | None:
        """The server's awaitable that somebody reads from directly, None when nobody does."""
        reading: Awaitable[Message] | _Blocked | None = self._cell("reading").cell_contents
        return None if isinstance(reading, _Blocked) else reading

    @property
    def received(self) -> int:
        """Messages that were received on this path since `take_received`."""
        return cast(int, self._cell("received").cell_contents)

    def take_received(self) -> int:
        """Give the number of messages received on this path since it was last asked for."""
        received, self._cell("received").cell_contents = self.received, 0
        return received

    def take_sent(self) -> int:
        """Give the number of messages forwarded on this path since it was last asked for, and grant `GRANT` more."""
        left, self._cell("left").cell_contents = self._cell("left").cell_contents, GRANT
        return GRANT - cast(int, left)

    def report_each(self) -> None:
        """Make `Outbound.granted` due for every message from now on."""
        self._cell("left").cell_contents = 1

    def spend(self) -> bool:
        """Count a message that was forwarded beside this path; tell whether `Outbound.granted` is due."""
        self._cell("left").cell_contents -= 1
        return not self._cell("left").cell_contents

    def open(self) -> None:
        """Let ordinary messages pass in both directions without a question."""
        self._cell("receivable").cell_contents = "websocket.receive"
        self._cell("sendable").cell_contents = "websocket.send"

    def ask_about_sends(self) -> None:
        """Ask the sending side about every message."""
        self._cell("sendable").cell_contents = None

    def ask_about_receives(self) -> None:
        """Ask the receiving side about every message."""
        self._cell("receivable").cell_contents = None

    def block_reads(self) -> None:
        """
        Let nobody start to read from the server directly.

        A read that is pending goes on; its end leads to `Inbound`, which blocks again, as messages are asked about.
        """
        self.ask_about_receives()
        reading = self._cell("reading")
        if reading.cell_contents is None:
            reading.cell_contents = BLOCKED

    def unblock_reads(self) -> None:
        """Let the application read from the server directly again."""
        reading = self._cell("reading")
        if reading.cell_contents is BLOCKED:
            reading.cell_contents = None

    def _cell(self, name: str) -> CellType:
        function: Any = self.receive if name in ("reading", "receivable", "received") else self.send
        cell: CellType = function.__closure__[_INDEXES[function.__code__][name]]
        return cell


def _make_receive(inbound: Inbound, server_receive: Receive) -> Receive:
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
            reading = None
            return inbound.read_failed(error)
        reading = None
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
        is_plain = False
        try:
            if message["type"] == sendable and (
                type(message["text"]) is str if "bytes" not in message else _is_one_payload(message)
            ):
                is_plain = True
                await server_send(message)
                left -= 1
                if left:
                    return
        except BaseException as error:
            if is_plain:
                outbound.send_failed(message, error)
                return
            if not isinstance(error, KeyError | TypeError):
                raise
        await (outbound.granted() if is_plain else outbound.send(message))

    return send


def _make_tracked_send(outbound: Outbound, server_send: Send, in_flight: set[Awaitable[None]]) -> Send:
    """The same, for a guard with a send deadline: a send that suspends can be found in *in_flight*."""
    sendable: str | None = None
    left = GRANT

    async def send(message: Message) -> None:
        nonlocal left
        is_plain = False
        try:
            if message["type"] == sendable and (
                type(message["text"]) is str if "bytes" not in message else _is_one_payload(message)
            ):
                is_plain = True
                awaitable = server_send(message)
                in_flight.add(awaitable)
                try:
                    await awaitable
                finally:
                    in_flight.discard(awaitable)
                left -= 1
                if left:
                    return
        except BaseException as error:
            if is_plain:
                outbound.send_failed(message, error)
                return
            if not isinstance(error, KeyError | TypeError):
                raise
        await (outbound.granted() if is_plain else outbound.send(message))

    return send


def _is_one_payload(message: Message) -> bool:
    """Tell whether a message with the key ``bytes`` is plain: Quart 0.22 always sends both keys, one of them None."""
    data, text = message["bytes"], message.get("text")
    return (data is None and type(text) is str) or (text is None and type(data) is bytes)


def tracked(send: Send, in_flight: set[Awaitable[None]]) -> Send:
    """
    Let others see which sends the server has not finished.

    Args:
        send: The server's `send`.
        in_flight: Holds what is awaited, for as long as it is.

    Returns:
        A send that costs a little more than the server's.
    """

    async def send_tracked(message: Message) -> None:
        awaitable = send(message)
        in_flight.add(awaitable)
        try:
            await awaitable
        finally:
            in_flight.discard(awaitable)

    return send_tracked


def _indexes(*functions: Any) -> dict[CodeType, dict[str, int]]:
    return {
        function.__code__: {name: index for index, name in enumerate(function.__code__.co_freevars)}
        for function in functions
    }


_NONE: Any = None
_INDEXES = _indexes(_make_receive(_NONE, _NONE), _make_send(_NONE, _NONE), _make_tracked_send(_NONE, _NONE, _NONE))
