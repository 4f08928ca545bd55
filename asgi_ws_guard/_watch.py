"""
Watches the connections of one guard on one event loop (G5).

One timer looks at all of them. Where no `receive` has been pending for a while it starts to read ahead, so that the
guard learns of a disconnect although the handler does not receive. A handler that receives pays nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._loops import AsyncioLoop, Timer, TrioLoop
from ._senders import Senders

if TYPE_CHECKING:
    from ._session import Session

TICK_S = 0.25
"""Seconds between two looks. Reading ahead starts at the second look that finds nobody receiving."""


class Watch:
    """
    The live connections of one guard on one event loop.

    Attributes:
        senders: Who sends late.
    """

    __slots__ = ("__weakref__", "_loop", "_sessions", "_timer", "senders")

    def __init__(self, loop: AsyncioLoop | TrioLoop) -> None:
        self._loop = loop
        self._sessions: set[Session] = set()
        self._timer: Timer | None = None
        self.senders = Senders(self._look_at_sends)

    def add(self, session: Session) -> None:
        """
        Watch a connection from now on.

        Args:
            session: An open connection.
        """
        self._sessions.add(session)
        if self._timer is None:
            self._timer = self._loop.later(TICK_S, self._tick)

    def remove(self, session: Session) -> None:
        """
        Watch a connection no longer; the timer stops with the last one.

        Args:
            session: A connection, watched or not.
        """
        self._sessions.discard(session)
        if not self._sessions and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = self._loop.later(TICK_S, self._tick)
        for session in tuple(self._sessions):
            session.look()

    def _look_at_sends(self) -> None:
        for session in self._sessions:
            session.look_at_sends()
