"""Quart, which cancels a handler that receives after the end."""

from __future__ import annotations

import asyncio

from quart import Quart, websocket

from ..stage import Socket, play

app = Quart(__name__)


@app.websocket("/quart")
async def handler() -> None:
    """Serve one connection."""
    ws = websocket
    await play(Socket(ws.accept, ws.send, ws.receive, ws.close, asyncio.CancelledError))
