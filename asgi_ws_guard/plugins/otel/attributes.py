"""
Every name that this package gives to OpenTelemetry, and the schema that they follow.

There is no semantic convention for WebSockets yet (open-telemetry/semantic-conventions #2841). So what any WebSocket
server could say is ``websocket.*``, what only this package can say is ``asgi_ws_guard.*``, and everything else is the
name of the HTTP, network, URL or code convention. ``docs/telemetry.md`` has unit and meaning of each. Foreign text is
made safe here.
"""

from __future__ import annotations

from ..._close import CloseStatus

SCOPE = "asgi_ws_guard"
"""Name of the instrumentation scope."""
SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
"""The semantic conventions of the names outside of ``websocket.*`` and ``asgi_ws_guard.*``."""

CLIENT_ADDRESS = "client.address"
CLIENT_PORT = "client.port"
CODE_FILE = "code.file.path"
CODE_FUNCTION = "code.function.name"
CODE_LINE = "code.line.number"
ENDUSER = "enduser.pseudo.id"
ERROR_TYPE = "error.type"
HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
IO_DIRECTION = "network.io.direction"
PROTOCOL_NAME = "network.protocol.name"
PROTOCOL_VERSION = "network.protocol.version"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"
USER_AGENT = "user_agent.original"

CLOSE_CODE = "websocket.close.code"
CLOSE_INITIATOR = "websocket.close.initiator"
CLOSE_REASON = "websocket.close.reason"
CONNECTION_RESULT = "websocket.connection.result"
CONNECTION_STATUS = "websocket.connection.status"
IO_RECEIVED = "websocket.io.received"
IO_SENT = "websocket.io.sent"
MESSAGE_SIZE = "websocket.message.size"
MESSAGE_TYPE = "websocket.message.type"
MESSAGES_RECEIVED = "websocket.messages.received"
MESSAGES_SENT = "websocket.messages.sent"

ABSORBED_TYPE = "asgi_ws_guard.absorbed.type"
ASGI_TYPE = "asgi_ws_guard.message.type"
ASKED_CODE = "asgi_ws_guard.close.asked_code"
CONNECTION_ID = "asgi_ws_guard.connection.id"
DECISION = "asgi_ws_guard.policy.decision"
DECISION_REASON = "asgi_ws_guard.policy.reason"
EVENTS_OMITTED = "asgi_ws_guard.events.omitted"
HANDLER_LINGERED = "asgi_ws_guard.handler.lingered"
HANDLER_RUNNING = "asgi_ws_guard.handler.running"
OBSERVER = "asgi_ws_guard.observer"
POLICY = "asgi_ws_guard.policy"
PROBLEM = "asgi_ws_guard.violation.problem"
STATE = "asgi_ws_guard.violation.state"
STOPPED_HOW = "asgi_ws_guard.handler.stopped_how"
TIMEOUT = "asgi_ws_guard.send.timeout"
DRAIN_DEADLINE = "asgi_ws_guard.drain.deadline"
UNREAD_MESSAGES = "asgi_ws_guard.unread.messages"
UNREAD_SIZE = "asgi_ws_guard.unread.size"
DROPPED_PREFIX = "asgi_ws_guard.dropped."
"""The reason follows."""
SENDS_PREFIX = "asgi_ws_guard.sends."
"""``forwarded``, ``dropped``, ``failed`` or ``refused`` follows."""

SEND_RESULT, SEND_REASON = "result", "reason"
"""Attributes of the metric ``asgi_ws_guard.sends``, and of a message's span."""
OVERFLOW = "otel.metric.overflow"
"""True on the label set for all beyond a bound (OpenTelemetry specification, metrics SDK, cardinality limits)."""
TRANSMIT, RECEIVE = "transmit", "receive"
"""Values of `IO_DIRECTION`, as the network conventions have them."""
ACCEPTED, DENIED, ABORTED = "accepted", "denied", "aborted"
"""Values of `CONNECTION_RESULT`."""

ERROR_STATUSES = frozenset({CloseStatus.APP_ERROR, CloseStatus.PROTOCOL_ERROR, CloseStatus.SLOW_CONSUMER})
"""Ends that are an error of this service. A lost transport is not: clients walk out of their wireless network; nor
is the end of a connection that was idle or old, which somebody has asked for."""

CANCELLATIONS = frozenset({"CancelledError", "Cancelled", "GeneratorExit"})
"""What leaves a handler that somebody else stopped: asyncio, trio, the garbage collector."""

MAX_TEXT = 256
"""Characters of foreign text in one attribute."""


def safe(text: str) -> str:
    """
    Make foreign text fit for one attribute.

    Args:
        text: Text of any length, with any characters.

    Returns:
        At most `MAX_TEXT` characters and an ellipsis, unprintable ones escaped.
    """
    if len(text) <= MAX_TEXT and text.isprintable():
        return text
    begin = text[: MAX_TEXT + 1]
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in begin)
    return shown if len(shown) <= MAX_TEXT else shown[:MAX_TEXT] + "…"
