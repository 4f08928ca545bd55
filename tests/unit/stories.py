"""
Connections that the telemetry tests tell: each a handler, and what its client does, in virtual time.

The handshake takes a quarter of a second in all of them. Nothing here asserts anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

from asgi_ws_guard import Observer, WebSocketGuardMiddleware
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import ScriptedServer

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
Script = Callable[[ScriptedServer], Awaitable[None]]

ROUTE = "/rooms/{room}"
REQUEST = {
    "http.request.method": "GET",
    "url.scheme": "ws",
    "url.path": "/rooms/7",
    "network.protocol.name": "http",
    "network.protocol.version": "1.1",
    "client.address": "127.0.0.1",
    "client.port": 50000,
    "server.address": "127.0.0.1",
    "server.port": 80,
}
"""What telemetry says of the request of every story."""
HANDSHAKE_S = 0.25
ACCEPT: Message = {"type": "websocket.accept"}
TEXT: Message = {"type": "websocket.send", "text": "hé"}
BINARY: Message = {"type": "websocket.send", "bytes": b"\x00\x01\x02"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}


def routed(scope: Scope, route: str | None = ROUTE) -> None:
    """Match a route, as Starlette does."""
    if route is not None:
        scope["route"] = SimpleNamespace(path=route)


async def accepted(scope: Scope, receive: Receive, send: Send, route: str | None = ROUTE) -> None:
    """Accept after `HANDSHAKE_S`."""
    routed(scope, route)
    await receive()
    await asyncio.sleep(HANDSHAKE_S)
    await send(ACCEPT)


async def until_disconnect(receive: Receive) -> None:
    """Receive until the end."""
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send back every text until the client leaves."""
    await accepted(scope, receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def leaves(code: int = 1000, reason: str = "", *, after_s: float = 2.0, texts: Sequence[str] = ()) -> Script:
    """Make a client that connects, writes and leaves."""

    async def script(server: ScriptedServer) -> None:
        server.connect()
        server.text(*texts)
        await asyncio.sleep(after_s)
        server.disconnect(code, reason)

    return script


async def stays(server: ScriptedServer) -> None:
    """Connect and do nothing else."""
    server.connect()


async def serve(
    app: Handler,
    observers: Sequence[Observer],
    script: Script = stays,
    *,
    server: ScriptedServer | None = None,
    expected: type[BaseException] | None = None,
    **options: Any,
) -> ScriptedServer:
    """
    Play one connection to its end, in a task of its own as servers do.

    Args:
        app: The handler.
        observers: Those of the guard.
        script: What the client does.
        server: None: a plain one.
        expected: Exception that leaves the guard.
        options: Those of the guard.

    Returns:
        The server.
    """
    server = ScriptedServer("/rooms/7") if server is None else server
    guard = WebSocketGuardMiddleware(app, observers=observers, **options)
    client = asyncio.ensure_future(script(server))
    task = server.call(guard)
    with contextlib.suppress(*() if expected is None else (expected,)):
        await task
        assert expected is None, f"{expected} did not leave the guard"
    client.cancel()
    return server
