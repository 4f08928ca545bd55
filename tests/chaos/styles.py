"""
The applications of the storm, of four shapes of failure, without the guard.

Raw ASGI handlers that push, share their sends among tasks and misbehave; the chat of the incident, on FastAPI; the same
chat on the hub; Quart, which runs handler and reader in tasks of its own and cancels the one behind the other. All run
in the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl

from quart import Quart, abort, websocket
from quart.wrappers import base as quart_base

from asgi_ws_guard import ConnectionClosed, current_connection
from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send

from .mishaps import Mishap, arrange

fastapi_chat: Any = import_module("examples.fastapi_chat")  # two names for mypy, if it saw it
fastapi_hub: Any = import_module("examples.fastapi_hub")

PAUSE_S = 0.01
CHUNK = b"x" * 65536
CHUNKS = 80  # more than the buffers of a loopback connection hold
QUART_LINGER_S = 1.0
"""No longer than needed for what Quart's handlers leave behind when one of two tasks is cancelled."""
ENDED = (ConnectionClosed, *filter(None, [getattr(quart_base, "ClientDisconnectedError", None)]))
"""What a send behind the end may raise in a handler of Quart: 0.23 makes an exception of its own of it."""
LATE_S = 1.0  # a late sender gives up by itself


def options_of(scope: Scope) -> dict[str, str]:
    """Give the query string of a connection."""
    return dict(parse_qsl(scope["query_string"].decode()))


class Talk:
    """One connection of a raw handler."""

    def __init__(self, receive: Receive, send: Send, options: dict[str, str]) -> None:
        self.receive, self.send, self.options = receive, send, options

    async def text(self, text: str = "x") -> None:
        """Send one text message."""
        await self.send({"type": "websocket.send", "text": text})

    async def accept(self) -> None:
        """Read the connect, and accept."""
        await self.receive()
        await self.send({"type": "websocket.accept"})

    async def push(self, for_s: float = 3600.0) -> None:
        """Send until something stops it, or the time is over."""
        end = time.monotonic() + for_s
        while time.monotonic() < end:
            await self.text()
            await asyncio.sleep(PAUSE_S)

    async def read(self) -> None:
        """Receive until the disconnect."""
        while (await self.receive())["type"] != "websocket.disconnect":
            pass


async def push(talk: Talk) -> None:
    """Only send."""
    await talk.accept()
    await talk.push()


async def echo(talk: Talk) -> None:
    """Send back what comes in."""
    await talk.accept()
    while (message := await talk.receive())["type"] != "websocket.disconnect":
        await talk.send({**message, "type": "websocket.send"})


async def both(talk: Talk) -> None:
    """Send and receive in tasks; the first that is done ends the other."""
    await talk.accept()
    tasks = [asyncio.create_task(talk.push()), asyncio.create_task(talk.read())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def burst(talk: Talk) -> None:
    """Send more than the peer takes."""
    await talk.accept()
    for _ in range(CHUNKS):
        await talk.send({"type": "websocket.send", "bytes": CHUNK})


async def late(talk: Talk) -> None:
    """Receive to the end, then go on: send, close, accept, receive."""
    await talk.accept()
    await talk.read()
    end = time.monotonic() + LATE_S
    while time.monotonic() < end:
        await talk.text()
        await talk.send({"type": "websocket.close", "code": 1000})
        await talk.send({"type": "websocket.accept"})
        await talk.receive()
        await asyncio.sleep(PAUSE_S)


async def spin(talk: Talk) -> None:
    """Receive and send in a tight loop that minds neither the disconnect nor any error."""
    await talk.accept()
    end = time.monotonic() + LATE_S
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            await talk.receive()
            await talk.text()


async def close(talk: Talk) -> None:
    """Close while a task of its own still sends, and another receives."""
    await talk.accept()
    tasks = [asyncio.create_task(talk.push(LATE_S)), asyncio.create_task(talk.read())]
    try:
        await asyncio.sleep(float(talk.options["for_s"]))
        await talk.send({"type": "websocket.close", "code": 4001, "reason": "é" * 100})
        await talk.text("late")
    finally:
        await asyncio.gather(*tasks, return_exceptions=True)


_crowd: set[Talk] = set()


async def shout(talk: Talk) -> None:
    """Send what comes in to everybody of a live set, from everybody's handler."""
    await talk.accept()
    _crowd.add(talk)
    try:
        while (await talk.receive())["type"] != "websocket.disconnect":
            for one in list(_crowd):
                with contextlib.suppress(OSError):
                    await one.text()
    finally:
        _crowd.discard(talk)


async def parked(talk: Talk) -> None:
    """Neither send nor receive, and look at the guard's handle."""
    await talk.accept()
    await asyncio.sleep(float(talk.options["for_s"]))
    await talk.text("woken")


async def deny(talk: Talk) -> None:
    """Deny with a body where the server can, and leave a receive behind."""
    await talk.receive()
    if talk.options["when"] == "before":
        await talk.send({"type": "websocket.close"})
        return
    with contextlib.suppress(RuntimeError):  # daphne has no denial response
        await talk.send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await talk.send({"type": "websocket.http.response.body", "body": b"no"})


async def ignore(talk: Talk) -> None:
    """Leave a handshake without an answer for a while, then accept what may be gone."""
    await talk.receive()
    await asyncio.sleep(float(talk.options["for_s"]) / 4)
    await talk.send({"type": "websocket.accept"})
    await talk.read()


async def unruly(talk: Talk) -> None:
    """Break the protocol in every way, and survive."""
    with contextlib.suppress(RuntimeError):
        await talk.text("early")
    await talk.accept()
    wrong: tuple[Message, ...] = (
        {"type": "websocket.accept"},
        {"type": "websocket.nonsense"},
        {"type": "websocket.send", "text": "x", "bytes": b"x"},
        {"type": "websocket.send"},
    )
    for message in wrong:
        with contextlib.suppress(RuntimeError):
            await talk.send(message)
    await talk.send({"type": "websocket.close", "code": 1006})
    await talk.send({"type": "websocket.close", "code": 1006})


async def fail(talk: Talk) -> None:
    """Raise: before the accept, after it, or at the end."""
    if talk.options["when"] != "before":
        await talk.accept()
    if talk.options["when"] == "end":
        await talk.read()
    raise Mishap("a handler")


async def orphan(talk: Talk) -> None:
    """Return, and leave tasks behind that send and receive for a while."""
    await talk.accept()
    _orphans.update({asyncio.create_task(talk.push(LATE_S)), asyncio.create_task(talk.read())})
    for task in list(_orphans):
        task.add_done_callback(_orphans.discard)
    await asyncio.sleep(float(talk.options["for_s"]))


_orphans: set[asyncio.Task[None]] = set()

RAW: dict[str, Callable[[Talk], Awaitable[None]]] = {
    one.__name__: one
    for one in (push, echo, both, burst, late, spin, close, shout, parked, deny, ignore, unruly, fail, orphan)
}


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a websocket scope by its path."""
    await RAW[scope["path"].rpartition("/")[2]](Talk(receive, send, options_of(scope)))


def chat() -> ASGIApp:
    """Give the chat of the incident."""
    return _rooms(fastapi_chat, "/chat")


def hub() -> ASGIApp:
    """Give the same chat on the hub, without the guard that it brings."""
    fastapi_hub.app.user_middleware.clear()
    return _rooms(fastapi_hub, "/hub")


def _rooms(example: Any, prefix: str) -> ASGIApp:
    """Mount an example, whose monitor starts with its first connection: daphne has no lifespan."""
    monitor: list[asyncio.Task[None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not monitor:
            monitor.append(Context().run(asyncio.create_task, example.report_to_monitor()))  # it is no connection's
        await example.app({**scope, "root_path": scope.get("root_path", "") + prefix}, receive, send)

    return app


def quart() -> ASGIApp:
    """Give the Quart application."""
    app = Quart("chaos")

    def serve(path: str) -> Callable[[Callable[[], Awaitable[None]]], None]:
        """Route a handler that ends quietly when it is told of an end that lies as far back as `linger_s`."""

        def route(handler: Callable[[], Awaitable[None]]) -> None:
            @app.websocket(path, endpoint=path)
            async def handle() -> None:
                try:
                    await handler()
                except ENDED:
                    if not _is_late(QUART_LINGER_S):
                        raise

        return route

    async def begin() -> None:
        # Quart 0.23 waits for its reader when a handler is cancelled, and granian tells of nobody that leaves early
        await websocket.accept()
        arrange(websocket.args)

    async def keep_pushing() -> None:
        while True:
            await websocket.send("x")
            await asyncio.sleep(PAUSE_S)

    async def keep_reading() -> None:
        while True:
            await websocket.receive()

    @serve("/quart/push")
    async def push() -> None:
        await begin()
        await keep_pushing()

    @serve("/quart/echo")
    async def echo() -> None:
        await begin()
        while True:
            await websocket.send(await websocket.receive())

    @serve("/quart/both")
    async def both() -> None:
        await begin()
        await asyncio.gather(keep_pushing(), keep_reading())

    @serve("/quart/burst")
    async def burst() -> None:
        for _ in range(CHUNKS):
            await websocket.send(CHUNK)

    @serve("/quart/late")
    async def late() -> None:
        try:
            await keep_reading()
        finally:
            await websocket.send("late")

    @serve("/quart/close")
    async def close() -> None:
        await websocket.accept()
        await asyncio.sleep(float(websocket.args["for_s"]))
        await websocket.close(4000, "done")
        await websocket.send("late")

    @serve("/quart/refuse")
    async def refuse() -> None:
        abort(403)

    @serve("/quart/fail")
    async def fail() -> None:
        await websocket.accept()
        raise Mishap("a handler")

    return _typed(app)


def _is_late(linger_s: float) -> bool:
    """Tell whether the connection of the running handler ended so long ago that its late sends raise (G4)."""
    handle = current_connection()
    end = None if handle is None else handle._session.connection.ended
    return end is not None and asyncio.get_running_loop().time() - end.at_s >= linger_s


def _typed(app: Any) -> ASGIApp:
    typed: ASGIApp = app
    return typed
