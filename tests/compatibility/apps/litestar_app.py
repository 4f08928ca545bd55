"""Litestar."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, WebSocket
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers import WebsocketRouteHandler

from ..stage import Socket, play


async def handler(socket: WebSocket[Any, Any, Any]) -> None:
    """Serve one connection."""
    await play(Socket(socket.accept, socket.send_text, socket.receive_text, socket.close, WebSocketDisconnect))


app = Litestar([WebsocketRouteHandler("/litestar")(handler)])
