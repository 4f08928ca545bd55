"""Sanic, served by an ASGI server; it accepts by itself, and its `recv` gives None at the end."""

from __future__ import annotations

from typing import Any

from sanic import Sanic

from ..stage import Gone, Socket, play

app: Any = Sanic("compatibility")


async def _nothing() -> None:
    """Be the accept, which Sanic has done."""


@app.websocket("/sanic")  # type: ignore[untyped-decorator, unused-ignore]
async def handler(request: Any, ws: Any) -> None:
    """Serve one connection."""

    async def receive() -> str:
        text: str | None = await ws.recv()
        if text is None:
            raise Gone
        return text

    await play(Socket(_nothing, ws.send, receive, ws.close))
