"""BlackSheep."""

from __future__ import annotations

from typing import Any

from blacksheep import Application, WebSocket, WebSocketDisconnectError

from ..stage import Socket, play


async def handler(websocket: WebSocket) -> None:
    """Serve one connection."""
    ws = websocket
    await play(Socket(ws.accept, ws.send_text, ws.receive_text, ws.close, WebSocketDisconnectError))


app: Any = Application()
app.router.add_ws("/blacksheep", handler)
