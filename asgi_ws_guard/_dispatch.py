"""
Hands one event to all observers, and contains what they do wrong.

It knows nothing of connections beyond the id that an event carries. A failure is counted; the first one of each
observer and connection is told to the other observers and to the standard logger ``asgi_ws_guard``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ._events import Event, ObserverFailed, Terminal
from ._plugin import Observer, Statistics

_log = logging.getLogger("asgi_ws_guard")


class Dispatch:
    """
    All observers of one guard.

    Attributes:
        observers: In the order in which they hear.
        failures: dict: name of an observer -> number of exceptions that were contained.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = tuple(observers)
        self.failures: dict[str, int] = {}
        self._forwards = tuple(enumerate(self.observers))
        self._backwards = self._forwards[::-1]

    def asks_for(self, wish: str) -> bool:
        """
        Tell whether an observer has a wish; it may have it at one time and not at another.

        Args:
            wish: Name of the attribute by which it says so.
        """
        return any(getattr(observer, wish, False) for observer in self.observers)

    def attach(self, statistics: Statistics) -> None:
        """
        Give every observer that wants them the statistics of the guard.

        Args:
            statistics: What they may read.
        """
        for observer in self.observers:
            attach = getattr(observer, "attach", None)
            if callable(attach):
                attach(statistics)

    def flush(self) -> None:
        """Let every observer send out what it holds back; a failure is contained, counted and logged."""
        for observer in self.observers:
            flush = getattr(observer, "flush", None)
            if not callable(flush):
                continue
            try:
                flush()
            except Exception as error:  # noqa: BLE001 - an observer must never reach the application
                name = self._count(observer)
                _log.error("observer %s raised at its flush", name, exc_info=error)

    def tell(self, events: tuple[Event, ...], reported: frozenset[int]) -> frozenset[int]:
        """
        Tell *events* to every observer, in order; terminal events in the reverse order.

        Args:
            events: What happened to one connection.
            reported: Places of the observers whose failure was reported for this connection.

        Returns:
            The same, and the places of those whose failure is reported now.
        """
        for event in events:
            is_last = isinstance(event, Terminal)
            for place, observer in self._backwards if is_last else self._forwards:
                try:
                    observer(event)
                except Exception as error:  # noqa: BLE001 - an observer must never reach the application
                    reported = self._failed(place, event, error, reported)
        return reported

    def _hand(self, place: int, event: Event, reported: frozenset[int]) -> frozenset[int]:
        try:
            self.observers[place](event)
        except Exception as error:  # noqa: BLE001 - as above
            return self._failed(place, event, error, reported)
        return reported

    def _failed(self, place: int, event: Event, error: Exception, reported: frozenset[int]) -> frozenset[int]:
        self._count(self.observers[place])
        return reported if place in reported else self._report(place, event, error, reported | {place})

    def _count(self, observer: Observer) -> str:
        name = name_of(observer)
        self.failures[name] = self.failures.get(name, 0) + 1
        return name

    def _report(self, place: int, event: Event, error: Exception, reported: frozenset[int]) -> frozenset[int]:
        name, at = name_of(self.observers[place]), type(event).__name__
        _log.error("observer %s raised at %s", name, at, exc_info=error)
        failed = ObserverFailed(event.connection_id, event.at_s, name, type(error).__qualname__, at)
        for other in range(len(self.observers)):
            if other not in reported:
                reported = self._hand(other, failed, reported)
        return reported


def name_of(plugin: object) -> str:
    """
    Name an observer or a policy in reports.

    Args:
        plugin: A function, a method or an instance.

    Returns:
        Its module and qualified name, without any of its values.
    """
    named = plugin if hasattr(plugin, "__qualname__") else type(plugin)
    return f"{getattr(named, '__module__', '?')}.{getattr(named, '__qualname__', '?')}"
