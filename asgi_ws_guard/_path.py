"""
The path of the messages of one connection: the switches on its two lanes, and what was counted there.

The lanes themselves are the coroutines of `_lanes.py`. The receiving and the sending side open and shut the path; the
ledger reads the counts, from any thread. ``tests/unit/test_path.py`` proves it equal to the tables of ``_state.py``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from types import CellType, CodeType
from typing import Any, NamedTuple, cast

from ._lanes import (
    BLOCKED,
    Blocked,
    Inbound,
    Outbound,
    Reading,
    Ticks,
    make_measured_receive,
    make_measured_send,
    make_receive,
    make_send,
    make_tracked_send,
    payload_size,
    tracked,
)
from ._types import Message, Receive, Send

GRANT = 1024
"""Forwarded messages between two looks at whether the event loop got a turn. Rarely enough to cost nothing."""


class Counts(NamedTuple):
    """
    What passed one lane.

    Attributes:
        messages: Number of messages.
        texts: Number of text messages among them; 0 when nobody measures.
        size: Bytes of their payloads; 0 when nobody measures.
    """

    messages: int
    texts: int
    size: int


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
        *,
        measured: bool = False,
    ) -> None:
        """
        Make a path on which nothing may pass yet but what both sides are asked about.

        Args:
            receive: The server's `receive`.
            send: The server's `send`.
            inbound: The receiving side.
            outbound: The sending side.
            in_flight: Holds what the server has not finished of the messages that pass here; None: nobody asks.
            measured: Count text messages and bytes too.
        """
        self.receive = (make_measured_receive if measured else make_receive)(inbound, receive)
        if measured:
            self.send = make_measured_send(outbound, send if in_flight is None else tracked(send, in_flight))
        elif in_flight is not None:
            self.send = make_tracked_send(outbound, send, in_flight)
        else:
            self.send = make_send(outbound, send)
        self.grant()

    @property
    def reading(self) -> Awaitable[Message] | None:
        """The server's awaitable that somebody reads from directly, None when nobody does."""
        reading: Reading = self._cell("reading").cell_contents
        return None if isinstance(reading, Blocked) else reading

    @property
    def received(self) -> Counts:
        """What was received on this path."""
        return _counts(self.receive, "received")

    @property
    def sent(self) -> Counts:
        """What was forwarded on this path, and beside it by `spend`."""
        return _counts(self.send, "sent")

    def grant(self, beside: int = 0) -> None:
        """
        Let messages pass until `Outbound.granted` is due again, with the `GRANT`-th.

        Args:
            beside: Messages to count with which it was due.
        """
        cell = self._cell("sent")
        cell.cell_contents = Ticks(GRANT - 1, cell.cell_contents.counted + beside)

    def report_each(self) -> None:
        """Make `Outbound.granted` due for every message from now on; none is counted here any more."""
        cell = self._cell("sent")
        cell.cell_contents = Ticks(0, cell.cell_contents.counted)

    def spend(self) -> bool:
        """Count a message that was forwarded beside this path; tell whether `Outbound.granted` is due instead."""
        return next(self._cell("sent").cell_contents, self) is self

    def measure(self, message: Message) -> Counts:
        """
        Measure one message.

        Args:
            message: A `websocket.receive` or `websocket.send`.

        Returns:
            What it adds to `received` or `sent`: only its number when nobody wants to know more.
        """
        if "size" not in _INDEXES[cast(Any, self.send).__code__]:
            return Counts(1, 0, 0)
        return Counts(1, int(isinstance(message.get("text"), str)), payload_size(message))

    def measure_received(self, message: Message) -> Counts:
        """
        Add the size of a message that was received beside this path, if anybody wants to know; not its number.

        Args:
            message: A `websocket.receive`.

        Returns:
            Its measures.
        """
        return _add_size(self.receive, self.measure(message))

    def measure_sent(self, message: Message) -> None:
        """
        Add the size of a message that was forwarded beside this path, if anybody wants to know; not its number.

        Args:
            message: A `websocket.send`.
        """
        _add_size(self.send, self.measure(message))

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
        function: Any = self.receive if name in ("reading", "receivable") else self.send
        cell: CellType = function.__closure__[_INDEXES[function.__code__][name]]
        return cell


def _counts(function: Any, counted: str) -> Counts:
    cells, index = function.__closure__, _INDEXES[function.__code__]
    messages: int = cells[index[counted]].cell_contents.counted
    if "texts" not in index:
        return Counts(messages, 0, 0)
    return Counts(messages, cells[index["texts"]].cell_contents.counted, cells[index["size"]].cell_contents)


def _add_size(function: Any, counts: Counts) -> Counts:
    cells, index = function.__closure__, _INDEXES[function.__code__]
    if "size" in index:
        cells[index["size"]].cell_contents += counts.size
        if counts.texts:
            next(cells[index["texts"]].cell_contents)
    return counts


def _indexes(*functions: Any) -> dict[CodeType, dict[str, int]]:
    return {
        function.__code__: {name: index for index, name in enumerate(function.__code__.co_freevars)}
        for function in functions
    }


_NONE: Any = None
_INDEXES = _indexes(
    make_receive(_NONE, _NONE),
    make_measured_receive(_NONE, _NONE),
    make_send(_NONE, _NONE),
    make_measured_send(_NONE, _NONE),
    make_tracked_send(_NONE, _NONE, _NONE),
)
