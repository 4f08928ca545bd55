"""
The path of the messages of one connection: the switches on its two lanes, and what was counted there.

The lanes themselves are the coroutines of `_receive_lanes.py` and `_send_lanes.py`. The receiving and the sending side
open and shut the path; the ledger reads the counts, from any thread. ``tests/unit/test_path.py`` proves it equal to the
tables of ``_state.py``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from operator import length_hint
from types import CellType
from typing import Any, NamedTuple, NoReturn, cast

from ._credit import Credit
from ._events import Books
from ._plugin import gives_credit
from ._receive_lanes import (
    BLOCKED,
    PUMPED,
    Blocked,
    Inbound,
    Reading,
    make_gated_receive,
    make_measured_gated_receive,
    make_measured_receive,
    make_receive,
)
from ._send_lanes import Side, make_measured_send, make_send, make_tracked_send, tracked
from ._ticks import Ticks, payload_size
from ._types import Message, Receive, Send

GRANT = 1024
"""Forwarded messages between two looks at whether the event loop got a turn. Rarely enough to cost nothing."""
_UNSEEN = GRANT - 1
_OF_RECEIVE = ("reading", "receivable", "received", "server_receive")


class Counts(NamedTuple):
    """
    What passed one lane, or beside it. Types and bytes are 0 when nobody measures.

    Attributes:
        messages: Number of messages that passed the lane.
        texts: Number of text messages, those beside the lane included.
        binaries: Number of binary messages, those beside the lane included.
        size: Bytes of all their payloads.
    """

    messages: int
    texts: int = 0
    binaries: int = 0
    size: int = 0

    def as_received(self) -> Books:
        """Enter them into books as received."""
        return Books(
            received=self.messages,
            received_texts=self.texts,
            received_binaries=self.binaries,
            received_bytes=self.size,
        )

    def as_sent(self) -> Books:
        """Enter them into books as sent."""
        return Books(
            sent=self.messages,
            forwarded=self.messages,
            sent_texts=self.texts,
            sent_binaries=self.binaries,
            sent_bytes=self.size,
        )


class Path:
    """
    The receive and send that the application gets, and the switches on them.

    Attributes:
        receive: The application's `receive`.
        send: The application's `send`.
    """

    __slots__ = ("_credit", "receive", "send")

    def __init__(
        self,
        receive: Receive,
        send: Send,
        inbound: Inbound,
        outbound: Side,
        in_flight: dict[Awaitable[None], Side] | None = None,
        *,
        measured: bool = False,
        gate: Callable[[int], object] | None = None,
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
            gate: Asked with the size of each message that is received, as far as it gives no credit; None: nobody is.
        """
        self._credit: Credit | None = None
        if gate is not None:
            self.receive = self._gated(inbound, receive, gate, measured=measured)
        else:
            self.receive = (make_measured_receive if measured else make_receive)(inbound, receive)
        if measured:
            self.send = make_measured_send(outbound, send if in_flight is None else tracked(outbound, send, in_flight))
        elif in_flight is not None:
            self.send = make_tracked_send(outbound, send, in_flight)
        else:
            self.send = make_send(outbound, send)
        self.grant()

    @property
    def reading_cell(self) -> CellType:
        """The cell whose content is true while somebody reads from the server, the application or the guard."""
        return self._cell("reading")

    @property
    def received_cell(self) -> CellType:
        """The cell of the `Ticks` of what was received on this path."""
        return self._cell("received")

    @property
    def sending_cell(self) -> CellType | None:
        """The cell of the send that the server has not finished, of those that pass here; None: it is not kept."""
        index = _INDEXES[id(cast(Any, self.send).__code__)].get("sending")
        cells: tuple[CellType, ...] = cast(Any, self.send).__closure__
        return None if index is None else cells[index]

    @property
    def reading(self) -> Awaitable[Message] | None:
        """The server's awaitable that somebody reads from directly, None when nobody does."""
        reading: Reading = self._cell("reading").cell_contents
        return None if isinstance(reading, Blocked) else reading

    @property
    def received(self) -> Counts:
        """What was received on this path."""
        return Counts(*read(self.receive))

    @property
    def received_messages(self) -> int:
        """Number of messages that were received on this path."""
        counted: int = self.received_cell.cell_contents.counted
        return counted

    @property
    def sent(self) -> Counts:
        """What was forwarded on this path, and beside it by `spend`."""
        return Counts(*read(self.send))

    @property
    def is_measured(self) -> bool:
        """Whether types and bytes are counted."""
        return "size" in _INDEXES[id(cast(Any, self.send).__code__)]

    def grant(self, beside: int = 0) -> None:
        """
        Let messages pass until `Outbound.granted` is due again, with the `GRANT`-th.

        Args:
            beside: Messages to count with which it was due.
        """
        cell = self._cell("sent")
        cell.cell_contents = Ticks(_UNSEEN, cell.cell_contents.counted + beside)

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
        if not self.is_measured:
            return Counts(1)
        texts = int(isinstance(message.get("text"), str))
        binaries = int(not texts and isinstance(message.get("bytes"), bytes | bytearray | memoryview))
        return Counts(1, texts, binaries, payload_size(message))

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
        if isinstance(reading.cell_contents, Blocked):
            reading.cell_contents = None

    def pumped(self, is_pumped: bool) -> None:
        """
        Take note of whether the guard reads, while nobody may do so directly.

        Args:
            is_pumped: Whether it does.
        """
        reading = self._cell("reading")
        if isinstance(reading.cell_contents, Blocked):
            reading.cell_contents = PUMPED if is_pumped else BLOCKED

    def let_go(self) -> None:
        """Call the server no more, and hold nothing of it; of a connection that has ended nobody asks for that."""
        self._cell("server_receive").cell_contents = gone
        self._cell("server_send").cell_contents = gone

    def settle(self) -> None:
        """Tell the gate what passed on credit, before it is asked beside this path."""
        if self._credit is not None:
            self._credit.settle()

    def _gated(self, inbound: Inbound, receive: Receive, gate: Callable[[int], object], *, measured: bool) -> Receive:
        make = make_measured_gated_receive if measured else make_gated_receive
        if not gives_credit(gate):
            return make(inbound, receive, gate)
        self._credit = Credit(gate)
        lane = make(inbound, receive, self._credit.ask, gate.credit_bytes)
        cells, indexes = cast(Any, lane).__closure__, _INDEXES[id(cast(Any, lane).__code__)]
        self._credit.keep(cells[indexes["received"]], cells[indexes["credited"]])
        return lane

    def _cell(self, name: str) -> CellType:
        function: Any = self.receive if name in _OF_RECEIVE else self.send
        cell: CellType = function.__closure__[_INDEXES[id(function.__code__)][name]]
        return cell


async def gone(message: Message | None = None) -> NoReturn:
    """
    Stand in for the server's `receive` and `send` once it was let go of.

    Raises:
        ConnectionResetError: Always, as a server does whose peer is gone.
    """
    raise ConnectionResetError("the handler is done, and the server was let go of")


def read(lane: Any) -> tuple[int, int, int, int]:
    """
    Read the counts of one lane, in any thread.

    The messages first: a reader in another thread must not see more messages than types. A plain tuple, and nothing is
    called that need not be, for one collection of metrics reads two lanes of every live connection.

    Args:
        lane: The `receive` or the `send` of a path.

    Returns:
        What `Counts` is made of.
    """
    cells = lane.__closure__
    messages_at, texts_at, binaries_at, size_at = _COUNTERS[id(lane.__code__)]
    ticks = cells[messages_at].cell_contents
    messages = ticks.before + (ticks.granted - length_hint(ticks))
    if texts_at < 0:
        return messages, 0, 0, 0
    texts, binaries = cells[texts_at].cell_contents, cells[binaries_at].cell_contents
    return (
        messages,
        texts.granted - length_hint(texts),
        binaries.granted - length_hint(binaries),
        cells[size_at].cell_contents,
    )


def _add_size(function: Any, counts: Counts) -> Counts:
    cells, index = function.__closure__, _INDEXES[id(function.__code__)]
    if "size" in index:
        cells[index["size"]].cell_contents += counts.size
        if counts.texts:
            next(cells[index["texts"]].cell_contents)
        if counts.binaries:
            next(cells[index["binaries"]].cell_contents)
    return counts


def _indexes(*functions: Any) -> dict[int, dict[str, int]]:
    """Tell where each cell stands, by the identity of a lane's code: to hash code takes longer than all the rest."""
    return {
        id(function.__code__): {name: index for index, name in enumerate(function.__code__.co_freevars)}
        for function in functions
    }


_NONE: Any = None
_INDEXES = _indexes(
    make_receive(_NONE, _NONE),
    make_measured_receive(_NONE, _NONE),
    make_gated_receive(_NONE, _NONE, _NONE),
    make_measured_gated_receive(_NONE, _NONE, _NONE),
    make_send(_NONE, _NONE),
    make_measured_send(_NONE, _NONE),
    make_tracked_send(_NONE, _NONE, _NONE),
)
_COUNTERS = {
    code: tuple(
        index.get(name, -1) for name in ("received" if "received" in index else "sent", "texts", "binaries", "size")
    )
    for code, index in _INDEXES.items()
}
