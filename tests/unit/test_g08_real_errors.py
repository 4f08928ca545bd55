"""G8: real errors stay; only disconnect errors, and only after the end, stop at the guard."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import weakref
from collections.abc import Callable

import pytest
from starlette import websockets
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_ws_guard import Closed, ConnectionClosed, Initiator, WebSocketGuardMiddleware
from asgi_ws_guard._edge import is_disconnect, without_disconnects
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}
TEXT: Message = {"type": "websocket.send", "text": "x"}


later_starlette = pytest.mark.skipif(
    not hasattr(websockets, "WebSocketDisconnected"), reason="Starlette raises a RuntimeError of no class of its own"
)


def _foreign(module: str, name: str, base: type[Exception] = Exception) -> Exception:
    kind: type[Exception] = type(name, (base,), {"__module__": module, "__qualname__": name})
    return kind("gone")


CLOSED = ConnectionClosed(1001, "", Initiator.CLIENT)
DISCONNECTS: list[BaseException] = [
    CLOSED,
    WebSocketDisconnect(1001),
    _foreign("uvicorn.protocols.utils", "ClientDisconnected", OSError),
    _foreign("autobahn.exception", "Disconnected", RuntimeError),
    ExceptionGroup("group", [CLOSED]),
    ExceptionGroup("group", [ExceptionGroup("inner", [CLOSED, WebSocketDisconnect(1000)]), CLOSED]),
]
REAL: list[BaseException] = [
    ValueError("bug"),
    RuntimeError("bug"),
    OSError(28, "No space left on device"),
    FileNotFoundError("x"),
    ConnectionRefusedError("database"),
    asyncio.TimeoutError(),
    KeyboardInterrupt(),
    SystemExit(1),
    asyncio.CancelledError(),
]


def _leave_with(error: BaseException, *, ended_by: str) -> tuple[BaseException | None, Recorder]:
    """Let an exception leave a handler; give what left the guard."""

    async def main() -> tuple[BaseException | None, Recorder]:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if ended_by == "client":
                server.disconnect(1001)
                await receive()
            elif ended_by == "application":
                await send(CLOSE)
            raise error

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,))
        left: BaseException | None = None
        try:
            await guard(server.scope, server.receive, server.send)
        except BaseException as caught:
            left = caught
        return left, seen

    return run(main)


@pytest.mark.parametrize("error", DISCONNECTS, ids=repr)
@pytest.mark.parametrize("ended_by", ["client", "application"])
def test_a_disconnect_error_after_the_end_stops_at_the_guard(error: BaseException, ended_by: str) -> None:
    """It says nothing but what the end says already; servers would log a traceback for it."""
    left, seen = _leave_with(error, ended_by=ended_by)
    assert left is None
    assert seen.one(Closed).error_type is None
    assert seen.one(Closed).absorbed_type == type(error).__qualname__


@pytest.mark.parametrize("error", DISCONNECTS, ids=repr)
def test_a_disconnect_error_before_the_end_is_real(error: BaseException) -> None:
    """Of a connection that is open nobody can say that it is gone: it belongs to another one, and propagates."""
    left, seen = _leave_with(error, ended_by="nobody")
    assert left is error
    assert seen.one(Closed).code == 1011


@pytest.mark.parametrize("error", REAL, ids=repr)
@pytest.mark.parametrize("ended_by", ["client", "application", "nobody"])
def test_a_real_error_propagates_as_it_is(error: BaseException, ended_by: str) -> None:
    """The very object, before and after the end; cancellation and exit always."""
    left, seen = _leave_with(error, ended_by=ended_by)
    assert left is error
    assert seen.one(Closed).error_type == type(error).__qualname__


@later_starlette
def test_a_refusal_by_starlette_is_absorbed_only_when_the_peer_left() -> None:
    """Sending on an object that the application closed itself is its mistake; after the client left it is none."""
    error = websockets.WebSocketDisconnected("Cannot call send")
    assert _leave_with(error, ended_by="client")[0] is None
    assert _leave_with(error, ended_by="application")[0] is error


@later_starlette
def test_a_refusal_by_starlette_is_known_inside_of_a_group() -> None:
    """There too it counts only when the peer left."""
    assert is_disconnect(websockets.WebSocketDisconnected("x"))
    assert not is_disconnect(ExceptionGroup("outer", [websockets.WebSocketDisconnected("x")]), peer_left=False)


def test_a_group_with_a_real_error_keeps_it() -> None:
    """What leaves is a group of the real errors alone, with its message, cause and notes."""
    real, cause = ValueError("bug"), KeyError("cause")
    error = ExceptionGroup("outer", [CLOSED, ExceptionGroup("inner", [WebSocketDisconnect(1000), real])])
    error.__cause__ = cause
    left, seen = _leave_with(error, ended_by="client")
    assert isinstance(left, ExceptionGroup)
    assert left.message == "outer"
    assert left.__cause__ is cause
    inner = left.exceptions[0]
    assert len(left.exceptions) == 1
    assert isinstance(inner, ExceptionGroup)
    assert inner.exceptions == (real,)
    assert seen.one(Closed).error_type == "ExceptionGroup"


def test_a_group_of_real_errors_is_not_rebuilt() -> None:
    """A group without any disconnect error is the same object outside."""
    error = ExceptionGroup("outer", [ValueError("a"), KeyError("b")])
    assert _leave_with(error, ended_by="client")[0] is error


def test_a_group_with_a_cancellation_propagates() -> None:
    """A cancellation inside a group is never absorbed."""
    error = BaseExceptionGroup("outer", [CLOSED, asyncio.CancelledError()])
    left = _leave_with(error, ended_by="client")[0]
    assert isinstance(left, BaseExceptionGroup)
    assert [type(one) for one in left.exceptions] == [asyncio.CancelledError]


def test_nothing_and_everything_else_at_the_edge() -> None:
    """No exception is no disconnect; an `OSError` outside of a call to the server is none either."""
    assert not is_disconnect(None)
    assert is_disconnect(ExceptionGroup("outer", [ExceptionGroup("inner", [CLOSED]), WebSocketDisconnect(1000)]))
    assert not is_disconnect(ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError()]), CLOSED]))
    assert not is_disconnect(ConnectionResetError())
    real = ValueError()
    assert without_disconnects(real, peer_left=True) is real


def test_the_plain_example_of_fastapi_leaves_nothing() -> None:
    """`while True: await websocket.receive_text()`: a disconnect ends it, and nothing reaches the server's log."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            socket = WebSocket(scope, receive, send)
            await socket.accept()
            while True:
                await socket.send_text(f"Message text was: {await socket.receive_text()}")

        server.connect()
        server.text("a", "b")
        server.disconnect(1001)
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        assert server.types() == ["websocket.accept", "websocket.send", "websocket.send"]

    run(main)


def test_a_task_group_of_reader_and_pusher_ends_in_peace() -> None:
    """A handler with a `TaskGroup` whose tasks end by disconnect errors leaves nothing; with a real one, that."""
    if sys.version_info < (3, 11):
        pytest.skip("asyncio.TaskGroup is new in 3.11")
    else:

        async def serve(fail: Callable[[], None]) -> BaseException | None:
            server = ScriptedServer()

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                socket = WebSocket(scope, receive, send)
                await socket.accept()

                async def read() -> None:
                    try:
                        while True:
                            await socket.receive_text()
                    finally:
                        fail()

                async def push() -> None:
                    while True:
                        await socket.send_text("tick")
                        await asyncio.sleep(1)

                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(read())
                    tasks.create_task(push())

            server.connect()
            asyncio.get_running_loop().call_later(3.5, server.disconnect)
            task = server.call(WebSocketGuardMiddleware(app, observers=()))
            await asyncio.wait({task})
            return task.exception()

        async def main() -> None:
            def bug() -> None:
                raise ValueError("real")

            assert await serve(lambda: None) is None
            left = await serve(bug)
            assert isinstance(left, BaseExceptionGroup)
            assert [type(one) for one in left.exceptions] == [ValueError]

        run(main)


def test_an_exception_of_a_dead_peers_handler_does_not_hide_a_later_one() -> None:
    """Two connections of one guard: what is absorbed for one is not absorbed for another that is open."""

    async def main() -> None:
        kept: list[Send] = []
        dead, living = ScriptedServer(), ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if scope["path"] == "/dead":
                kept.append(send)
                return
            await kept[0](TEXT)

        guard = WebSocketGuardMiddleware(app, observers=(), late_sends="raise")
        dead.scope["path"] = "/dead"
        dead.connect()
        await dead.call(guard)
        living.connect()
        with pytest.raises(ConnectionClosed):
            await living.call(guard)
        assert living.sent[-1]["code"] == 1011
        with contextlib.suppress(ConnectionClosed):
            await kept[0](TEXT)

    run(main)


class _BugError(Exception):
    """A real error, of a class that can be referred to weakly."""


@pytest.mark.parametrize("is_real", [False, True])
def test_only_what_ended_at_the_guard_is_told_as_absorbed_and_it_is_not_kept(is_real: bool) -> None:
    """The terminal event names the one or the other; who keeps a finished connection does not hold the exception."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()
        kept, raised = list[Send](), list[weakref.ref[BaseException]]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            kept.append(send)
            await receive()
            error = _BugError() if is_real else ConnectionClosed(1001, "", Initiator.CLIENT)
            raised.append(weakref.ref(error))
            raise error

        server.connect()
        server.disconnect(1001)
        task = server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        await asyncio.wait({task})
        closed = seen.one(Closed)
        left = task.exception()
        assert closed.error_type == ("_BugError" if is_real else None)
        assert closed.absorbed_type == (None if is_real else "ConnectionClosed")
        assert (left is None) != is_real
        del task, left
        await asyncio.sleep(0)
        gc.collect()
        assert raised[0]() is None

    run(main)
