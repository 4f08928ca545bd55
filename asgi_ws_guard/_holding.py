"""
Keeps the message of one connection that a gate delays, while nobody reads, and asks what becomes of it when it is due.

It is made with a connection's first delay. What is decided about a message is not its business, nor who receives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._loops import Timer
from ._plugin import ALLOW, Allow, Close, Delay
from ._policing import close_soon
from ._types import Message

if TYPE_CHECKING:
    from ._session import Session


class Holding:
    """What waits of one connection: one message at most, for nobody reads meanwhile."""

    __slots__ = ("_held", "_session")

    def __init__(self, session: Session) -> None:
        """
        Keep nothing yet.

        Args:
            session: The connection's session.
        """
        self._session = session
        self._held: tuple[Message, Timer, Delay] | None = None

    @property
    def is_held(self) -> bool:
        """Whether a message waits."""
        return self._held is not None

    def hold(self, message: Message, delay: Delay) -> bool:
        """
        Let a message wait, and nobody read meanwhile.

        Args:
            message: A `websocket.receive`.
            delay: What was decided about it.

        Returns:
            Whether it waits; False behind the end, and where there are no timers.
        """
        if self._session.connection.ended is not None:
            return False
        timer = self._session.loop.later(delay.delay_s, self._is_due)
        if timer is not None:
            self._held = message, timer, delay
            self._session.path.block_reads()
        return timer is not None

    def release(self) -> None:
        """Let a message that waited be received, and the next one be read; nobody may be there to receive it."""
        if self._held is None:
            return
        (message, timer, delay), self._held = self._held, None
        timer.cancel()
        session, receiving = self._session, self._session.receiving
        decision = ALLOW if delay.then is None else delay.then()
        if isinstance(decision, Delay) and self.hold(message, decision):
            return
        if isinstance(decision, Close):
            close_soon(session, decision)
            return
        if isinstance(decision, Allow):
            receiving.reader.put(message)
        if (receiving.stop_before_close or not receiving.reader.wanted) and session.connection.ended is None:
            receiving.reader.start()
        receiving.reader.wake_all()

    def cancel(self) -> None:
        """Ask about it no more: the handler is done."""
        if self._held is not None:
            self._held[1].cancel()

    def _is_due(self) -> None:
        self._session.watch.pacer.let_go(self.release)
