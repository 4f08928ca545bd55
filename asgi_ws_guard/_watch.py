"""
Watches the connections of one guard on one event loop (G5).

One timer looks at all of them. Where no `receive` has been pending for a while a connection starts to read ahead, so
that the guard learns of a disconnect although the handler does not receive; where a send has been pending for too long
it ends. A handler that receives and sends pays nothing for it, and a connection that is read from costs some 0.1 µs per
look: ``benchmarks/watch.py`` has the prices.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable
from itertools import compress
from operator import attrgetter, not_
from types import CellType
from typing import TYPE_CHECKING

from ._drain import Draining
from ._loops import AsyncioLoop, Timer, TrioLoop, running_loop
from ._pacing import Pacer
from ._senders import Senders, senders_of
from ._turns import Turns
from ._wheel import Wheel

if TYPE_CHECKING:
    from ._dispatch import Dispatch
    from ._ledger import Ledger
    from ._sending import Sending
    from ._session import Session
    from ._timing import Timing

TICK_S = 0.25
"""Seconds between two looks. Reading ahead starts at the second look that finds nobody receiving."""
FINEST_S = 0.01
"""A deadline is never kept more finely: a hundred turns of a timer in a second cost 0.1 % of a core."""
SENDS_S = 3e-5
"""Seconds between two looks at the sends, for each connection with a send deadline: 0.3 s for ten thousand. One of them
takes some 35 to 70 ns, so that it is 0.2 % of a core at most, however short the deadline."""
LOOKS_AT_ONCE = 64
"""Connections that are looked at in one turn of the loop: 4 µs each, or 20 where reading ahead starts."""
_contents = attrgetter("cell_contents")


class Watch:
    """
    The live connections of one guard on one event loop.

    Attributes:
        dispatch: The guard's observers.
        drain: The drain of these connections, begun or not.
        sessions: Those whose handler runs. Dict: session -> the cell that is true while somebody reads from the server.
        in_flight: Sends that the server has not finished, where there is a deadline. Dict: awaitable -> its side.
        is_held: Whether SIGTERM was to be held back for these connections.
        ledger: The guard's sums.
        looks: Number of looks at all connections.
        pacer: Lets those go on that were delayed.
        loop: The event loop.
        senders: Who sends late, on this event loop.
        turns: Spreads what comes for many connections together.
        wheel: Deadlines of connections that have any, by when they are due.
    """

    __slots__ = (
        "__weakref__",
        "_ending",
        "_sending",
        "_sends_due_s",
        "_since",
        "_ticks",
        "_ticks_per_look",
        "_timer",
        "_to_look_at",
        "dispatch",
        "drain",
        "in_flight",
        "is_held",
        "ledger",
        "looks",
        "loop",
        "pacer",
        "senders",
        "sessions",
        "turns",
        "wheel",
    )

    def __init__(self, loop: AsyncioLoop | TrioLoop, dispatch: Dispatch, ledger: Ledger) -> None:
        """
        Watch nothing yet.

        Args:
            loop: The event loop.
            dispatch: The guard's observers.
            ledger: The guard's sums.
        """
        self.loop = loop
        self.dispatch = dispatch
        self.ledger = ledger
        self.pacer = Pacer(loop)
        self.sessions: dict[Session, CellType] = {}
        self.drain = Draining(loop, self.sessions.keys())
        self.in_flight: dict[Awaitable[None], Sending] = {}
        self.wheel: Wheel[Timing] = Wheel()
        self.turns = Turns(loop)
        self.looks = 0
        self.is_held = False
        self._ending: set[Session] = set()
        self._to_look_at: list[Session] = []
        self._sending: dict[Sending, CellType] = {}
        self._sends_due_s = 0.0
        self._since: dict[Awaitable[None], float] = {}
        self._ticks = 0
        self._ticks_per_look = 1
        self._timer: Timer | None = None
        running = running_loop()
        self.senders = Senders(loop.time) if running is None else senders_of(running, loop.time)
        self.senders.add(self)

    def add(self, session: Session) -> None:
        """
        Watch a connection from now on; again, when its path is another one now.

        Args:
            session: A connection whose handler is about to run.
        """
        self.sessions[session] = session.path.reading_cell
        cell = session.path.sending_cell
        if cell is not None:
            self._sending[session.sending] = cell
        if self._timer is None:
            self._timer = self.loop.later(self._tick_s, self._tick)

    def add_ending(self, session: Session) -> None:
        """
        Look at a connection each time, also while somebody reads: it has ended, or is about to.

        Args:
            session: A connection that is watched.
        """
        if session in self.sessions:
            self._ending.add(session)

    def remove(self, session: Session) -> None:
        """
        Watch a connection no longer; the timer stops with the last one.

        Args:
            session: A connection whose handler is done.
        """
        self.sessions.pop(session, None)
        self._sending.pop(session.sending, None)
        self._ending.discard(session)
        self.drain.left(session)
        if not self.sessions and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._since = {}

    def keep(self, deadline_s: float) -> None:
        """
        Let the timer be fine enough for a deadline: a quarter of it.

        Args:
            deadline_s: Seconds; only the shortest counts.
        """
        asked = math.ceil(TICK_S / max(deadline_s / 4, FINEST_S))
        if asked > self._ticks_per_look:
            self._ticks_per_look = asked
            if self._timer is not None:  # the next look would come too late for the first such deadline
                self._timer.cancel()
                self._timer = self.loop.later(self._tick_s, self._tick)

    def look_at_sends(self) -> None:
        """Make every connection report its sends to `senders`."""
        for session in self.sessions:
            session.path.ask_about_sends()

    @property
    def _tick_s(self) -> float:
        return TICK_S / self._ticks_per_look

    def _tick(self) -> None:
        self._timer = self.loop.later(self._tick_s, self._tick)
        now = self.loop.time()
        if now >= self._sends_due_s:
            self._look_at_sends(now)
            self._sends_due_s = now + len(self._sending) * SENDS_S
        if self.wheel:
            for timing in self.wheel.due(now):
                timing.due(now)
        self._ticks += 1
        if self._ticks >= self._ticks_per_look:
            self._ticks = 0
            self._look()

    def _look(self) -> None:
        """Look at the connections that nobody reads from, which C code finds, and at those that end."""
        if self._to_look_at:
            return  # the loop is so busy that the last look is not over
        self.looks += 1
        unread = list(compress(self.sessions, map(not_, map(_contents, self.sessions.values()))))
        self._to_look_at = [*self._ending.difference(unread), *reversed(unread)]
        self._look_on()

    def _look_on(self) -> None:
        """Look at some of them, and at the others in the loop's next turns: nobody else is to wait for all."""
        for _ in range(min(LOOKS_AT_ONCE, len(self._to_look_at))):
            session = self._to_look_at.pop()
            if session in self.sessions:  # its handler may be done since
                session.look()
        if self._to_look_at:
            self.loop.soon(self._look_on)

    def _look_at_sends(self, now: float) -> None:
        """End the connections with a send that has been pending for too long."""
        pending = dict(self.in_flight)
        for side in compress(tuple(self._sending), list(map(_contents, self._sending.values()))):
            pending[self._sending[side].cell_contents] = side
        if not pending:
            self._since = {}
            return
        before = self._since
        self._since = {one: before.get(one, now) for one in pending}
        for late in {side for one, side in pending.items() if now - self._since[one] >= side.timeout_s}:
            late.timed_out([one for one, side in pending.items() if side is late])
