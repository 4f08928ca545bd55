"""What docs/howto.md says of middleware around the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._types import ASGIApp, Receive, Scope, Send
from asgi_ws_guard.testing import ScriptedServer, run


async def push(scope: Scope, receive: Receive, send: Send) -> None:
    """Only send; where the path says so, fail."""
    await send({"type": "websocket.accept"})
    if scope["path"] == "/fails":
        raise ValueError
    while True:
        await send({"type": "websocket.send", "text": "tick"})
        await asyncio.sleep(0.1)


def guard(app: ASGIApp) -> WebSocketGuardMiddleware:
    return WebSocketGuardMiddleware(app, linger_s=0.5, observers=())


@pytest.fixture
def reported() -> Iterator[list[str]]:
    """Give the names of the exceptions that Sentry would report; it patches nothing, and sends nothing."""
    names: list[str] = []

    def keep(event: Any, hint: Any) -> None:
        names.append(event["exception"]["values"][-1]["type"])

    sentry_sdk.init(
        "http://key@127.0.0.1:9/1", before_send=keep, default_integrations=False, auto_enabling_integrations=False
    )
    yield names
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def visit(app: Any, path: str) -> None:
    """Connect and leave; the handler may fail."""
    server = ScriptedServer(path)
    server.connect()
    if path != "/fails":
        server.disconnect(1001)

    async def main() -> None:
        await server.call(app)

    run(main)


def test_sentry_outside_of_the_guard_hears_of_errors_alone(reported: list[str]) -> None:
    """A handler that the guard stopped is no error; one that fails is."""
    app = SentryAsgiMiddleware(guard(push))
    visit(app, "/leaves")
    assert reported == []
    with pytest.raises(ValueError, match=r"^$"):
        visit(app, "/fails")
    assert reported == ["ValueError"]


def test_sentry_inside_of_the_guard_hears_of_stopped_handlers(reported: list[str]) -> None:
    """By the name that the page says to leave out."""
    visit(guard(SentryAsgiMiddleware(push)), "/leaves")
    assert reported == ["ConnectionClosed"]
