"""G1: late sends are dropped: quietly, without suspending, counted, and reported once with their line."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from asgi_ws_guard import (
    ConnectionHandle,
    DropReason,
    LateSend,
    Leaked,
    ProtocolError,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._loops import PAUSE_S
from asgi_ws_guard._path import GRANT
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close"}
TEXT: Message = {"type": "websocket.send", "text": "x"}


def _runs_without_suspending(send: Send, message: Message) -> bool:
    """Drive a send by hand: a coroutine that never suspends is over at its first step."""
    coroutine = send(message)
    assert inspect.iscoroutine(coroutine)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value is None
    coroutine.close()
    return False


@pytest.mark.parametrize("message", [TEXT, CLOSE, ACCEPT], ids=lambda message: str(message["type"]))
@pytest.mark.parametrize("ended_by", ["client", "application"])
def test_a_late_message_returns_none_without_suspending(message: Message, ended_by: str) -> None:
    """After the end a send, a close and an accept return None at their first step, and the server hears nothing."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if ended_by == "client":
                await receive()
            else:
                await send(CLOSE)
            before = len(server.sent)
            assert _runs_without_suspending(send, message)
            assert await send(message) is None  # type: ignore[func-returns-value]
            assert len(server.sent) == before

        server.connect()
        server.disconnect(1001)
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        assert seen.one(LateSend).message_type == message["type"]

    run(main)


def test_a_broadcast_over_a_live_set_survives_its_dead_members() -> None:
    """A task that removes itself from a set meanwhile does not run while a late broadcast iterates over that set."""

    async def main() -> None:
        room: set[Send] = set()
        servers = [ScriptedServer() for _ in range(8)]
        left = asyncio.Event()
        stay = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            room.add(send)
            await receive()
            await left.wait()
            room.discard(send)
            await stay.wait()

        guard = WebSocketGuardMiddleware(app, observers=())
        tasks = [server.call(guard) for server in servers]
        for server in servers:
            server.connect()
            server.disconnect(1001)
        await asyncio.sleep(1)
        assert len(room) == 8
        left.set()  # every handler is ready to run now, and will change the set at the first turn of the loop
        for send in room:
            await send(TEXT)
        await asyncio.sleep(0.1)
        assert not room
        stay.set()
        await asyncio.gather(*tasks)
        assert guard.totals().dropped == {DropReason.CLIENT_DISCONNECTED.value: 8}

    run(main)


def test_several_late_sends_pass_in_one_turn_of_the_loop() -> None:
    """Nine late sends of one connection take no turn of the loop; the tenth in the same turn lets it go round."""

    async def main() -> None:
        server, turns = ScriptedServer(), list[int]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            for _ in range(3):  # a turn of the loop in between begins a new count
                asyncio.get_running_loop().call_soon(turns.append, 1)
                for _ in range(9):
                    await send(TEXT)
                assert not turns
                await asyncio.sleep(0)
                assert turns
                turns.clear()
            asyncio.get_running_loop().call_soon(turns.append, 1)
            for _ in range(10):
                await send(TEXT)
            assert turns

        server.connect()
        server.disconnect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)


@pytest.mark.parametrize("ended_by", ["client", "application", "leak"])
def test_a_tight_loop_of_late_sends_starves_nobody(ended_by: str) -> None:
    """While somebody sends late in a loop without any sleep, other tasks and timers of the loop go on."""

    async def main() -> None:
        server, kept = ScriptedServer(), []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            kept.append(send)
            if ended_by == "client":
                await receive()
            elif ended_by == "application":
                await send(CLOSE)
            if ended_by != "leak":
                await spin(send)

        async def spin(send: Send) -> None:
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(PAUSE_S / 2)

            beside = asyncio.create_task(other())
            for _ in range(1000):
                await send(TEXT)
            assert 50 <= turns <= 500
            assert asyncio.get_running_loop().time() >= 50 * PAUSE_S, "other threads got no chance"
            beside.cancel()

        server.connect()
        server.disconnect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        if ended_by == "leak":
            await spin(kept[0])

    run(main)


def test_the_first_late_send_is_reported_with_its_line_and_the_rest_is_counted() -> None:
    """One `LateSend` names file, line and function of the application; the terminal event holds all drops by reason."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def push(send: Send) -> int:
            line = inspect.currentframe()
            assert line is not None
            await send(TEXT)
            return line.f_lineno - 1

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            lines.append(await push(send))
            await push(send)
            await send(CLOSE)
            assert [late.message_type for late in seen.of(LateSend)] == ["websocket.send"]

        lines: list[int] = []
        server.connect()
        server.disconnect(1001)
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        late = seen.one(LateSend)
        assert late.reason is DropReason.CLIENT_DISCONNECTED
        assert late.site is not None
        assert (late.site.file, late.site.line, late.site.function) == (__file__, lines[0], "push")
        assert seen.names() == ["Opened", "Accepted", "Ended", "LateSend", "Closed"]
        books = seen.events[-1].books  # type: ignore[attr-defined]
        assert books.dropped == {"client_disconnected": 3}
        assert (books.attempted, books.forwarded) == (4, 1)

    run(main)


def test_a_task_that_is_the_send_itself_has_no_line() -> None:
    """`asyncio.gather(send(...))` leaves no frame of the application: the report says so instead of blaming asyncio."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            await asyncio.gather(send(TEXT))

        server.connect()
        server.disconnect()
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        assert seen.one(LateSend).site is None

    run(main)


@pytest.mark.parametrize(
    ("ended_by", "reason"),
    [
        ("client", DropReason.CLIENT_DISCONNECTED),
        ("close", DropReason.APP_CLOSED),
        ("deny", DropReason.DENIED),
        ("transport", DropReason.TRANSPORT_LOST),
    ],
)
def test_a_drop_is_counted_with_what_ended_the_connection(ended_by: str, reason: DropReason) -> None:
    """The reason of a drop is the end's own."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            if ended_by != "deny":
                await send(ACCEPT)
            if ended_by == "client":
                await receive()
            elif ended_by == "transport":
                server.fail_sends(ConnectionResetError())
                await send(TEXT)
            else:
                await send(CLOSE)
            await send(TEXT)

        server.connect()
        if ended_by == "client":
            server.disconnect()
        guard = WebSocketGuardMiddleware(app, observers=())
        await server.call(guard)
        assert guard.totals().dropped == {reason.value: 2 if ended_by == "transport" else 1}

    run(main)


def test_a_send_after_the_handler_is_a_leak() -> None:
    """Whoever keeps a finished connection is accused once, with the line, and every drop is in the totals."""

    async def main() -> None:
        server, seen, kept = ScriptedServer(), Recorder(), []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            kept.append(send)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,))
        await server.call(guard)
        assert server.types() == ["websocket.accept", "websocket.close"]
        for _ in range(5):
            await kept[0](TEXT)
        leaked = seen.one(Leaked)
        assert leaked.site is not None
        assert leaked.site.function == "main"
        assert leaked.reason is DropReason.HANDLER_DONE
        assert not seen.of(LateSend)
        assert guard.totals().dropped == {"handler_done": 5}
        assert server.types() == ["websocket.accept", "websocket.close"]

    run(main)


@pytest.mark.parametrize("message", [{"type": "websocket.sned"}, {}, {"type": 7}, {"type": "websocket.receive"}])
def test_an_unknown_message_stays_an_error_after_the_end(message: Message) -> None:
    """Dropping is for messages that an application may send; a misspelt one is a `ProtocolError` at any time."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            with pytest.raises(ProtocolError, match="CLOSED"):
                await send(message)

        server.connect()
        server.disconnect()
        guard = WebSocketGuardMiddleware(app, observers=())
        await server.call(guard)
        assert guard.totals().refused == 1
        assert guard.totals().dropped == {}

    run(main)


@pytest.mark.parametrize("wants_messages", [False, True])
def test_a_server_whose_send_never_suspends_starves_nobody(wants_messages: bool) -> None:
    """Also before the end: a tight loop of sends that the server takes at once lets the loop go round now and then."""

    async def main() -> None:
        server, turns, delays = ScriptedServer(), 0, list[int]()

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            beside = asyncio.create_task(other())
            for _ in range(10_240):
                await send(TEXT)
            assert turns >= 5
            beside.cancel()
            for _ in range(3):  # who suspends by itself is not delayed further
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                asyncio.get_running_loop().call_soon(delays.append, 1)
                for _ in range(GRANT):
                    await send(TEXT)
                assert not delays
                await asyncio.sleep(0)
                delays.clear()

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(Recorder(wants_messages=wants_messages),))
        await server.call(guard)
        assert guard.totals().sent == 10_240 + 3 * GRANT

    run(main)


def test_a_late_message_is_dropped_while_the_guard_stops_reading() -> None:
    """A handler is done and no close is wanted: what another task sends until the guard is done is late."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            sending.append(asyncio.create_task(send_when_over(scope["asgi_ws_guard.connection"], send)))
            await asyncio.sleep(2.0)  # until the guard reads ahead, which it has to stop

        async def send_when_over(handle: ConnectionHandle, send: Send) -> None:
            while handle.is_open:
                await asyncio.sleep(0 if asyncio.get_running_loop().time() >= 2.0 else 0.1)
            await send(TEXT)

        sending: list[asyncio.Task[None]] = []
        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), close_on_return=None))
        await sending[0]
        assert server.sent == [ACCEPT]

    run(main)
