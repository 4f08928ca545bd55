"""
BlackSheep: once `WebSocket` has read the disconnect it refuses every send and receive, above the guard.

Seen with BlackSheep 2.3.0 to 2.6.4: ``InvalidWebSocketStateError``, without ever suspending. After the application's
own close everything reaches the guard. Here a late send goes down to the guard too, and a late `receive` gives
``WebSocketDisconnectError`` again, with the code of the end. A second `accept` stays refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .._adapter import FrameworkAdapter, Patch, has_ended, replaces
from .._close import CloseCode
from .._types import Message


def patches() -> tuple[Patch, ...]:
    """
    Give what is replaced in `blacksheep.WebSocket`.

    Returns:
        The two methods that every send and every receive passes.

    Raises:
        AttributeError: This BlackSheep is built differently.
    """
    framework: Any = sys.modules["blacksheep.server.websocket"]
    websocket = framework.WebSocket
    return (
        Patch(websocket, "_send_message", _send_message(framework, websocket._send_message)),
        Patch(websocket, "receive", _receive(framework, websocket.receive)),
    )


ADAPTER = FrameworkAdapter("blacksheep", since=(2, 3), before=(3,), patches=patches)


def _send_message(framework: Any, own: Callable[..., Any]) -> Callable[..., Any]:
    disconnected = framework.WebSocketState.DISCONNECTED

    @replaces(own)
    def _send_message(self: Any, message: Message) -> Any:
        if self.client_state is disconnected and has_ended(self.scope):
            return late(self, message)
        return own(self, message)

    async def late(self: Any, message: Message) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise _gone(framework, error) from error

    return _send_message


def _receive(framework: Any, own: Callable[..., Any]) -> Callable[..., Any]:
    disconnected = framework.WebSocketState.DISCONNECTED

    @replaces(own)
    def receive(self: Any) -> Any:
        if self.application_state is disconnected and has_ended(self.scope):
            return late(self)
        return own(self)

    async def late(self: Any) -> Any:
        try:
            return await self._receive()  # raises on a disconnect, and there is nothing else to come
        except OSError as error:
            raise _gone(framework, error) from error

    return receive


def _gone(framework: Any, error: OSError) -> Any:
    return framework.WebSocketDisconnectError(getattr(error, "close_code", None) or CloseCode.ABNORMAL_CLOSURE.value)
