"""Frameworks that need no adapter: nothing of theirs refuses a late call above the guard."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import socketio
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from sanic import Sanic

from asgi_ws_guard import Closed, LateSend, WebSocketGuardMiddleware
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

from .visits import Tries


def serve(app: Any, server: ScriptedServer, *, in_real_time: bool = False) -> Recorder:
    """Run one connection to its end, behind a guard without adapters; a virtual clock does not wait for threads."""
    seen = Recorder()

    async def main() -> None:
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,), adapters=()))

    asyncio.run(main()) if in_real_time else run(main)
    return seen


@pytest.mark.parametrize(("leaves", "code", "why"), [(False, 4001, "app_closed"), (True, 4321, "client_disconnected")])
def test_channels(leaves: bool, code: int, why: str) -> None:
    """A consumer's late sends and closes reach the guard, and `disconnect()` runs with the code of the end."""
    tries = Tries()
    codes: list[int] = []

    class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc, unused-ignore]
        async def connect(self) -> None:
            await self.accept()
            if not leaves:
                await self.close(4001)
                await self.late("connect")

        async def disconnect(self, code: int) -> None:
            codes.append(code)
            await self.late("disconnect")

        async def late(self, where: str) -> None:
            await tries(f"{where} send", self.send("x"))
            await tries(f"{where} close", self.close(4002))

    server = ScriptedServer()
    server.connect()
    server.disconnect(4321, "cya")
    if not settings.configured:
        settings.configure()
    seen = serve(Consumer.as_asgi(), server, in_real_time=True)
    assert codes == [code]
    assert set(tries.outcomes.values()) == {"ok"}
    assert seen.one(Closed).books.dropped == {why: len(tries.outcomes)}


@pytest.mark.parametrize("leaves", [False, True])
def test_sanic(leaves: bool) -> None:
    """
    Late sends reach the guard and a late `recv` gives None; `close` does nothing at all (Sanic 25.12.1).

    What is sent after it still goes to the client, and the connection ends with 1000 when the handler returns.
    """
    tries = Tries()
    Sanic.test_mode = True
    sanic: Any = Sanic(f"adapters_{leaves}", configure_logging=False)

    @sanic.websocket("/ws")  # type: ignore[untyped-decorator, unused-ignore]
    async def handler(request: Any, ws: Any) -> None:
        await tries("close", ws.close(4001, "bye"))
        if leaves:
            await tries("recv", ws.recv())
            await tries("again", ws.recv())
        await tries("send", ws.send("x"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started = asyncio.Event()
        inbox: asyncio.Queue[Message] = asyncio.Queue()
        inbox.put_nowait({"type": "lifespan.startup"})

        async def note(message: Message) -> None:
            started.set()

        lifespan = asyncio.ensure_future(sanic({"type": "lifespan", "asgi": {"version": "3.0"}}, inbox.get, note))
        await started.wait()
        await sanic(scope, receive, send)
        lifespan.cancel()

    server = ScriptedServer()
    server.connect()
    if leaves:
        server.disconnect(4321, "cya")
    seen = serve(app, server)
    assert set(tries.outcomes.values()) == {"ok"}
    if leaves:
        assert server.types() == ["websocket.accept"]
        assert seen.one(LateSend).message_type == "websocket.send"
    else:
        assert server.types() == ["websocket.accept", "websocket.send", "websocket.close"]
        assert server.sent[-1]["code"] == 1000


@pytest.mark.parametrize("leaves", [False, True])
def test_socketio(leaves: bool) -> None:
    """python-socketio 5.18.1: emits to and disconnects of a session that is gone are quiet, as `disconnect` is."""
    tries = Tries()
    reasons: list[str] = []
    sio = socketio.AsyncServer(async_mode="asgi")

    @sio.event  # type: ignore[untyped-decorator, unused-ignore]
    async def disconnect(sid: str, reason: str) -> None:
        reasons.append(reason)

    @sio.event  # type: ignore[untyped-decorator, unused-ignore]
    async def go(sid: str, data: Any) -> None:
        if not leaves:
            await sio.disconnect(sid)
        await asyncio.sleep(1)
        await tries("emit", sio.emit("x", {}, to=sid))
        await tries("disconnect", sio.disconnect(sid))

    headers = [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    server = ScriptedServer("/socket.io/", query_string=b"EIO=4&transport=websocket", headers=headers)
    server.connect()
    server.text("40", '42["go",{}]')
    if leaves:
        server.disconnect(4321, "cya")
    app = socketio.ASGIApp(sio)

    async def main(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        await asyncio.sleep(5)

    seen = serve(main, server)
    assert tries.outcomes == {"emit": "ok", "disconnect": "ok"}
    assert len(reasons) == 1
    assert seen.one(Closed).error_type is None
