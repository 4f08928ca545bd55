"""G5: the guard learns of the disconnect although nobody receives, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import types
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from asgi_ws_guard import ConnectionHandle, ReadAheadFull, WebSocketGuardMiddleware
from asgi_ws_guard._reader import MAX_BYTES, MAX_MESSAGES
from asgi_ws_guard._receiving import IDLE_S
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard._watch import TICK_S
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}
TEXT: Message = {"type": "websocket.send", "text": "x"}
SOON_S = IDLE_S + 2 * TICK_S
"""Within this time a handler that does not receive is known not to."""

_variable: ContextVar[str] = ContextVar("_variable", default="nothing")

Handler = Callable[[ScriptedServer, ConnectionHandle, Receive, Send], Awaitable[None]]


@pytest.fixture(params=["direct", "granian"])
def _server_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test as on any server, and as on granian, whose `receive` must not be cancelled."""
    if request.param == "granian":
        monkeypatch.setitem(sys.modules, "granian._granian", types.ModuleType("granian._granian"))


def _serve(handler: Handler, *, seen: Recorder | None = None, **options: Any) -> None:
    """Run a handler that finds its connection accepted; afterwards no task may be left."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await handler(server, scope["asgi_ws_guard.connection"], receive, send)

        server.connect()
        before = asyncio.all_tasks()
        await server.call(WebSocketGuardMiddleware(app, observers=() if seen is None else (seen,), **options))
        assert asyncio.all_tasks() == before

    run(main)


def _now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.usefixtures("_server_kind")
def test_the_guard_reads_in_the_context_that_it_was_called_in() -> None:
    """What wraps `receive` around the guard finds its own variables in every read, and nothing of the handler's."""
    found: list[tuple[str, str]] = []

    async def main() -> None:
        server = ScriptedServer()
        handles: list[ConnectionHandle] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            handles.append(scope["asgi_ws_guard.connection"])
            _variable.set("of the handler")
            await receive()
            await send(ACCEPT)
            await asyncio.sleep(3)
            server.text("unread")
            server.disconnect()
            await handles[0].wait_closed()

        guarded = WebSocketGuardMiddleware(app, observers=())

        async def around(scope: Scope, receive: Receive, send: Send) -> None:
            async def wrapped() -> Message:
                before = _variable.get()
                message = await receive()
                found.append((str(message["type"]), before))
                return message

            _variable.set("of what stands around")
            await guarded(scope, wrapped, send)

        server.connect()
        await server.call(around)
        assert _kept(handles[0]) == "nothing"

    run(main)
    assert found[1:] == [(f"websocket.{kind}", "of what stands around") for kind in ("receive", "disconnect")]


def _kept(handle: ConnectionHandle) -> str:
    """Read a variable in what a handle keeps of the context."""
    context = handle._session.receiving.context
    return context.run(_variable.get)


@pytest.mark.usefixtures("_server_kind")
@pytest.mark.parametrize("unread", [0, 1, 100])
def test_a_push_only_handler_learns_of_the_disconnect(unread: int) -> None:
    """A handler that only sends stops seeing an open connection soon after the client left, also behind messages."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3)
        server.text(*map(str, range(unread)))
        server.disconnect(4321, "cya")
        left_at_s = _now()
        while handle.is_open:
            await send(TEXT)
            await asyncio.sleep(0.05)
        assert _now() - left_at_s <= SOON_S
        assert (handle.close_code, handle.close_reason) == (4321, "cya")
        for number in range(unread):
            assert await receive() == {"type": "websocket.receive", "text": str(number)}
        for _ in range(3):
            assert await receive() == {"type": "websocket.disconnect", "code": 4321, "reason": "cya"}

    _serve(handler)


@pytest.mark.usefixtures("_server_kind")
def test_a_parked_handler_learns_of_the_disconnect() -> None:
    """`wait_closed` wakes a handler that waits for something else, any number of its tasks, behind unread messages."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        server.text("a", "b")
        waiting = [asyncio.create_task(handle.wait_closed()) for _ in range(3)]
        asyncio.get_running_loop().call_later(5, server.disconnect, 1001)
        await asyncio.gather(*waiting)
        assert 5 <= _now() <= 5 + SOON_S
        await handle.wait_closed()
        assert [(await receive()).get("text") for _ in range(3)] == ["a", "b", None]

    _serve(handler)


def test_without_watch_nothing_is_read_ahead() -> None:
    """``watch=False``: the server is never asked for a message that the application does not ask for."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        server.disconnect()
        await asyncio.sleep(60)
        assert handle.is_open
        assert server.receives == 0
        assert (await receive())["type"] == "websocket.disconnect"

    _serve(handler, watch=False)


def test_the_connect_is_always_the_applications() -> None:
    """An application that accepts before it receives (Quart) gets ``websocket.connect`` first, also when read ahead."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(5)  # a handshake is never read ahead: who hides it, kills it
            assert server.receives == 0
            await send(ACCEPT)
            await asyncio.sleep(5)
            assert [(await receive())["type"] for _ in range(3)] == [
                "websocket.connect",
                "websocket.receive",
                "websocket.disconnect",
            ]

        server.connect()
        server.text("a")
        server.disconnect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)


def _pump_tasks(known: set[asyncio.Task[Any]]) -> int:
    return len(asyncio.all_tasks() - known)


def test_a_handler_that_receives_normally_has_no_task_of_the_guard() -> None:
    """As long as a receive is pending, or messages are read now and then, the guard never reads by itself."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        known = asyncio.all_tasks()
        for number in range(100):
            asyncio.get_running_loop().call_later(0.9, server.text, str(number))
            assert (await receive())["text"] == str(number)
            assert _pump_tasks(known) == 0
            await send(TEXT)

    _serve(handler)


@pytest.mark.parametrize("send_timeout_s", [None, 0.1])
@pytest.mark.parametrize("wants_messages", [False, True])
def test_a_handler_that_works_a_while_for_each_message_has_none_either(
    send_timeout_s: float | None, wants_messages: bool
) -> None:
    """A look that finds nobody receiving is no proof: the next one must find it too, with nothing read in between."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        known = asyncio.all_tasks()
        server.text(*map(str, range(100)))
        for _ in range(100):
            await receive()
            await asyncio.sleep(TICK_S * 1.2)
            assert _pump_tasks(known) == 0
        await asyncio.sleep(SOON_S)
        assert _pump_tasks(known) == 1

    _serve(handler, seen=Recorder(wants_messages=wants_messages), send_timeout_s=send_timeout_s)


def test_one_timer_looks_at_all_connections() -> None:
    """A hundred parked connections of one guard cost one timer, and none is left when they are over."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stay = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await stay.wait()

        guard = WebSocketGuardMiddleware(app, observers=(), send_timeout_s=30)
        servers = [ScriptedServer() for _ in range(100)]
        before = len(_timers(loop))
        tasks = [server.call(guard) for server in servers]
        for server in servers:
            server.connect()
        await asyncio.sleep(0.01)
        assert len(_timers(loop)) - before <= 1
        await asyncio.sleep(5.01)
        assert len(_timers(loop)) - before <= 1
        stay.set()
        await asyncio.gather(*tasks)
        assert len(_timers(loop)) <= before

    run(main)


def test_a_connection_is_watched_on_when_another_one_ends() -> None:
    """The one timer stops with the last connection, not with the first."""

    async def main() -> None:
        servers, handles = [ScriptedServer("/long"), ScriptedServer("/short")], list[ConnectionHandle]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if scope["path"] == "/long":
                await scope["asgi_ws_guard.connection"].wait_closed()
                handles.append(scope["asgi_ws_guard.connection"])

        guard = WebSocketGuardMiddleware(app, observers=())
        for server in servers:
            server.connect()
        long, short = [server.call(guard) for server in servers]
        await short
        servers[0].disconnect(4321)
        await asyncio.wait_for(long, SOON_S)
        assert handles[0].close_code == 4321

    run(main)


def _timers(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    scheduled: list[asyncio.TimerHandle] = getattr(loop, "_scheduled")  # noqa: B009 - there is no public name
    return [timer for timer in scheduled if not timer.cancelled()]


@pytest.mark.usefixtures("_server_kind")
@pytest.mark.parametrize("timeout_s", [0.0001, 0.001, 0.1])
def test_a_receive_that_times_out_a_thousand_times_loses_nothing(timeout_s: float) -> None:
    """`asyncio.wait_for(receive(), tiny)` in a loop: every message arrives once, and in order."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        async def client() -> None:
            for number in range(300):
                server.text(str(number))
                await asyncio.sleep(0.0037 if number % 3 else timeout_s)
            server.disconnect()

        writing = asyncio.create_task(client())
        texts, timeouts = list[str](), 0
        while timeouts < 1000 or len(texts) < 300:
            try:
                message = await asyncio.wait_for(receive(), timeout_s)
            except asyncio.TimeoutError:
                timeouts += 1
                await asyncio.sleep(0.0005)
                continue
            if message["type"] == "websocket.disconnect":
                break
            texts.append(message["text"])
        assert texts == [str(number) for number in range(300)]
        await writing

    _serve(handler)


@pytest.mark.usefixtures("_server_kind")
@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("ahead", [False, True])
def test_a_receive_cancelled_at_the_moment_of_delivery_loses_nothing(turns: int, ahead: bool) -> None:
    """A cancellation that comes some turns of the loop after a message arrived: the message is there for the next."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        texts: list[str] = []

        async def read() -> None:
            message = await receive()
            texts.append(message["text"])

        for number in range(5):
            if ahead:
                await asyncio.sleep(SOON_S)
            reader = asyncio.create_task(read())
            await asyncio.sleep(0.01)
            server.text(str(number))
            for _ in range(turns):
                await asyncio.sleep(0)
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
        server.text("last")
        while "last" not in texts:
            await asyncio.wait_for(read(), 1)
        assert texts == ["0", "1", "2", "3", "4", "last"]

    _serve(handler)


@pytest.mark.usefixtures("_server_kind")
@pytest.mark.parametrize("cancel_first", [False, True])
def test_two_receivers_share_and_lose_nothing(cancel_first: bool) -> None:
    """Two tasks that receive at once get every message between them; one that is cancelled hands over."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        texts: list[str] = []
        left: list[int] = []

        async def read(number: int) -> None:
            while (message := await receive())["type"] == "websocket.receive":
                texts.append(message["text"])
                await asyncio.sleep(0)
            left.append(number)

        readers = [asyncio.create_task(read(number)) for number in range(3)]
        for number in range(50):
            server.text(str(number))
            await asyncio.sleep(0.01 if number % 2 else 0)
            assert server.receives <= 1
            if cancel_first and number == 25:
                await asyncio.sleep(0.01)
                readers[0].cancel()
        server.disconnect()
        await asyncio.wait_for(asyncio.wait(readers), 5)
        assert texts == [str(number) for number in range(50)]
        assert sorted(left) == ([1, 2] if cancel_first else [0, 1, 2])

    _serve(handler)


@pytest.mark.parametrize("watch", [False, True])
def test_a_send_that_opens_the_path_forgets_no_receiver_that_waits(watch: bool) -> None:
    """A message that is not plain (here a `bytearray`) opens the path again behind it."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        first, second = asyncio.ensure_future(receive()), asyncio.ensure_future(receive())
        await asyncio.sleep(0.01)
        await send({"type": "websocket.send", "bytes": bytearray(b"x")})
        server.text("a", "b")
        await asyncio.wait({first, second}, timeout=0.1)
        assert [task.result()["text"] for task in (first, second)] == ["a", "b"]

    _serve(handler, watch=watch)


@pytest.mark.parametrize("watch", [False, True])
def test_a_receiver_that_waits_takes_over_when_the_other_stops(watch: bool) -> None:
    """The second of two receivers gets the next message when the first one got one and receives no more."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        async def read() -> str:
            text: str = (await receive())["text"]
            return text

        server.text("open the path")
        await receive()
        first, second = asyncio.create_task(read()), asyncio.create_task(read())
        await asyncio.sleep(0.01)
        server.text("a")
        assert await asyncio.wait_for(first, 1) == "a"
        server.text("b")
        assert await asyncio.wait_for(second, 1) == "b"

    _serve(handler, watch=watch)


@pytest.mark.usefixtures("_server_kind")
def test_reading_again_after_a_pause_keeps_the_order() -> None:
    """A handler that alternates between long pauses and bursts of receives sees every message in order."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        expected = 0
        for burst in range(20):
            server.text(*(str(number) for number in range(burst * 10, burst * 10 + 7)))
            await asyncio.sleep(0.1 * burst)
            server.text(*(str(number) for number in range(burst * 10 + 7, burst * 10 + 10)))
            for _ in range(10):
                assert (await receive())["text"] == str(expected)
                expected += 1

    _serve(handler)


def test_who_keeps_up_again_reads_directly_again() -> None:
    """After a pause the pump ends as soon as the application has caught up, and its task with it."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        known = asyncio.all_tasks()
        server.text("a", "b")
        await asyncio.sleep(5)
        assert _pump_tasks(known) == 1
        assert [(await receive())["text"], (await receive())["text"]] == ["a", "b"]
        for text in "cde":
            asyncio.get_running_loop().call_later(0.1, server.text, text)
            assert (await receive())["text"] == text
        assert _pump_tasks(known) == 0
        assert handle.books.received == 5

    _serve(handler)


@pytest.mark.usefixtures("_server_kind")
@pytest.mark.parametrize("bound", ["messages", "bytes"])
def test_reading_ahead_is_bounded_and_recovers(bound: str) -> None:
    """Beyond the bound the server keeps the messages; that is told once; when the application reads, all goes on."""
    seen = Recorder()

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        size = 1 if bound == "messages" else MAX_BYTES // 4
        count = MAX_MESSAGES + 50 if bound == "messages" else 6
        server.text(*(chr(97 + number % 26) * size for number in range(count)))
        server.disconnect(4321)
        await asyncio.sleep(30)
        assert handle.close_code != 4321
        assert server.receives == 0
        assert handle.books.received == (MAX_MESSAGES if bound == "messages" else 4)
        full = seen.one(ReadAheadFull)
        assert full.messages == (MAX_MESSAGES if bound == "messages" else 4)
        assert full.size == (MAX_MESSAGES if bound == "messages" else MAX_BYTES)
        for number in range(count // 2):
            assert (await receive())["text"] == chr(97 + number % 26) * size
        await asyncio.sleep(30)
        assert handle.close_code == 4321
        for number in range(count // 2, count):
            assert (await receive())["text"] == chr(97 + number % 26) * size
        assert (await receive())["code"] == 4321
        assert len(seen.of(ReadAheadFull)) == 1

    _serve(handler, seen=seen)


@pytest.mark.usefixtures("_server_kind")
def test_an_error_of_the_server_that_was_read_ahead_is_raised_in_its_place() -> None:
    """A real error of the server's `receive` comes to the application after the messages before it, once."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        bug = RuntimeError("bug")
        server.text("a")
        server.deliver(bug)
        server.text("b")
        await asyncio.sleep(5)
        assert (await receive())["text"] == "a"
        with pytest.raises(RuntimeError) as caught:
            await receive()
        assert caught.value is bug
        assert (await receive())["text"] == "b"

    _serve(handler)


@pytest.mark.usefixtures("_server_kind")
def test_a_lost_peer_that_was_read_ahead_ends_the_connection() -> None:
    """An `OSError` of the server's `receive` in the guard's own read is the end, told to who waits for it."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        server.text("a")
        server.deliver(ConnectionResetError())
        await handle.wait_closed()
        assert (await receive())["text"] == "a"
        assert (await receive())["code"] == 1006

    _serve(handler)


@pytest.mark.usefixtures("_server_kind")
def test_a_malformed_message_that_was_read_ahead_hurts_only_its_receive() -> None:
    """A message of the server without a type is a `ProtocolError` in its place, and what follows arrives."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        server.deliver({"nothing": 1}, {"type": "websocket.receive", "text": "b"})
        await asyncio.sleep(5)
        with pytest.raises(RuntimeError, match="without a type"):
            await receive()
        assert (await receive())["text"] == "b"

    _serve(handler)


@pytest.mark.usefixtures("_server_kind")
def test_a_payload_of_the_wrong_type_is_contained() -> None:
    """A server that delivers a number as text: the receive gives or refuses it, and what follows arrives."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        server.deliver({"type": "websocket.receive", "text": 5}, {"type": "websocket.receive", "text": "b"})
        await asyncio.sleep(5)
        with contextlib.suppress(RuntimeError):
            assert (await receive())["text"] == 5
        assert (await receive())["text"] == "b"

    _serve(handler)


@pytest.mark.usefixtures("_server_kind")
def test_the_close_of_the_application_stops_the_reading_ahead() -> None:
    """A pump that waits at the server when the handler closes and returns is gone when the guard returns."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        await asyncio.sleep(5)
        assert server.receives == 1
        await send(CLOSE)

    _serve(handler)


@pytest.mark.parametrize("fault", ["cancel", "error"])
def test_no_task_is_left_when_the_last_close_fails(fault: str) -> None:
    """The pump is stopped also when the guard's own close is cancelled, or raises a real error."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await asyncio.sleep(5)
            assert server.receives == 1
            if fault == "cancel":
                server.stall_sends()
            else:
                server.fail_sends(RuntimeError("bug"))

        server.connect()
        before = asyncio.all_tasks()
        task = server.call(WebSocketGuardMiddleware(app, observers=()))
        await asyncio.sleep(10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError if fault == "cancel" else RuntimeError):
            await task
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        assert server.receives == 0

    run(main)


def test_on_granian_no_task_of_the_application_waits_at_the_server() -> None:
    """Every read is the pump's, but that of the connect before the handler runs: a cancelled receive cancels none."""
    kinds: list[str] = []

    async def main() -> None:
        server = ScriptedServer()

        async def server_receive() -> Message:
            task = asyncio.current_task()
            assert task is not None
            kinds.append("own" if task is asking else "pump")
            return await server.receive()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.text("a", "b")
            await receive()
            await receive()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 1)
            assert server.receives == 1
            server.text("c")
            assert (await receive())["text"] == "c"

        asking = asyncio.current_task()
        server.connect()
        await WebSocketGuardMiddleware(app, observers=())(server.scope, server_receive, server.send)
        assert server.receives == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "granian._granian", types.ModuleType("granian._granian"))
        run(main)
    assert kinds[0] == "own"
    assert set(kinds[1:]) == {"pump"}


@pytest.mark.parametrize("pause_s", [0, SOON_S])
def test_ordinary_messages_read_no_clock(pause_s: float) -> None:
    """The fast path is open from the accept on, and again after a while of reading ahead: nothing is asked there."""

    async def handler(server: ScriptedServer, handle: ConnectionHandle, receive: Receive, send: Send) -> None:
        loop, asked = asyncio.get_running_loop(), list[int]()
        real_time = loop.time

        def time() -> float:
            asked.append(1)
            return real_time()

        await asyncio.sleep(pause_s)
        server.text(*"abc")
        if pause_s:
            await asyncio.sleep(pause_s)
            server.text(*"defg")
            for _ in range(5):
                await receive()
        setattr(loop, "time", time)  # noqa: B010 - a clock that counts how often it is asked
        for _ in range(2):
            await send(TEXT)
            assert (await receive())["type"] == "websocket.receive"
        delattr(loop, "time")
        assert asked == []

    _serve(handler)


@pytest.mark.usefixtures("_server_kind")
def test_nobody_reads_for_a_receiver_that_outlives_the_handler() -> None:
    """Another task's `receive` may start the reading again while it is being stopped: it ends with the handler."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await asyncio.sleep(SOON_S)
            receivers.append(asyncio.ensure_future(receive()))
            await asyncio.sleep(0)
            await send(CLOSE)
            await asyncio.sleep(0)  # the end has woken the receiver; the server's own disconnect never comes

        receivers: list[asyncio.Future[Message]] = []
        server.connect()
        before = asyncio.all_tasks()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        assert (await receivers[0])["code"] == 4001
        await asyncio.sleep(SOON_S)
        assert asyncio.all_tasks() == before
        assert server.receives == 0

    run(main)
