"""
Handlers that catch everything and go on after the end, one per framework, behind one guard.

``/<framework>/own`` closes with 4001 by itself, ``/<framework>/left`` reads until the client has left; then both send,
receive or close for ever, whatever that raises. Lines on stdout tell when a handler was stopped and when it was over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import falcon.asgi
from blacksheep import Application, WebSocket
from litestar import Litestar
from litestar import WebSocket as LitestarWebSocket
from litestar.handlers import WebsocketRouteHandler
from quart import Quart, websocket
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from asgi_ws_guard import Event, HandlerStopped, Opened, WebSocketGuardMiddleware
from asgi_ws_guard._types import Receive, Scope, Send

LINGER_S = 0.3
PAUSE_S = 0.02


async def stubborn(ws: Any, scenario: str, receive: Callable[[], Awaitable[Any]], *more: Callable[[], Any]) -> None:
    """Let the connection end, then go on for ever."""
    await ws.accept()
    if scenario == "own":
        await ws.close(4001)
    else:
        with contextlib.suppress(Exception):
            while True:
                await receive()
    calls: list[Callable[[], Awaitable[Any]]] = [*more, receive, lambda: ws.close(4002)]
    while True:
        for call in calls:
            with contextlib.suppress(Exception):
                await call()
        await asyncio.sleep(PAUSE_S)


async def starlette_handler(ws: Any) -> None:
    """Be a handler of Starlette."""
    await stubborn(ws, ws.path_params["scenario"], ws.receive_text, lambda: ws.send_text("x"))


async def litestar_handler(socket: LitestarWebSocket[Any, Any, Any]) -> None:
    """Be a handler of Litestar."""
    scenario = socket.scope["path"].split("/")[2]
    await stubborn(socket, scenario, socket.receive_text, lambda: socket.send_text("x"))


async def blacksheep_handler(ws: WebSocket) -> None:
    """Be a handler of BlackSheep."""
    scenario = (ws.route_values or {})["scenario"] or ""
    await stubborn(ws, scenario, ws.receive_text, lambda: ws.send_text("x"))


class FalconResource:
    """A resource of Falcon."""

    async def on_websocket(self, req: Any, ws: Any, scenario: str) -> None:
        """Be a handler of Falcon."""
        await stubborn(ws, scenario, ws.receive_text, lambda: ws.send_text("x"))


quart_app = Quart(__name__)


@quart_app.websocket("/quart/<scenario>")
async def quart_handler(scenario: str) -> None:
    """Be a handler of Quart, which cancels it at the end."""
    await stubborn(websocket, scenario, websocket.receive, lambda: websocket.send("x"))


falcon_app: Any = falcon.asgi.App()
falcon_app.add_route("/falcon/{scenario}", FalconResource())
blacksheep_app: Any = Application()
blacksheep_app.router.add_ws("/blacksheep/:scenario", blacksheep_handler)

APPS: dict[str, Any] = {
    "starlette": Starlette(routes=[WebSocketRoute("/starlette/{scenario}", starlette_handler)]),
    "litestar": Litestar([WebsocketRouteHandler("/litestar/{scenario:str}")(litestar_handler)], logging_config=None),
    "quart": quart_app,
    "falcon": falcon_app,
    "blacksheep": blacksheep_app,
}

_paths: dict[str, str] = {}


def tell(event: Event) -> None:
    """Print who was stopped."""
    if isinstance(event, Opened):
        _paths[event.connection_id] = event.handshake.path
    elif isinstance(event, HandlerStopped):
        print("STOPPED", _paths[event.connection_id], event.how, flush=True)


async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
    """Hand a connection to the framework that its path names."""
    if scope["type"] != "websocket":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
        return
    try:
        await APPS[scope["path"].split("/")[1]](scope, receive, send)
    finally:
        print("OVER", scope["path"], flush=True)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve; there is no lifespan."""
    if scope["type"] != "lifespan":
        await guarded(scope, receive, send)
        return
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await blacksheep_app.start()  # which sorts its routes; 2.6 finds them without
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


guarded = WebSocketGuardMiddleware(dispatch, linger_s=LINGER_S, observers=[tell])
