"""
OpenTelemetry log records: every step of a connection as an event with a name, correlated with its trace.

Only where a logger provider was set; nothing is kept and nothing is built before. It makes log records only; the lines
of structlog are another observer's.
"""

from __future__ import annotations

import time
from typing import Any

from opentelemetry import _logs, trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan

from ..._events import (
    Abandoned,
    Accepted,
    Closed,
    Event,
    Identified,
    Leaked,
    MessageHandled,
    MessageLost,
    MessageReceived,
    MessageSent,
    ObserverFailed,
    Opened,
    Rejected,
    Terminal,
)
from . import attributes as names
from . import describe
from .linking import current_link
from .steps import Described, step

_QUIET = (MessageHandled, MessageLost, MessageReceived, MessageSent)
_ALONE = (Leaked, ObserverFailed, Opened)
"""What may come without a story before it."""
_NORMAL = {
    *("websocket.open", "websocket.accept", "websocket.close"),
    *("asgi_ws_guard.identified", "asgi_ws_guard.policy_applied"),
}
_TERMINAL = {Abandoned: "websocket.abandoned", Closed: "websocket.closed", Rejected: "websocket.rejected"}


class LogsObserver:
    """Hears every event and emits a log record for each that is a step of a connection."""

    def __init__(self, logger_provider: _logs.LoggerProvider | None = None) -> None:
        """
        Emit log records with a provider.

        Args:
            logger_provider: None: the global one, also when it is set later.
        """
        self._provider = logger_provider
        self._logger = _logs.get_logger(names.SCOPE, logger_provider=logger_provider, schema_url=names.SCHEMA_URL)
        self._live: dict[str, tuple[Context, int, dict[str, Any]]] = {}

    def __call__(self, event: Event, /) -> None:
        """
        Hear one event.

        Args:
            event: Any event; messages get no log record.
        """
        is_known = event.connection_id in self._live
        if isinstance(event, _QUIET) or not (is_known or (isinstance(event, _ALONE) and self._has_sdk())):
            return
        try:
            self._emit(event)
        finally:  # a log record processor may raise
            if isinstance(event, Terminal):
                self._live.pop(event.connection_id, None)

    def _emit(self, event: Event) -> None:
        context, offset_ns, labels = self._known(event)
        name, values = _described(event)
        bad = isinstance(event, Terminal) and describe.error(event) is not None
        severity = SeverityNumber.WARN if bad or name not in _NORMAL | set(_TERMINAL.values()) else SeverityNumber.INFO
        self._logger.emit(
            LogRecord(
                timestamp=offset_ns + round(event.at_s * 1e9),
                observed_timestamp=time.time_ns(),
                context=context,
                severity_text=severity.name,
                severity_number=severity,
                body=name,
                attributes={names.CONNECTION_ID: event.connection_id, **labels, **values},
                event_name=name,
            )
        )

    def _has_sdk(self) -> bool:
        provider = self._provider or _logs.get_logger_provider()
        return not type(provider).__module__.startswith("opentelemetry._logs")

    def _known(self, event: Event) -> tuple[Context, int, dict[str, Any]]:
        """Give the context, the time of day at 0 s and the route of a connection; keep them from its first event on."""
        known = self._live.get(event.connection_id)
        if known is None:
            context = trace.set_span_in_context(NonRecordingSpan(current_link()), Context())
            known = (context, time.time_ns() - round(event.at_s * 1e9), {})
            if isinstance(event, Opened):
                self._live[event.connection_id] = known
        if isinstance(event, Accepted | Terminal):
            known[2].update(describe.route(event.route))
        elif isinstance(event, Identified):
            known[2].update(describe.identity(event))
        return known


def _described(event: Event) -> Described:
    if isinstance(event, Opened):
        values = describe.request(event.connection_id, event.handshake)
        return "websocket.open", values
    if isinstance(event, Terminal):
        values = {**describe.end(event)}
        error = describe.error(event)
        if error is not None:
            values[names.ERROR_TYPE] = error
        if isinstance(event, Abandoned | Rejected):
            values |= describe.answer(event)
        return _TERMINAL[type(event)], values
    return step(event) or (f"asgi_ws_guard.{type(event).__name__.lower()}", {})
