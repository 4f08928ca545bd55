"""G14: any event loop: trio as far as it goes, Starlette's test client on both, uvloop in full."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_ws_guard import (
    Allow,
    Close,
    Closed,
    ConnectionClosed,
    ConnectionHandle,
    Deny,
    HandlerStopped,
    Handshake,
    Identity,
    Initiator,
    LateSend,
    ProtocolError,
    WebSocketGuardMiddleware,
    current_connection,
)
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}
TEXT: Message = {"type": "websocket.send", "text": "x"}


class _TrioServer:
    """A server of a few lines on trio: two memory channels."""

    def __init__(self) -> None:
        self.deliver, self._arriving = trio.open_memory_channel[Message](100)
        self.sent: list[Message] = []
        self.error: Exception | None = None
        self.reads = 0
        self.deliver.send_nowait({"type": "websocket.connect"})

    async def receive(self) -> Message:
        self.reads += 1
        return await self._arriving.receive()

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.sent.append(message)

    def disconnect(self, code: int = 1001, reason: str = "left") -> None:
        self.deliver.send_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    def scope(self) -> dict[str, Any]:
        return {"type": "websocket", "path": "/ws"}


Handler = Callable[[_TrioServer, Receive, Send], Awaitable[None]]


def _serve_on_trio(handler: Handler, *, seen: Recorder | None = None, **options: Any) -> _TrioServer:
    """Run a handler that finds its connection accepted, on trio, with a clock that jumps."""

    async def main() -> _TrioServer:
        server = _TrioServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await handler(server, receive, send)

        guard = WebSocketGuardMiddleware(app, observers=() if seen is None else (seen,), **options)
        with trio.fail_after(600):
            await guard(server.scope(), server.receive, server.send)
        assert guard.connections == 0
        assert guard.totals().attempted >= 1
        return server

    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(main, clock=clock)


def test_on_trio_a_late_send_is_dropped_and_the_disconnect_is_sticky() -> None:
    """G1 and G3 hold on trio: dropped, counted, reported, and `receive` neither hangs nor changes its word."""
    seen = Recorder()

    async def handler(server: _TrioServer, receive: Receive, send: Send) -> None:
        server.disconnect(4321, "cya")
        for _ in range(3):
            assert await receive() == {"type": "websocket.disconnect", "code": 4321, "reason": "cya"}
        for _ in range(30):
            assert await send(TEXT) is None  # type: ignore[func-returns-value]

    server = _serve_on_trio(handler, seen=seen)
    assert server.sent == [ACCEPT]
    assert seen.one(LateSend).site is not None
    assert seen.one(Closed).books.dropped == {"client_disconnected": 30}


def test_on_trio_a_tight_loop_of_late_sends_starves_nobody() -> None:
    """Every tenth late send lets the loop go round also where nothing else in the handler does, the others do not."""

    async def handler(server: _TrioServer, receive: Receive, send: Send) -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        server.disconnect()
        await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(1000):
                await send(TEXT)
            assert 50 <= turns <= 200
            nursery.cancel_scope.cancel()

    _serve_on_trio(handler)


def test_on_trio_the_own_handler_is_raised_in_after_the_linger_time() -> None:
    """G4 without a timer: `ConnectionClosed` from a late send after `linger_s`, absorbed at the edge."""
    seen = Recorder()

    async def handler(server: _TrioServer, receive: Receive, send: Send) -> None:
        server.disconnect()
        await receive()
        started = trio.current_time()
        try:
            while True:
                await send(TEXT)
                await trio.sleep(1)
        except ConnectionClosed:
            assert trio.current_time() - started == pytest.approx(10)
            raise

    _serve_on_trio(handler, seen=seen, linger_s=10, cancel_after_s=20, send_timeout_s=1)
    assert [stopped.how for stopped in seen.of(HandlerStopped)] == ["raised"]


def test_on_trio_somebody_else_is_dropped_for_ever() -> None:
    """A child or any other trio task that sends late is never raised in: the guard cannot know what it is."""

    async def handler(server: _TrioServer, receive: Receive, send: Send) -> None:
        async def push() -> None:
            for _ in range(100):
                await send(TEXT)
                await trio.sleep(1)

        server.disconnect()
        await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)

    _serve_on_trio(handler, linger_s=1)


def test_on_trio_a_spinning_receive_is_stopped() -> None:
    """A handler that spins on the disconnect ends with `ConnectionClosed` when the time is over."""

    async def handler(server: _TrioServer, receive: Receive, send: Send) -> None:
        server.disconnect()
        while True:
            await receive()
            await trio.sleep(0.5)

    _serve_on_trio(handler, linger_s=3)


def test_on_trio_a_lost_peer_is_an_end() -> None:
    """G2: an `OSError` of the server ends the connection, any other error goes on."""

    async def handler(server: _TrioServer, receive: Receive, send: Send) -> None:
        bug = server.error = RuntimeError("bug")
        with pytest.raises(RuntimeError) as caught:
            await send(TEXT)
        assert caught.value is bug
        server.error = OSError()
        reads = server.reads
        await send(TEXT)
        assert server.reads == reads  # a coroutine of trio must not be run by hand
        assert current_connection().initiator is Initiator.TRANSPORT
        assert (await receive())["code"] == 1006

    _serve_on_trio(handler)


@pytest.mark.parametrize("raises", [False, True])
def test_on_trio_the_end_is_guaranteed(raises: bool) -> None:
    """G6: 1000 after a return, 1011 after an exception, which goes on."""

    async def handler(server: _TrioServer, receive: Receive, send: Send) -> None:
        servers.append(server)
        if raises:
            raise ValueError("bug")

    servers: list[_TrioServer] = []
    if raises:
        with pytest.raises(ValueError, match="bug"):
            _serve_on_trio(handler)
    else:
        _serve_on_trio(handler)
    assert servers[0].sent[-1]["code"] == (1011 if raises else 1000)


def test_on_trio_misuse_is_loud() -> None:
    """G7: a `ProtocolError` on trio too."""

    async def handler(server: _TrioServer, receive: Receive, send: Send) -> None:
        with pytest.raises(ProtocolError):
            await send(ACCEPT)

    _serve_on_trio(handler)


def test_on_trio_own_close_wakes_and_waits() -> None:
    """After its own close the application receives its own code at once; `wait_closed` returns."""

    async def handler(server: _TrioServer, receive: Receive, send: Send) -> None:
        handle = current_connection()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.wait_closed)
            await trio.testing.wait_all_tasks_blocked()
            await send(CLOSE)
        await handle.wait_closed()
        assert (await receive()) == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}

    server = _serve_on_trio(handler)
    assert server.sent == [ACCEPT, CLOSE]


def test_on_trio_a_parked_reader_delays_no_disconnect() -> None:
    """Nothing can wake a task that waits in the server's `receive`, and nobody else waits for it."""

    async def handler(server: _TrioServer, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await send(CLOSE)
            started = trio.current_time()
            assert (await receive())["code"] == 4001
            assert trio.current_time() == started
            nursery.cancel_scope.cancel()

    _serve_on_trio(handler)


def test_on_trio_two_receivers_lose_nothing() -> None:
    """Two trio tasks that receive at once share the messages; a cancelled one hands over."""

    async def handler(server: _TrioServer, receive: Receive, send: Send) -> None:
        texts: list[str] = []

        async def read() -> None:
            while (message := await receive())["type"] == "websocket.receive":
                texts.append(message["text"])

        async def read_for_a_while() -> None:
            with trio.move_on_after(1):
                await read()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_for_a_while)
            nursery.start_soon(read)
            nursery.start_soon(read)
            for number in range(20):
                await trio.sleep(0.11)
                server.deliver.send_nowait({"type": "websocket.receive", "text": str(number)})
            server.disconnect()
        assert texts == [str(number) for number in range(20)]

    _serve_on_trio(handler)


def test_on_trio_a_cancelled_handler_is_left_to_the_server() -> None:
    """Trio's own cancellation propagates through the guard untouched."""

    async def main() -> None:
        server, seen = _TrioServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await receive()

        guard = WebSocketGuardMiddleware(app, observers=(seen,))
        with trio.move_on_after(5) as scope:
            await guard(server.scope(), server.receive, server.send)
        assert scope.cancelled_caught
        assert server.sent == [ACCEPT]
        assert seen.one(Closed).error_type == "Cancelled"

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_on_trio_a_long_run_of_sends_starves_nobody() -> None:
    """Thousands of sends that the server takes at once let the loop go round."""

    async def main() -> None:
        server, turns = _TrioServer(), 0

        async def send_at_once(message: Message) -> None:
            server.sent.append(message)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            for _ in range(5000):
                await send(TEXT)
            assert turns >= 3

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            guard = WebSocketGuardMiddleware(app, observers=())
            await guard(server.scope(), server.receive, send_at_once)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_neither_loop_is_an_error_of_python() -> None:
    """A guard driven by hand, outside of any event loop, raises what asyncio raises."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None: ...

    coroutine = WebSocketGuardMiddleware(app, observers=())({"type": "websocket", "path": "/"}, receive, send)
    with pytest.raises(RuntimeError):
        coroutine.send(None)


# Starlette's test client, on both loops

Backend = Literal["asyncio", "trio"]


def _starlette(endpoint: Callable[[WebSocket], Awaitable[None]], seen: Recorder, **options: Any) -> Starlette:
    return Starlette(
        routes=[WebSocketRoute("/ws", endpoint)],
        middleware=[Middleware(WebSocketGuardMiddleware, observers=(seen,), **options)],
    )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_starlettes_test_client_echoes(backend: Backend) -> None:
    """An ordinary endpoint behind the guard, driven by Starlette's own test client."""
    seen = Recorder()

    async def echo(socket: WebSocket) -> None:
        assert isinstance(socket.scope["asgi_ws_guard.connection"], ConnectionHandle)
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text())

    with TestClient(_starlette(echo, seen), backend=backend) as client, client.websocket_connect("/ws") as socket:
        for number in range(20):
            socket.send_text(str(number))
            assert socket.receive_text() == str(number)
    assert seen.one(Closed).books.sent == 20
    assert seen.one(Closed).initiator is Initiator.CLIENT


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_starlettes_test_client_sees_the_guaranteed_end(backend: Backend) -> None:
    """A return closes with 1000 and an exception with 1011, which the client then raises."""

    async def leave(socket: WebSocket) -> None:
        await socket.accept()
        if "raise" in socket.query_params:
            raise ValueError("bug")

    with TestClient(_starlette(leave, Recorder()), backend=backend) as client:
        with client.websocket_connect("/ws") as socket:
            with pytest.raises(WebSocketDisconnect) as caught:
                socket.receive_text()
            assert caught.value.code == 1000
        with pytest.raises(ValueError, match="bug"):
            _receive_the_error(client)


def _receive_the_error(client: TestClient) -> None:
    with client.websocket_connect("/ws?raise=1") as socket:
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_text()
        assert caught.value.code == 1011


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_starlettes_test_client_sees_a_denial_of_a_policy(backend: Backend) -> None:
    """A policy that denies answers with its status and body; it may be asynchronous."""

    class Nobody:
        async def admit(self, handshake: Handshake) -> Allow | Deny:
            return Deny(status=401, body=b"who are you?")

    async def never(socket: WebSocket) -> None:
        raise AssertionError

    with TestClient(_starlette(never, Recorder(), policies=(Nobody(),)), backend=backend) as client:
        with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/ws"):
            pass
        assert caught.value.status_code == 401
        assert caught.value.content == b"who are you?"


@pytest.mark.parametrize("token", ["token", "guess"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_starlettes_test_client_tells_who_it_is(backend: Backend, token: str) -> None:
    """The first message lets the client in or closes, on trio too, where it has no deadline."""

    class First:
        timeout_s = 5.0

        async def __call__(self, payload: str | bytes, /) -> Allow | Close:
            return Allow(identity=Identity("ann")) if payload == "token" else Close(4403, "who?")

    class Asks:
        def admit(self, handshake: Handshake) -> Allow:
            return Allow(first_message=First())

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        identity = socket.scope["asgi_ws_guard.connection"].identity
        async for text in socket.iter_text():
            await socket.send_text(f"{identity.subject} {text}")

    asked = TestClient(_starlette(echo, Recorder(), policies=(Asks(),)), backend=backend)
    with asked as client, client.websocket_connect("/ws") as socket:
        socket.send_text(token)
        socket.send_text("a")
        if token == "token":
            assert socket.receive_text() == "ann a"
        else:
            with pytest.raises(WebSocketDisconnect) as caught:
                socket.receive_text()
            assert (caught.value.code, caught.value.reason) == (4403, "who?")


# uvloop


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not run there")
def test_uvloop_drops_reads_ahead_and_wakes() -> None:
    """The parts that lean on the event loop, on uvloop: read ahead, deadline, woken reader, stopped handler."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        await _told_by_reading_ahead()
        await _stopped_by_cancellation()
        await _woken_by_the_deadline()

    uvloop.run(main())


async def _told_by_reading_ahead() -> None:
    server = ScriptedServer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        server.text("unread")
        server.disconnect(4321)
        await asyncio.wait_for(current_connection().wait_closed(), 5)
        assert (await receive())["text"] == "unread"
        assert (await receive())["code"] == 4321

    server.connect()
    await server.call(WebSocketGuardMiddleware(app, observers=()))


async def _stopped_by_cancellation() -> None:
    server, seen = ScriptedServer(), Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        while True:
            with contextlib.suppress(Exception):
                await send(TEXT)

    server.connect()
    server.disconnect()
    guard = WebSocketGuardMiddleware(app, observers=(seen,), linger_s=0.05)
    await asyncio.wait_for(server.call(guard), 5)
    assert [stopped.how for stopped in seen.of(HandlerStopped)] == ["raised", "cancelled"]


async def _woken_by_the_deadline() -> None:
    server = ScriptedServer()

    async def read(receive: Receive) -> Message:
        return await receive()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        reading = asyncio.create_task(read(receive))
        await asyncio.sleep(0)
        server.stall_sends()
        await asyncio.wait_for(send(TEXT), 5)
        assert (await asyncio.wait_for(reading, 5))["type"] == "websocket.disconnect"

    server.connect()
    await server.call(WebSocketGuardMiddleware(app, observers=(), send_timeout_s=0.1))
