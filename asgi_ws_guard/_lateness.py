"""
Calls that come after the end of one connection are counted, told of, borne for a while, and then refused (G1, G4).

It is made with the first of them. `_linger.py` decides how long they are borne; this does what it says. It sends
nothing, and gives no disconnect: that is `_receiving.py`'s.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from ._callsite import call_site
from ._connection import End
from ._events import DropReason, Event, HandlerStopped, LateSend, Leaked
from ._exceptions import ConnectionClosed
from ._handle import _current
from ._linger import Linger

if TYPE_CHECKING:
    from ._session import Session


class Lateness:
    """Everybody who sends or receives after the end of one connection."""

    __slots__ = ("_linger", "_session", "_told")

    def __init__(self, session: Session) -> None:
        """
        Begin to bear them.

        Args:
            session: The connection's session; it has ended.
        """
        self._session = session
        self._linger = Linger(
            session.loop,
            session.task,
            linger_s=session.options.linger_s,
            ended_at_s=self._end.at_s,
            report=self._stopped,
        )
        self._told: DropReason | None = None

    async def send(self, message_type: str) -> None:
        """
        Bear one more message of the application, which goes nowhere.

        Args:
            message_type: Its type.

        Raises:
            ConnectionClosed: The time for late sends is over, or the option ``late_sends`` is "raise".
        """
        session = self._session
        self.drop(message_type)
        at_once = session.options.late_sends == "raise"
        answer = self._linger.late_send(self._is_child(), session.watch.senders, session.connection_id, at_once=at_once)
        await self._linger.yield_if_tight()
        if answer == "raise":
            raise self.refusal()

    async def receive(self) -> None:
        """
        Bear one more `receive` after the disconnect was given.

        Raises:
            ConnectionClosed: The handler, or a task of it, spins on the disconnect and the time is over.
        """
        answer = self._linger.late_receive(self._is_child())
        await self._linger.yield_if_tight()
        if answer == "raise":
            raise self.refusal()

    def drop(self, message_type: str) -> DropReason:
        """
        Count a late send; report the first one of each reason with the line of the application.

        Args:
            message_type: Its type.

        Returns:
            Why it was dropped.
        """
        session, because = self._session, self._end.because
        session.bookkeeping.drop(because)
        if self._told is not because:
            self._told = because
            kind = Leaked if session.connection.finished else LateSend
            event: Event = kind(session.connection_id, session.loop.time(), message_type, because, call_site())
            session.tell((event,))
        return because

    def refusal(self) -> ConnectionClosed:
        """Make what is raised in the running task; nobody needs to retrieve it from a task that the handler created."""
        session, task, end = self._session, self._session.loop.current_task(), self._end
        if isinstance(task, asyncio.Task) and task is not session.task and self._is_child():
            session.watch.senders.excuse(task)
        return ConnectionClosed(end.code, end.reason, end.initiator)

    def cancel_handler_in(self, delay_s: float) -> None:
        """
        Cancel the handler if it still runs in *delay_s* seconds, and again for as long as it swallows that.

        Args:
            delay_s: Seconds from now.
        """
        self._linger.cancel_in(delay_s, only_loops=False)

    def handler_done(self) -> bool:
        """
        Stop the handler no more.

        Returns:
            Whether the guard cancelled it, and nobody else did.
        """
        return self._linger.handler_done()

    @property
    def _end(self) -> End:
        end = self._session.connection.ended
        assert end is not None  # noqa: S101 - nobody is late before the end
        return end

    def _is_child(self) -> bool:
        return _current.get() is self._session.handle

    def _stopped(self, how: Literal["raised", "cancelled"]) -> None:
        session = self._session
        session.tell((HandlerStopped(session.connection_id, session.loop.time(), how),))
