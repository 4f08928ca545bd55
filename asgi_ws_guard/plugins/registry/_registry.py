"""
`Registry`: the observer that keeps the live connections and the sums.

It reads a clock of its own when it hears an event: the clock of an event loop counts from wherever it likes, one guard
may run on several loops, and who reads in another thread could not ask for "now" there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import RLock
from typing import Any

from ..._close import CloseStatus, Initiator
from ..._events import (
    Abandoned,
    Accepted,
    Books,
    Closed,
    Ended,
    Event,
    HandlerOutlived,
    Identified,
    Opened,
    Rejected,
    Terminal,
)
from ..._plugin import Statistics
from ._live import MAX_TEXT, End, Live
from ._records import ConnectionRecord, Recent, Summary
from ._window import WINDOW_S, CloseCodes, RecentCounts, Sample, Samples


class Registry:
    """
    Hears every event; tells at any time what is connected now, and what became of the rest.

    One registry may be shared by several guards of one process. It keeps less than 1 KiB for a connection, until its
    terminal event, and else a bounded amount.

    Note:
        To be read in any thread. A reading copies under the lock, and asks the guards without it: no event waits longer
        than a microsecond per live connection.
        Each number is right by itself; two of them can be one event apart while a connection comes or goes in another
        thread. Reading costs a few microseconds per live connection.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Begin with nothing.

        Args:
            clock: Gives seconds that never go back, in any thread.
        """
        self._clock = clock
        # Re-entrant: a connection that the garbage collector finds tells its end in the middle of whatever runs.
        self._lock = RLock()
        self._guards: list[Statistics] = []
        self._live: dict[str, Live] = {}
        self._opened = self._accepted = 0
        self._over = {Rejected: 0, Abandoned: 0, Closed: 0}
        self._statuses = dict.fromkeys(map(str, CloseStatus), 0)
        self._initiators = dict.fromkeys(map(str, Initiator), 0)
        self._codes = CloseCodes()
        self._ends = RecentCounts()
        self._samples = Samples(Sample(clock()))

    def attach(self, statistics: Statistics) -> None:
        """
        Take the books of one more guard into account; each guard calls it when it is built.

        Args:
            statistics: The guard's.
        """
        with self._lock:
            if not any(one is statistics for one in self._guards):
                self._guards.append(statistics)

    def __call__(self, event: Event, /) -> None:
        """
        Take note of one event.

        Args:
            event: Any event; classes that say nothing of a life's course are passed over.
        """
        note = _NOTES.get(type(event))
        if note is not None:
            with self._lock:
                note(self, event)

    def connections(self, *, after: int = 0, limit: int | None = None) -> list[ConnectionRecord]:
        """
        List the connections whose handler is running, in the order of their opening.

        Args:
            after: Leave out those up to this `ConnectionRecord.number`.
            limit: At most so many; None: all.

        Returns:
            Frozen records.
        """
        with self._lock:
            now_s = self._clock()
            page = [one for one in tuple(self._live.values()) if one.number > after][:limit]
            records = [one.record(now_s) for one in page]
            guards = tuple(self._guards)
        books: dict[str, Books] = {}
        for statistics in guards if records else ():
            books.update(statistics.books())
        return [ConnectionRecord(**record, books=books.get(record["connection_id"])) for record in records]

    def summary(self) -> Summary:
        """Sum up, over all guards; costs as much as `Statistics.tallies`."""
        with self._lock:
            guards = tuple(self._guards)
        routes = tuple(tally for statistics in guards for tally in statistics.tallies())
        books = sum((tally.books for tally in routes), Books())
        failures = sum(number for statistics in guards for number in statistics.observer_failures().values())
        with self._lock:
            now_s = self._clock()
            live = tuple(self._live.values())
            states = [one.state for one in live]
            lately = self._samples.since(Sample(now_s, books.attempted, books.forwarded, failures))
            return Summary(
                connecting=states.count("connecting"),
                open=states.count("open"),
                lingering=states.count("ended"),
                zombies=sum(one.is_zombie for one in live),
                oldest_s=max((one.duration_s(now_s) for one in live if one.state == "open"), default=None),
                opened=self._opened,
                accepted=self._accepted,
                denied=self._over[Rejected],
                aborted=self._over[Abandoned],
                closed=self._over[Closed],
                books=books,
                ends_by_status={word: number for word, number in self._statuses.items() if number},
                ends_by_initiator={word: number for word, number in self._initiators.items() if number},
                close_codes=self._codes.counts(),
                observer_failures=failures,
                routes=routes,
                recent=Recent(
                    window_s=WINDOW_S,
                    ends_by_status=self._ends.sums(now_s),
                    sends_over_s=lately.at_s,
                    attempted=lately.attempted,
                    forwarded=lately.forwarded,
                    observer_failures=lately.failures,
                ),
            )

    def _note_opened(self, event: Opened) -> None:
        self._opened += 1
        self._live[event.connection_id] = Live(self._opened, event.connection_id, event.handshake, self._clock())

    def _note_accepted(self, event: Accepted) -> None:
        one = self._live.get(event.connection_id)
        if one is not None:
            self._accepted += 1
            one.accept(event.route, self._clock())

    def _note_identified(self, event: Identified) -> None:
        one = self._live.get(event.connection_id)
        if one is not None:
            one.identity = event.label[:MAX_TEXT]

    def _note_ended(self, event: Ended) -> None:
        one = self._live.get(event.connection_id)
        if one is not None:
            one.end = End(self._clock(), event.status, event.initiator, event.code)
            self._count(one, one.end, 1)

    def _note_outlived(self, event: HandlerOutlived) -> None:
        one = self._live.get(event.connection_id)
        if one is not None:
            one.is_zombie = True

    def _note_terminal(self, event: Terminal) -> None:
        one = self._live.pop(event.connection_id, None)
        if one is None:
            return
        self._over[type(event)] += 1
        if one.end is not None:
            # The server may have named the cause of a lost transport after the end was told: the last word counts.
            self._count(one, one.end, -1)
            self._count(one, End(one.end.at_s, event.status, event.initiator, event.code), 1)

    def _count(self, one: Live, end: End, number: int) -> None:
        self._statuses[str(end.status)] += number
        self._initiators[str(end.initiator)] += number
        self._ends.add(str(end.status), end.at_s, number)
        if one.is_accepted:
            self._codes.add(end.code, number)


_NOTES: dict[type[Event], Callable[[Registry, Any], None]] = {
    Opened: Registry._note_opened,
    Accepted: Registry._note_accepted,
    Identified: Registry._note_identified,
    Ended: Registry._note_ended,
    HandlerOutlived: Registry._note_outlived,
    Rejected: Registry._note_terminal,
    Abandoned: Registry._note_terminal,
    Closed: Registry._note_terminal,
}
