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

from ._edge import is_disconnect

_ENOUGH_RAISES = 3
"""A created task that outlives this many `ConnectionClosed` swallows them all; looking longer tells no more."""


class _Suspect:
    """A created task that sent late. It does not keep its connection alive."""

    __slots__ = ("late_sends", "owner", "raises", "serves_others")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.late_sends = 0
        self.raises = 0
        self.serves_others = False

    @property
    def is_open_question(self) -> bool:
        return not self.serves_others and self.raises < _ENOUGH_RAISES


class Senders:
    """The created tasks of one guard and one event loop that sent late, and what is known of them."""

    __slots__ = ("_look", "_suspects", "looking")

    def __init__(self, look: Callable[[], None]) -> None:
        """
        Start without suspicion.

        Args:
            look: Called when `looking` becomes true: makes every open connection report its sends to `seen`.
        """
        self._suspects: dict[asyncio.Task[object], _Suspect] = {}
        self._look = look
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

    def may_stop(self, task: asyncio.Task[object], connection_id: str, *, lingered: bool) -> bool:
        """
        Tell whether a late send of a created task is to raise, and take note of it.

        Args:
            task: The running task; it was created by the handler of the connection.
            connection_id: The ended connection that it sends to.
            lingered: Whether the time in which late sends are dropped is over.

        Returns:
            True when it is over, the task was looked at since an earlier late send, and it served nobody else.
        """
        suspect = self._suspects.get(task)
        if suspect is None:
            suspect = self._suspects[task] = _Suspect(connection_id)
            task.add_done_callback(self._gone)
            self._update()
        suspect.late_sends += 1
        if not lingered or suspect.serves_others or suspect.late_sends < 2:
            return False
        suspect.raises += 1
        self._update()
        return True

    def _gone(self, task: asyncio.Task[object]) -> None:
        """Forget a task, and retrieve its exception if the guard is its cause: nobody awaits such a task."""
        suspect = self._suspects.pop(task)
        if suspect.raises and not task.cancelled() and is_disconnect(getattr(task, "_exception", None)):
            task.exception()
        self._update()

    def _update(self) -> None:
        before = self.looking
        self.looking = any(suspect.is_open_question for suspect in self._suspects.values())
        if self.looking and not before:
            self._look()
