"""FastAPI."""

from __future__ import annotations

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from ..stage import Socket, play

app = FastAPI()


@app.websocket("/fastapi")
async def handler(ws: WebSocket) -> None:
    """Serve one connection."""
    await play(Socket(ws.accept, ws.send_text, ws.receive_text, ws.close, WebSocketDisconnect))
