"""The adapter of Litestar. The texts are those of Litestar 2.12.1 to 2.25.0."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from litestar import WebSocket
from litestar.exceptions import WebSocketDisconnect

from asgi_ws_guard import Closed, HandlerOutlived
from asgi_ws_guard._types import ASGIApp, Receive, Scope, Send
from asgi_ws_guard.adapters import install, uninstall

from .visits import STOPPED_BY_S, Framework, Handler, Tries, Visit, ending_below, failing_below, visit

CALLS = ("send_text", "close", "receive_text", "receive")
REFUSED = "WebSocketDisconnect 1000"  # whatever the code of the end is; text: "connection is disconnected"
CLIENT_LEFT = dict.fromkeys(CALLS, REFUSED)
OWN_CLOSE = {"send_text": "ok", "close": "ok", "receive_text": "WebSocketDisconnect 4001", "receive": REFUSED}


def make_app(handler: Handler) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await handler(WebSocket(scope, receive, send))  # type: ignore[arg-type]

    return app


def calls(websocket: Any) -> dict[str, Any]:
    """Give one late call of each sort."""
    return {
        "send_text": lambda: websocket.send_text("x"),
        "close": lambda: websocket.close(4002, "again"),
        "receive_text": websocket.receive_text,
        "receive": websocket.receive,
    }


async def end(websocket: Any, *, leaves: bool) -> None:
    """Accept, then close with 4001 "bye", or read that the client has left."""
    await websocket.accept()
    if not leaves:
        await websocket.close(4001, "bye")
        return
    with pytest.raises(WebSocketDisconnect, match="disconnect event"):
        await websocket.receive_text()


LITESTAR = Framework(make_app, end, calls)


def tried(*, leaves: bool, **options: Any) -> tuple[dict[str, str], Visit]:
    """Make every late call once, and give what each gave."""
    tries, done = LITESTAR.tried(leaves=leaves, **options)
    return tries.outcomes, done


@pytest.mark.parametrize(("leaves", "expected"), [(False, OWN_CLOSE), (True, CLIENT_LEFT)])
def test_what_litestar_refuses_by_itself(leaves: bool, expected: dict[str, str]) -> None:
    """Once the disconnect was read a guard hears of nothing."""
    outcomes, done = tried(leaves=leaves, adapters=())
    assert outcomes == expected
    assert done.late == ([] if leaves else [("websocket.send", "app_closed")])


@pytest.mark.parametrize(("leaves", "code", "why"), [(False, 4001, "app_closed"), (True, 4321, "client_disconnected")])
def test_late_calls_go_down_to_the_guard(leaves: bool, code: int, why: str) -> None:
    """Sends and closes are dropped, counted and reported; receives raise as ever, but with the code of the end."""
    outcomes, done = tried(leaves=leaves)
    assert outcomes == {
        **dict.fromkeys(("send_text", "close"), "ok"),
        **dict.fromkeys(("receive_text", "receive"), f"WebSocketDisconnect {code}"),
    }
    assert done.late == [("websocket.send", why)]
    assert done.dropped == {why: 2}


def test_the_text_is_litestars() -> None:
    """A late receive says what Litestar says."""
    caught: list[str] = []

    async def handler(websocket: Any) -> None:
        await end(websocket, leaves=True)
        for _ in range(2):
            try:
                await websocket.receive_text()
            except WebSocketDisconnect as error:
                caught.append(error.detail)

    visit(make_app, handler, leaves=True)
    assert caught == ["connection is disconnected"] * 2


@pytest.mark.parametrize("leaves", [False, True])
def test_uninstalled_it_refuses_again(leaves: bool) -> None:
    """Every attribute is Litestar's own again, and so is every answer."""
    own = dict(vars(WebSocket))
    tried(leaves=leaves)
    assert dict(vars(WebSocket)) != own
    uninstall("litestar")
    assert dict(vars(WebSocket)) == own
    assert tried(leaves=leaves, adapters=())[0] == (CLIENT_LEFT if leaves else OWN_CLOSE)


def test_a_connection_without_a_guard_is_refused_as_ever() -> None:
    """The adapter is in place, and looks only at connections that carry a guard."""
    install("litestar")
    assert tried(leaves=True, guarded=False)[0] == CLIENT_LEFT


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("label", CALLS)
def test_a_handler_that_catches_everything_is_stopped(label: str, leaves: bool) -> None:
    """G4: raised in, then cancelled, whatever it does."""
    done = LITESTAR.visit_for_ever(label, leaves=leaves)
    assert done.stopped == ["raised", "cancelled"]
    assert done.took_s is not None
    assert done.took_s < STOPPED_BY_S


@pytest.mark.parametrize("label", ["send_text", "receive_text"])
def test_a_handler_that_never_sleeps_does_not_stop_the_loop(label: str) -> None:
    """Without the adapter nothing else would run in this process any more, this test included."""
    done = LITESTAR.visit_for_ever(label, leaves=True, pause_s=None, real_time=True)
    assert done.stopped == ["raised", "cancelled"]


def test_without_the_adapter_it_is_never_stopped() -> None:
    """Litestar refuses above the guard, so that nothing shows what the handler does."""
    done = LITESTAR.visit_for_ever("send_text", leaves=True, adapters=())
    assert done.stopped == []
    assert done.took_s is None
    assert done.seen.of(HandlerOutlived)


@pytest.mark.parametrize("label", CALLS)
def test_the_guards_patience_ends_in_litestars_way(label: str) -> None:
    """What is raised where Litestar would refuse is its own exception, with the code of the end."""
    done, last = LITESTAR.visit_until_refused(label, WebSocketDisconnect)
    assert done.error is None
    assert done.stopped == ["raised"]
    assert (last.code, last.detail) == (4321, "connection is disconnected")


@pytest.mark.parametrize("leaves", [False, True])
def test_iterators_end(leaves: bool) -> None:
    """A late `async for` ends at once."""
    rounds: list[object] = []

    async def handler(websocket: Any) -> None:
        await end(websocket, leaves=leaves)
        async for message in websocket.iter_data():
            rounds.append(message)

    assert visit(make_app, handler, leaves=leaves).error is None
    assert rounds == []


@pytest.mark.parametrize("label", ["send_text", "close"])
def test_what_litestar_lets_through_is_raised_as_ever(label: str) -> None:
    """Where Litestar itself has not seen the end it refuses nothing, and translates nothing."""

    async def handler(websocket: Any) -> None:
        await end(websocket, leaves=False)
        while True:
            await calls(websocket)[label]()
            await asyncio.sleep(0.1)

    done = visit(make_app, handler)
    assert done.error is None
    assert done.seen.one(Closed).absorbed_type == "ConnectionClosed"


def test_the_first_receive_after_the_own_close_is_litestars() -> None:
    """It gives the event, of which Litestar's readers make an exception with another text."""
    received: list[Any] = []

    async def handler(websocket: Any) -> None:
        await end(websocket, leaves=False)
        received.append(await websocket.receive())

    visit(make_app, handler)
    assert received == [{"type": "websocket.disconnect", "code": 4001, "reason": "bye"}]


def test_what_is_replaced_looks_like_the_original() -> None:
    """By name and by signature."""
    names = ("send_wrapper", "receive_wrapper")
    own = {name: inspect.signature(getattr(WebSocket, name)) for name in names}
    install("litestar")
    for name in names:
        assert inspect.signature(getattr(WebSocket, name)) == own[name]
        assert getattr(WebSocket, name).__doc__


def test_the_state_stays_litestars() -> None:
    """A late call changes nothing."""
    states: list[str] = []

    async def handler(websocket: Any) -> None:
        await end(websocket, leaves=True)
        for label in ("send_text", "close"):
            await calls(websocket)[label]()
            states.append(websocket.connection_state)

    visit(make_app, handler, leaves=True)
    assert states == ["disconnect"] * 2


def test_an_end_that_the_guard_does_not_know_is_litestars() -> None:
    """Where a middleware between the two makes a disconnect up, Litestar refuses as ever."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        await websocket.receive()
        for label, call in calls(websocket).items():
            await tries(label, call())

    visit(lambda handler: ending_below(make_app(handler)), handler, texts=("x",))
    assert tries.outcomes == CLIENT_LEFT


def test_misuse_stays_loud() -> None:
    """A second accept by a raw message is a `ProtocolError` of the guard."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        await tries("accept", websocket.send({"type": "websocket.accept"}))

    visit(make_app, handler)
    assert tries.outcomes["accept"].startswith("ProtocolError: ")


def test_a_late_send_that_fails_below() -> None:
    """An `OSError` that is not the guard's is a lost connection too, of which no code is known."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await end(websocket, leaves=True)
        await tries("send", websocket.send_text("x"))

    visit(lambda handler: failing_below(make_app(handler)), handler, leaves=True)
    assert tries.outcomes == {"send": "WebSocketDisconnect 1006"}
