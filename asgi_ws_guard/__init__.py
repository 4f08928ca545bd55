"""
One WebSocket contract on every ASGI server and in every framework.

``app = WebSocketGuardMiddleware(app)`` wraps any ASGI application. What a plugin needs (events, the seam) is here too.
"""

from __future__ import annotations

from ._close import CloseCode, CloseStatus, Initiator, may_send
from ._events import (
    Abandoned,
    Accepted,
    Books,
    CallSite,
    CloseAdjusted,
    Closed,
    DropReason,
    Ended,
    Event,
    HandlerOutlived,
    HandlerStopped,
    Handshake,
    LateSend,
    Leaked,
    MessageHandled,
    MessageLost,
    MessageReceived,
    MessageSent,
    ObserverFailed,
    Opened,
    PolicyApplied,
    ReadAheadFull,
    Rejected,
    SendTimedOut,
    Terminal,
    Violated,
)
from ._exceptions import ConfigurationError, ConnectionClosed, GuardError, ProtocolError
from ._handle import ConnectionHandle, current_connection
from ._middleware import WebSocketGuardMiddleware
from ._plugin import Allow, Close, Decision, Deny, Drop, MessagePolicy, Observer, Policy, Statistics, Tally
from ._state import State

__all__ = [
    "Abandoned",
    "Accepted",
    "Allow",
    "Books",
    "CallSite",
    "Close",
    "CloseAdjusted",
    "CloseCode",
    "CloseStatus",
    "Closed",
    "ConfigurationError",
    "ConnectionClosed",
    "ConnectionHandle",
    "Decision",
    "Deny",
    "Drop",
    "DropReason",
    "Ended",
    "Event",
    "GuardError",
    "HandlerOutlived",
    "HandlerStopped",
    "Handshake",
    "Initiator",
    "LateSend",
    "Leaked",
    "MessageHandled",
    "MessageLost",
    "MessagePolicy",
    "MessageReceived",
    "MessageSent",
    "Observer",
    "ObserverFailed",
    "Opened",
    "Policy",
    "PolicyApplied",
    "ProtocolError",
    "ReadAheadFull",
    "Rejected",
    "SendTimedOut",
    "State",
    "Statistics",
    "Tally",
    "Terminal",
    "Violated",
    "WebSocketGuardMiddleware",
    "current_connection",
    "may_send",
]
