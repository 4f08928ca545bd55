"""The adapter of Falcon. What it says is what Falcon 4.0.0 to 4.4.0 says."""

from __future__ import annotations

import asyncio
from typing import Any

import falcon
import falcon.asgi
import falcon.asgi.app
import pytest
from falcon import WebSocketDisconnected

from asgi_ws_guard import HandlerOutlived
from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send
from asgi_ws_guard.adapters import install, uninstall

from .visits import STOPPED_BY_S, Framework, Handler, Tries, Visit, ending_below, failing_below, forever, visit

CALLS = ("send_text", "send_data", "send_media", "close", "receive_text", "receive_data", "receive_media", "accept")
REFUSED_ACCEPT = "OperationNotAllowed: accept() may not be called on a closed WebSocket connection"


def outcomes_of(*, refused: str, sends: str) -> dict[str, str]:
    """Give the outcome of each call; close and accept are never changed."""
    return {
        **dict.fromkeys(("send_text", "send_data", "send_media"), sends),
        **dict.fromkeys(("receive_text", "receive_data", "receive_media"), refused),
        "close": "ok",
        "accept": REFUSED_ACCEPT,
    }


def by_itself(code: int) -> dict[str, str]:
    """Give what Falcon answers by itself."""
    return outcomes_of(refused=f"WebSocketDisconnected {code}", sends=f"WebSocketDisconnected {code}")


class Resource:
    """A resource whose responder is the test's handler."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    async def on_websocket(self, req: falcon.asgi.Request, ws: falcon.asgi.WebSocket) -> None:
        """Run the handler."""
        await self.handler(ws)


def make_app(handler: Handler) -> ASGIApp:
    app: Any = falcon.asgi.App()
    app.add_route("/ws", Resource(handler))
    return app  # type: ignore[no-any-return]


def make_app_without_pump(handler: Handler) -> ASGIApp:
    app: Any = make_app(handler)
    app.ws_options.max_receive_queue = 0
    return app  # type: ignore[no-any-return]


def calls(websocket: Any) -> dict[str, Any]:
    """Give one late call of each sort."""
    return {
        "send_text": lambda: websocket.send_text("x"),
        "send_data": lambda: websocket.send_data(b"x"),
        "send_media": lambda: websocket.send_media({}),
        "close": lambda: websocket.close(4002, "again"),
        "receive_text": websocket.receive_text,
        "receive_data": websocket.receive_data,
        "receive_media": websocket.receive_media,
        "accept": websocket.accept,
    }


async def end(websocket: Any, *, leaves: bool) -> None:
    """Accept, then close with 4001 "bye", or read that the client has left."""
    await websocket.accept()
    if not leaves:
        await websocket.close(4001, "bye")
        return
    with pytest.raises(WebSocketDisconnected):
        await websocket.receive_text()


FALCON = Framework(make_app, end, calls)
WITHOUT_PUMP = Framework(make_app_without_pump, end, calls)
BOTH = pytest.mark.parametrize("falcon_app", [FALCON, WITHOUT_PUMP], ids=["make_app", "make_app_without_pump"])


def tried(*, leaves: bool, falcon_app: Framework = FALCON, **options: Any) -> tuple[dict[str, str], Visit]:
    """Make every late call once, and give what each gave."""
    tries, done = falcon_app.tried(leaves=leaves, **options)
    return tries.outcomes, done


@BOTH
@pytest.mark.parametrize(("leaves", "code"), [(False, 4001), (True, 4321)])
def test_what_falcon_refuses_by_itself(falcon_app: Framework, leaves: bool, code: int) -> None:
    """A guard hears of nothing."""
    outcomes, done = tried(leaves=leaves, falcon_app=falcon_app, adapters=())
    assert outcomes == by_itself(code)
    assert done.late == []


@BOTH
@pytest.mark.parametrize(("leaves", "code", "why"), [(False, 4001, "app_closed"), (True, 4321, "client_disconnected")])
def test_late_calls_go_down_to_the_guard(falcon_app: Framework, leaves: bool, code: int, why: str) -> None:
    """Sends are dropped, counted and reported; receives raise as ever, with the code of the end."""
    outcomes, done = tried(leaves=leaves, falcon_app=falcon_app)
    assert outcomes == outcomes_of(refused=f"WebSocketDisconnected {code}", sends="ok")
    assert done.late == [("websocket.send", why)]
    assert done.dropped == {why: 3}


def test_falcons_own_last_close_is_no_late_message() -> None:
    """Falcon closes behind every handler; that must not be reported of each connection that ended."""

    async def handler(websocket: Any) -> None:
        await end(websocket, leaves=True)

    assert visit(make_app, handler, leaves=True).late == []


@pytest.mark.parametrize(("leaves", "code"), [(False, 4001), (True, 4321)])
def test_uninstalled_it_refuses_again(leaves: bool, code: int) -> None:
    """Every name is Falcon's own again, and so is every answer."""
    own = falcon.asgi.WebSocket
    before = dict(vars(own))
    tried(leaves=leaves)
    assert vars(falcon.asgi.app)["WebSocket"] is not own
    uninstall("falcon")
    assert vars(falcon.asgi.app)["WebSocket"] is own
    assert dict(vars(own)) == before
    assert tried(leaves=leaves, adapters=())[0] == by_itself(code)


def test_a_connection_without_a_guard_is_refused_as_ever() -> None:
    """The adapter is in place, and such a connection gets an object of Falcon's own class."""
    install("falcon")
    kinds: list[type] = []
    tries = Tries()

    async def handler(websocket: Any) -> None:
        kinds.append(type(websocket))
        await end(websocket, leaves=True)
        for label, call in calls(websocket).items():
            await tries(label, call())

    visit(make_app, handler, leaves=True, guarded=False)
    assert tries.outcomes == by_itself(4321)
    assert kinds == [falcon.asgi.WebSocket]


def test_a_guarded_object_is_a_falcon_websocket() -> None:
    """By `isinstance`, by name, and by its three properties."""
    seen: list[Any] = []

    async def handler(websocket: Any) -> None:
        assert isinstance(websocket, falcon.asgi.WebSocket)
        assert repr(type(websocket)) == repr(falcon.asgi.WebSocket)
        assert type(websocket).__doc__ == falcon.asgi.WebSocket.__doc__
        assert not hasattr(websocket, "__dict__")
        seen.append((websocket.unaccepted, websocket.ready, websocket.closed))
        await end(websocket, leaves=False)
        await websocket.send_text("x")
        seen.append((websocket.unaccepted, websocket.ready, websocket.closed))

    visit(make_app, handler)
    assert seen == [(True, False, False), (False, False, True)]


@BOTH
@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("label", ["send_text", "receive_text"])
def test_a_handler_that_catches_everything_is_stopped(falcon_app: Framework, label: str, leaves: bool) -> None:
    """G4: raised in, then cancelled, whatever it does."""
    done = falcon_app.visit_for_ever(label, leaves=leaves)
    assert done.stopped == ["raised", "cancelled"]
    assert done.took_s is not None
    assert done.took_s < STOPPED_BY_S


def test_a_handler_that_only_pushes_is_stopped_behind_the_pump() -> None:
    """The pump has read the disconnect, the handler never did, and catches what Falcon raises."""

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        await forever(lambda: websocket.send_text("x"))

    done = visit(make_app, handler, leaves=True)
    assert done.stopped == ["raised", "cancelled"]
    uninstall()
    zombie = visit(make_app, handler, leaves=True, adapters=())
    assert zombie.stopped == []


@pytest.mark.parametrize("label", ["send_text", "receive_text"])
def test_a_handler_that_never_sleeps_does_not_stop_the_loop(label: str) -> None:
    """Without the adapter nothing else would run in this process any more, this test included."""
    done = FALCON.visit_for_ever(label, leaves=True, pause_s=None, real_time=True)
    assert done.stopped == ["raised", "cancelled"]


@pytest.mark.parametrize("leaves", [False, True])
def test_without_the_adapter_it_is_never_stopped(leaves: bool) -> None:
    """Falcon refuses above the guard, so that nothing shows what the handler does."""
    done = FALCON.visit_for_ever("send_text", leaves=leaves, adapters=())
    assert done.stopped == []
    assert done.took_s is None
    assert done.seen.of(HandlerOutlived)


@pytest.mark.parametrize("label", ["send_text", "receive_text"])
def test_the_guards_patience_ends_in_falcons_way(label: str) -> None:
    """What is raised where Falcon would refuse is its own exception, with the code of the end."""
    done, last = FALCON.visit_until_refused(label, WebSocketDisconnected)
    assert done.error is None
    assert done.stopped == ["raised"]
    assert last.code == 4321


def test_what_had_arrived_is_read_after_a_late_send() -> None:
    """Falcon by itself refuses every receive after its first refused send."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        await asyncio.sleep(1)  # the pump reads on
        await tries("send", websocket.send_text("x"))
        for label in ("one", "two", "end"):
            await tries(label, websocket.receive_text())

    visit(make_app, handler, leaves=True, texts=("1", "2"))
    assert tries.outcomes == {"send": "ok", "one": "1", "two": "2", "end": "WebSocketDisconnected 4321"}


EARLY = "OperationNotAllowed: WebSocket connection has not yet been accepted"


def test_misuse_stays_loud() -> None:
    """Before the accept, of a wrong type, a second accept: as Falcon has them."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        for label in ("send_text", "receive_text"):
            await tries(label, calls(websocket)[label]())
        await websocket.accept()
        await tries("accept", websocket.accept())
        await tries("number", websocket.send_text(5))
        await websocket.close()
        await tries("late number", websocket.send_text(5))

    visit(make_app, handler)
    assert tries.outcomes == {
        "send_text": EARLY,
        "receive_text": EARLY,
        "accept": "OperationNotAllowed: accept() may only be called once on an open WebSocket connection",
        "number": "TypeError: payload must be a string",
        "late number": "TypeError: payload must be a string",
    }


def test_an_end_that_the_guard_does_not_know_is_falcons() -> None:
    """Where a middleware between the two makes a disconnect up, Falcon refuses as ever."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await end(websocket, leaves=True)
        for label, call in calls(websocket).items():
            await tries(label, call())

    visit(lambda handler: ending_below(make_app_without_pump(handler), 4000), handler, texts=("x",))
    refused = by_itself(4000)
    assert {label: tries.outcomes[label] for label in ("send_text", "receive_text")} == {
        label: refused[label] for label in ("send_text", "receive_text")
    }


def test_a_late_send_that_fails_below() -> None:
    """An `OSError` that is not the guard's is a lost connection too, of which no code is known."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        await end(websocket, leaves=True)
        await tries("send", websocket.send_text("x"))

    visit(lambda handler: failing_below(make_app(handler)), handler, leaves=True)
    assert tries.outcomes == {"send": "WebSocketDisconnected 1000"}


def test_a_send_that_fails_below_before_the_end_is_falcons() -> None:
    """Falcon makes its own exception of it and counts as closed, although the guard's connection is open."""
    tries = Tries()
    closed: list[bool] = []

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        for label in ("first", "second"):
            await tries(label, websocket.send_text("x"))
            closed.append(websocket.closed)

    app, attempts = make_app(handler), []

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        async def fail(message: Message) -> None:
            if message["type"] == "websocket.send":
                attempts.append(message)
                raise OSError("not the guard's")
            await send(message)

        await app(scope, receive, fail)

    visit(lambda handler: between, handler)
    assert tries.outcomes == {"first": "WebSocketDisconnected 1000", "second": "WebSocketDisconnected 1000"}
    assert closed == [True, True]
    assert len(attempts) == 1


def test_misuse_stays_loud_when_somebody_else_denied() -> None:
    """A middleware between the two closed the connection: Falcon, which accepted nothing, says so."""
    tries = Tries()

    async def handler(websocket: Any) -> None:
        for label in ("send_text", "receive_text"):
            await tries(label, calls(websocket)[label]())

    app = make_app(handler)

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4403})
        await app(scope, receive, send)

    visit(lambda handler: between, handler)
    assert tries.outcomes == {"send_text": EARLY, "receive_text": EARLY}
