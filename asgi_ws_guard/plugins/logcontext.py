"""
Puts the connection into every log line that is written inside its handler, by structlog and by option by `logging`.

Connection id, route, the label of the identity, and the ids of the handshake's trace. They are bound in the handler's
task, so the tasks that it creates have them too, and unbound when it is done. It writes no line itself.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from contextvars import Token
from typing import Any

import structlog
from opentelemetry import trace

from .._events import Accepted, Event, Identified, Opened, Terminal

FIELDS = ("connection_id", "route", "trace_id", "span_id", "identity")
"""What is bound, by these names; of a trace only where there is one, the route from the accept on, and of an identity
its label, once it is known."""


class LogContext:
    """Hears where handlers begin and end, and binds their context variables."""

    def __init__(self, *, standard_logging: bool = False) -> None:
        """
        Bind for structlog.

        Args:
            standard_logging: Give the records of `logging` the attributes `FIELDS` too, empty outside of a handler. It
                wraps the process's record factory, once; `uninstall_factory` takes that back.
        """
        self._tokens: dict[str, tuple[Token[Any], ...]] = {}
        if standard_logging:
            install_factory()

    def __call__(self, event: Event, /) -> None:
        """
        Hear one event.

        Args:
            event: Any event.
        """
        if isinstance(event, Opened):
            span = trace.get_current_span().get_span_context()
            ids = {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"} if span.is_valid else {}
            bound = structlog.contextvars.bind_contextvars(connection_id=event.connection_id, **ids)
            if bound["connection_id"].old_value != event.connection_id:
                self._tokens[event.connection_id] = tuple(bound.values())
            # else another one of these did it too: it hears the end first, and gives back what was before both
        elif isinstance(event, Accepted):
            if event.route is not None and event.connection_id in self._tokens:
                bound = structlog.contextvars.bind_contextvars(route=event.route)
                self._tokens[event.connection_id] += tuple(bound.values())
        elif isinstance(event, Identified):
            if event.connection_id in self._tokens:
                bound = structlog.contextvars.bind_contextvars(identity=event.label)
                self._tokens[event.connection_id] += tuple(bound.values())
        elif isinstance(event, Terminal):
            for token in self._tokens.pop(event.connection_id, ()):
                with contextlib.suppress(ValueError):  # bound by a task of the handler's, which has its own context
                    token.var.reset(token)


class _Attributes(dict[str, Any]):
    """
    Attributes of a log record of which `FIELDS` may still be given by the application.

    `logging` raises `KeyError` for an ``extra`` that the record has already, and ``trace_id`` and ``route`` are words
    that many applications use. It asks by ``in``; formatters, which read, find them.
    """

    def __contains__(self, name: object) -> bool:
        return name not in FIELDS and super().__contains__(name)


class _Factory:
    """Makes log records with `FIELDS`."""

    def __init__(self, inner: Callable[..., logging.LogRecord]) -> None:
        self.inner = inner

    def __call__(self, *arguments: Any, **named: Any) -> logging.LogRecord:
        record = self.inner(*arguments, **named)
        bound = structlog.contextvars.get_contextvars()
        for field in FIELDS:
            if not hasattr(record, field):
                setattr(record, field, bound.get(field, ""))
        record.__dict__ = _Attributes(record.__dict__)
        return record


def install_factory() -> None:
    """Give every record of `logging` the attributes `FIELDS` from now on, once however often it is called."""
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _Factory):
        logging.setLogRecordFactory(_Factory(factory))


def uninstall_factory() -> None:
    """Take `install_factory` back, unless somebody else has wrapped the factory since."""
    factory = logging.getLogRecordFactory()
    if isinstance(factory, _Factory):
        logging.setLogRecordFactory(factory.inner)
