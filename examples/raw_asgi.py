"""
A raw ASGI application behind the guard: a ticker that only sends and never receives.

Run it with ``uvicorn examples.raw_asgi:app`` and connect to ``ws://127.0.0.1:8000/``. It knows of the
disconnect all the same: ``wait_closed()`` returns when the client has left, on every server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgi_ws_guard import WebSocketGuardMiddleware, current_connection

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TICK_INTERVAL_S = 0.05


async def send_ticks(send: Send) -> None:
    """Send a number every TICK_INTERVAL_S seconds, for ever."""
    number = 0
    while True:
        await send({"type": "websocket.send", "text": str(number)})
        number += 1
        await asyncio.sleep(TICK_INTERVAL_S)


async def ticker(scope: Message, receive: Receive, send: Send) -> None:
    """Serve one websocket connection: accept it, tick, and stop when the client has left."""
    if scope["type"] != "websocket":
        raise NotImplementedError(f"this example serves websocket only, not {scope['type']}")
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    ticks = asyncio.create_task(send_ticks(send))
    try:
        connection = current_connection()
        await connection.wait_closed()
    finally:
        ticks.cancel()


app = WebSocketGuardMiddleware(ticker)
