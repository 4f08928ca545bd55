"""
Say once what an exporter that is down says every few seconds.

`Hush` holds back what the exporter and the SDK log on our threads; `Health` says it once when it begins, and once when
it is over. It knows nothing of the SDK. Only this plugin imports it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from enum import Enum

_log = logging.getLogger("asgi_ws_guard")


class Hush(logging.Filter):
    """
    Holds back what some threads log on some loggers.

    Others who use the same library in other threads, with exporters of their own, still hear of them.

    Attributes:
        reason: What the last record held back was about: status codes and names of exception types alone, since the
            text of an exporter may quote an address or a header with its value.
        held: Number of records held back.
    """

    def __init__(self, loggers: Iterable[str]) -> None:
        super().__init__()
        self.reason = ""
        self.held = 0
        self._threads: set[int] = set()
        self._loggers = tuple(logging.getLogger(name) for name in dict.fromkeys(loggers))
        for logger in self._loggers:
            logger.addFilter(self)

    def __enter__(self) -> None:
        self._threads.add(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        self._threads.discard(threading.get_ident())

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the records of other threads through."""
        if threading.get_ident() not in self._threads:
            return True
        self.held += 1
        found = [_safe(one) for one in record.args] if isinstance(record.args, tuple) else []
        self.reason = next((one for one in found if one), self.reason)
        return False

    def remove(self) -> None:
        """Take the filter off the loggers."""
        for logger in self._loggers:
            logger.removeFilter(self)


class Health:
    """
    Says once that an exporter fails, and once that it works again; spans and metrics of one exporter share it.

    Args:
        name: The exporter's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._failing: dict[str, int] = {}
        self._lock = threading.Lock()

    def is_failing(self, signal: str) -> bool:
        """Tell whether the last export of a signal has failed."""
        return signal in self._failing

    def failed(self, signal: str, reason: str) -> None:
        """Hear that an export failed; warn if it is the first."""
        with self._lock:
            is_first = not self._failing
            self._failing[signal] = self._failing.get(signal, 0) + 1
        if is_first:
            _log.warning(
                "telemetry exporter %s fails (%s: %s); the application goes on, telemetry may be lost",
                *(self._name, signal, reason or "no reason given"),
            )

    def worked(self, signal: str) -> None:
        """Hear that an export went well; say so if it was the last one failing."""
        if not self._failing:
            return
        with self._lock:
            failures = self._failing.pop(signal, 0)
            is_over = failures > 0 and not self._failing
        if is_over:
            _log.info("telemetry exporter %s works again (after %d failed exports of %s)", self._name, failures, signal)


def _safe(argument: object) -> str:
    if isinstance(argument, BaseException):
        return type(argument).__name__
    if isinstance(argument, Enum):
        return argument.name
    return f"status {argument}" if isinstance(argument, int) and 100 <= argument <= 599 else ""
