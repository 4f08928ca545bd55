"""The hub takes the websocket object of every framework, which leads to the guard's connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._types import ASGIApp, Receive, Scope, Send
from asgi_ws_guard.hub import DeliveryReport, Hub
from asgi_ws_guard.testing import ScriptedServer, run


def starlette(hub: Hub) -> ASGIApp:
    """Starlette's `WebSocket`; FastAPI's is the same."""
    from starlette.websockets import WebSocket, WebSocketDisconnect

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        hub.join(websocket, "a")
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()

    return app


def litestar(hub: Hub) -> ASGIApp:
    """Litestar's `WebSocket`."""
    from litestar import Litestar, WebSocket, websocket
    from litestar.exceptions import WebSocketDisconnect

    @websocket("/ws")
    async def serve(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        hub.join(socket, "a")
        with pytest.raises(WebSocketDisconnect):
            await socket.receive_text()

    serve.fn.__annotations__["socket"] = WebSocket
    made: Any = Litestar([serve], logging_config=None)
    return made  # type: ignore[no-any-return]


def quart(hub: Hub) -> ASGIApp:
    """Quart's proxy."""
    from quart import Quart, websocket

    app: Any = Quart("hub")

    @app.websocket("/ws")  # type: ignore[untyped-decorator, unused-ignore]
    async def serve() -> None:
        await websocket.accept()
        hub.join(websocket, "a")
        await websocket.receive()

    return app  # type: ignore[no-any-return]


def falcon(hub: Hub) -> ASGIApp:
    """Falcon's `WebSocket`, which leads there by its adapter."""
    import falcon.asgi

    class Resource:
        async def on_websocket(self, request: Any, socket: Any) -> None:
            await socket.accept()
            hub.join(socket, "a")
            with pytest.raises(falcon.WebSocketDisconnected):
                await socket.receive_text()

    app: Any = falcon.asgi.App()
    app.add_route("/ws", Resource())
    return app  # type: ignore[no-any-return]


def blacksheep(hub: Hub) -> ASGIApp:
    """BlackSheep's `WebSocket`."""
    from blacksheep.server.websocket import WebSocket

    async def app(scope: Any, receive: Any, send: Any) -> None:
        socket: Any = WebSocket(scope, receive, send)
        await socket.accept()
        hub.join(socket, "a")
        await receive()

    return app


def channels(hub: Hub) -> ASGIApp:
    """A consumer of Channels."""
    from channels.generic.websocket import AsyncWebsocketConsumer
    from django.conf import settings

    if not settings.configured:
        settings.configure()

    class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc, unused-ignore]
        async def connect(self) -> None:
            await self.accept()
            hub.join(self, "a")

    consumer: Any = Consumer.as_asgi()
    return consumer  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [starlette, litestar, quart, falcon, blacksheep, channels])
def test_the_websocket_object_joins(make: Callable[[Hub], ASGIApp]) -> None:
    """And leaves with its connection."""

    async def main() -> None:
        hub, server = Hub(), ScriptedServer(path="/ws")
        server.connect()
        task = server.call(WebSocketGuardMiddleware(make(hub), observers=()))
        while not (hub.connections or task.done()):
            await asyncio.sleep(0.001)
        assert await hub.send_to_room("a", "x") == DeliveryReport(sent=1)
        assert server.sent[-1]["text"] == "x"
        server.disconnect()
        await task
        assert hub.rooms() == ()

    if make is channels:
        asyncio.run(main())  # it closes its database's connections in a thread, which no virtual clock waits for
    else:
        run(main)
