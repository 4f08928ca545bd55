"""
A BlackSheep application behind the guard: an echo, a push route and a route that closes.

Run it with ``uvicorn examples.blacksheep_app:app`` (or hypercorn, granian, daphne: the guard makes them
alike) and connect to ``ws://127.0.0.1:8000/echo``, ``/push`` or ``/close``.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from blacksheep import Application, WebSocket, WebSocketDisconnectError

from asgi_ws_guard import WebSocketGuardMiddleware

PUSH_INTERVAL_S = 0.05


async def echo(websocket: WebSocket) -> None:
    """Send back what comes in, until the client leaves; BlackSheep logs a disconnect that it is left with."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnectError):
        while True:
            await websocket.send_text(await websocket.receive_text())


async def push(websocket: WebSocket) -> None:
    """Only send: nothing but the guard ends this loop, by an `OSError` `linger_s` after the client has left."""
    await websocket.accept()
    number = 0
    with contextlib.suppress(OSError):
        while True:
            await websocket.send_text(str(number))
            number += 1
            await asyncio.sleep(PUSH_INTERVAL_S)


async def close(websocket: WebSocket) -> None:
    """Say goodbye, close with a code of the application, and send once too often."""
    await websocket.accept()
    await websocket.send_text("goodbye")
    await websocket.close(4000, "done")
    await websocket.send_text("too late: the guard drops it")


blacksheep_app: Any = Application()
for path, route in {"/echo": echo, "/push": push, "/close": close}.items():
    blacksheep_app.router.add_ws(path, route)
app = WebSocketGuardMiddleware(blacksheep_app, linger_s=1.0)
