"""
A Quart application behind the guard: an echo, a push route and a route that closes.

Run it with ``uvicorn examples.quart_app:app`` (or hypercorn, granian, daphne: the guard makes them
alike) and connect to ``ws://127.0.0.1:8000/echo``, ``/push`` or ``/close``.
"""

from __future__ import annotations

import asyncio

from quart import Quart, websocket

from asgi_ws_guard import WebSocketGuardMiddleware

PUSH_INTERVAL_S = 0.05

app = Quart(__name__)


@app.websocket("/echo")
async def echo() -> None:
    """Send back what comes in, until the client leaves."""
    while True:
        await websocket.send(await websocket.receive())


@app.websocket("/push")
async def push() -> None:
    """Only send: on a server that never raises, nothing but the guard ends this loop."""
    number = 0
    while True:
        await websocket.send(str(number))
        number += 1
        await asyncio.sleep(PUSH_INTERVAL_S)


@app.websocket("/close")
async def close() -> None:
    """Say goodbye, close with a code of the application, and send once too often."""
    await websocket.accept()
    await websocket.send("goodbye")
    await websocket.close(4000, "done")
    await websocket.send("too late: the guard drops it")


app.asgi_app = WebSocketGuardMiddleware(app.asgi_app)  # type: ignore[method-assign, assignment]
