"""Starlette."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..stage import Socket, play


async def handler(ws: WebSocket) -> None:
    """Serve one connection."""
    await play(Socket(ws.accept, ws.send_text, ws.receive_text, ws.close, WebSocketDisconnect))


app = Starlette(routes=[WebSocketRoute("/starlette", handler)])
