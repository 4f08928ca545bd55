"""
Drop, then stop: what happens to those who go on after the end of one connection (G1, G3, G4).

One object per connection, made at its end. It decides by who is calling and by how long ago the end was. It counts and
reports nothing: that is the session's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Literal

from ._loops import AsyncioLoop, Timer, TrioLoop, cancel_requests
from ._senders import Senders, Suspect

CALLS_PER_TURN = 10
"""Late calls in one turn of the loop before one yields: more than a clean-up makes, few enough to starve nobody."""
LOOP_CALLS = 3
"""Late calls that show a loop rather than a clean-up."""
MIN_LOOK_S = 1.0
"""Seconds that a created task is looked at before it is stopped, also without a linger."""
CANCEL_AGAIN_S = 1.0
"""Seconds between two cancellations of a handler that swallows them (`asyncio.wait_for` does, up to 3.11)."""

Answer = Literal["drop", "raise"]


class Linger:
    """Everybody who goes on after the end of one connection."""

    __slots__ = (
        "_calls_in_turn",
        "_cancels",
        "_child_receives",
        "_family",
        "_is_doomed",
        "_linger_s",
        "_loop",
        "_own_calls",
        "_raised_at_s",
        "_report",
        "_survived",
        "_task",
        "_timers",
        "_until_s",
    )

    def __init__(
        self,
        loop: AsyncioLoop | TrioLoop,
        task: object | None,
        *,
        linger_s: float,
        ended_at_s: float,
        report: Callable[[Literal["raised", "cancelled"]], None],
    ) -> None:
        """
        Begin to linger.

        Args:
            loop: The connection's loop.
            task: The task that runs the handler, None when the handler is done.
            linger_s: Seconds in which late calls are quiet.
            ended_at_s: Time of the end.
            report: Called whenever the handler is stopped in a new way.
        """
        self._loop = loop
        self._task = task
        self._linger_s = linger_s
        self._until_s = ended_at_s + linger_s
        self._report = report
        self._calls_in_turn = 0
        self._own_calls = 0
        self._child_receives = 0
        self._family: Suspect | None = None
        self._is_doomed = False
        self._cancels = 0
        self._survived = 0
        self._raised_at_s: float | None = None
        self._timers: list[Timer] = []

    def late_send(self, is_child: bool, senders: Senders, connection_id: str, *, at_once: bool) -> Answer:
        """
        Decide about a late send of the running task.

        Args:
            is_child: Whether the task inherited the connection's context variable.
            senders: What is known of created tasks.
            connection_id: The connection.
            at_once: Whether no late send is quiet, whoever makes it.

        Returns:
            What to do with it.
        """
        task = self._loop.current_task()
        if task is not None and task is self._task:
            self._goes_on()
            return self._stop_own() if at_once or self._loop.time() >= self._until_s else "drop"
        if at_once:
            return "raise"
        if is_child and isinstance(task, asyncio.Task):
            if self._family is None:
                self._family = Suspect(connection_id, self._loop.time(), max(self._linger_s, MIN_LOOK_S))
            return "raise" if senders.may_stop(task, self._family) else "drop"
        return "drop"

    def late_receive(self, is_child: bool) -> Answer:
        """
        Decide about a `receive` that gives the disconnect once more.

        Args:
            is_child: Whether the task inherited the connection's context variable.

        Returns:
            "raise" for a handler, or a task of it, that spins on the disconnect although the time is over.
        """
        task = self._loop.current_task()
        lingered = self._loop.time() >= self._until_s
        if task is not None and task is self._task:
            self._goes_on()
            return self._stop_own() if lingered and self._own_calls > LOOP_CALLS else "drop"
        if is_child and isinstance(task, asyncio.Task):
            self._child_receives += 1
            if lingered and self._child_receives > LOOP_CALLS:
                return "raise"
        return "drop"

    async def yield_if_tight(self) -> None:
        """Pause when many late calls came without a turn of the loop, else return without suspending."""
        self._calls_in_turn += 1
        if self._calls_in_turn == 1:
            self._loop.soon(self._new_turn)
        if self._calls_in_turn >= CALLS_PER_TURN:
            self._calls_in_turn = 0
            await self._loop.pause()

    def cancel_in(self, delay_s: float, *, only_loops: bool) -> None:
        """
        Cancel the handler if it still runs in *delay_s* seconds, and again for as long as it swallows that.

        Args:
            delay_s: Seconds from now.
            only_loops: Spare a handler that has made fewer than `LOOP_CALLS` late calls.
        """
        timer = self._loop.later(delay_s, lambda: self._cancel(only_loops))
        if timer is not None:
            self._timers.append(timer)

    def handler_done(self) -> bool:
        """
        Stop everything, in the task of the handler, which is done; take back the guard's own cancellations of it.

        Returns:
            Whether the guard cancelled the handler, and nobody else did whom the handler did not survive. Python 3.10
            keeps no count: there the two cannot be told apart.
        """
        for timer in self._timers:
            timer.cancel()
        task, self._task = self._task, None
        if sys.version_info >= (3, 11) and isinstance(task, asyncio.Task):
            for _ in range(self._cancels):
                task.uncancel()
        return self._cancels > 0 and cancel_requests(task) <= self._survived

    def _goes_on(self) -> None:
        """
        Count a late call of the handler. It has survived what it was asked for before, unless it is cleaning up.

        `asyncio.TaskGroup` up to 3.12, and whoever else takes a cancellation, leave a request behind, which is nobody's
        who asks when the guard cancels.
        """
        self._own_calls += 1
        if not _is_cancelled(sys.exc_info()[1]):
            self._survived = max(0, cancel_requests(self._task) - self._cancels)

    def _stop_own(self) -> Answer:
        now = self._loop.time()
        if self._raised_at_s is None:
            self._raised_at_s = now
            self._report("raised")
            self.cancel_in(self._linger_s, only_loops=True)
        elif now >= self._raised_at_s + self._linger_s and self._own_calls >= LOOP_CALLS and not self._is_doomed:
            self._is_doomed = True
            self.cancel_in(0.0, only_loops=True)
        return "raise"

    def _cancel(self, only_loops: bool) -> None:
        if not isinstance(self._task, asyncio.Task):
            return
        if only_loops and (self._cancels or self._own_calls < LOOP_CALLS):
            return
        self._cancels += 1
        if self._cancels == 1:
            self._report("cancelled")
        self._task.cancel()
        self.cancel_in(max(self._linger_s, CANCEL_AGAIN_S), only_loops=False)

    def _new_turn(self) -> None:
        self._calls_in_turn = 0


def _is_cancelled(handled: BaseException | None) -> bool:
    """Tell whether an exception is a cancellation, or was raised while one was handled."""
    while handled is not None and not isinstance(handled, asyncio.CancelledError):
        handled = handled.__context__
    return handled is not None
