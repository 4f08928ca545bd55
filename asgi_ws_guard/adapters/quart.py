"""
Quart: a second `close` is refused above the guard, and from 0.23 on every send once the disconnect was read.

Seen with Quart 0.20.0 to 0.23.1: ``RuntimeError``, text ``Cannot close websocket multiple times``, and, in 0.23,
``ClientDisconnectedError`` without a text. Here both go down to the guard, where they are dropped. A receive after the
end is Quart's own: it cancels the handler's task, and in 0.23 raises ``ClientDisconnectedError`` in what goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from .._adapter import FrameworkAdapter, Patch, has_ended
from .._types import Send


def patches() -> tuple[Patch, ...]:
    """
    Give what is replaced in `quart.asgi.ASGIWebsocketConnection`.

    Returns:
        `send_data` and `close_connection`, which `websocket.send` and `websocket.close` call.

    Raises:
        AttributeError: This Quart is built differently.
    """
    framework: Any = sys.modules["quart.asgi"]
    connection = framework.ASGIWebsocketConnection
    return (
        Patch(connection, "send_data", _send_data(connection.send_data)),
        Patch(connection, "close_connection", _close_connection(connection.close_connection)),
    )


ADAPTER = FrameworkAdapter("quart", since=(0, 20), before=(0, 24), patches=patches)


def _send_data(own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def send_data(self: Any, send: Send, data: str | bytes) -> Any:
        if getattr(self, "_disconnected", False) and has_ended(self.scope):
            return send({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})
        return own(self, send, data)

    return send_data


def _close_connection(own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def close_connection(self: Any, send: Send, code: int, reason: str) -> Any:
        if self._closed and has_ended(self.scope):
            return send({"type": "websocket.close", "code": code, "reason": reason})
        return own(self, send, code, reason)

    return close_connection
