"""
Hands one event to all observers, and contains what they do wrong.

It knows nothing of connections beyond the id that an event carries. A failure is counted; the first one of each
observer and connection is told to the other observers and to the standard logger ``asgi_ws_guard``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ._events import Event, ObserverFailed
from ._plugin import Observer

_log = logging.getLogger("asgi_ws_guard")


class Dispatch:
    """
    All observers of one guard.

    Attributes:
        observers: In the order in which they hear.
        wants_messages: Whether one of them asked to hear of every message.
        failures: dict: name of an observer -> number of exceptions that were contained.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = tuple(observers)
        self.wants_messages = any(getattr(observer, "wants_messages", False) for observer in self.observers)
        self.failures: dict[str, int] = {}

    def tell(self, events: tuple[Event, ...], reported: frozenset[str]) -> frozenset[str]:
        """
        Tell *events* to every observer, in order.

        Args:
            events: What happened to one connection.
            reported: Names of the observers whose failure was reported for this connection.

        Returns:
            The same names, and those of the observers whose failure is reported now.
        """
        for event in events:
            for observer in self.observers:
                try:
                    observer(event)
                except Exception as error:  # noqa: BLE001 - an observer must never reach the application
                    reported = self._contain(observer, event, error, reported)
        return reported

    def _contain(self, observer: Observer, event: Event, error: Exception, reported: frozenset[str]) -> frozenset[str]:
        name = name_of(observer)
        self.failures[name] = self.failures.get(name, 0) + 1
        if name in reported:
            return reported
        _log.error("observer %s raised at %s", name, type(event).__name__, exc_info=error)
        failed = ObserverFailed(event.connection_id, event.at_s, name, type(error).__qualname__, type(event).__name__)
        others = Dispatch([other for other in self.observers if other is not observer])
        others.failures = self.failures
        return others.tell((failed,), reported | {name})


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
