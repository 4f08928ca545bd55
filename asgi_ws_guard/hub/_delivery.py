"""
One connection's way out of a hub: at once where the server takes a message at once, else through its outbox and a task.

There is at most one send of a hub under way on a connection, so order is kept; there is a task only as long as
something waits. What is dropped is entered in the guard's books. It knows nothing of rooms and users.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable

from .._close import CloseCode, CloseStatus
from .._events import DropReason
from .._exceptions import ConnectionClosed
from .._handle import ConnectionHandle
from .._loops import AsyncioLoop
from .._outlet import Outlet, Unfinished, begin
from ._encoding import Encoded
from ._limits import Limits
from ._outbox import Outbox, Put
from ._report import Tally
from ._slices import Slices
from ._sums import Sums
from ._work import Work, begin_work

CLOSE_REASON = "slow consumer"
CLOSE_S = 10.0
"""Seconds for which a close of ours may be stuck at the server."""
GRACE_S = 1.0
"""Seconds that a send under way may still take after the end of its connection."""
SEND_FAILED = "send_failed"
_log = logging.getLogger("asgi_ws_guard")


class Channel:
    """
    The way to one connection.

    Attributes:
        handle: The connection's.
        connection_id: Its id.
        is_over: Whether the connection has ended.
    """

    __slots__ = (
        "_context",
        "_has_failed",
        "_is_busy",
        "_limits",
        "_outbox",
        "_outlet",
        "_send",
        "_slices",
        "_sums",
        "_task",
        "_work",
        "connection_id",
        "handle",
        "is_over",
    )

    def __init__(
        self,
        handle: ConnectionHandle,
        limits: Limits,
        *,
        sums: Sums,
        slices: Slices,
        work: Work,
    ) -> None:
        """
        Make a way.

        Args:
            handle: The connection's.
            limits: The bounds.
            sums: Where to count.
            slices: How long the loop may be held.
            work: Holds the tasks while they run.
        """
        self.handle = handle
        self.connection_id = handle.connection_id
        self._outlet = Outlet(handle._session)
        self._send, self._context = self._outlet.send, self._outlet.context
        self._limits = limits
        self._sums = sums
        self._slices = slices
        self._work = work
        self._outbox: Outbox | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_busy = False
        self._has_failed = False
        self.is_over = False

    def offer(self, message: Encoded, tally: Tally) -> bool:
        """
        Send a message or let it wait, without waiting for anything.

        Args:
            message: The message.
            tally: Where to count what became of it, but that the server took it.

        Returns:
            Whether the server took it; the caller counts that.
        """
        if self._is_busy or self._outbox:
            self._queue(message, tally)
            return False
        self._is_busy = True
        try:
            rest = begin(self._send, self._context, message.template.copy())
        except Exception as error:  # noqa: BLE001 - the sender is not to suffer for one of its many receivers
            return self._failed(error, tally)
        finally:
            self._is_busy = self.is_over
        if rest is not None or self._outbox:  # an observer may have sent something meanwhile
            self._start(rest)
        if rest is not None:
            self._count_queued(tally)
        elif self.is_over:
            self._lost(tally)
        else:
            return True
        return False

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._is_busy and not self._outbox

    async def drained(self) -> None:
        """Wait until nothing waits any more, or the connection is over."""
        while self._task is not None and not self.is_over:
            await asyncio.wait([self._task])

    def ended(self) -> None:
        """Take note of the end of the connection: what waits is dropped, and what is under way gets `GRACE_S`."""
        self.is_over = self._is_busy = True
        self._empty()
        if self._task is not None:
            AsyncioLoop().later(GRACE_S, self._task.cancel)

    def _queue(self, message: Encoded, tally: Tally) -> None:
        if self.is_over:  # busy for ever
            self._drop(None, tally)
            return
        limits, outbox = self._limits, self._outbox
        if outbox is None:
            outbox = self._outbox = Outbox(limits.outbox_messages, limits.outbox_bytes, limits.overflow)
        waited, size = len(outbox), outbox.size
        put, dropped = outbox.put(message)
        self._sums.waiting += len(outbox) - waited
        self._sums.waiting_bytes += outbox.size - size
        for reason in dropped:
            self._drop(reason, tally)
        if put is Put.QUEUED:
            self._count_queued(tally)
            if not self._is_busy:
                self._start(None)
        elif put is Put.CLOSE:
            self._close()

    def _close(self) -> None:
        """Close for a full outbox; the end is known at once, the close goes out when the server takes it."""
        closing = self._outlet.end(CloseCode.TRY_AGAIN_LATER, CLOSE_REASON, CloseStatus.SLOW_CONSUMER)
        if closing is not None:
            self._sums.closed += 1
            limit_s = self._limits.send_timeout_s or CLOSE_S
            begin_work(self._work, _within(closing, limit_s))

    def _start(self, rest: Unfinished | None) -> None:
        self._is_busy = True
        self._task = begin_work(self._work, self._drain(rest))
        self._task.add_done_callback(self._stopped)

    async def _drain(self, rest: Unfinished | None) -> None:
        """Send what waits, one after the other, for as long as there is something."""
        while True:
            if rest is not None:
                await self._finish(rest)
            await self._slices.wait()
            message = self._take()
            if message is None:
                self._task, self._is_busy = None, self.is_over
                return
            rest = None
            try:
                rest = begin(self._send, self._context, message.message())
            except Exception as error:  # noqa: BLE001 - nobody awaits this task
                self._failed(error, None)
            else:
                if rest is None:
                    self._returned()

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """Take note that a task is done which did not come to its end: it was cancelled, maybe before it began."""
        if self._task is task:
            self._task, self._is_busy = None, self.is_over

    async def _finish(self, rest: Unfinished) -> None:
        """Wait for the end of a send, with the deadline that only a send which waits has to have."""
        timeout_s = self._limits.send_timeout_s
        timer = None if timeout_s is None else AsyncioLoop().later(timeout_s, self._time_out)
        try:
            await rest
        except asyncio.CancelledError:
            self._sums.drop(SEND_FAILED)
            raise
        except Exception as error:  # noqa: BLE001 - nobody awaits this task
            self._failed(error, None)
        else:
            self._returned()
        finally:
            if timer is not None:
                timer.cancel()

    def _time_out(self) -> None:
        timeout_s = self._limits.send_timeout_s
        if self._task is not None and timeout_s is not None:
            self._sums.timed_out += not self.is_over
            self._outlet.time_out(timeout_s)
            self._task.cancel()

    def _take(self) -> Encoded | None:
        message = None if self._outbox is None else self._outbox.take()
        if message is not None:
            self._sums.waiting -= 1
            self._sums.waiting_bytes -= message.size
        return message

    def _empty(self) -> None:
        if self._outbox is not None:
            self._sums.waiting_bytes -= self._outbox.size
            waited = self._outbox.clear()
            self._sums.waiting -= waited
            for _ in range(waited):
                self._drop(None, None)

    def _count_queued(self, tally: Tally) -> None:
        self._sums.queued += 1
        tally.queued += 1

    def _drop(self, reason: DropReason | None, tally: Tally | None) -> None:
        """Enter a message in the guard's books as dropped."""
        why = self._outlet.drop(reason).value
        self._sums.drop(why)
        if tally is not None:
            tally.drop(why)

    def _lost(self, tally: Tally | None) -> None:
        """Count a message at which the server said that the peer is gone; the guard has it in its books."""
        why = self._outlet.why_dropped.value
        self._sums.drop(why)
        if tally is not None:
            tally.drop(why)

    def _returned(self) -> None:
        """Count a message that had waited and for which the guard's `send` has returned."""
        if self.is_over:
            self._lost(None)
        else:
            self._sums.sent += 1

    def _failed(self, error: Exception, tally: Tally | None) -> bool:
        """Count a message at which the server raised a real error; the first one of a connection is logged."""
        if isinstance(error, ConnectionClosed):
            self._lost(tally)
            return False
        self._sums.drop(SEND_FAILED)
        if tally is not None:
            tally.drop(SEND_FAILED)
        if not self._has_failed:
            self._has_failed = True
            _log.error("a send of a hub failed", exc_info=error)
        return False


async def _within(closing: Awaitable[None], limit_s: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError, OSError):  # the server finds out by itself that the peer is gone
        await asyncio.wait_for(_in_its_turn(closing), limit_s)


async def _in_its_turn(closing: Awaitable[None]) -> None:
    """Close a turn later: a send that the server lets go on just now goes out before (G11)."""
    await asyncio.sleep(0)
    await closing
