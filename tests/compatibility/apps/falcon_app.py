"""Falcon."""

from __future__ import annotations

from typing import Any

import falcon.asgi
from falcon import WebSocketDisconnected

from ..stage import Socket, play


class Resource:
    """The resource."""

    async def on_websocket(self, req: Any, ws: falcon.asgi.WebSocket) -> None:
        """Serve one connection."""
        await play(Socket(ws.accept, ws.send_text, ws.receive_text, ws.close, WebSocketDisconnected))


app: Any = falcon.asgi.App()
app.add_route("/falcon", Resource())
