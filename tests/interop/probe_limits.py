"""An echo behind limits of its own under each path, for real servers."""

from __future__ import annotations

from typing import Any

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard.plugins.limits import ClientAddress, Limits, Rate

BURST = 3
DELAYED_PER_S = 20


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Echo texts."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


LIMITS = {
    "/drop": Limits(messages=Rate(1, per_s=600, burst=BURST, answer="drop", max_drops=4)),
    "/delay": Limits(messages=Rate(DELAYED_PER_S, burst=1)),
    "/close": Limits(bytes_received=Rate(1, per_s=60, burst=10, answer="close", close_code=1013)),
    "/size": Limits(max_message_bytes=10),
    "/address": Limits(per_address=1, address=ClientAddress(trusted_proxies=["127.0.0.1"])),
    "/total": Limits(connections=1, retry_after_s=7),
    "/attempts": Limits(attempts_per_address=Rate(1, per_s=600, burst=2)),
}
GUARDED = {path: WebSocketGuardMiddleware(echo, policies=[limits], linger_s=0.5) for path, limits in LIMITS.items()}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serve one scope; http says that the server is up."""
    if scope["type"] == "websocket":
        await GUARDED[scope["path"]](scope, receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
