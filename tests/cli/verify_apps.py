"""Applications for the tests of `verify`: good ones, and some that are bad in one way each; most in one process."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send

HOME = "https://home.example"
TOO_BIG = 2**20

Handler = Callable[[Message, Receive, Send], Awaitable[None]]


def _origin(scope: Scope) -> str:
    return str(dict(scope["headers"]).get(b"origin", b"").decode())


def serving(handle: Handler, *, greets: bool = True) -> ASGIApp:
    """Make an application: accept, say hello, hand each message over, end with the connection."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        if greets:
            await send({"type": "websocket.send", "text": "hello"})
        while True:
            message = await receive()
            await handle(message, receive, send)
            if message["type"] == "websocket.disconnect":
                return

    return app


async def _echo(message: Message, receive: Receive, send: Send) -> None:
    if message["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


echo = serving(_echo)


async def _checked(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket" and _origin(scope) not in ("", HOME):
        await receive()
        await send({"type": "websocket.close"})
        return
    await serving(_echo, greets=False)(scope, receive, send)


good = WebSocketGuardMiddleware(_checked, observers=(), health_path="/ws-health")
well = WebSocketGuardMiddleware(_checked, observers=(), health_path="/well-health")


async def _park(message: Message, receive: Receive, send: Send) -> None:
    await _echo(message, receive, send)
    if message["type"] == "websocket.disconnect":
        await asyncio.Event().wait()


parks = WebSocketGuardMiddleware(serving(_park), observers=(), linger_s=0.1, health_path="/parks-health")


class Leaks:
    """Forgets to forget a connection, or does it late, and tells so in a health of its own."""

    def __init__(self, forgets_after_s: float | None = None) -> None:
        self._opened = self._open = 0
        self._forgets_after_s = forgets_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] == "http":
            counts = {"connecting": 0, "open": self._open, "lingering": 0, "zombies": 0, "opened": self._opened}
            body = json.dumps({"status": "ok", "reasons": [], "connections": counts}).encode()
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
            )
            await send({"type": "http.response.body", "body": body})
            return
        self._opened += scope["type"] == "websocket"
        self._open += scope["type"] == "websocket"
        await echo(scope, receive, send)
        if scope["type"] == "websocket" and self._forgets_after_s is not None:
            asyncio.get_running_loop().call_later(self._forgets_after_s, self._forget)

    def _forget(self) -> None:
        self._open -= 1


leaks = Leaks()
late = Leaks(forgets_after_s=0.3)


class HangsAfterReset:
    """Never accepts again once a client has gone without a close."""

    def __init__(self) -> None:
        self._is_stuck = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if self._is_stuck and scope["type"] == "websocket":
            await asyncio.Event().wait()
        await serving(self._handle)(scope, receive, send)

    async def _handle(self, message: Message, receive: Receive, send: Send) -> None:
        await _echo(message, receive, send)
        if message["type"] == "websocket.disconnect" and message["code"] in (1005, 1006):
            self._is_stuck = True


hangs = HangsAfterReset()


async def _die(message: Message, receive: Receive, send: Send) -> None:
    if len(message.get("text", "")) > TOO_BIG:
        os._exit(1)
    await _echo(message, receive, send)


_dies = serving(_die)


async def dies(scope: Scope, receive: Receive, send: Send) -> None:
    """End the process for an oversize message; at its start, say something that is no fault of any client."""
    if scope["type"] == "lifespan":
        print("Traceback (most recent call last)", flush=True)
    await _dies(scope, receive, send)


async def _refuse(message: Message, receive: Receive, send: Send) -> None:
    if len(message.get("text", "")) > TOO_BIG:
        await send({"type": "websocket.close", "code": 1009})
        return
    await _echo(message, receive, send)


refuses = WebSocketGuardMiddleware(serving(_refuse), observers=())


async def _fail(message: Message, receive: Receive, send: Send) -> None:
    if len(message.get("text", "")) > TOO_BIG:
        raise ValueError("too big")
    await _echo(message, receive, send)


fails = WebSocketGuardMiddleware(serving(_fail), observers=())


async def never_reads(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and do nothing more: a server that waits for the application to read does not see the close."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()


class OneAtATime:
    """Blocks everybody as long as a peer does not take what is sent to it."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        await serving(self._handle, greets=False)(scope, receive, send)

    async def _handle(self, message: Message, receive: Receive, send: Send) -> None:
        async with self._lock:
            if len(message.get("text", "")) > 1000:
                for _ in range(200):
                    await send({"type": "websocket.send", "text": message["text"] * 100})
            else:
                await _echo(message, receive, send)


blocks = OneAtATime()


async def denies(scope: Scope, receive: Receive, send: Send) -> None:
    """Deny every connection, which uvicorn answers with 403."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})


async def turns_away(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and close with a code that says why."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})


async def impatient(scope: Scope, receive: Receive, send: Send) -> None:
    """Close a connection that says nothing for a fifth of a second."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        try:
            message = await asyncio.wait_for(receive(), 0.2)
        except asyncio.TimeoutError:
            await send({"type": "websocket.close", "code": 4008})
            return
        if message["type"] == "websocket.disconnect":
            return
        await _echo(message, receive, send)


_EVERY: dict[str, ASGIApp] = {
    "blocks": blocks,
    "echo": echo,
    "fails": fails,
    "impatient": impatient,
    "late": late,
    "leaks": leaks,
    "never_reads": never_reads,
    "parks": parks,
    "refuses": refuses,
    "turns_away": turns_away,
    "well": well,
}


async def every(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve what does no harm to others: a websocket at ``/name``, its health at ``/name-health/health``."""
    if scope["type"] in ("http", "websocket"):
        name = scope["path"].split("/")[1].removesuffix("-health")
        if name in _EVERY:
            await _EVERY[name](scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
