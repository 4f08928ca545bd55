"""
A Starlette application behind the guard: an echo, a push route and a route that closes.

Run it with ``uvicorn examples.starlette_app:app`` (or hypercorn, granian, daphne: the guard makes them
alike) and connect to ``ws://127.0.0.1:8000/echo``, ``/push`` or ``/close``.
"""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from asgi_ws_guard import WebSocketGuardMiddleware

PUSH_INTERVAL_S = 0.05


async def echo(websocket: WebSocket) -> None:
    """Send back what comes in, until the client leaves: the disconnect may go through, the guard takes it."""
    await websocket.accept()
    while True:
        await websocket.send_text(await websocket.receive_text())


async def push(websocket: WebSocket) -> None:
    """Only send: nothing but the guard ends this loop, `linger_s` after the client has left."""
    await websocket.accept()
    number = 0
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


routes = [WebSocketRoute("/echo", echo), WebSocketRoute("/push", push), WebSocketRoute("/close", close)]
app = Starlette(routes=routes)
app.add_middleware(WebSocketGuardMiddleware, linger_s=1.0)
