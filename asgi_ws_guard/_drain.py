"""
Brings all connections of one guard on one event loop to their end before the process ends.

It admits nobody, tells the connections, closes them a batch at a time, waits for their handlers, and stops those that
are left at the deadline. It knows nothing of signals and of servers (`_sigterm.py` does), and sends nothing itself:
each close is a task of `_timing.py`, each denial the handshake's own (`_opening.py`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Collection
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._close import CloseStatus, Initiator, legal_code
from ._loops import AsyncioLoop, Flag, TrioLoop
from ._options import Drain
from ._plugin import Deny
from ._timing import Passed

if TYPE_CHECKING:
    from ._session import Session

_log = logging.getLogger("asgi_ws_guard")
POLICY = "drain"
"""Stands in events and metrics for the policy."""
REASON = "draining"
CLOSING_PART = 0.5
"""Part of the deadline in which every close is asked for."""
STUCK_PART = 0.75
"""Part of the deadline after which a close that the server has not taken is given up: its handler, which hears nothing
before it is out, gets the rest for its end."""
MAX_NAMED = 10
"""Connections that are named in the log line about handlers that nothing stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """
    What became of the connections that a drain found, and of those that came meanwhile.

    Attributes:
        closed: Ended because the drain closed them, or denied their handshake, and their handlers did the rest.
        ended: Ended by their handler or their client, before it was their turn.
        cancelled: Their handler, or a policy that was asked about them, went on until it was cancelled.
        running: Their handler still runs, for it swallowed that.
        denied: Handshakes that came meanwhile, and were denied.
        took_s: Seconds.
    """

    closed: int = 0
    ended: int = 0
    cancelled: int = 0
    running: int = 0
    denied: int = 0
    took_s: float = 0.0


class Draining:
    """
    The drain of the connections of one guard on one event loop; there is one, begun or not, and it is not taken back.

    Attributes:
        is_begun: Whether nobody is admitted any more.
    """

    __slots__ = (
        "_cancelled",
        "_denied",
        "_drain",
        "_ends",
        "_flag",
        "_is_empty",
        "_left",
        "_loop",
        "_sessions",
        "_task",
        "is_begun",
    )

    def __init__(self, loop: AsyncioLoop | TrioLoop, sessions: Collection[Session]) -> None:
        """
        Drain nothing yet.

        Args:
            loop: The event loop.
            sessions: The connections whose handlers run on it, at any time.
        """
        self._loop = loop
        self._sessions = sessions
        self._drain = Drain()
        self._task: asyncio.Task[DrainReport] | None = None
        self._flag: Flag | None = None
        self._is_empty: Flag | None = None
        self._left: dict[Session, None] = {}
        self._cancelled: set[Session] = set()
        self._ends = {"closed": 0, "ended": 0, "cancelled": 0}
        self._denied = 0
        self.is_begun = False

    async def run(self, drain: Drain) -> DrainReport:
        """
        Drain, or join the drain that has begun.

        Args:
            drain: How; of the first call alone.

        Returns:
            The report, the same to everybody. Under trio, without tasks and timers, nobody is closed and nothing waited
            for: nobody is admitted any more, and the connections are told.
        """
        if not self._loop.has_tasks:
            self._begin(drain)
            self._tell(list(self._sessions))
            return DrainReport(running=len(self._sessions), denied=self._denied)
        task = self.start(drain)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                _log.warning("who waited for the drain was cancelled; it goes on: %d connections", len(self._left))
            raise

    def start(self, drain: Drain) -> asyncio.Task[DrainReport]:
        """
        Begin to drain, in a task that nobody's cancellation reaches; again: give the same task.

        Args:
            drain: How; of the first call alone.
        """
        if self._task is None:
            self._begin(drain)
            self._left = dict.fromkeys(self._sessions)
            self._is_empty = asyncio.Event()
            self._task = Context().run(lambda: asyncio.Task(self._run(), loop=asyncio.get_running_loop()))
        return self._task

    async def wait(self) -> None:
        """Wait until the drain has begun."""
        if not self.is_begun:
            self._flag = self._flag or self._loop.flag()
            await self._flag.wait()

    def denial(self) -> Deny:
        """Give the answer to a handshake, and count it."""
        self._denied += 1
        return Deny(503, headers=self._headers(self._wait_s()), end=CloseStatus.SHUTDOWN, reason=REASON)

    def left(self, session: Session) -> None:
        """
        Take note that a handler is done.

        Args:
            session: Its connection.
        """
        if session not in self._left:
            return
        del self._left[session]
        end = session.connection.ended
        if session in self._cancelled:
            self._ends["cancelled"] += 1
        elif end is not None and end.initiator is Initiator.GUARD and end.status is CloseStatus.SHUTDOWN:
            self._ends["closed"] += 1
        else:
            self._ends["ended"] += 1
        self._see_empty()

    def _begin(self, drain: Drain) -> None:
        if not self.is_begun:
            self._drain, self.is_begun = drain, True
            if self._flag is not None:
                self._flag.set()

    def _see_empty(self) -> None:
        if not self._left and self._is_empty is not None:
            self._is_empty.set()

    async def _run(self) -> DrainReport:
        drain, loop = self._drain, self._loop
        began_s, found = loop.time(), len(self._left)
        _log.info("draining %d connections, for %g s", found, drain.deadline_s)
        try:
            self._see_empty()
            for some in _batches(list(self._left), drain.batch):
                self._tell(some)
                await loop.turn()
            await self._until(began_s + drain.notice_s)
            await self._close_all(began_s + drain.deadline_s * CLOSING_PART)
            await self._until(began_s + drain.deadline_s * STUCK_PART)
            for session in tuple(self._left):
                session.give_up_close()
            await self._until(began_s + drain.deadline_s)
            self._cancelled = set(self._left)
            for session in self._cancelled:
                session.stop_handler()
            await self._until(began_s + drain.deadline_s + drain.stop_s)
        except asyncio.CancelledError:
            _log.warning("the drain was cancelled halfway: %d of %d connections are left", len(self._left), found)
            raise
        return self._report(loop.time() - began_s)

    def _tell(self, sessions: list[Session]) -> None:
        for session in sessions:
            session.tell_draining(self._drain.deadline_s)

    async def _close_all(self, until_s: float) -> None:
        """Ask for the close of every connection that is left, in an order and at times that chance decides."""
        drain = self._drain
        order = list(self._left)
        random.shuffle(order)
        batches = _batches(order, _batch_size(drain, len(order), until_s - self._loop.time()))
        for number, some in enumerate(batches):
            if number:
                await self._until(self._loop.time() + drain.every_s * random.uniform(0.5, 1.5))
            for session in some:
                session.leave(self._farewell())

    def _farewell(self) -> Passed:
        wait_s = self._wait_s()
        reason = f"retry_after={wait_s}"
        code = legal_code(self._drain.code)
        return Passed(POLICY, REASON, code, reason, CloseStatus.SHUTDOWN, self._headers(wait_s))

    def _wait_s(self) -> int:
        least_s, most_s = self._drain.retry_after_s
        return random.randint(least_s, most_s)

    def _headers(self, wait_s: int) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"retry-after", str(wait_s).encode("ascii")),)

    async def _until(self, at_s: float) -> None:
        """Wait until a time, or until nobody is left."""
        flag = self._is_empty
        if flag is not None and not flag.is_set():
            await self._loop.within(_waited(flag), at_s - self._loop.time())

    def _report(self, took_s: float) -> DrainReport:
        running = len(self._left)
        report = DrainReport(**self._ends, running=running, denied=self._denied, took_s=took_s)
        _log.info("drained: %s", report)
        if running:
            named = ", ".join(sorted(one.connection_id for one in self._left)[:MAX_NAMED])
            _log.error("%d handlers swallowed their cancellation and still run: connections %s", running, named)
        self._left, self._cancelled = {}, set()
        return report


def _batch_size(drain: Drain, number: int, within_s: float) -> int:
    """Give how many connections are closed at once, so that the last of them are in time at the longest pauses."""
    longest_s = 1.5 * drain.every_s
    rounds = 1 + math.floor(max(0.0, within_s) / longest_s) if longest_s else number
    return max(drain.batch, math.ceil(number / max(1, rounds)))


def _batches(sessions: list[Session], size: int) -> list[list[Session]]:
    return [sessions[at : at + size] for at in range(0, len(sessions), size)]


async def _waited(flag: Flag) -> None:
    await flag.wait()
