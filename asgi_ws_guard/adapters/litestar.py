"""
Litestar: once `WebSocket` has read the disconnect it refuses every send, close and receive, above the guard.

Seen with Litestar 2.12.1 to 2.25.0: ``WebSocketDisconnect``, text ``connection is disconnected``, code 1000 whatever
the client's was, and without ever suspending. After the application's own close everything reaches the guard. Here a
late send or close goes down to the guard too, and a late `receive` asks it before it raises the same exception, with
the code of the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from .._adapter import FrameworkAdapter, Patch, has_ended
from .._close import CloseCode
from .._types import Message, Receive, Send


def patches() -> tuple[Patch, ...]:
    """
    Give what is replaced in `litestar.WebSocket`.

    Returns:
        The two methods that wrap what the object was made with, once per connection.

    Raises:
        AttributeError: This Litestar is built differently.
    """
    framework: Any = sys.modules["litestar.connection.websocket"]
    websocket = framework.WebSocket
    return (
        Patch(websocket, "send_wrapper", _send_wrapper(framework, websocket.send_wrapper)),
        Patch(websocket, "receive_wrapper", _receive_wrapper(framework, websocket.receive_wrapper)),
    )


ADAPTER = FrameworkAdapter("litestar", since=(2, 12), before=(3,), patches=patches)


def _send_wrapper(framework: Any, own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def send_wrapper(self: Any, send: Send) -> Send:
        refusing = own(self, send)

        def wrapped_send(message: Message) -> Any:
            if self.connection_state == "disconnect" and has_ended(self.scope):
                return late(message)
            return refusing(message)

        async def late(message: Message) -> None:
            try:
                await send(message)
            except OSError as error:
                raise _disconnected(framework, getattr(error, "close_code", None)) from error

        return wrapped_send

    return send_wrapper


def _receive_wrapper(framework: Any, own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def receive_wrapper(self: Any, receive: Receive) -> Receive:
        refusing = own(self, receive)

        def wrapped_receive() -> Any:
            if self.connection_state == "disconnect" and has_ended(self.scope):
                return late()
            return refusing()

        async def late() -> Message:
            try:
                code = (await receive()).get("code")
            except OSError as error:
                raise _disconnected(framework, getattr(error, "close_code", None)) from error
            raise _disconnected(framework, code)

        return wrapped_receive

    return receive_wrapper


def _disconnected(framework: Any, code: int | None) -> Any:
    detail = framework.DISCONNECT_MESSAGE
    return framework.WebSocketDisconnect(detail=detail, code=code or CloseCode.ABNORMAL_CLOSURE.value)
