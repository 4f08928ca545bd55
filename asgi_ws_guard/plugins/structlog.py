"""
Log every step of a connection with structlog.

One line per lifecycle step, one for the first late send with the line of the application that sent it, one summary at
the end. It logs what events say, and events hold no payload; of the handshake it takes the path, never the query
string or a header. Foreign text is made printable and short, so that it can forge no line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from .._close import CloseStatus
from .._events import (
    Abandoned,
    Accepted,
    CallSite,
    CloseAdjusted,
    Closed,
    Draining,
    Ended,
    Event,
    HandlerOutlived,
    HandlerStopped,
    Identified,
    LateSend,
    Leaked,
    ObserverFailed,
    Opened,
    PolicyApplied,
    ReadAheadFull,
    Rejected,
    SendTimedOut,
    Terminal,
    Violated,
)

MAX_TEXT = 200
"""Characters of foreign text in one value."""

_BAD_ENDS = {
    CloseStatus.APP_ERROR,
    CloseStatus.PROTOCOL_ERROR,
    CloseStatus.SLOW_CONSUMER,
    CloseStatus.TRANSPORT_ERROR,
}


class StructlogObserver:
    """
    Hears every event and logs it.

    Normal steps are ``info`` or ``debug``, what an application should look at is ``warning``. Nothing is ``error``: an
    application's own exceptions are logged by its server.
    """

    def __init__(self, logger: Any = None) -> None:
        """
        Take a logger.

        Args:
            logger: A structlog logger; None: ``structlog.get_logger("asgi_ws_guard")``.
        """
        self._logger = structlog.get_logger("asgi_ws_guard") if logger is None else logger

    def __call__(self, event: Event, /) -> None:
        """
        Log one event.

        Args:
            event: Any event; classes without a line are passed over.
        """
        describe = _LINES.get(type(event))
        if describe is not None:
            level, line, values = describe(event)
            getattr(self._logger, level)(line, connection_id=event.connection_id, **values)


def safe(text: str) -> str:
    """
    Make foreign text fit for one log value.

    Args:
        text: Text of any length, with any characters.

    Returns:
        At most `MAX_TEXT` characters and an ellipsis, unprintable ones escaped.
    """
    if len(text) <= MAX_TEXT and text.isprintable():
        return text
    cut = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in cut)


def _safe_or_none(text: str | None) -> str | None:
    return None if text is None else safe(text)


_Line = tuple[str, str, dict[str, Any]]


def _opened(event: Opened) -> _Line:
    return "debug", "websocket opened", {"path": safe(event.handshake.path)}


def _accepted(event: Accepted) -> _Line:
    return "info", "websocket accepted", {"route": _safe_or_none(event.route)}


def _identified(event: Identified) -> _Line:
    return "debug", "websocket identified", {"identity": safe(event.label)}


def _ended(event: Ended) -> _Line:
    return "debug", "websocket ended", _end(event)


def _end(event: Ended | Terminal) -> dict[str, Any]:
    return {
        "code": event.code,
        "reason": safe(event.reason),
        "initiator": str(event.initiator),
        "status": str(event.status),
    }


def _late_send(event: LateSend) -> _Line:
    return "warning", "websocket late send dropped", _accused(event)


def _leaked(event: Leaked) -> _Line:
    return "warning", "websocket leaked: sent to after its handler was done", _accused(event)


def _accused(event: LateSend | Leaked) -> dict[str, Any]:
    return {"message_type": event.message_type, "reason": str(event.reason), "site": _site(event.site)}


def _site(site: CallSite | None) -> str | None:
    return None if site is None else f"{site.file}:{site.line} in {site.function}"


def _violated(event: Violated) -> _Line:
    return "warning", "websocket protocol violated", {"state": event.state, "problem": safe(event.problem)}


def _close_adjusted(event: CloseAdjusted) -> _Line:
    values = {"asked_code": event.asked_code, "code": event.code, "reason_cut": event.reason_cut}
    return "warning", "websocket close adjusted", values


def _send_timed_out(event: SendTimedOut) -> _Line:
    return "warning", "websocket send timed out", {"timeout_s": event.timeout_s}


def _handler_outlived(event: HandlerOutlived) -> _Line:
    values = {
        "route": _safe_or_none(event.route),
        "initiator": str(event.initiator),
        "status": str(event.status),
        "lingered_s": round(event.lingered_s, 6),
        "dropped": dict(event.books.dropped),
    }
    return "warning", "websocket handler still runs after the end", values


def _read_ahead_full(event: ReadAheadFull) -> _Line:
    return "warning", "websocket messages are not read", {"messages": event.messages, "size": event.size}


def _draining(event: Draining) -> _Line:
    return "debug", "websocket draining", {"deadline_s": event.deadline_s}


def _handler_stopped(event: HandlerStopped) -> _Line:
    return "warning", "websocket handler stopped", {"how": event.how}


def _policy_applied(event: PolicyApplied) -> _Line:
    values = {"policy": event.policy, "decision": event.decision, "reason": safe(event.reason)}
    return "info", "websocket policy applied", values


def _observer_failed(event: ObserverFailed) -> _Line:
    values = {"observer": event.observer, "error_type": event.error_type, "at": event.event}
    return "warning", "websocket observer failed", values


def _terminal(line: str) -> Callable[[Terminal], _Line]:
    def describe(event: Terminal) -> _Line:
        books = event.books
        values = {
            "path": safe(event.path),
            "route": _safe_or_none(event.route),
            **_end(event),
            "duration_s": round(event.duration_s, 6),
            "handshake_s": round(event.handshake_s, 6),
            "lingered_s": round(event.lingered_s, 6),
            "error_type": event.error_type,
            "absorbed_type": event.absorbed_type,
            "received": books.received,
            "attempted": books.attempted,
            "sent": books.sent,
            "failed": books.failed,
            "refused": books.refused,
            "dropped": dict(books.dropped),
        }
        if event.decisions:
            values["decisions"] = {safe(" ".join(kind)): number for kind, number in event.decisions.items()}
        if isinstance(event, Rejected):
            values["response_status"] = event.response_status
        return "warning" if _is_bad(event) else "info", line, values

    return describe


def _is_bad(event: Terminal) -> bool:
    """Tell whether somebody should look at an end: not when the deadline of an idle or old connection has closed it."""
    is_late = event.status is CloseStatus.TIMEOUT and not isinstance(event, Closed)
    return is_late or event.status in _BAD_ENDS


_LINES: dict[type[Event], Callable[[Any], _Line]] = {
    Opened: _opened,
    Accepted: _accepted,
    Identified: _identified,
    Ended: _ended,
    LateSend: _late_send,
    Leaked: _leaked,
    Violated: _violated,
    CloseAdjusted: _close_adjusted,
    SendTimedOut: _send_timed_out,
    ReadAheadFull: _read_ahead_full,
    Draining: _draining,
    HandlerOutlived: _handler_outlived,
    HandlerStopped: _handler_stopped,
    PolicyApplied: _policy_applied,
    ObserverFailed: _observer_failed,
    Rejected: _terminal("websocket rejected"),
    Abandoned: _terminal("websocket abandoned"),
    Closed: _terminal("websocket closed"),
}
