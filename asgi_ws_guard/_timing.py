"""
How long one connection may take, and what becomes of it when the time is over.

A deadline costs a message nothing: the watch asks when it is due, and then it is seen what has happened since. All of
it runs on the loop's monotonic clock. The one time of day, an identity's end, is turned into it when the identity
becomes known or is renewed, so that a step of the system's clock moves no deadline that runs.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import CellType
from typing import TYPE_CHECKING

from ._close import CloseCode, CloseStatus, legal_code
from ._events import DropReason
from ._loops import AsyncioLoop
from ._plugin import Deny
from ._policing import deny
from ._sending import CLOSE_S, finished
from ._servers import peer_lost
from ._state import State

if TYPE_CHECKING:
    from ._connection import Connection
    from ._session import Session
    from ._wheel import Wheel

_log = logging.getLogger("asgi_ws_guard")
POLICY = "deadlines"
"""Stands in events for the policy: the shortest deadline counts, whoever laid it down."""
LOOKS_PER_IDLE = 4
"""Looks in the time of an idle deadline: a connection is closed at most a quarter of it late."""


@dataclass(frozen=True, slots=True)
class Passed:
    """
    What ends a connection.

    Attributes:
        policy: Stands in events for the policy.
        word: Its word for it, from a finite set.
        code: Close code that may be sent.
        reason: Close reason, at most 123 bytes of UTF-8.
        status: The class of the end.
        headers: Headers of the denial, where the handshake has no answer yet.
    """

    policy: str
    word: str
    code: int
    reason: str
    status: CloseStatus
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Timing:
    """The deadlines of one connection."""

    __slots__ = (
        "_counts",
        "_expires_s",
        "_farewell",
        "_idle_since_s",
        "_look_s",
        "_looked_s",
        "_next_s",
        "_seen",
        "_session",
        "_slot",
        "_task",
        "_wheel",
    )

    def __init__(self, session: Session, wheel: Wheel[Timing]) -> None:
        """
        Keep no deadline yet.

        Args:
            session: The connection's session.
            wheel: Where it says when it is to be asked.
        """
        self._session = session
        self._wheel = wheel
        self._slot: int | None = None
        self._expires_s = self._next_s = self._look_s = math.inf
        self._idle_since_s, self._looked_s = -math.inf, 0.0
        self._seen = 0
        self._counts = self._counted()
        self._farewell: Passed | None = None
        self._task: asyncio.Task[None] | None = None

    def identify(self) -> None:
        """Take note of when the identity ends, by the system's clock of now."""
        identity = self._session.terms.identity
        expires_unix_s = None if identity is None else identity.expires_unix_s
        left_s = math.inf if expires_unix_s is None else expires_unix_s - time.time()
        self._expires_s = self._session.loop.time() + left_s
        self.arm()

    def arm(self) -> None:
        """Say when the next deadline may have passed: after the admission, the accept, and each look."""
        self.stop()
        if self._session.connection.ended is not None:
            return
        self._next_s = min((at_s for at_s, *_ in self._deadlines()), default=math.inf)
        idle_s = self._session.terms.deadlines.idle_s
        if idle_s is not None and self._session.connection.accepted:
            self._look_s = idle_s / LOOKS_PER_IDLE
        self._put(min(self._next_s, self._looked_s + self._look_s))

    def stop(self) -> None:
        """Ask to be asked no more."""
        if self._slot is not None:
            self._wheel.take_out(self, self._slot)
            self._slot = None

    def accepted(self) -> None:
        """Begin to count what counts from the accept."""
        self._idle_since_s = self._looked_s = self._session.loop.time()
        self._counts = self._counted()  # a look must be cheap, and the path is the last one now
        self.arm()

    def due(self, now: float) -> None:
        """
        See whether a deadline has passed; the watch calls it when one may have.

        Args:
            now: Now, in seconds.
        """
        was_heard = self._look(now)
        if now < self._next_s and not was_heard:  # most looks: nothing has happened
            look_at_s = now + self._look_s
            self._slot = self._wheel.put(self, look_at_s if look_at_s < self._next_s else self._next_s)
            return
        self._slot = None
        if self._passed() is None:
            self.arm()
        else:
            self._start()

    def leave(self, farewell: Passed) -> None:
        """
        End the connection as if a deadline had passed, unless one has.

        Args:
            farewell: Why, and with which close.
        """
        if self._task is None or self._task.done():
            self._farewell = farewell
            self._start()

    def give_up(self) -> None:
        """Wait no longer for a close, or a denial, that the server does not take."""
        if self._task is not None:
            self._task.cancel()

    async def finish(self) -> None:
        """Wait until the close that a deadline asked for is out, or is known to be stuck."""
        self.stop()
        task, end = self._task, self._session.connection.ended
        if task is None or end is None:
            return
        await finished(task, end.at_s + CLOSE_S - self._session.loop.time())

    def let_go(self) -> None:
        """Ask to be asked no more, and hold no task: what one was cancelled by leads to the server."""
        self.stop()
        self._task = None

    def _deadlines(self) -> Iterator[tuple[float, str, int, CloseStatus]]:
        """Give time, word, close code and class of the end of each deadline that runs now, the gravest first."""
        connection, deadlines = self._session.connection, self._session.terms.deadlines
        if connection.state is State.CONNECTING or connection.state is State.OPEN:
            yield self._expires_s, "expired", CloseCode.UNAUTHORIZED, CloseStatus.UNAUTHORIZED
        if connection.state is State.CONNECTING and deadlines.handshake_s is not None:
            at_s = connection.opened_at_s + deadlines.handshake_s
            yield at_s, "handshake_timeout", CloseCode.TRY_AGAIN_LATER, CloseStatus.TIMEOUT
        if connection.state is State.OPEN and deadlines.max_age_s is not None:
            yield connection.accepted_at_s + deadlines.max_age_s, "max_age", deadlines.max_age_code, CloseStatus.TIMEOUT
        if connection.state is State.OPEN and deadlines.idle_s is not None:
            yield self._idle_since_s + deadlines.idle_s, "idle", deadlines.idle_code, CloseStatus.TIMEOUT

    def _passed(self) -> Passed | None:
        now, state = self._session.loop.time(), self._session.connection.state
        if self._farewell is not None and (state is State.CONNECTING or state is State.OPEN):
            return self._farewell
        for at_s, word, code, status in self._deadlines():
            if at_s <= now:
                return Passed(POLICY, word, legal_code(code), word, status)
        return None

    def _look(self, now: float) -> bool:
        """See whether anything was received since the last look; who is not listened to, or is delayed, is not idle."""
        connection, received, reading = self._counts
        seen, self._looked_s = connection.received + received.cell_contents.counted, now
        was_heard = seen != self._seen or not reading.cell_contents
        if was_heard:
            self._seen, self._idle_since_s = seen, now
        return was_heard

    def _counted(self) -> tuple[Connection, CellType, CellType]:
        """Give where messages are counted, beside the path and on it, and what tells whether somebody listens."""
        path = self._session.path
        return self._session.connection, path.received_cell, path.reading_cell

    def _put(self, at_s: float) -> None:
        if at_s < math.inf:
            self._slot = self._wheel.put(self, at_s)

    def _start(self) -> None:
        session, loop = self._session, self._session.loop
        assert isinstance(loop, AsyncioLoop)  # noqa: S101 - nothing is due where there are no timers
        self._task = loop.start(self._end(), session.receiving.context)

    async def _end(self) -> None:
        """Take in what has arrived, see again what has passed, and end the connection for it."""
        session = self._session
        session.receiving.poll()
        self._look(session.loop.time())
        passed = self._passed()
        if passed is None:
            self.arm()
            return
        try:
            if session.connection.state is State.CONNECTING:
                await self._deny(passed)
            else:
                session.bookkeeping.decided(passed.policy, "close", passed.word)
                session.end(DropReason.GUARD_CLOSED, passed.status, passed.code, passed.reason)
                await session.sending.close(passed.code, passed.reason, keep_errors=True)
        except Exception as error:  # noqa: BLE001 - there is nobody to raise it to
            if not peer_lost(error):
                _log.error("the server raised when a deadline ended a connection", exc_info=error)

    async def _deny(self, passed: Passed) -> None:
        session, status = self._session, passed.status
        response_status = 401 if status is CloseStatus.UNAUTHORIZED else 503
        session.bookkeeping.decided(passed.policy, "deny", passed.word)
        session.tell(session.connection.deny(session.loop.time(), status=status, response_status=response_status))
        session.sending.hold_back()
        try:
            if session.receiving.stop_before_close:
                await session.receiving.stop()
            await deny(
                Deny(response_status, headers=passed.headers, end=status, reason=passed.word),
                session.sending.write,
                can_answer=session.connection.can_deny,
            )
        finally:
            session.sending.let_know()
