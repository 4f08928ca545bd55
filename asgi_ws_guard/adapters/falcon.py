"""
Falcon: `WebSocket` reads ahead by a pump of its own, and refuses every late send and receive, above the guard.

Seen with Falcon 4.0.0 to 4.4.0: ``WebSocketDisconnected``, as soon as the pump has read the disconnect or the
application has closed, and without ever suspending, so that a handler that catches everything stops the whole event
loop. Here a late send goes down to the guard, and a late `receive` asks it before it raises the same exception, with
the code of the end. What had arrived can still be received after a late send, which Falcon by itself makes impossible.

Left alone: `close`, which Falcon calls once more behind every handler and which is silent after the end anyway, and a
second `accept`, which stays ``OperationNotAllowed``. `closed` and `ready` answer as ever.
"""

from __future__ import annotations

import sys
from typing import Any

from .._adapter import HANDLE_KEY, FrameworkAdapter, Patch, has_ended
from .._types import Message, Receive, Scope


def patches() -> tuple[Patch, ...]:
    """
    Give what is replaced in `falcon.asgi.app`.

    Returns:
        The name by which Falcon makes a `WebSocket`; the class itself keeps no scope, and is left as it is.

    Raises:
        AttributeError: This Falcon is built differently.
    """
    app: Any = sys.modules["falcon.asgi.app"]
    own = app.WebSocket
    framework: Any = sys.modules["falcon.asgi.ws"]
    guarded = _guarded(own, framework._WebSocketState.CLOSED, app.WebSocketDisconnected)

    def web_socket(ver: str, scope: Scope, receive: Receive, *rest: Any, **options: Any) -> Any:
        """Make the WebSocket of one connection, of Falcon's own class where there is no guard."""
        made = (guarded if HANDLE_KEY in scope else own)(ver, scope, receive, *rest, **options)
        if HANDLE_KEY in scope:
            made.guard_scope, made.guard_receive = scope, receive
        return made

    return (Patch(app, "WebSocket", web_socket),)


ADAPTER = FrameworkAdapter("falcon", since=(4,), before=(5,), patches=patches)


def _guarded(own: Any, closed: object, disconnected: Any) -> Any:
    """Make the class of those WebSockets that carry a guard."""

    class WebSocket(own):  # type: ignore[misc, unused-ignore]
        __slots__ = ("guard_receive", "guard_scope")
        __doc__ = own.__doc__

        def _require_accepted(self) -> None:
            if self._state is not closed or not has_ended(self.guard_scope):
                super()._require_accepted()

        def _send(self, msg: Message) -> Any:
            if self.closed and has_ended(self.guard_scope):
                return self._send_late(msg)
            return super()._send(msg)

        def _receive(self) -> Any:
            if self._state is closed:  # else `_require_accepted` had raised
                return self._receive_late()
            return super()._receive()

        async def _send_late(self, msg: Message) -> None:
            try:
                await self._asgi_send(msg)
            except OSError as error:
                raise disconnected(getattr(error, "close_code", None)) from error

        async def _receive_late(self) -> Message:
            try:
                while (await self.guard_receive())["type"] != "websocket.disconnect":
                    pass
            except OSError as error:
                raise disconnected(getattr(error, "close_code", None)) from error
            raise disconnected(self._close_code)

    WebSocket.__module__, WebSocket.__qualname__ = own.__module__, own.__qualname__
    return WebSocket
