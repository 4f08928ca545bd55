"""G6: a guaranteed end: 1000 for a handler that returns, 1011 for one that raises, the server's own before accept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_ws_guard import Abandoned, Closed, CloseStatus, Ended, Initiator, Rejected, WebSocketGuardMiddleware
from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}
TEXT: Message = {"type": "websocket.send", "text": "x"}


class _Bug(Exception):
    """An application's own error."""


def _serve(
    app: ASGIApp, *, seen: Recorder | None = None, **options: Any
) -> tuple[ScriptedServer, BaseException | None]:
    """Run an application; give the server and what left the guard."""

    async def main() -> tuple[ScriptedServer, BaseException | None]:
        server = ScriptedServer()
        server.connect()
        task = server.call(WebSocketGuardMiddleware(app, observers=() if seen is None else (seen,), **options))
        await asyncio.wait({task})
        return server, None if task.cancelled() else task.exception()

    return run(main)


async def _accept_and_return(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)


async def _accept_and_raise(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    raise _Bug("text")


@pytest.mark.parametrize(("option", "code"), [({}, 1000), ({"close_on_return": 4000}, 4000)])
def test_a_handler_that_returns_closes(option: dict[str, Any], code: int) -> None:
    """A handler that returns without closing closes with 1000, or with the code that was asked for."""
    seen = Recorder()
    server, error = _serve(_accept_and_return, seen=seen, **option)
    assert error is None
    assert server.sent == [ACCEPT, {"type": "websocket.close", "code": code, "reason": ""}]
    end = seen.one(Closed)
    assert (end.code, end.status, end.initiator) == (code, CloseStatus.APP_CLOSE, Initiator.APPLICATION)
    assert end.books.attempted == 1  # the guard's own close is no message of the application


@pytest.mark.parametrize(("option", "code"), [({}, 1011), ({"close_on_error": 4500}, 4500)])
def test_a_handler_that_raises_closes_and_its_error_goes_on(option: dict[str, Any], code: int) -> None:
    """A handler that raises after the accept closes with 1011, then the very exception leaves the guard."""
    seen = Recorder()
    server, error = _serve(_accept_and_raise, seen=seen, **option)
    assert isinstance(error, _Bug)
    assert server.sent == [ACCEPT, {"type": "websocket.close", "code": code, "reason": ""}]
    end = seen.one(Closed)
    assert (end.code, end.status, end.error_type) == (code, CloseStatus.APP_ERROR, "_Bug")


def test_none_leaves_the_close_to_the_server() -> None:
    """With both options None the guard closes nothing; the books and the terminal event are the same."""
    for app in (_accept_and_return, _accept_and_raise):
        seen = Recorder()
        server, error = _serve(app, seen=seen, close_on_return=None, close_on_error=None)
        assert server.sent == [ACCEPT]
        assert isinstance(error, _Bug) == (app is _accept_and_raise)
        assert seen.one(Closed).code is None


@pytest.mark.parametrize("raises", [False, True])
def test_before_the_accept_the_answer_is_the_servers(raises: bool) -> None:
    """A handler that ends during the handshake sends nothing; servers answer it with an error of their own."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if raises:
            raise _Bug

    seen = Recorder()
    server, error = _serve(app, seen=seen)
    assert server.sent == []
    assert isinstance(error, _Bug) == raises
    end = seen.one(Rejected)
    assert end.status is (CloseStatus.APP_ERROR if raises else CloseStatus.DENIED)
    assert end.response_status is None


def test_an_accept_that_the_server_refused_is_left_to_the_server() -> None:
    """To a server that took no accept a close means 403 (uvicorn 0.54), which hides the application's error."""

    async def main() -> None:
        server, refused = ScriptedServer(), AttributeError("a header that is text")
        server.connect()
        server.fail_sends(lambda message: refused if message["type"] == "websocket.accept" else None)
        task = server.call(WebSocketGuardMiddleware(_accept_and_return, observers=()))
        await asyncio.wait({task})
        assert server.sent == []
        assert task.exception() is refused

    run(main)


def test_a_denial_that_was_begun_is_left_to_the_server() -> None:
    """A handler that returns between the start and the body of its denial response sends nothing more."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})

    seen = Recorder()
    server, _ = _serve(app, seen=seen)
    assert server.types() == ["websocket.http.response.start"]
    assert seen.one(Rejected).response_status == 401


@pytest.mark.parametrize("raises", [False, True])
def test_a_handler_that_closed_is_closed_once(raises: bool) -> None:
    """Who closed by itself is not closed again, whatever it does then; its real error goes on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send(CLOSE)
        if raises:
            raise _Bug

    seen = Recorder()
    server, error = _serve(app, seen=seen)
    assert server.sent == [ACCEPT, CLOSE]
    assert isinstance(error, _Bug) == raises
    assert seen.one(Closed).code == 4001


@pytest.mark.parametrize("after_accept", [False, True])
def test_a_client_that_left_unnoticed_is_not_closed(after_accept: bool) -> None:
    """A disconnect that waits unread when the handler is done is the end: code and initiator are the client's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if after_accept:
            await send(ACCEPT)

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()
        server.connect()
        if after_accept:
            server.text("unread")
        server.disconnect(1001, "left")
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        assert "websocket.close" not in server.types()
        end = seen.one(Closed if after_accept else Abandoned)
        assert (end.code, end.reason, end.initiator) == (1001, "left", Initiator.CLIENT)
        assert seen.names().count("Ended") == 1

    run(main)


def test_a_cancelled_handler_does_not_close() -> None:
    """A server that cancels a handler (shutdown) says goodbye itself; the cancellation propagates."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await asyncio.sleep(60)

        server.connect()
        task = server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.sent == [ACCEPT]
        end = seen.one(Closed)
        assert (end.status, end.error_type) == (CloseStatus.SHUTDOWN, "CancelledError")

    run(main)


def test_an_error_at_the_last_close_is_not_hidden_and_hides_nothing() -> None:
    """A real error of the server at the guard's close is raised after a return, and never replaces the handler's."""
    bug = RuntimeError("server bug")

    def failing(app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            async def broken_send(message: Message) -> None:
                if message["type"] == "websocket.close":
                    raise bug
                await send(message)

            await WebSocketGuardMiddleware(app, observers=())(scope, receive, broken_send)

        return wrapped

    async def main() -> None:
        for app in (_accept_and_return, _accept_and_raise):
            server = ScriptedServer()
            server.connect()
            task = server.call(failing(app))
            await asyncio.wait({task})
            if app is _accept_and_return:
                assert task.exception() is bug
            else:
                assert isinstance(task.exception(), _Bug)

    run(main)


def test_a_lost_peer_at_the_last_close_is_no_error() -> None:
    """A peer that vanished just before the guard closes leaves no exception."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await _accept_and_return(scope, receive, send)
        scope["server_side"].fail_sends(ConnectionResetError())

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()
        server.scope["server_side"] = server
        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        assert server.sent == [ACCEPT]
        assert len(seen.of(Ended)) == 1

    run(main)


def test_the_terminal_event_comes_last_and_once() -> None:
    """Every way through a connection tells `Opened` first and exactly one terminal event last."""
    for app in (_accept_and_return, _accept_and_raise):
        seen = Recorder()
        _serve(app, seen=seen)
        assert seen.names() == ["Opened", "Accepted", "Ended", "Closed"]
