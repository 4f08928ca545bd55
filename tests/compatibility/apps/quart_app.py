"""
Quart, which ends a handler by cancelling it when it has read the disconnect.

From 0.23 on it does so behind the handler's own close too, before a late send or close can go out: that is quiet.
"""

from __future__ import annotations

import asyncio

from quart import Quart, websocket

from ..scenarios import TOLD
from ..stage import Socket, case, play, say

app = Quart(__name__)


@app.websocket("/quart")
async def handler() -> None:
    """Serve one connection."""
    ws = websocket
    try:
        await play(Socket(ws.accept, ws.send, ws.receive, ws.close, asyncio.CancelledError))
    except asyncio.CancelledError:
        if case.get()[0] in ("close_send", "double_close"):
            say(TOLD)
        raise
