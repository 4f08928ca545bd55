"""
Tells of the single messages of one connection, for observers that want to hear of them.

Made only where one does: a message of anybody else's costs nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ._events import DropReason, MessageHandled, MessageLost, MessageReceived, MessageSent
from ._ticks import payload_size
from ._types import Message

if TYPE_CHECKING:
    from ._session import Session


class Telling:
    """What is told of the messages of one connection."""

    __slots__ = ("_handling", "_session")

    def __init__(self, session: Session) -> None:
        """
        Tell of nothing yet.

        Args:
            session: The connection's session.
        """
        self._session = session
        self._handling: tuple[Literal["text", "binary"], int, float] | None = None

    def received(self, message: Message) -> None:
        """
        Tell that a message arrived.

        Args:
            message: A `websocket.receive`.
        """
        session = self._session
        session.tell((MessageReceived(session.connection_id, session.loop.time(), *_described(message)),))

    async def receive(self) -> Message:
        """Receive for the application, and tell how long it was at the message before."""
        self.handled()
        message = await self._session.path.receive()
        self.handled()
        if message["type"] == "websocket.receive":
            self._handling = (*_described(message), self._session.loop.time())
        return message

    def handled(self) -> None:
        """Tell that the application is done with the message that it received last, once."""
        if self._handling is not None:
            kind, size, since_s = self._handling
            self._handling = None
            session = self._session
            now = session.loop.time()
            session.tell((MessageHandled(session.connection_id, now, kind, size, now - since_s),))

    def sent(self, message: Message, started_s: float) -> None:
        """
        Tell that the server took a message.

        Args:
            message: A `websocket.send`.
            started_s: When the server was given it.
        """
        session = self._session
        now = session.loop.time()
        session.tell((MessageSent(session.connection_id, now, *_described(message), now - started_s),))

    def lost(self, message: Message, started_s: float, error: BaseException, reason: DropReason | None) -> None:
        """
        Tell that the server did not take a message.

        Args:
            message: A `websocket.send`.
            started_s: When the server was given it.
            error: What the server raised.
            reason: Why it counts as dropped, None when it counts as failed.
        """
        session = self._session
        now, error_type = session.loop.time(), type(error).__qualname__ if reason is None else None
        described = _described(message)
        session.tell((MessageLost(session.connection_id, now, *described, now - started_s, reason, error_type),))


def _described(message: Message) -> tuple[Literal["text", "binary"], int]:
    return "binary" if message.get("text") is None else "text", payload_size(message)
