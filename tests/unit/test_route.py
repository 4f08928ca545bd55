"""The route template of a connection, from the real frameworks: a finite label that holds no value of a path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from litestar import Litestar, Router, WebSocket, websocket
from quart import Blueprint, Quart
from quart import websocket as quart_websocket
from starlette.applications import Starlette
from starlette.routing import Host, Mount, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from versions import at_least

from asgi_ws_guard import Abandoned, Accepted, Closed, Rejected, Terminal, WebSocketGuardMiddleware
from asgi_ws_guard._route import route_of
from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

VALUE = "s3cret"
ACCEPT: Message = {"type": "websocket.accept"}


async def endpoint(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    await websocket.close()


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)


async def deny(websocket: StarletteWebSocket) -> None:
    await websocket.close()


async def receive_only(websocket: StarletteWebSocket) -> None:
    await websocket.receive()
    await websocket.receive()


def starlette() -> Any:
    return Starlette(
        routes=[
            WebSocketRoute("/plain", endpoint),
            WebSocketRoute("/rooms/{room:int}/{name}", endpoint),
            WebSocketRoute("/deny/{room}", deny),
            WebSocketRoute("/leave/{room}", receive_only),
            Mount("/mount", routes=[WebSocketRoute("/rooms/{room}", endpoint)]),
            Mount("/tenant/{tenant}", routes=[WebSocketRoute("/rooms/{room}", endpoint)]),
            Mount("/raw/{tenant}", app=raw),
            Host("{sub}.example", app=raw),
        ]
    )


def fastapi() -> Any:
    app, router, outer, sub = FastAPI(), APIRouter(prefix="/in"), APIRouter(prefix="/outer"), FastAPI()
    router.websocket("/rooms/{room}")(endpoint)
    router.routes.append(WebSocketRoute("/foreign/{room}", endpoint))
    outer.include_router(router, prefix="/deep")
    sub.include_router(router, prefix="/sub")
    app.websocket("/direct/{room}")(endpoint)
    app.include_router(router, prefix="/api/{tenant}")
    app.include_router(outer)
    app.mount("/mount", sub)
    return app


def litestar() -> Any:
    @websocket("/rooms/{room:str}")
    async def rooms(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.close()

    return Litestar(route_handlers=[rooms, Router("/api/{tenant:str}", route_handlers=[rooms])], openapi_config=None)


def quart() -> Any:
    app, blueprint = Quart(__name__), Blueprint("api", __name__, url_prefix="/api/<tenant>")

    async def rooms(**values: str) -> None:
        await quart_websocket.accept()

    app.add_websocket("/rooms/<room>", "rooms", rooms)
    blueprint.add_websocket("/rooms/<room>", "rooms", rooms)
    app.register_blueprint(blueprint)
    return app


def channels() -> Any:
    from channels.routing import URLRouter
    from django.conf import settings
    from django.urls import path

    if not settings.configured:
        settings.configure()
    return URLRouter([path("rooms/<room>", raw)])


STARLETTE = at_least("starlette", 1, 7)  # the first that puts the route into the scope


def since_starlette(template: str) -> str | None:
    """Give a template that only Starlette tells, which does so in later versions; FastAPI's own routes always did."""
    return template if STARLETTE else None


CASES: list[tuple[Callable[[], Any], str, str | None]] = [
    # framework, path, template
    (starlette, "/plain", since_starlette("/plain")),
    (starlette, f"/rooms/5/{VALUE}", since_starlette("/rooms/{room}/{name}")),
    (starlette, f"/mount/rooms/{VALUE}", since_starlette("/rooms/{room}")),
    (starlette, f"/tenant/{VALUE}/rooms/{VALUE}", since_starlette("/rooms/{room}")),
    (starlette, f"/raw/{VALUE}/{VALUE}", since_starlette("/raw/{tenant}/{path}")),
    (fastapi, f"/direct/{VALUE}", "/direct/{room}"),
    (fastapi, f"/api/{VALUE}/in/rooms/{VALUE}", "/api/{tenant}/in/rooms/{room}"),
    (fastapi, f"/outer/deep/in/rooms/{VALUE}", "/outer/deep/in/rooms/{room}"),
    (fastapi, f"/mount/sub/in/rooms/{VALUE}", "/sub/in/rooms/{room}"),
    (fastapi, f"/api/{VALUE}/foreign/{VALUE}", since_starlette("/api/{tenant}/foreign/{room}")),
    (litestar, f"/rooms/{VALUE}", "/rooms/{room}"),
    (litestar, f"/api/{VALUE}/rooms/{VALUE}", "/api/{tenant}/rooms/{room}"),
    (quart, f"/rooms/{VALUE}", "/rooms/<room>"),
    (quart, f"/api/{VALUE}/rooms/{VALUE}", "/api/<tenant>/rooms/<room>"),
    (channels, f"/rooms/{VALUE}", None),
    (lambda: raw, f"/rooms/{VALUE}", None),
]


def guarded(app: Any, how: str, observer: Recorder) -> ASGIApp:
    """Put the guard around an application in one of the ways that its framework knows."""
    if how == "outer":
        return WebSocketGuardMiddleware(app, observers=(observer,))
    if isinstance(app, Quart):
        inner: Any = WebSocketGuardMiddleware(app.asgi_app, observers=(observer,))
        app.asgi_app = inner  # type: ignore[method-assign]
    else:
        app.add_middleware(WebSocketGuardMiddleware, observers=(observer,))
    served: ASGIApp = app
    return served


def serve(make: Callable[[], Any], path: str, how: str = "outer", *later: Message, **scope: Any) -> Recorder:
    """Serve one connection and give what was told of it."""
    observer = Recorder()

    async def main() -> None:
        server = ScriptedServer(path, **scope)
        server.connect()
        server.deliver(*later)
        await server.call(guarded(make(), how, observer))

    run(main)
    assert VALUE not in repr([event.route for event in observer.events if isinstance(event, Accepted | Terminal)])
    return observer


@pytest.mark.parametrize(
    ("make", "path", "template", "how"),
    [
        *((*case, "outer") for case in CASES),
        *((*case, "inner") for case in CASES if case[0] in (starlette, fastapi, quart)),
    ],
)
def test_the_template_of_a_framework(make: Callable[[], Any], path: str, template: str | None, how: str) -> None:
    """The template that the framework matched is told at the accept and at the end, never a value of the path."""
    observer = serve(make, path, how)
    assert observer.one(Accepted).route == template
    assert observer.one(Closed).route == template


def test_a_handshake_that_is_not_accepted_has_its_template_too() -> None:
    """A denial and a client that left have the route that was matched, what no route matched has none."""
    assert serve(starlette, f"/deny/{VALUE}").one(Rejected).route == since_starlette("/deny/{room}")
    left = {"type": "websocket.disconnect", "code": 1006}
    assert serve(starlette, f"/leave/{VALUE}", "outer", left).one(Abandoned).route == since_starlette("/leave/{room}")
    assert serve(starlette, f"/nowhere/{VALUE}").one(Rejected).route is None


def test_a_host_is_no_template() -> None:
    """What is matched by the host's name has no path template; the host of the client is none."""
    headers = [(b"host", f"{VALUE}.example".encode())]
    assert serve(starlette, f"/nowhere/{VALUE}", "outer", headers=headers).one(Accepted).route is None


class Hostile:
    """An object that raises whatever it is asked."""

    def __repr__(self) -> str:
        return "Hostile"  # the same in each process: it becomes the name of a test

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"route": None, "path_template": None},
        {"route": 5},
        {"route": "/rooms/s3cret"},
        {"route": SimpleNamespace(path=b"/x")},
        {"route": SimpleNamespace(path_format=5, path="/x")},
        {"route": SimpleNamespace(path="")},
        {"route": Hostile()},
        {"path_template": b"/x"},
        {"path_template": 5},
        {"fastapi": 5},
        {"fastapi": None},
        {"fastapi": {"effective_route_context": 5}},
        {"fastapi": {"effective_route_context": SimpleNamespace(starlette_route=Hostile())}},
    ],
    ids=str,
)
def test_what_is_no_template_is_none(scope: Scope) -> None:
    """Whatever somebody else put under these keys: it is a template, or there is none; nothing is raised."""
    assert route_of(scope) is None


def test_one_framework_that_cannot_be_read_does_not_hide_another() -> None:
    """Each is asked for itself, in a fixed order."""
    assert route_of({"route": Hostile(), "path_template": "/x"}) == "/x"
    assert route_of({"route": SimpleNamespace(path="/a"), "path_template": "/x"}) == "/a"
    assert route_of({"route": SimpleNamespace(path="/{a:int}", path_format="/{a}")}) == "/{a}"


def test_an_empty_template_is_none() -> None:
    """The empty string would be a label that says nothing."""
    assert route_of({"path_template": ""}) is None


def test_the_rule_of_quart_is_known_to_its_own_task_only() -> None:
    """It is found in the task that answers the handshake, and in no other: nobody takes over another's route."""

    async def main() -> None:
        app, inner, server = quart(), list[str | None](), ScriptedServer("/rooms/1")

        async def rooms(room: str) -> None:
            inner.append(route_of({}))
            await quart_websocket.accept()
            await asyncio.sleep(1)

        app.view_functions["rooms"] = rooms
        server.connect()
        task = server.call(WebSocketGuardMiddleware(app, observers=()))
        await asyncio.sleep(0.5)
        assert inner == ["/rooms/<room>"]
        assert route_of({}) is None
        await task

    run(main)
