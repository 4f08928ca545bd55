"""
A Litestar application behind the guard: an echo, a push route and a route that closes.

Run it with ``uvicorn examples.litestar_app:app`` (or hypercorn, granian, daphne: the guard makes them
alike) and connect to ``ws://127.0.0.1:8000/echo``, ``/push`` or ``/close``.
"""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Litestar, WebSocket
from litestar.handlers import WebsocketRouteHandler

from asgi_ws_guard import WebSocketGuardMiddleware

PUSH_INTERVAL_S = 0.05

Socket = WebSocket[Any, Any, Any]


async def echo(socket: Socket) -> None:
    """Send back what comes in, until the client leaves: the disconnect may go through, the guard takes it."""
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())


async def push(socket: Socket) -> None:
    """Only send: nothing but the guard ends this loop, `linger_s` after the client has left."""
    await socket.accept()
    number = 0
    while True:
        await socket.send_text(str(number))
        number += 1
        await asyncio.sleep(PUSH_INTERVAL_S)


async def close(socket: Socket) -> None:
    """Say goodbye, close with a code of the application, and send once too often."""
    await socket.accept()
    await socket.send_text("goodbye")
    await socket.close(4000, "done")
    await socket.send_text("too late: the guard drops it")


ROUTES = {"/echo": echo, "/push": push, "/close": close}
app = WebSocketGuardMiddleware(
    Litestar([WebsocketRouteHandler(path)(route) for path, route in ROUTES.items()]), linger_s=1.0
)
