"""Raw ASGI."""

from __future__ import annotations

from asgi_ws_guard._types import Message, Receive, Scope, Send

from ..stage import Gone, Socket, play


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection; there is no lifespan."""
    if scope["type"] != "websocket":
        raise NotImplementedError(scope["type"])
    await receive()  # websocket.connect

    async def next_message() -> Message:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            raise Gone
        return message

    await play(
        Socket(
            accept=lambda: send({"type": "websocket.accept"}),
            send=lambda text: send({"type": "websocket.send", "text": text}),
            receive=next_message,
            close=lambda code: send({"type": "websocket.close", "code": code}),
        )
    )
