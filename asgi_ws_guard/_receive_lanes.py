"""
The coroutine that every received message passes, one variant for each thing that somebody wants to know of it.

A message of an open connection that is in no way special is passed on here, with no event built, no clock read and no
attribute touched: what the lanes know lives in closure cells, and they count by taking from a C iterator, because that
is what a pure Python wrapper can afford (``benchmarks/overhead.py`` has the prices). Everything else is handed to the
receiving side. `Path` turns the switches; nobody else calls this.

The variants repeat each other because each is worth it: to count sizes for who does not ask for them would add 0.3 of
what a pass-through costs to every message behind a gate, and 0.6 to every other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from ._plugin import ALLOW
from ._ticks import ENDLESS, Ticks, payload_size
from ._types import Message, Receive


class Inbound(Protocol):
    """What the path asks of the receiving side."""

    async def receive(self) -> Message:
        """Read while the path may not."""

    async def arrived(self, message: Message) -> Message | None:
        """Take a message that the path read and that is special; None: there is none for the application in it."""

    async def judged(self, message: Message, answer: object) -> Message | None:
        """Take a plain message of which a gate did not just say `ALLOW`, but *answer*, or raised it."""

    async def read_failed(self, error: BaseException) -> Message:
        """Take what the server's `receive` raised; give the disconnect or raise."""


class Blocked(tuple[str, ...]):
    """Stands in for a pending read: nobody may read from the server directly. True when the guard reads."""

    __slots__ = ()


BLOCKED = Blocked()
PUMPED = Blocked(("by the guard",))
Reading = Awaitable[Message] | Blocked | None
"""What stands in the cell of a read: the server's awaitable, a `Blocked`, or None when nobody reads."""


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
                return await inbound.read_failed(error)
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
                return await inbound.read_failed(error)
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
                return await inbound.read_failed(error)
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
                return await inbound.read_failed(error)
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
