"""
What spans and log records say of a step between the accept and the end of a connection: a name and attributes.

Pure, as `describe.py` is, which tells what is true of a whole connection. A new event gets a row in the table here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..._events import (
    Accepted,
    CloseAdjusted,
    Draining,
    Ended,
    Event,
    HandlerOutlived,
    HandlerStopped,
    Identified,
    LateSend,
    Leaked,
    ObserverFailed,
    PolicyApplied,
    ReadAheadFull,
    SendTimedOut,
    Violated,
)
from . import attributes as names
from . import describe

Described = tuple[str, describe.Values]
"""Name of a step and its attributes."""


def step(event: Event) -> Described | None:
    """
    Name and describe what happened between the accept and the terminal event.

    Args:
        event: Any event.

    Returns:
        Name and attributes; None for an event that is no such step.
    """
    described = _STEPS.get(type(event))
    return None if described is None else described(event)


def _accepted(event: Accepted) -> Described:
    return "websocket.accept", {}


def _identified(event: Identified) -> Described:
    return "asgi_ws_guard.identified", describe.identity(event)


def _ended(event: Ended) -> Described:
    return "websocket.close", describe.end(event)


def _late_send(event: LateSend | Leaked) -> Described:
    values: describe.Values = {names.ASGI_TYPE: event.message_type, names.SEND_REASON: str(event.reason)}
    if event.site is not None:
        values |= {
            names.CODE_FILE: event.site.file,
            names.CODE_LINE: event.site.line,
            names.CODE_FUNCTION: event.site.function,
        }
    return "asgi_ws_guard.late_send" if isinstance(event, LateSend) else "asgi_ws_guard.leak", values


def _violated(event: Violated) -> Described:
    values: describe.Values = {names.STATE: event.state, names.PROBLEM: names.safe(event.problem)}
    return "asgi_ws_guard.violation", values


def _close_adjusted(event: CloseAdjusted) -> Described:
    return "asgi_ws_guard.close_adjusted", {names.ASKED_CODE: event.asked_code, names.CLOSE_CODE: event.code}


def _send_timed_out(event: SendTimedOut) -> Described:
    return "asgi_ws_guard.send_timeout", {names.TIMEOUT: event.timeout_s}


def _read_ahead_full(event: ReadAheadFull) -> Described:
    return "asgi_ws_guard.read_ahead_full", {names.UNREAD_MESSAGES: event.messages, names.UNREAD_SIZE: event.size}


def _draining(event: Draining) -> Described:
    return "asgi_ws_guard.draining", {names.DRAIN_DEADLINE: event.deadline_s}


def _handler_stopped(event: HandlerStopped) -> Described:
    return "asgi_ws_guard.handler_stopped", {names.STOPPED_HOW: event.how}


def _handler_outlived(event: HandlerOutlived) -> Described:
    return "asgi_ws_guard.handler_outlived", {names.HANDLER_LINGERED: event.lingered_s}


def _policy_applied(event: PolicyApplied) -> Described:
    values: describe.Values = {
        names.POLICY: event.policy,
        names.DECISION: event.decision,
        names.DECISION_REASON: names.safe(event.reason),
    }
    return "asgi_ws_guard.policy_applied", values


def _observer_failed(event: ObserverFailed) -> Described:
    return "asgi_ws_guard.observer_failed", {names.OBSERVER: event.observer, names.ERROR_TYPE: event.error_type}


_STEPS: Mapping[type[Event], Callable[[Any], Described]] = {
    Accepted: _accepted,
    CloseAdjusted: _close_adjusted,
    Draining: _draining,
    Ended: _ended,
    HandlerOutlived: _handler_outlived,
    HandlerStopped: _handler_stopped,
    Identified: _identified,
    LateSend: _late_send,
    Leaked: _late_send,
    ObserverFailed: _observer_failed,
    PolicyApplied: _policy_applied,
    ReadAheadFull: _read_ahead_full,
    SendTimedOut: _send_timed_out,
    Violated: _violated,
}
