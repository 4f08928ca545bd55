"""
The coroutine that every sent message passes, one variant for each thing that somebody wants to know of it.

It is the other direction of `_receive_lanes.py`, built for the same reason in the same way. What is in any way special
is handed to the sending side. `Path` turns the switches; nobody else calls this, but for `tracked`.

The variants repeat each other because each is worth it: to count sizes for who does not ask for them would add 0.4 of
what a pass-through costs to every message, and to find a pending send by a coroutine around the server's 0.8.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, TypeVar

from ._ticks import Ticks, payload_size
from ._types import Message, Send

Side = TypeVar("Side", bound="Outbound")


class Outbound(Protocol):
    """What the path asks of the sending side."""

    async def send(self, message: Message) -> None:
        """Send what the path may not."""

    def send_failed(self, message: Message, error: BaseException) -> None:
        """Take what the server's `send` raised; absorb or raise."""

    async def granted(self, message: Message) -> None:
        """Take note that *message* was forwarded, for which nothing was granted any more; grant more."""


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
