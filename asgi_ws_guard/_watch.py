"""
Watches the connections of one guard on one event loop (G5).

One timer looks at all of them. Where no `receive` has been pending for a while a connection starts to read ahead, so
that the guard learns of a disconnect although the handler does not receive; where a send has been pending for too long
it ends. A handler that receives and sends pays nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._loops import AsyncioLoop, Timer, TrioLoop, running_loop
from ._senders import Senders, senders_of

if TYPE_CHECKING:
    from ._session import Session

TICK_S = 0.25
"""Seconds between two looks. Reading ahead starts at the second look that finds nobody receiving."""


class Watch:
    """
    The live connections of one guard on one event loop.

    Attributes:
        sessions: Those whose handler runs.
        loop: The event loop.
        senders: Who sends late, on this event loop.
    """

    __slots__ = ("__weakref__", "_tick_s", "_timer", "loop", "senders", "sessions")

    def __init__(self, loop: AsyncioLoop | TrioLoop, send_timeout_s: float | None) -> None:
        """
        Watch nothing yet.

        Args:
            loop: The event loop.
            send_timeout_s: The guard's send deadline, which the timer must be fine enough for; None: no deadline.
        """
        self.loop = loop
        self._tick_s = TICK_S if send_timeout_s is None else min(TICK_S, send_timeout_s / 4)
        self.sessions: set[Session] = set()
        self._timer: Timer | None = None
        running = running_loop()
        self.senders = Senders(loop.time) if running is None else senders_of(running, loop.time)
        self.senders.add(self)

    def add(self, session: Session) -> None:
        """
        Watch a connection from now on.

        Args:
            session: A connection whose handler is about to run.
        """
        self.sessions.add(session)
        if self._timer is None:
            self._timer = self.loop.later(self._tick_s, self._tick)

    def remove(self, session: Session) -> None:
        """
        Watch a connection no longer; the timer stops with the last one.

        Args:
            session: A connection whose handler is done.
        """
        self.sessions.discard(session)
        if not self.sessions and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look_at_sends(self) -> None:
        """Make every connection report its sends to `senders`."""
        for session in self.sessions:
            session.look_at_sends()

    def _tick(self) -> None:
        self._timer = self.loop.later(self._tick_s, self._tick)
        for session in tuple(self.sessions):
            session.look()
