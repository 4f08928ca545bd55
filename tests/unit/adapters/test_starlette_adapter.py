"""The adapter of Starlette and FastAPI. The texts are those of Starlette 0.40.0 to 1.10.0."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
from fastapi import FastAPI
from fastapi import WebSocket as FastAPIWebSocket
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from asgi_ws_guard import Closed, HandlerOutlived, LateSend, WebSocketGuardMiddleware
from asgi_ws_guard._types import ASGIApp, Receive, Scope, Send
from asgi_ws_guard.adapters import install, uninstall
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

from .visits import STOPPED_BY_S, Framework, Handler, Tries, Visit, ending_below, failing_below, visit

REFUSED_SEND = 'Cannot call "send" once a close message has been sent.'
REFUSED_RECEIVE = 'Cannot call "receive" once a disconnect message has been received.'
REFUSED_READ = 'WebSocket is not connected. Need to call "accept" first.'

CALLS = ("send_text", "send_json", "close", "accept", "receive_text", "receive", "receive_bytes", "receive_json")
# a second accept of a connection that the application itself did not close is misuse, and stays loud
ENDS = [(label, leaves) for label in CALLS for leaves in (False, True) if not (leaves and label == "accept")]
BY_ITSELF = {
    **dict.fromkeys(("send_text", "send_json", "close", "accept"), REFUSED_SEND),
    **dict.fromkeys(("receive_text", "receive_bytes", "receive_json"), REFUSED_READ),
}
OWN_CLOSE = BY_ITSELF | {"receive": "{'type': 'websocket.disconnect', 'code': 4001, 'reason': 'bye'}"}
CLIENT_LEFT = {
    **dict.fromkeys(("send_text", "send_json"), "ok"),
    **dict.fromkeys(("receive_text", "receive_bytes", "receive_json"), REFUSED_READ),
    "close": "ok",
    "accept": REFUSED_SEND,
    "receive": REFUSED_RECEIVE,
}
DISCONNECT = "{{'type': 'websocket.disconnect', 'code': {}, 'reason': '{}'}}"


def make_app(handler: Handler) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await handler(WebSocket(scope, receive, send))

    return app


def calls(websocket: Any) -> dict[str, Any]:
    """Give one late call of each sort."""
    return {
        "send_text": lambda: websocket.send_text("x"),
        "send_json": lambda: websocket.send_json({}),
        "close": lambda: websocket.close(4002, "again"),
        "accept": websocket.accept,
        "receive_text": websocket.receive_text,
        "receive": websocket.receive,
        "receive_bytes": websocket.receive_bytes,
        "receive_json": websocket.receive_json,
    }


async def end(websocket: Any, *, leaves: bool) -> None:
    """Accept, then close with 4001 "bye", or read that the client has left."""
    await websocket.accept()
    if not leaves:
        await websocket.close(4001, "bye")
        return
    with pytest.raises(WebSocketDisconnect):
        await websocket.receive_text()


STARLETTE = Framework(make_app, end, calls)


def tried(*, leaves: bool, **options: Any) -> tuple[dict[str, str], Visit]:
    """Make every late call once, and give what each gave, without the type where there is a text."""
    tries, done = STARLETTE.tried(leaves=leaves, **options)
    return texts(tries), done


def texts(tries: Tries) -> dict[str, str]:
    """Leave out the type of what Starlette refuses: a plain `RuntimeError` in the old ones, a class of it today."""
    return {
        label: line.removeprefix("WebSocketDisconnected: ").removeprefix("RuntimeError: ")
        for label, line in tries.outcomes.items()
    }


@pytest.mark.parametrize(("leaves", "expected"), [(False, OWN_CLOSE), (True, CLIENT_LEFT)])
def test_what_starlette_refuses_by_itself(leaves: bool, expected: dict[str, str]) -> None:
    """Without the adapter a guard hears of none of these."""
    outcomes, done = tried(leaves=leaves, adapters=())
    assert outcomes == expected
    assert done.late == ([("websocket.send", "client_disconnected")] if leaves else [])


@pytest.mark.parametrize(
    ("leaves", "code", "reason", "why"),
    [(False, 4001, "bye", "app_closed"), (True, 4321, "cya", "client_disconnected")],
)
def test_late_calls_go_down_to_the_guard(leaves: bool, code: int, reason: str, why: str) -> None:
    """Sends and closes are dropped, counted and reported; receives give the disconnect, by code and reason."""
    outcomes, done = tried(leaves=leaves)
    assert outcomes == {
        **dict.fromkeys(("send_text", "send_json", "close", "accept"), "ok"),
        **dict.fromkeys(("receive_text", "receive_bytes", "receive_json"), f"WebSocketDisconnect {code} {reason}"),
        "receive": DISCONNECT.format(code, reason),
    }
    assert done.late == [("websocket.send", why)]
    assert done.dropped == {why: 4}
    assert done.error is None
    site = done.seen.one(LateSend).site
    assert site is not None
    assert (Path(site.file).name, site.function) == ("visits.py", "__call__")  # the adapter is no application


@pytest.mark.parametrize("leaves", [False, True])
def test_uninstalled_it_refuses_again(leaves: bool) -> None:
    """Every attribute is Starlette's own again, and so is every text."""
    own = dict(vars(WebSocket))
    tried(leaves=leaves)
    assert dict(vars(WebSocket)) != own
    uninstall("starlette")
    assert dict(vars(WebSocket)) == own
    assert tried(leaves=leaves, adapters=())[0] == (CLIENT_LEFT if leaves else OWN_CLOSE)


def test_a_connection_without_a_guard_is_refused_as_ever() -> None:
    """The adapter is in place, and looks only at connections that carry a guard."""
    install("starlette")
    outcomes, _ = tried(leaves=True, guarded=False)
    assert outcomes == CLIENT_LEFT
    assert tried(leaves=False, guarded=False, but=("receive",))[0] == BY_ITSELF


@pytest.mark.parametrize(("label", "leaves"), ENDS)
def test_a_handler_that_catches_everything_is_stopped(label: str, leaves: bool) -> None:
    """G4: raised in, then cancelled, whatever it does."""
    done = STARLETTE.visit_for_ever(label, leaves=leaves)
    assert done.stopped == ["raised", "cancelled"]
    assert done.took_s is not None
    assert done.took_s < STOPPED_BY_S


@pytest.mark.parametrize("label", ["send_text", "receive_text", "receive"])
def test_a_handler_that_never_sleeps_does_not_stop_the_loop(label: str) -> None:
    """Without the adapter nothing else would run in this process any more, this test included."""
    done = STARLETTE.visit_for_ever(label, leaves=True, pause_s=None, real_time=True)
    assert done.stopped == ["raised", "cancelled"]


def test_without_the_adapter_it_is_never_stopped() -> None:
    """Starlette refuses above the guard, so that nothing shows what the handler does."""
    done = STARLETTE.visit_for_ever("send_text", leaves=False, adapters=())
    assert done.stopped == []
    assert done.took_s is None
    assert done.seen.of(HandlerOutlived)


@pytest.mark.parametrize(("label", "leaves"), ENDS)
def test_the_guards_patience_ends_in_starlettes_way(label: str, leaves: bool) -> None:
    """What is raised is `WebSocketDisconnect` with code and reason of the end, and it ends at the guard."""
    done, last = STARLETTE.visit_until_refused(label, WebSocketDisconnect, leaves=leaves, link="__context__")
    assert done.error is None
    assert done.stopped == ["raised"]
    expected = (4321, "cya") if leaves else (4001, "bye")
    if leaves and label in ("send_text", "send_json"):
        expected = (1006, "")  # Starlette's own translation of any OSError, where its state says that it is connected
    assert (last.code, last.reason) == expected


@pytest.mark.parametrize("how", ["iter_text", "iter_bytes", "iter_json"])
@pytest.mark.parametrize("leaves", [False, True])
def test_iterators_end(how: str, leaves: bool) -> None:
    """A late `async for` ends at once instead of raising."""
    rounds: list[object] = []

    async def handler(websocket: WebSocket) -> None:
        await end(websocket, leaves=leaves)
        async for message in getattr(websocket, how)():
            rounds.append(message)

    assert visit(make_app, handler, leaves=leaves).error is None
    assert rounds == []


def test_what_had_arrived_is_still_read() -> None:
    """G3 above the framework: messages from before the end are delivered before the disconnect."""
    tries = Tries()

    async def handler(websocket: WebSocket) -> None:
        await end(websocket, leaves=False)
        await tries("first", websocket.receive_text())
        await tries("second", websocket.receive_json())
        await tries("third", websocket.receive_text())

    visit(make_app, handler, texts=("one", '"two"'))
    assert tries.outcomes == {"first": "one", "second": "two", "third": "WebSocketDisconnect 4001 bye"}


def test_a_wrong_mode_stays_loud() -> None:
    """Starlette's own check of the argument comes first, late or not."""
    tries = Tries()

    async def handler(websocket: WebSocket) -> None:
        await end(websocket, leaves=False)
        await tries("late", websocket.receive_json(mode="xml"))
        await tries("binary", websocket.receive_json(mode="binary"))

    visit(make_app, handler)
    assert tries.outcomes == {
        "late": 'RuntimeError: The "mode" argument should be "text" or "binary".',
        "binary": "WebSocketDisconnect 4001 bye",
    }


def test_the_states_stay_starlettes() -> None:
    """Late calls change neither of the two states."""
    states: list[tuple[WebSocketState, WebSocketState]] = []

    async def handler(websocket: WebSocket) -> None:
        await end(websocket, leaves=False)
        for label in ("send_text", "close", "accept"):
            await calls(websocket)[label]()
            states.append((websocket.client_state, websocket.application_state))
        await websocket.receive()
        states.append((websocket.client_state, websocket.application_state))

    visit(make_app, handler)
    before = (WebSocketState.CONNECTED, WebSocketState.DISCONNECTED)
    assert states == [before] * 3 + [(WebSocketState.DISCONNECTED, WebSocketState.DISCONNECTED)]


EARLY = {
    "send_text": 'Expected ASGI message "websocket.accept", "websocket.close" or '
    "\"websocket.http.response.start\", but got 'websocket.send'",
    "receive_text": REFUSED_READ,
    "receive_bytes": REFUSED_READ,
    "receive_json": REFUSED_READ,
}


@pytest.mark.parametrize("leaves", [False, True])
def test_misuse_before_the_accept_stays_loud(leaves: bool) -> None:
    """It is not late, also when the client has left in the meantime."""
    tries = Tries()

    async def handler(websocket: WebSocket) -> None:
        if leaves:
            await websocket.receive()
            await websocket.receive()
        for label in EARLY:
            await tries(label, calls(websocket)[label]())

    visit(make_app, handler, leaves=leaves)
    assert texts(tries) == EARLY


def test_misuse_of_an_open_connection_stays_loud() -> None:
    """A second accept, a denial after the accept, an unknown message: as Starlette has them."""
    tries = Tries()

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        await tries("accept", websocket.accept())
        await tries("denial", websocket.send_denial_response(PlainTextResponse("no", 403)))

    visit(make_app, handler)
    expected = 'RuntimeError: Expected ASGI message "websocket.send" or "websocket.close", but got '
    assert tries.outcomes == {
        "accept": f"{expected}'websocket.accept'",
        "denial": f"{expected}'websocket.http.response.start'",
    }


def test_an_end_that_the_guard_does_not_know_is_starlettes() -> None:
    """Where a middleware between the two makes a disconnect up, Starlette refuses as ever."""
    tries = Tries()

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()
        await tries("receive", websocket.receive())

    visit(lambda handler: ending_below(make_app(handler)), handler, texts=("x",))
    assert texts(tries) == {"receive": REFUSED_RECEIVE}


def test_after_a_denial() -> None:
    """An application that closes before the accept and forgets to return: reported, and ended by a disconnect."""
    tries = Tries()
    states: list[WebSocketState] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.close(4403, "no")
        for label in ("receive_text", "send_text", "accept", "receive_text again", "receive"):
            await tries(label, calls(websocket)[label.removesuffix(" again")]())
        states.extend((websocket.client_state, websocket.application_state))

    done = visit(make_app, handler)
    assert tries.outcomes == {
        "receive_text": "WebSocketDisconnect 1006",
        "send_text": "ok",
        "accept": "ok",
        "receive_text again": "WebSocketDisconnect 1006",
        "receive": "{'type': 'websocket.disconnect', 'code': 1006}",
    }
    assert done.late == [("websocket.send", "denied")]
    assert states == [WebSocketState.DISCONNECTED] * 2


def test_after_a_denial_by_raw_messages() -> None:
    """The states follow what is received, from ``websocket.connect`` on."""
    tries = Tries()
    states: list[WebSocketState] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.close(4403, "no")
        for label in ("connect", "disconnect", "again"):
            await tries(label, websocket.receive())
            states.append(websocket.client_state)

    visit(make_app, handler)
    assert tries.outcomes["connect"] == "{'type': 'websocket.connect'}"
    assert tries.outcomes["disconnect"].startswith("{'type': 'websocket.disconnect'")
    assert tries.outcomes["again"] == tries.outcomes["disconnect"]
    assert states == [WebSocketState.CONNECTED, WebSocketState.DISCONNECTED, WebSocketState.DISCONNECTED]


def test_a_second_denial_response() -> None:
    """A denial response after the own close, or after another one, goes down to the guard and is dropped."""
    tries = Tries()

    async def handler(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("no", 403))
        await tries("again", websocket.send_denial_response(PlainTextResponse("no", 403)))

    done = visit(make_app, handler)
    assert tries.outcomes == {"again": "ok"}
    assert done.late == [("websocket.http.response.start", "denied")]


def test_subclasses_are_helped_too() -> None:
    """A class of the application that overrides methods and calls Starlette's gets the same."""
    tries = Tries()

    class Loud(WebSocket):
        async def receive_text(self) -> str:
            return (await super().receive_text()).upper()

        async def send(self, message: Any) -> None:
            await super().send(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        websocket = Loud(scope, receive, send)
        await end(websocket, leaves=False)
        await tries("send_text", websocket.send_text("x"))
        await tries("receive_text", websocket.receive_text())
        await tries("again", websocket.receive_text())

    visit(lambda handler: app, lambda websocket: asyncio.sleep(0), texts=("one",))
    assert tries.outcomes == {"send_text": "ok", "receive_text": "ONE", "again": "WebSocketDisconnect 4001 bye"}


def test_fastapi_is_starlette() -> None:
    """A FastAPI application behind `add_middleware` closes twice, sends late, and ends in peace."""
    app = FastAPI()
    seen = Recorder()
    app.add_middleware(WebSocketGuardMiddleware, observers=(seen,))  # type: ignore[arg-type, unused-ignore]

    @app.websocket("/ws")
    async def ws(websocket: FastAPIWebSocket) -> None:
        await websocket.accept()
        await websocket.close(4001, "bye")
        await websocket.close()
        await websocket.send_text("x")
        await websocket.receive_text()

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        await server.call(app)
        assert server.types() == ["websocket.accept", "websocket.close"]

    run(main)
    closed = seen.one(Closed)
    assert closed.books.dropped == {"app_closed": 2}
    assert closed.absorbed_type == "WebSocketDisconnect"


def test_what_is_replaced_looks_like_the_original() -> None:
    """Names, signatures and coroutine functions, for the mocks of an application's tests."""
    own = {name: inspect.signature(getattr(WebSocket, name)) for name in ("send", *CALLS)}
    install("starlette")
    for name, signature in own.items():
        assert inspect.signature(getattr(WebSocket, name)) == signature
        assert getattr(WebSocket, name).__name__ == name
        assert asyncio.iscoroutinefunction(getattr(WebSocket, name))
        assert isinstance(getattr(MagicMock(spec=WebSocket), name), AsyncMock)


def test_a_late_send_that_fails_below() -> None:
    """An `OSError` that is not the guard's is a lost connection too, of which no code is known."""
    tries = Tries()

    async def handler(websocket: WebSocket) -> None:
        await end(websocket, leaves=False)
        await tries("send", websocket.send_text("x"))

    visit(lambda handler: failing_below(make_app(handler)), handler, leaves=False)
    assert tries.outcomes == {"send": "WebSocketDisconnect 1006"}
