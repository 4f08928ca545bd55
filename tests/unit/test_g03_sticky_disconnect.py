"""G3: after the end `receive()` gives the first disconnect again, never hangs and never starves the loop."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import types
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_ws_guard import (
    Allow,
    Close,
    Closed,
    ConnectionClosed,
    HandlerStopped,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._linger import CALLS_PER_TURN
from asgi_ws_guard._loops import PAUSE_S
from asgi_ws_guard._reader import MAX_MESSAGES
from asgi_ws_guard._receiving import DRAIN_S
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}
TEXT: Message = {"type": "websocket.send", "text": "x"}

Handler = Callable[[ScriptedServer, Receive, Send], Awaitable[None]]


def _serve(handler: Handler, *, seen: Recorder | None = None, **options: Any) -> ScriptedServer:
    """Run a handler that finds its connection accepted, behind a guard, on virtual time."""

    async def main() -> ScriptedServer:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await handler(server, receive, send)

        server.connect()
        observers = () if seen is None else (seen,)
        await server.call(WebSocketGuardMiddleware(app, observers=observers, **options))
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(others) <= 1, others  # the task of `run` itself
        return server

    return run(main)


def _now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "left"), (4321, "cya"), (1005, ""), (1006, "")])
def test_the_disconnect_of_the_client_is_given_again(code: int, reason: str) -> None:
    """The same code and reason any number of times, from a server that would hang at the second receive."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.text("a", "b")
        server.disconnect(code, reason)
        assert [(await receive())["text"], (await receive())["text"]] == ["a", "b"]
        for _ in range(200):
            assert await receive() == {"type": "websocket.disconnect", "code": code, "reason": reason}
        assert _now() <= 200 / CALLS_PER_TURN * PAUSE_S  # it waits for nothing: a tight loop is only held up

    _serve(handler)


def test_a_server_that_repeats_itself_with_another_code_is_not_believed() -> None:
    """Uvicorn and granian give 1005 at the second receive: the application sees the first code for ever."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.disconnect(4321, "cya")
        server.disconnect(1005)
        server.text("ghost")
        for _ in range(5):
            assert await receive() == {"type": "websocket.disconnect", "code": 4321, "reason": "cya"}
            await asyncio.sleep(1)

    _serve(handler)


@pytest.mark.parametrize("answer", [None, 1005, 1000, 4001, 1006])
def test_after_its_own_close_the_application_sees_its_own_code(answer: int | None) -> None:
    """Whatever disconnect the server gives after the application's close, or none: the code is the application's."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        await send(CLOSE)
        if answer is not None:
            server.disconnect(answer)
        for _ in range(5):
            assert await receive() == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}
        assert _now() <= (DRAIN_S if answer is None else 0)

    server = _serve(handler)
    assert server.types() == ["websocket.accept", "websocket.close"]


def test_messages_that_had_arrived_come_before_the_disconnect_of_an_own_close() -> None:
    """What the client sent before the application closed is delivered first, then the disconnect."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.text("a", "b")
        await send(CLOSE)
        server.disconnect(1005)
        assert [(await receive())["text"], (await receive())["text"]] == ["a", "b"]
        assert (await receive())["code"] == 4001
        assert (await receive())["code"] == 4001

    _serve(handler)


def test_messages_that_had_arrived_come_before_the_disconnect_of_a_failed_send() -> None:
    """What was unread when a send failed is delivered in order, then the true disconnect."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.text("a", "b", "c")
        server.disconnect(4321, "cya")
        server.fail_sends(OSError())
        await send(TEXT)
        assert [(await receive())["text"] for _ in range(3)] == ["a", "b", "c"]
        for _ in range(3):
            assert await receive() == {"type": "websocket.disconnect", "code": 4321, "reason": "cya"}

    _serve(handler)


def test_a_message_policy_is_asked_for_what_was_unread_when_a_send_failed() -> None:
    """Policies judge every message before it is delivered, also those that were collected at the end."""

    class NoBigOnes:
        def message(self, connection_id: str, direction: str, size: int) -> Allow | Close:
            return Close() if direction == "received" and size > 10 else Allow()

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.text("a", "b" * 1000)
        server.disconnect(4321, "cya")
        server.fail_sends(OSError())
        await send(TEXT)
        texts = []
        while (message := await receive())["type"] == "websocket.receive":
            texts.append(message["text"])
        assert "b" * 1000 not in texts

    _serve(handler, policies=(NoBigOnes(),))


@pytest.mark.parametrize("is_read", [False, True])
def test_the_disconnect_is_given_as_the_server_said_it(is_read: bool) -> None:
    """A server of an older specification gives no reason: none is made up, whoever read the message."""
    said: Message = {"type": "websocket.disconnect", "code": 1001}

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.deliver(dict(said))
        if not is_read:
            server.fail_sends(ConnectionResetError())
            await send(TEXT)
        for _ in range(2):
            given = await receive()
            assert given == said
            given.clear()  # it is the application's to do with as it likes

    _serve(handler)


@pytest.mark.parametrize("reading", ["direct", "ahead", None])
def test_a_failed_send_begins_no_second_read(reading: str | None) -> None:
    """What the server has ready is looked at only where nobody reads already: two readers steal from each other."""
    most: list[int] = []

    async def main() -> None:
        server = ScriptedServer()

        async def server_receive() -> Message:
            most.append(server.receives + 1)
            return await server.receive()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            parked = asyncio.create_task(_receive_one(receive)) if reading == "direct" else None
            await asyncio.sleep(2 if reading == "ahead" else 0)
            assert server.receives == (0 if reading is None else 1)
            server.fail_sends(ConnectionResetError())
            await send(TEXT)
            assert server.receives == (0 if reading is None else 1)
            if parked is not None:
                await parked

        server.connect()
        await WebSocketGuardMiddleware(app, observers=())(server.scope, server_receive, server.send)

    run(main)
    assert max(most) == 1


def test_on_granian_a_failed_send_gives_up_no_read() -> None:
    """Granian loses messages of a `receive` that is given up: nothing is looked at there but in a task of its own."""

    async def main() -> None:
        server, reads = ScriptedServer(), list[int]()

        async def server_receive() -> Message:
            reads.append(1)
            return await server.receive()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            server.fail_sends(ConnectionResetError())
            await send(TEXT)

        server.connect()
        await WebSocketGuardMiddleware(app, observers=())(server.scope, server_receive, server.send)
        assert reads == [1], "more than the connect was read"

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "granian._granian", types.ModuleType("granian._granian"))
        run(main)


def test_a_server_that_always_has_a_message_holds_nobody_in_a_failed_send() -> None:
    """What the server has ready after the end is read up to the bound of reading ahead, and no further."""

    async def main() -> None:
        server, reads = ScriptedServer(), list[int]()

        async def server_receive() -> Message:
            reads.append(1)
            assert len(reads) <= MAX_MESSAGES
            return {"type": "websocket.receive", "text": "x"}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            server.fail_sends(ConnectionResetError())
            await send(TEXT)

        await WebSocketGuardMiddleware(app, observers=())(server.scope, server_receive, server.send)
        assert len(reads) == MAX_MESSAGES

    run(main)


def test_a_real_error_that_the_server_has_ready_after_a_failed_send_is_not_lost() -> None:
    """It is raised by the application's next `receive`, in its place; then comes the disconnect."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.text("a")
        server.deliver(ValueError("server bug"))
        server.fail_sends(ConnectionResetError())
        await send(TEXT)
        assert (await receive())["text"] == "a"
        with pytest.raises(ValueError, match="server bug"):
            await receive()
        assert (await receive())["type"] == "websocket.disconnect"

    _serve(handler)


def test_a_message_policy_is_not_asked_about_an_unread_connect() -> None:
    """A handshake that was not received before a send failed (Quart) is no message of the client."""
    asked: list[str] = []

    class Counting:
        def message(self, connection_id: str, direction: str, size: int) -> Allow | Close:
            asked.append(direction)
            return Allow()

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            server.fail_sends(ConnectionResetError())
            await send(TEXT)
            assert [(await receive())["type"] for _ in range(2)] == ["websocket.connect", "websocket.receive"]

        server.connect()
        server.text("a")
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(Counting(),)))

    run(main)
    assert asked == ["sent", "received"]


def test_a_silent_server_hangs_nobody_after_a_failed_send() -> None:
    """A server that says nothing more after a failed send: the disconnect comes after `DRAIN_S`, and then at once."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.fail_sends(OSError())
        await send(TEXT)
        assert (await receive())["code"] == 1006
        assert _now() <= DRAIN_S
        for _ in range(5):
            assert (await receive())["code"] == 1006
        assert _now() <= DRAIN_S

    _serve(handler)


@pytest.mark.parametrize("ended_by", ["close", "failed send"])
@pytest.mark.parametrize("ghost", ["text", "disconnect"])
def test_nothing_follows_a_disconnect_that_was_given(ended_by: str, ghost: str) -> None:
    """What a slow server delivers after the application saw the disconnect changes nothing of what it sees."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        if ended_by == "failed send":
            server.fail_sends(OSError())
            await send(TEXT)
        else:
            await send(CLOSE)
        first = await receive()
        assert first["type"] == "websocket.disconnect"
        if ghost == "text":
            server.text("ghost")
        else:
            server.disconnect(4321, "ghost")
        for _ in range(3):
            await asyncio.sleep(0.5)
            assert await receive() == first

    _serve(handler)


@pytest.mark.parametrize("ended_by", ["close", "failed send", "policy"])
@pytest.mark.parametrize("reading", ["directly", "ahead"])
def test_a_parked_reader_is_woken(ended_by: str, reading: str) -> None:
    """A task that waits in `receive` when another one ends the connection gets the disconnect within `DRAIN_S`."""

    class Judge:
        def message(self, connection_id: str, direction: str, size: int) -> Allow | Close:
            return Close(4008, "enough") if size == 4 else Allow()

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        async def read() -> Message:
            return await receive()

        if reading == "ahead":
            await asyncio.sleep(2)
        readers = [asyncio.create_task(read()) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert server.receives == 1
        started = _now()
        if ended_by == "close":
            await send(CLOSE)
        elif ended_by == "policy":
            await send({"type": "websocket.send", "text": "1234"})
        else:
            server.fail_sends(OSError())
            await send(TEXT)
        codes = {"close": 4001, "failed send": 1006, "policy": 4008}
        for message in await asyncio.gather(*readers):
            assert message["type"] == "websocket.disconnect"
            assert message["code"] == codes[ended_by]
        assert _now() - started <= DRAIN_S + 0.01
        for reader in readers:
            assert not reader.cancelled()

    _serve(handler, policies=(Judge(),) if ended_by == "policy" else ())


def test_a_parked_reader_gets_what_arrives_late_before_its_disconnect() -> None:
    """A message on the wire when the application closed reaches the reader that was parked for it."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        async def read() -> list[str]:
            texts = []
            while (message := await receive())["type"] == "websocket.receive":
                texts.append(message["text"])
            return texts

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        await send(CLOSE)
        server.text("a", "b")
        assert await reader == ["a", "b"]

    _serve(handler)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps no count of cancellations")
@pytest.mark.parametrize("first", ["guard", "other"])
def test_a_reader_cancelled_from_outside_while_it_is_woken_is_cancelled(first: str) -> None:
    """The guard's own waking never hides a `Task.cancel` of somebody else in the same turn, whichever comes first."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        async def read() -> Message:
            return await receive()

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        if first == "other":
            asyncio.get_running_loop().call_later(DRAIN_S, reader.cancel)
        await send(CLOSE)
        if first == "guard":
            asyncio.get_running_loop().call_later(DRAIN_S, reader.cancel)
        await asyncio.wait({reader})
        assert reader.cancelled()

    _serve(handler)


def test_a_reader_that_once_took_a_cancellation_is_woken_like_any_other() -> None:
    """`asyncio.TaskGroup` of 3.11 leaves a cancellation request behind, which is nobody's who asks now."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
        asyncio.get_running_loop().call_later(1, lambda: closing.append(asyncio.ensure_future(send(CLOSE))))
        assert (await receive())["code"] == 4001

    closing: list[asyncio.Future[None]] = []
    _serve(handler)


def test_a_reader_that_is_still_parked_gets_nothing_after_the_disconnect_was_given() -> None:
    """One task has the disconnect already when a message comes for another, which still waits at the server."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        parked = asyncio.create_task(_receive_one(receive))
        await asyncio.sleep(0)
        server.stall_sends()
        closing = asyncio.create_task(_send_one(send, CLOSE))
        await asyncio.sleep(5)
        server.resume_sends()
        await closing
        assert (await receive())["type"] == "websocket.disconnect"
        server.text("ghost")
        assert (await parked)["type"] == "websocket.disconnect"

    _serve(handler)


def test_a_second_reader_begins_no_second_read_after_the_end() -> None:
    """While one task waits at the server another one that receives waits in the guard, both for what had arrived."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        readers = [asyncio.create_task(_receive_one(receive))]
        await asyncio.sleep(0)
        await send(CLOSE)
        readers.append(asyncio.create_task(_receive_one(receive)))
        await asyncio.sleep(DRAIN_S / 2)
        assert server.receives == 1
        for reader in readers:
            assert (await reader)["code"] == 4001

    _serve(handler)


@pytest.mark.parametrize("when", ["open", "interrupted"])
def test_a_cancellation_or_an_error_of_the_servers_receive_goes_on(when: str) -> None:
    """Only the guard's own interruption becomes the disconnect; what else leaves the server's `receive` is not ours."""
    bug = ValueError("bug in the clean-up")

    async def main() -> None:
        server, raised = ScriptedServer(), list[BaseException]()

        async def server_receive() -> Message:
            try:
                return await server.receive()
            except asyncio.CancelledError:
                if when == "open":
                    raise
                raise bug from None

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if when == "open":
                server.deliver(asyncio.CancelledError())
            else:
                asyncio.get_running_loop().call_later(1, server.fail_sends, ConnectionResetError())
                pushing = asyncio.create_task(_send_later(send))
            try:
                await receive()
            except BaseException as error:
                raised.append(error)
            if when == "interrupted":
                await pushing

        server.connect()
        await WebSocketGuardMiddleware(app, observers=())(server.scope, server_receive, server.send)
        if when == "open":
            assert [type(error) for error in raised] == [asyncio.CancelledError]
        else:
            assert raised == [bug]

    run(main)


async def _receive_one(receive: Receive) -> Message:
    return await receive()


async def _send_one(send: Send, message: Message) -> None:
    await send(message)


async def _send_later(send: Send) -> None:
    await asyncio.sleep(2)
    await send(TEXT)


def test_a_receive_after_the_handler_asks_the_server_nothing() -> None:
    """Whoever keeps the `receive` of a finished connection gets the disconnect at once; the server is left alone."""

    async def main() -> None:
        server, kept = ScriptedServer(), list[Receive]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            kept.append(receive)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        server.text("for nobody")
        started = _now()
        assert await kept[0]() == {"type": "websocket.disconnect", "code": 1000, "reason": ""}
        assert _now() == started
        assert (await server.receive())["text"] == "for nobody"

    run(main)


def test_wait_for_around_the_disconnect_keeps_working() -> None:
    """A receive that is given up during the drain loses nothing; the next one gives the disconnect."""

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        await send(CLOSE)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(receive(), DRAIN_S / 2)
        server.text("late")
        assert (await receive())["text"] == "late"
        assert (await receive())["code"] == 4001

    _serve(handler)


def test_a_denied_connection_gives_a_disconnect() -> None:
    """An application that denied and receives again is told that it is over, and does not hang."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.close"})
            for _ in range(3):
                assert await receive() == {"type": "websocket.disconnect", "code": 1006}
            assert _now() <= DRAIN_S

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)


class _Clock:
    """Lets the virtual clock go on although the loop never rests, as a real clock does."""

    def __init__(self, tick_s: float = 0.01) -> None:
        self._loop = asyncio.get_running_loop()
        self._tick_s = tick_s
        self.turns = 0
        self._is_on = True
        self._turn()

    def stop(self) -> None:
        self._is_on = False

    def _turn(self) -> None:
        if self._is_on:
            self.turns += 1
            getattr(self._loop, "advance")(self._tick_s)  # noqa: B009 - only the virtual loop has it
            self._loop.call_soon(self._turn)


async def _spin(receive: Receive) -> None:
    while True:
        await receive()


@pytest.mark.parametrize("ended_by", ["client", "application"])
def test_a_handler_that_spins_on_the_disconnect_starves_nobody_and_is_stopped(ended_by: str) -> None:
    """`while True: await receive()` lets others run, and ends with `ConnectionClosed` after `linger_s`."""
    seen = Recorder()

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        if ended_by == "application":
            await send(CLOSE)
        else:
            server.disconnect(4001, "bye")
        clock = _Clock()
        with pytest.raises(ConnectionClosed) as caught:
            await _spin(receive)
        clock.stop()
        assert (caught.value.close_code, caught.value.close_reason) == (4001, "bye")
        assert 10.0 <= _now() <= 11.5
        assert clock.turns > 500
        raise caught.value

    _serve(handler, seen=seen, linger_s=10)
    assert seen.one(HandlerStopped).how == "raised"
    assert seen.one(Closed).error_type is None


def test_a_slow_spin_is_borne_until_the_linger_time_is_over() -> None:
    """A handler that asks for the disconnect once a second is told at `linger_s`, counted from the end."""
    times_s: list[float] = []

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.disconnect()
        try:
            while True:
                await receive()
                times_s.append(_now())
                await asyncio.sleep(1)
        finally:
            times_s.append(_now())

    _serve(handler, linger_s=10)
    assert times_s == [float(second) for second in range(11)]


@pytest.mark.parametrize("who", ["handler", "child"])
def test_a_few_receives_after_the_linger_time_are_no_spin(who: str) -> None:
    """Whoever asks for the disconnect three times more, however late, is cleaning up; the fourth time it is a loop."""
    given: list[str] = []

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        async def read() -> None:
            await asyncio.sleep(60)
            while True:
                given.append((await receive())["type"])

        server.disconnect()
        given.append((await receive())["type"])
        await (asyncio.create_task(read()) if who == "child" else read())

    _serve(handler, linger_s=10)
    assert given == ["websocket.disconnect"] * 4


def test_a_handler_that_spins_and_swallows_everything_is_cancelled() -> None:
    """A spinning loop with a catch-all is cancelled `linger_s` after it was raised in; nothing reaches the server."""
    seen = Recorder()

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.disconnect()
        clock = _Clock()
        try:
            while True:
                with contextlib.suppress(Exception):
                    await receive()
        finally:
            clock.stop()
            assert 20.0 <= _now() <= 21.0

    _serve(handler, seen=seen, linger_s=10)
    assert [stopped.how for stopped in seen.of(HandlerStopped)] == ["raised", "cancelled"]


def test_a_task_of_the_handler_that_spins_is_stopped_without_noise() -> None:
    """A child that spins on the disconnect ends by `ConnectionClosed`, which nobody has to retrieve."""
    reports: list[dict[str, Any]] = []

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))
        server.disconnect()

        async def spin() -> None:
            while True:
                await receive()

        clock = _Clock()
        child = asyncio.create_task(spin())
        await asyncio.wait({child}, timeout=60)
        clock.stop()
        assert child.done()
        assert not child.cancelled()
        assert 10.0 <= _now() <= 11.0
        del child
        await asyncio.sleep(1)

    _serve(handler, linger_s=10)
    assert reports == []


def test_a_spinning_child_does_not_make_a_cleaning_handler_a_loop() -> None:
    """What a child does is not the handler's: after one late send a handler may clean up for as long as it likes."""
    seen = Recorder()

    async def handler(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.disconnect()

        async def spin() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await receive()
                    await asyncio.sleep(0.5)

        child = asyncio.create_task(spin())
        await asyncio.sleep(15)
        with contextlib.suppress(ConnectionClosed):
            await send(TEXT)
        await asyncio.sleep(600)
        assert child.done()

    _serve(handler, seen=seen, linger_s=10)
    assert "cancelled" not in [stopped.how for stopped in seen.of(HandlerStopped)]


def test_somebody_else_who_reads_a_dead_connection_is_not_stopped() -> None:
    """A background job that polls `receive` of a dead connection is given the disconnect for ever."""

    async def main() -> None:
        server, kept = ScriptedServer(), asyncio.Queue[Receive]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            kept.put_nowait(receive)
            await asyncio.sleep(100)

        async def job() -> None:
            receive = await kept.get()
            for _ in range(100):
                assert (await receive())["type"] == "websocket.disconnect"
                await asyncio.sleep(5)

        background = asyncio.create_task(job())
        server.connect()
        server.disconnect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), linger_s=1))
        await background

    run(main)


def test_a_receive_after_the_handler_is_done_gives_the_disconnect_at_once() -> None:
    """A task that outlives its handler hears the end without a turn of the loop for which it would wait in vain."""

    async def main() -> None:
        server, seen = ScriptedServer(), list[tuple[float, Message]]()
        tasks: list[asyncio.Task[None]] = []

        async def later(receive: Receive) -> None:
            await asyncio.sleep(0.1)
            seen.append((asyncio.get_running_loop().time(), await receive()))
            seen.append((asyncio.get_running_loop().time(), await receive()))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            tasks.append(asyncio.create_task(later(receive)))

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        await asyncio.wait(tasks)
        gone: Message = {"type": "websocket.disconnect", "code": 1000, "reason": ""}
        assert [message for _, message in seen] == [gone, gone]
        assert [at_s for at_s, _ in seen] == pytest.approx([0.1, 0.1])

    run(main)
