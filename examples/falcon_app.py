"""
A Falcon application behind the guard: an echo, a push route and a route that closes.

Run it with ``uvicorn examples.falcon_app:app`` (or hypercorn, granian, daphne: the guard makes them
alike) and connect to ``ws://127.0.0.1:8000/echo``, ``/push`` or ``/close``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import falcon.asgi
from falcon.asgi import Request, WebSocket

from asgi_ws_guard import WebSocketGuardMiddleware

PUSH_INTERVAL_S = 0.05


class Echo:
    """Sends back what comes in, until the client leaves."""

    async def on_websocket(self, req: Request, ws: WebSocket) -> None:
        """Serve one connection: the disconnect may go through, Falcon takes it."""
        await ws.accept()
        while True:
            await ws.send_text(await ws.receive_text())


class Push:
    """Only sends: nothing but the guard ends this loop, `linger_s` after the client has left."""

    async def on_websocket(self, req: Request, ws: WebSocket) -> None:
        """Serve one connection."""
        await ws.accept()
        number = 0
        while True:
            await ws.send_text(str(number))
            number += 1
            await asyncio.sleep(PUSH_INTERVAL_S)


class Close:
    """Says goodbye, closes with a code of the application, and sends once too often."""

    async def on_websocket(self, req: Request, ws: WebSocket) -> None:
        """Serve one connection."""
        await ws.accept()
        await ws.send_text("goodbye")
        await ws.close(4000, "done")
        await ws.send_text("too late: the guard drops it")


falcon_app: Any = falcon.asgi.App()
falcon_app.add_route("/echo", Echo())
falcon_app.add_route("/push", Push())
falcon_app.add_route("/close", Close())
app = WebSocketGuardMiddleware(falcon_app, linger_s=1.0)
