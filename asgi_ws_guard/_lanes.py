"""
The coroutines that every message passes, one variant for each thing that somebody wants to know of it.

A message of an open connection that is in no way special is forwarded here, with no event built, no clock read and no
attribute touched: what they know lives in closure cells, and they count by taking from a C iterator, because that is
what a pure Python wrapper can afford (``benchmarks/overhead.py`` has the prices). Everything else is handed to the
receiving or the sending side. `Path` turns the switches; nobody else calls this.

The variants repeat each other because each is worth it: to count sizes for who does not ask for them, or to find a
pending send by a coroutine around the server's, would add 0.3 to 0.8 of what a pass-through costs to every message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import repeat
from operator import length_hint
from typing import TYPE_CHECKING, Protocol, TypeVar

from ._plugin import ALLOW
from ._types import Message, Receive, Send

Side = TypeVar("Side", bound="Outbound")
ENDLESS = 2**62
"""More messages than one connection will ever see."""


class Inbound(Protocol):
    """What the path asks of the receiving side."""

    async def receive(self) -> Message:
        """Read while the path may not."""

    async def arrived(self, message: Message) -> Message | None:
        """Take a message that the path read and that is special; None: there is none for the application in it."""

    async def judged(self, message: Message, answer: object) -> Message | None:
        """Take a plain message of which a gate did not just say `ALLOW`, but *answer*, or raised it."""

    def read_failed(self, error: BaseException) -> Message:
        """Take what the server's `receive` raised; give the disconnect or raise."""


class Outbound(Protocol):
    """What the path asks of the sending side."""

    async def send(self, message: Message) -> None:
        """Send what the path may not."""

    def send_failed(self, message: Message, error: BaseException) -> None:
        """Take what the server's `send` raised; absorb or raise."""

    async def granted(self, message: Message) -> None:
        """Take note that *message* was forwarded, for which nothing was granted any more; grant more."""


class Blocked(tuple[str, ...]):
    """Stands in for a pending read: nobody may read from the server directly. True when the guard reads."""

    __slots__ = ()


BLOCKED = Blocked()
PUMPED = Blocked(("by the guard",))
Reading = Awaitable[Message] | Blocked | None
"""What stands in the cell of a read: the server's awaitable, a `Blocked`, or None when nobody reads."""

if TYPE_CHECKING:
    _Repeat = repeat[None]
else:
    _Repeat = repeat


class Ticks(_Repeat):
    """
    Counts messages: the one that takes from it is counted, which costs less than an addition in a cell.

    Attributes:
        before: Messages that were counted before this object took over.
        granted: Messages that may take from it.
    """

    __slots__ = ("before", "granted")

    before: int
    granted: int

    def __new__(cls, granted: int = ENDLESS, before: int = 0) -> Ticks:
        """Make a counter that lets *granted* messages pass."""
        self = super().__new__(cls, None, granted)
        self.before, self.granted = before, granted
        return self

    @property
    def counted(self) -> int:
        """Messages so far. It may be read in any thread."""
        return self.before + self.granted - length_hint(self)


def payload_size(message: Message) -> int:
    """
    Measure a payload as it goes over the wire.

    Args:
        message: A `websocket.send` or `websocket.receive`.

    Returns:
        Bytes, of UTF-8 for text; 0 for what is neither.
    """
    text, data = message.get("text"), message.get("bytes")
    if isinstance(text, str):
        return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return len(data) if isinstance(data, bytes | bytearray | memoryview) else 0


def make_receive(inbound: Inbound, server_receive: Receive) -> Receive:
    """Make the application's `receive`."""
    reading: Reading = None
    receivable: str | None = None
    received = Ticks()

    async def receive() -> Message:
        nonlocal reading
        while True:
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
                    for _ in received:
                        return message
            except (KeyError, TypeError):
                pass
            arrived = await inbound.arrived(message)
            if arrived is not None:
                return arrived

    return receive


def make_measured_receive(inbound: Inbound, server_receive: Receive) -> Receive:
    """Make the application's `receive`, which counts types and bytes too."""
    reading: Reading = None
    receivable: str | None = None
    received, texts, binaries = Ticks(), Ticks(), Ticks()
    size = 0

    async def receive() -> Message:
        nonlocal reading, size
        while True:
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
                    text = message.get("text")
                    if text.__class__ is str:
                        size += len(text) if text.isascii() else payload_size(message)
                        for _ in texts:
                            break
                        for _ in received:
                            return message
                    elif text is None and message["bytes"].__class__ is bytes:
                        size += len(message["bytes"])
                        for _ in binaries:
                            break
                        for _ in received:
                            return message
            except (KeyError, TypeError, AttributeError):
                pass
            arrived = await inbound.arrived(message)
            if arrived is not None:
                return arrived

    return receive


def make_gated_receive(
    inbound: Inbound, server_receive: Receive, gate: Callable[[int], object], small: int = -1
) -> Receive:
    """Make the application's `receive`, which asks a gate, but for *small* messages while some are granted."""
    reading: Reading = None
    receivable: str | None = None
    received, allow = Ticks(), ALLOW
    credited = 0

    async def receive() -> Message:
        nonlocal reading, credited
        while True:
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
                    text = message.get("text")
                    if text is not None:
                        length = len(text) if text.isascii() else payload_size(message)
                    else:
                        data = message["bytes"]
                        length = len(data) if data.__class__ is bytes else ENDLESS
                    if length <= small:
                        for _ in received:
                            credited += length
                            return message
                else:
                    length = ENDLESS
            except (KeyError, TypeError, AttributeError):
                length = ENDLESS
            if length < ENDLESS:
                try:
                    answer = gate(length)
                except Exception as error:  # noqa: BLE001 - fail closed
                    answer = error
                if answer is allow:
                    for _ in received:
                        return message
                arrived = await inbound.judged(message, answer)
            else:
                arrived = await inbound.arrived(message)
            if arrived is not None:
                return arrived

    return receive


def make_measured_gated_receive(
    inbound: Inbound, server_receive: Receive, gate: Callable[[int], object], small: int = -1
) -> Receive:
    """Make the application's `receive`, which asks a gate as the one above and counts types and bytes too."""
    reading: Reading = None
    receivable: str | None = None
    received, texts, binaries, allow = Ticks(), Ticks(), Ticks(), ALLOW
    credited = size = 0

    async def receive() -> Message:
        nonlocal reading, credited, size
        while True:
            if reading is not None:
                return await inbound.receive()
            reading = awaitable = server_receive()
            try:
                message = await awaitable
            except BaseException as error:  # noqa: BLE001 - the session raises it again, or knows why not
                reading = None
                return inbound.read_failed(error)
            reading = None
            length = ENDLESS
            try:
                if message["type"] == receivable:
                    text = message.get("text")
                    if text.__class__ is str:
                        length = len(text) if text.isascii() else payload_size(message)
                    elif text is None and (data := message["bytes"]).__class__ is bytes:
                        length = len(data)
                    if length <= small:
                        for _ in received:
                            credited += length
                            size += length
                            for _ in binaries if text is None else texts:
                                break
                            return message
            except (KeyError, TypeError, AttributeError):
                pass
            if length < ENDLESS:
                try:
                    answer = gate(length)
                except Exception as error:  # noqa: BLE001 - fail closed
                    answer = error
                if answer is allow:
                    size += length
                    for _ in binaries if text is None else texts:
                        break
                    for _ in received:
                        return message
                arrived = await inbound.judged(message, answer)
            else:
                arrived = await inbound.arrived(message)
            if arrived is not None:
                return arrived

    return receive


def make_send(outbound: Outbound, server_send: Send) -> Send:
    """Make the application's `send`."""
    sendable: str | None = None
    sent = Ticks(0)

    async def send(message: Message) -> None:
        is_plain = False
        try:
            if message["type"] == sendable and (
                message["text"].__class__ is str
                if "bytes" not in message
                else ("text" not in message and message["bytes"].__class__ is bytes)
                or (message["bytes"] is None and message["text"].__class__ is str)
                or (message["bytes"].__class__ is bytes and message["text"] is None)
            ):
                is_plain = True
                await server_send(message)
                for _ in sent:
                    return
        except BaseException as error:
            if is_plain:
                outbound.send_failed(message, error)
                return
            if not isinstance(error, KeyError | TypeError):
                raise
        await (outbound.granted(message) if is_plain else outbound.send(message))

    return send


def make_measured_send(outbound: Outbound, server_send: Send) -> Send:
    """Make the application's `send`, which counts types and bytes too."""
    sendable: str | None = None
    sent, texts, binaries = Ticks(0), Ticks(), Ticks()
    size = 0

    async def send(message: Message) -> None:
        nonlocal size
        is_plain = False
        try:
            if message["type"] == sendable and (
                message["text"].__class__ is str
                if "bytes" not in message
                else ("text" not in message and message["bytes"].__class__ is bytes)
                or (message["bytes"] is None and message["text"].__class__ is str)
                or (message["bytes"].__class__ is bytes and message["text"] is None)
            ):
                text = message.get("text")
                if text is None:
                    length = len(message["bytes"])
                else:
                    length = len(text) if text.isascii() else payload_size(message)
                is_plain = True
                await server_send(message)
                size += length
                for _ in binaries if text is None else texts:
                    break
                for _ in sent:
                    return
        except BaseException as error:
            if is_plain:
                outbound.send_failed(message, error)
                return
            if not isinstance(error, KeyError | TypeError):
                raise
        await (outbound.granted(message) if is_plain else outbound.send(message))

    return send


def make_tracked_send(outbound: Side, server_send: Send, in_flight: dict[Awaitable[None], Side]) -> Send:
    """Make the application's `send` for a deadline: one that suspends is found in *sending*, or in *in_flight*."""
    sendable: str | None = None
    sending: Awaitable[None] | None = None
    sent = Ticks(0)

    async def send(message: Message) -> None:
        nonlocal sending
        is_plain = False
        try:
            if message["type"] == sendable and (
                message["text"].__class__ is str
                if "bytes" not in message
                else ("text" not in message and message["bytes"].__class__ is bytes)
                or (message["bytes"] is None and message["text"].__class__ is str)
                or (message["bytes"].__class__ is bytes and message["text"] is None)
            ):
                is_plain = True
                awaitable = server_send(message)
                if sending is None:
                    sending = awaitable
                    try:
                        await awaitable
                    finally:
                        sending = None
                        del awaitable  # see `tracked`
                else:
                    in_flight[awaitable] = outbound
                    try:
                        await awaitable
                    finally:
                        in_flight.pop(awaitable, None)
                        del awaitable
                for _ in sent:
                    return
        except BaseException as error:
            if is_plain:
                outbound.send_failed(message, error)
                return
            if not isinstance(error, KeyError | TypeError):
                raise
        await (outbound.granted(message) if is_plain else outbound.send(message))

    return send


def tracked(outbound: Side, send: Send, in_flight: dict[Awaitable[None], Side]) -> Send:
    """
    Let others see which sends the server has not finished.

    An exception must not lead to what was awaited: a future of granian 2.8 holds the task that waits for it where no
    garbage collector looks, and the task holds the cancellation with its traceback.

    Args:
        outbound: Whose sends they are.
        send: The server's `send`.
        in_flight: Holds what is awaited, for as long as it is.

    Returns:
        A send that costs a little more than the server's.
    """

    async def send_tracked(message: Message) -> None:
        awaitable = send(message)
        in_flight[awaitable] = outbound
        try:
            await awaitable
        finally:
            in_flight.pop(awaitable, None)
            del awaitable

    return send_tracked
