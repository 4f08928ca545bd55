"""
What is legal: the state of a WebSocket connection and the two tables that move it.

The tables read like the ASGI specification (WebSocket, version 2.4): one direction each, keyed by the
message type, and a message that has no cell is refused and changes nothing. There is no CLOSING: at this
level the closing handshake belongs to the server. What no table can hold are three rules, each a function
below: a denial ends with the body that has no ``more_body``; a payload is text or bytes, never both; a
connection that has ended drops what an application may ordinarily send, instead of refusing it.

Sans-IO: no async, no clock, no counting. `Connection` is the only caller.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from ._types import Message


class State(enum.Enum):
    """Where a connection stands between the opening handshake and its end."""

    CONNECTING = "CONNECTING"
    OPEN = "OPEN"
    REJECTING = "REJECTING"
    CLOSED = "CLOSED"


_CONNECTING, _OPEN, _REJECTING, _CLOSED = State

ON_RECEIVE: Mapping[State, Mapping[str, State]] = {
    _CONNECTING: {"websocket.connect": _CONNECTING, "websocket.disconnect": _CLOSED},
    _OPEN: {
        "websocket.connect": _OPEN,
        "websocket.receive": _OPEN,
        "websocket.disconnect": _CLOSED,
    },
    _REJECTING: {"websocket.connect": _REJECTING, "websocket.disconnect": _CLOSED},
    _CLOSED: {
        "websocket.connect": _CLOSED,
        "websocket.receive": _CLOSED,
        "websocket.disconnect": _CLOSED,
    },
}
"""What the server may deliver. ``connect`` may be read after the accept; servers repeat ``disconnect``."""

ON_SEND: Mapping[State, Mapping[str, State]] = {
    _CONNECTING: {
        "websocket.accept": _OPEN,
        "websocket.close": _CLOSED,
        "websocket.http.response.start": _REJECTING,
    },
    _OPEN: {"websocket.send": _OPEN, "websocket.close": _CLOSED},
    _REJECTING: {"websocket.http.response.body": _REJECTING},
    _CLOSED: {},
}
"""What the application may send."""

DENIAL_EXTENSION = "websocket.http.response"
"""Name of the extension that lets an application answer a handshake with an HTTP response."""

SENDABLE = frozenset(message_type for row in ON_SEND.values() for message_type in row)
"""Every message type that an application may send in some state; after the end they are dropped."""


def allowed_now(state: State, *, can_deny: bool) -> tuple[str, ...]:
    """
    List what the application may send in *state*.

    Args:
        state: The connection's state.
        can_deny: Whether the server offers the denial response extension.

    Returns:
        Message types, sorted.
    """
    return tuple(
        sorted(
            message_type for message_type in ON_SEND[state] if can_deny or not message_type.startswith(DENIAL_EXTENSION)
        )
    )


def after_send(state: State, message: Message, *, can_deny: bool) -> State | None:
    """
    Give the state after the application's *message*, without committing it.

    Args:
        state: The connection's state.
        message: A message whose type is a string.
        can_deny: Whether the server offers the denial response extension.

    Returns:
        The next state, or None when the message is not allowed in this one.
    """
    following = ON_SEND[state].get(message["type"])
    if following is _REJECTING:
        if not can_deny:
            return None
        if state is _REJECTING and not message.get("more_body", False):
            return _CLOSED
    return following


def payload_fault(message: Message) -> str | None:
    """
    Say what is wrong with the content of the application's *message*, if anything.

    Args:
        message: A message whose type is allowed in the connection's state.

    Returns:
        A sentence that names the key and its type, never the value; None when nothing is wrong.
    """
    message_type = message["type"]
    if message_type == "websocket.send":
        return _send_fault(message.get("text"), message.get("bytes"))
    if message_type == "websocket.close":
        return _kind_fault(message, "code", int) or _kind_fault(message, "reason", str)
    if message_type == "websocket.accept":
        return _kind_fault(message, "subprotocol", str)
    if message_type == "websocket.http.response.body":
        return _kind_fault(message, "body", bytes)
    return _kind_fault(message, "status", int, required=True)


def _send_fault(text: object, data: object) -> str | None:
    if text is not None and data is not None:
        return "websocket.send with both 'text' and 'bytes'"
    if text is None and data is None:
        return "websocket.send with neither 'text' nor 'bytes'"
    if text is not None and not isinstance(text, str):
        return f"websocket.send whose 'text' is {type(text).__name__}, not str"
    if data is not None and not isinstance(data, bytes | bytearray | memoryview):
        return f"websocket.send whose 'bytes' is {type(data).__name__}, not bytes"
    return None


def _kind_fault(message: Message, key: str, kind: type, *, required: bool = False) -> str | None:
    value = message.get(key)
    if (value is None and not required) or (isinstance(value, kind) and not isinstance(value, bool)):
        return None
    return f"{message['type']} whose {key!r} is {type(value).__name__}, not {kind.__name__}"
