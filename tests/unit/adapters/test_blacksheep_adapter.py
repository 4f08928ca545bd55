"""The adapter of BlackSheep. The texts are those of BlackSheep 2.3.0 to 2.6.4."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from blacksheep import WebSocket
from blacksheep.server.websocket import WebSocketDisconnectError, WebSocketState

from asgi_ws_guard import Closed, HandlerOutlived
from asgi_ws_guard._types import ASGIApp, Receive, Scope, Send
from asgi_ws_guard.adapters import install, uninstall

from .visits import STOPPED_BY_S, Framework, Handler, Tries, Visit, ending_below, failing_below, visit

CALLS = ("send_text", "send_bytes", "send_json", "receive_text", "receive_bytes", "receive_json")
STATE = (
    "InvalidWebSocketStateError: Invalid {} state of the WebSocket connection. "
    "Expected state: WebSocketState.{}. Current state: WebSocketState.{}."
)
REFUSED_SEND = STATE.format("client", "CONNECTED", "DISCONNECTED")
REFUSED_RECEIVE = STATE.format("application", "CONNECTED", "DISCONNECTED")
REFUSED_ACCEPT = STATE.format("client", "CONNECTING", "DISCONNECTED")
BY_ITSELF = {label: REFUSED_SEND if label.startswith("send") else REFUSED_RECEIVE for label in CALLS}


def make_app(handler: Handler) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await handler(WebSocket(scope, receive, send))

    return app


def calls(websocket: Any) -> dict[str, Any]:
    """Give one late call of each sort."""
    return {
        "send_text": lambda: websocket.send_text("x"),
        "send_bytes": lambda: websocket.send_bytes(b"x"),
        "send_json": lambda: websocket.send_json({}),
        "receive_text": websocket.receive_text,
        "receive_bytes": websocket.receive_bytes,
        "receive_json": websocket.receive_json,
    }


async def end(websocket: Any, *, leaves: bool) -> None:
    """Accept, let the connection end, and read the disconnect."""
    await websocket.accept()
    if not leaves:
        await websocket.close(4001, "bye")
    with pytest.raises(WebSocketDisconnectError):
        await websocket.receive_text()


BLACKSHEEP = Framework(make_app, end, calls)


def tried(*, leaves: bool, **options: Any) -> tuple[dict[str, str], Visit]:
    """Make every late call once, and give what each gave."""
    tries, done = BLACKSHEEP.tried(leaves=leaves, **options)
    return tries.outcomes, done


@pytest.mark.parametrize("leaves", [False, True])
def test_what_blacksheep_refuses_by_itself(leaves: bool) -> None:
    """Once the disconnect was read a guard hears of nothing."""
    outcomes, done = tried(leaves=leaves, adapters=())
    assert outcomes == BY_ITSELF
    assert done.late == []


@pytest.mark.parametrize(("leaves", "code", "why"), [(False, 4001, "app_closed"), (True, 4321, "client_disconnected")])
def test_late_calls_go_down_to_the_guard(leaves: bool, code: int, why: str) -> None:
    """Sends are dropped, counted and reported; receives give the disconnect again, with the code of the end."""
    outcomes, done = tried(leaves=leaves)
    assert outcomes == {
        label: "ok" if label.startswith("send") else f"WebSocketDisconnectError {code}" for label in CALLS
    }
    assert done.late == [("websocket.send", why)]
    assert done.dropped == {why: 3}


@pytest.mark.parametrize("leaves", [False, True])
def test_uninstalled_it_refuses_again(leaves: bool) -> None:
    """Every attribute is BlackSheep's own again, and so is every text."""
    own = dict(vars(WebSocket))
    tried(leaves=leaves)
    assert dict(vars(WebSocket)) != own
    uninstall("blacksheep")
    assert dict(vars(WebSocket)) == own
    assert tried(leaves=leaves, adapters=())[0] == BY_ITSELF


def test_a_connection_without_a_guard_is_refused_as_ever() -> None:
    """The adapter is in place, and looks only at connections that carry a guard."""
    install("blacksheep")
    assert tried(leaves=True, guarded=False)[0] == BY_ITSELF


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("label", ["send_text", "receive_text"])
def test_a_handler_that_catches_everything_is_stopped(label: str, leaves: bool) -> None:
    """G4: raised in, then cancelled, whatever it does."""
    done = BLACKSHEEP.visit_for_ever(label, leaves=leaves)
    assert done.stopped == ["raised", "cancelled"]
    assert done.took_s is not None
    assert done.took_s < STOPPED_BY_S


@pytest.mark.parametrize("label", ["send_text", "receive_text"])
def test_a_handler_that_never_sleeps_does_not_stop_the_loop(label: str) -> None:
    """Without the adapter nothing else would run in this process any more, this test included."""
    done = BLACKSHEEP.visit_for_ever(label, leaves=True, pause_s=None, real_time=True)
    assert done.stopped == ["raised", "cancelled"]


def test_without_the_adapter_it_is_never_stopped() -> None:
    """BlackSheep refuses above the guard, so that nothing shows what the handler does."""
    done = BLACKSHEEP.visit_for_ever("send_text", leaves=True, adapters=())
    assert done.stopped == []
    assert done.took_s is None
    assert done.seen.of(HandlerOutlived)


@pytest.mark.parametrize("label", ["send_text", "receive_text"])
def test_the_guards_patience_ends_in_blacksheeps_way(label: str) -> None:
    """What is raised where BlackSheep would refuse is its disconnect error, with the code of the end."""
    done, last = BLACKSHEEP.visit_until_refused(label, WebSocketDisconnectError)
    assert done.error is None
    assert done.stopped == ["raised"]
    assert last.code == 4321


def test_states_and_a_second_accept_stay_blacksheeps() -> None:
    """A late call changes no state, and a second accept stays refused."""
    tries = Tries()
    states: list[WebSocketState] = []

    async def handler(websocket: Any) -> None:
        await end(websocket, leaves=True)
        await websocket.send_text("x")
        states.extend((websocket.client_state, websocket.application_state))
        await tries("accept", websocket.accept())

    visit(make_app, handler, leaves=True)
    assert states == [WebSocketState.DISCONNECTED] * 2
    assert tries.outcomes == {"accept": REFUSED_ACCEPT}


def test_what_is_replaced_looks_like_the_original() -> None:
    """By name, by signature, and as a coroutine function."""
    own = inspect.signature(WebSocket.receive)
    install("blacksheep")
    assert inspect.signature(WebSocket.receive) == own
    for name in ("receive", "_send_message"):
        assert getattr(WebSocket, name).__name__ == name
        assert asyncio.iscoroutinefunction(getattr(WebSocket, name))


def test_misuse_before_the_accept_stays_loud() -> None:
    """It is not late."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        for label in ("send_text", "receive_text"):
            await tries(label, calls(websocket)[label]())

    visit(make_app, handler)
    assert tries.outcomes == {
        "send_text": STATE.format("client", "CONNECTED", "CONNECTING"),
        "receive_text": STATE.format("application", "CONNECTED", "CONNECTING"),
    }


def test_an_end_that_the_guard_does_not_know_is_blacksheeps() -> None:
    """Where a middleware between the two makes a disconnect up, BlackSheep refuses as ever."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        with pytest.raises(WebSocketDisconnectError):
            await websocket.receive()
        for label, call in calls(websocket).items():
            await tries(label, call())

    visit(lambda handler: ending_below(make_app(handler)), handler, texts=("x",))
    assert tries.outcomes == BY_ITSELF


def test_a_late_send_that_fails_below() -> None:
    """An `OSError` that is not the guard's is a lost connection too, of which no code is known."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await end(websocket, leaves=True)
        await tries("send", websocket.send_text("x"))

    visit(lambda handler: failing_below(make_app(handler)), handler, leaves=True)
    assert tries.outcomes == {"send": "WebSocketDisconnectError 1006"}


def test_what_blacksheep_lets_through_is_raised_as_ever() -> None:
    """Where BlackSheep itself has not seen the end it refuses nothing, and translates nothing."""

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        await websocket.close(4001, "bye")
        while True:
            await websocket.send_text("x")
            await asyncio.sleep(0.1)

    done = visit(make_app, handler)
    assert done.error is None
    assert done.seen.one(Closed).absorbed_type == "ConnectionClosed"


def test_after_a_denial_it_refuses_as_ever() -> None:
    """A denied connection was never connected in BlackSheep's eyes: that is no disconnect, but misuse."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await websocket.close(4403, "no")
        for label in ("send_text", "receive_text"):
            await tries(label, calls(websocket)[label]())

    visit(make_app, handler)
    assert tries.outcomes == {
        "send_text": STATE.format("client", "CONNECTED", "CONNECTING"),
        "receive_text": STATE.format("application", "CONNECTED", "CONNECTING"),
    }
