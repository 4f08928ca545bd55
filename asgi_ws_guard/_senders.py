"""
Who sends late: the handler's own task, a task that it created, or anybody else (G4).

A task inherits the context variable of the handler that created it. That alone proves little: a broadcaster that the
first handler happened to start inherits it too, and serves everybody. So a created task is only ever stopped when,
since the end of its connection, it was seen to send to no other. To see that, every send of every open connection of
this guard is looked at from the first late send of such a task until it is clear what the task is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakSet

from ._edge import is_disconnect

GAPS = 3
"""A slow task is looked at for this many times its longest pause between two late sends: it may have rounds to make."""


class _Suspect:
    """A created task that sent late. It does not keep its connection alive."""

    __slots__ = ("_last_s", "_longest_gap_s", "_since_s", "owner", "serves_others")

    def __init__(self, owner: str, now: float) -> None:
        self.owner = owner
        self.serves_others = False
        self._since_s = self._last_s = now
        self._longest_gap_s = 0.0

    def late_send(self, now: float, look_s: float) -> bool:
        """Take note of a late send; tell whether the task has been looked at for long enough."""
        self._longest_gap_s = max(self._longest_gap_s, now - self._last_s)
        self._last_s = now
        return now - self._since_s >= max(look_s, GAPS * self._longest_gap_s)


class Senders:
    """
    The created tasks of one guard and one event loop that sent late, and what is known of them.

    Attributes:
        looking: Whether every send of every open connection is to be reported to `seen`. It is for as long as there is
            a task that sent late and is not known to serve others: at any time it may begin to.
    """

    __slots__ = ("_excused", "_look", "_suspects", "_time", "looking")

    def __init__(self, time: Callable[[], float], look: Callable[[], None]) -> None:
        """
        Start without suspicion.

        Args:
            time: The event loop's clock, in seconds.
            look: Called when `looking` becomes true: makes every open connection report its sends.
        """
        self._time = time
        self._look = look
        self._suspects: dict[asyncio.Task[object], _Suspect] = {}
        self._excused: WeakSet[asyncio.Task[object]] = WeakSet()
        self.looking = False

    def seen(self, connection_id: str) -> None:
        """
        Take note that the running task sends to a connection, while `looking`.

        Args:
            connection_id: The connection it sends to.
        """
        task = asyncio.current_task()
        suspect = None if task is None else self._suspects.get(task)
        if suspect is not None and suspect.owner != connection_id:
            suspect.serves_others = True
            self._update()

    def may_stop(self, task: asyncio.Task[object], connection_id: str, look_s: float) -> bool:
        """
        Take note of a late send of a created task, and tell whether the task may be stopped.

        Args:
            task: The running task; it was created by the handler of the connection.
            connection_id: The ended connection that it sends to.
            look_s: Seconds that it must have been looked at, at least.

        Returns:
            True when it was looked at for long enough and has sent to no other connection.
        """
        suspect = self._suspects.get(task)
        if suspect is None:
            suspect = self._suspects[task] = _Suspect(connection_id, self._time())
            task.add_done_callback(self._gone)
            self._update()
        if not suspect.late_send(self._time(), look_s) or suspect.serves_others:
            return False
        self.excuse(task)
        return True

    def excuse(self, task: asyncio.Task[object]) -> None:
        """
        Retrieve the exception of a created task if it ends by what the guard raises in it: nobody awaits it.

        Args:
            task: The running task.
        """
        if task not in self._excused:
            self._excused.add(task)
            task.add_done_callback(_retrieve)

    def _gone(self, task: asyncio.Task[object]) -> None:
        del self._suspects[task]
        self._update()

    def _update(self) -> None:
        before = self.looking
        self.looking = not all(suspect.serves_others for suspect in self._suspects.values())
        if self.looking and not before:
            self._look()


def _retrieve(task: asyncio.Task[object]) -> None:
    """Mark a disconnect error as retrieved. `Task.exception` marks any, so what is behind it is looked at first."""
    if not task.cancelled() and is_disconnect(getattr(task, "_exception", None)):
        task.exception()
