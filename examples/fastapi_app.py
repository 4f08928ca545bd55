"""
A FastAPI application behind the guard: an echo, a push route and a route that closes.

Run it with ``uvicorn examples.fastapi_app:app`` (or hypercorn, granian, daphne: the guard makes them
alike) and connect to ``ws://127.0.0.1:8000/echo``, ``/push`` or ``/close``.
"""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, WebSocket

from asgi_ws_guard import WebSocketGuardMiddleware

PUSH_INTERVAL_S = 0.05

app = FastAPI()
app.add_middleware(WebSocketGuardMiddleware, linger_s=1.0)


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """Send back what comes in, until the client leaves: the disconnect may go through, the guard takes it."""
    await websocket.accept()
    while True:
        await websocket.send_text(await websocket.receive_text())


@app.websocket("/push")
async def push(websocket: WebSocket) -> None:
    """Only send: nothing but the guard ends this loop, `linger_s` after the client has left."""
    await websocket.accept()
    number = 0
    while True:
        await websocket.send_text(str(number))
        number += 1
        await asyncio.sleep(PUSH_INTERVAL_S)


@app.websocket("/close")
async def close(websocket: WebSocket) -> None:
    """Say goodbye, close with a code of the application, and send once too often."""
    await websocket.accept()
    await websocket.send_text("goodbye")
    await websocket.close(4000, "done")
    await websocket.send_text("too late: the guard drops it")
