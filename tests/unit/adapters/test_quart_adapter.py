"""The adapter of Quart. What it says is what Quart 0.20.0 to 0.23.1 says."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import inspect
from types import SimpleNamespace
from typing import Any, cast

import pytest
from quart import Quart, websocket
from quart.asgi import ASGIWebsocketConnection

from asgi_ws_guard._adapter import HANDLE_KEY
from asgi_ws_guard._types import ASGIApp, Message
from asgi_ws_guard.adapters import install, uninstall
from asgi_ws_guard.testing import run

from .visits import Handler, Tries, Visit, forever, visit

REFUSES_SENDS = importlib.metadata.version("quart") >= "0.23"
REFUSED = "RuntimeError: Cannot close websocket multiple times"
BY_ITSELF = {"send": "ok", "close": REFUSED}


def make_app(handler: Handler) -> ASGIApp:
    app = Quart("quart_app")

    @app.websocket("/ws")
    async def ws() -> None:
        await handler(websocket)

    return app  # type: ignore[return-value]


def tried(**options: Any) -> tuple[dict[str, str], Visit]:
    """Close, then make every late call once, and give what each gave."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        await websocket.close(4001, "bye")
        await tries("send", websocket.send("x"))
        await tries("close", websocket.close(4002, "again"))

    return tries.outcomes, visit(make_app, handler, **options)


def test_what_quart_refuses_by_itself() -> None:
    """A guard hears of the send, not of the second close."""
    outcomes, done = tried(adapters=())
    assert outcomes == BY_ITSELF
    assert done.dropped == {"app_closed": 1}


def test_a_second_close_goes_down_to_the_guard() -> None:
    """It is dropped, counted and reported."""
    outcomes, done = tried()
    assert outcomes == {"send": "ok", "close": "ok"}
    assert done.late == [("websocket.send", "app_closed")]
    assert done.dropped == {"app_closed": 2}
    assert done.server.types() == ["websocket.accept", "websocket.close"]


def test_a_close_after_the_client_left_and_a_second_one() -> None:
    """A cleanup that closes twice is quiet, although Quart is cancelling it."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        try:
            await websocket.receive()
        finally:
            await tries("close", websocket.close(1000))
            await tries("again", websocket.close(1000))

    done = visit(make_app, handler, leaves=True, leaves_at_s=0.5)
    assert tries.outcomes == {"close": "ok", "again": "ok"}
    assert done.error is None
    assert done.dropped["client_disconnected"] >= 2


def test_uninstalled_it_refuses_again() -> None:
    """Every attribute is Quart's own again, and so is the text."""
    own = dict(vars(ASGIWebsocketConnection))
    tried()
    assert dict(vars(ASGIWebsocketConnection)) != own
    uninstall("quart")
    assert dict(vars(ASGIWebsocketConnection)) == own
    assert tried(adapters=())[0] == BY_ITSELF


def test_a_connection_without_a_guard_is_refused_as_ever() -> None:
    """The adapter is in place, and looks only at connections that carry a guard."""
    install("quart")
    assert tried(guarded=False)[0] == BY_ITSELF


def test_a_handler_that_closes_for_ever_is_stopped() -> None:
    """
    G4: the handler runs in a task that Quart created, which is raised in; Quart's own cancellation is swallowed here.

    Without the adapter nothing shows what it does.
    """
    raised: list[str] = []

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        await websocket.close(4001, "bye")
        for _ in range(100):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.1)
            try:
                await websocket.close(4002)
            except RuntimeError:
                continue
            except Exception as error:  # what a careful handler ends at
                raised.append(type(error).__name__)
                return

    done = visit(make_app, handler)
    assert raised == ["ClientDisconnectedError" if REFUSES_SENDS else "ConnectionClosed"]
    assert done.took_s is not None
    uninstall()
    zombie = visit(make_app, handler, adapters=())
    assert zombie.took_s is not None
    assert done.took_s < zombie.took_s / 2
    assert len(raised) == 1


@pytest.mark.parametrize("leaves", [False, True])
def test_late_sends_are_dropped(leaves: bool) -> None:
    """Also those that Quart 0.23 refuses by itself once the disconnect was read."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        if not leaves:
            await websocket.close(4001, "bye")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(5)
        await tries("text", websocket.send("x"))
        await tries("bytes", websocket.send(b"x"))

    why = "client_disconnected" if leaves else "app_closed"
    done = visit(make_app, handler, leaves=leaves, leaves_at_s=0.5)
    assert tries.outcomes == {"text": "ok", "bytes": "ok"}
    assert done.dropped[why] >= 2
    uninstall()
    visit(make_app, handler, leaves=leaves, leaves_at_s=0.5, adapters=())
    by_itself = "ClientDisconnectedError" if REFUSES_SENDS else "ok"
    assert tries.outcomes["text"] == by_itself


def test_a_handler_that_catches_everything_is_ended_by_quart() -> None:
    """Quart cancels it when it has read the disconnect, with or without the adapter."""

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        await forever(lambda: websocket.send("x"))

    assert visit(make_app, handler, leaves=True, leaves_at_s=0.5).took_s is not None


def test_what_is_replaced_looks_like_the_original() -> None:
    """By name and by signature."""
    names = ("send_data", "close_connection")
    own = {name: inspect.signature(getattr(ASGIWebsocketConnection, name)) for name in names}
    install("quart")
    for name in names:
        assert inspect.signature(getattr(ASGIWebsocketConnection, name)) == own[name]


def test_a_close_before_the_accept_and_a_second_one() -> None:
    """A denial, then a close: the second one is late."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await tries("close", websocket.close(1000))
        await tries("again", websocket.close(1000))

    done = visit(make_app, handler)
    assert tries.outcomes == {"close": "ok", "again": "ok"}
    assert done.late == [("websocket.close", "denied")]


@pytest.mark.parametrize("data", ["x", b"x"])
@pytest.mark.parametrize(("disconnected", "ended"), [(True, True), (True, False), (False, True)])
def test_only_what_quart_refuses_goes_another_way(data: str | bytes, disconnected: bool, ended: bool) -> None:
    """A send on a connection of which Quart 0.23 has read the disconnect, and of which the guard knows the end."""
    install("quart")
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def main() -> bool:
        handle = SimpleNamespace(initiator="client" if ended else None)
        connection: Any = SimpleNamespace(_disconnected=disconnected, scope={HANDLE_KEY: handle})
        with contextlib.suppress(Exception):
            await cast(Any, ASGIWebsocketConnection.send_data)(connection, send, data)  # its types differ by version
        return not sent

    refused = run(main)
    assert refused is (REFUSES_SENDS and disconnected and not ended)
    kind = "text" if isinstance(data, str) else "bytes"
    if disconnected and ended:
        assert sent == [{"type": "websocket.send", kind: data}]
    elif not refused:
        assert sent == [{"type": "websocket.send", "text": None, "bytes": None} | {kind: data}]


def test_a_first_close_is_quarts() -> None:
    """Late or not: Quart takes note of it, so that it does not close once more by itself."""
    install("quart")
    connection: Any = SimpleNamespace(_closed=False, scope={HANDLE_KEY: SimpleNamespace(initiator="client")})

    async def send(message: Message) -> None:
        assert message["type"] == "websocket.close"

    async def main() -> None:
        await ASGIWebsocketConnection.close_connection(connection, send, 1000, "")  # type: ignore[arg-type]

    run(main)
    assert connection._closed
