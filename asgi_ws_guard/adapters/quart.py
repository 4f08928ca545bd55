"""
Quart: a second `close` is refused above the guard: ``RuntimeError``, text ``Cannot close websocket multiple times``.

Seen with Quart 0.20.0 to 0.23.1. Everything else reaches the guard, and a receive after the end is ended by Quart
itself, which cancels the handler's task. Here the second close goes down to the guard, where it is dropped.
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
        `close_connection`, which `websocket.close` calls.

    Raises:
        AttributeError: This Quart is built differently.
    """
    framework: Any = sys.modules["quart.asgi"]
    connection = framework.ASGIWebsocketConnection
    return (Patch(connection, "close_connection", _close_connection(connection.close_connection)),)


ADAPTER = FrameworkAdapter("quart", since=(0, 20), before=(0, 24), patches=patches)


def _close_connection(own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    async def close_connection(self: Any, send: Send, code: int, reason: str) -> None:
        if self._closed and has_ended(self.scope):
            await send({"type": "websocket.close", "code": code, "reason": reason})
        else:
            await own(self, send, code, reason)

    return close_connection
