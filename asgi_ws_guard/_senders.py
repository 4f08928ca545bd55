"""
Who sends late: the handler's own task, a task that it created, or anybody else (G4).

A task inherits the context variable of the handler that created it. That alone proves little: a broadcaster that the
first handler happened to start inherits it too, and serves everybody. So a created task is only ever stopped when,
since the end of its connection, it was seen to send to no other. To see that, every send of every open connection on
the event loop, of any guard, is looked at from the first late send of such a task until it is clear what the task is.

Many tasks live for one send: `asyncio.gather`, `asyncio.shield` and, up to Python 3.11, `asyncio.wait_for` make one
each time. None of them can be looked at, so all tasks that a handler created are looked at together, as its family.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from ._edge import is_disconnect

GAPS = 3
"""A slow task is looked at for this many times its longest pause between two late sends: it may have rounds to make."""
FAMILY_CALLS = 3
"""Tasks that sent late before a family is looked at: more than a clean-up makes."""


class Looker(Protocol):
    """Somebody who knows open connections."""

    def look_at_sends(self) -> None:
        """Make every open connection report its sends."""


class Suspect:
    """
    A created task, or a family of them, that sent late. It does not keep its connection alive.

    Attributes:
        owner: The connection whose handler created it.
        look_s: Seconds that it must be looked at, at least.
        calls: Late sends.
        serves_others: Whether it was seen to send to another connection.
    """

    __slots__ = ("_last_s", "_longest_gap_s", "_since_s", "calls", "look_s", "owner", "serves_others")

    def __init__(self, owner: str, now: float, look_s: float) -> None:
        self.owner = owner
        self.look_s = look_s
        self.serves_others = False
        self.calls = 0
        self._since_s = self._last_s = now
        self._longest_gap_s = 0.0

    @property
    def _enough_s(self) -> float:
        return max(self.look_s, GAPS * self._longest_gap_s)

    def late_send(self, now: float) -> bool:
        """Take note of a late send; tell whether the suspect has been looked at for long enough."""
        self.calls += 1
        self._longest_gap_s = max(self._longest_gap_s, now - self._last_s)
        self._last_s = now
        return now - self._since_s >= self._enough_s

    def look_from(self, now: float) -> None:
        """Begin to look at it, again when it was forgotten: nobody knows what it did in between."""
        self._since_s = now
        self.serves_others = False

    def is_forgotten(self, now: float) -> bool:
        """Tell whether there was no late send for as long as it takes to be sure of one."""
        return now - self._last_s > self._enough_s


class Senders:
    """
    The created tasks of one event loop that sent late, and what is known of them.

    Attributes:
        looking: Whether every send of every open connection is to be reported to `seen`. It is for as long as there is
            a task that sent late and is not known to serve others: at any time it may begin to.
    """

    __slots__ = ("_excused", "_families", "_lookers", "_suspects", "_time", "looking")

    def __init__(self, time: Callable[[], float]) -> None:
        """
        Start without suspicion.

        Args:
            time: The event loop's clock, in seconds.
        """
        self._time = time
        self._lookers: WeakSet[Looker] = WeakSet()
        self._suspects: WeakKeyDictionary[asyncio.Task[object], Suspect] = WeakKeyDictionary()
        self._families: dict[str, Suspect] = {}
        self._excused: WeakSet[asyncio.Task[object]] = WeakSet()
        self.looking = False

    def add(self, looker: Looker) -> None:
        """
        Ask somebody too, whenever `looking` becomes true.

        Args:
            looker: It is not kept alive.
        """
        self._lookers.add(looker)

    def seen(self, connection_id: str, owner: str | None) -> None:
        """
        Take note that the running task sends to a connection, while `looking`.

        Args:
            connection_id: The connection it sends to.
            owner: The connection whose handler runs, or created the task; None when none did.
        """
        task = asyncio.current_task()
        suspect = None if task is None else self._suspects.get(task)
        family = None if owner is None else self._families.get(owner)
        for one in (suspect, family):
            if one is not None and one.owner != connection_id:
                one.serves_others = True
        if suspect is not None or self._families:
            self._update()

    def may_stop(self, task: asyncio.Task[object], family: Suspect) -> bool:
        """
        Take note of a late send of a created task, and tell whether the task may be stopped.

        Args:
            task: The running task; it sends to the connection whose handler created it, which has ended.
            family: All tasks that this handler created.

        Returns:
            True when it, or at its first late send its family, was looked at for long enough and has sent to no other
            connection.
        """
        now, suspect = self._time(), self._suspects.get(task)
        family_may_stop = False
        if suspect is None:
            suspect = self._suspects[task] = Suspect(family.owner, now, family.look_s)
            task.add_done_callback(self._gone)
            family_may_stop = self._family_may_stop(family, now)
        self._update()
        return (suspect.late_send(now) or family_may_stop) and not suspect.serves_others

    def excuse(self, task: asyncio.Task[object]) -> None:
        """
        Retrieve the exception of a created task if it ends by what the guard raises in it: nobody awaits it.

        Args:
            task: The running task.
        """
        if task not in self._excused:
            self._excused.add(task)
            task.add_done_callback(_retrieve)

    def _family_may_stop(self, family: Suspect, now: float) -> bool:
        """Take note of the first late send of one more task of a family."""
        self._forget(now)
        is_enough = family.late_send(now)
        if family.calls < FAMILY_CALLS:
            return False
        if family.owner not in self._families:
            self._families[family.owner] = family
            family.look_from(now)
            return False
        return is_enough and not family.serves_others

    def _gone(self, task: asyncio.Task[object]) -> None:
        self._suspects.pop(task, None)
        self._update()

    def _forget(self, now: float) -> None:
        for owner in [owner for owner, family in self._families.items() if family.is_forgotten(now)]:
            del self._families[owner]

    def _update(self) -> None:
        self._forget(self._time())
        before = self.looking
        self.looking = not all(one.serves_others for one in chain(self._suspects.values(), self._families.values()))
        if self.looking and not before:
            for looker in tuple(self._lookers):
                looker.look_at_sends()


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Senders] = WeakKeyDictionary()


def senders_of(loop: asyncio.AbstractEventLoop, time: Callable[[], float]) -> Senders:
    """
    Give what is known of the late senders of an event loop.

    Shared by all guards of the loop, and therefore kept beside them: a created task serves whom it likes, so that a
    broadcaster whose other connections belong to another guard would be taken for a loop, and stopped.

    Args:
        loop: The event loop; it is not kept alive.
        time: Its clock, in seconds.
    """
    senders = _of_loops.get(loop)
    if senders is None:
        senders = _of_loops[loop] = Senders(time)
    return senders


def _retrieve(task: asyncio.Task[object]) -> None:
    """Mark a disconnect error as retrieved. `Task.exception` marks any, so what is behind it is looked at first."""
    if not task.cancelled() and is_disconnect(getattr(task, "_exception", None)):
        task.exception()
