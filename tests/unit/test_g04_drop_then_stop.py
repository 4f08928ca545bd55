"""G4: drop, then stop: who sends late decides, and the wrong task is never stopped."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
from starlette.websockets import WebSocket

from asgi_ws_guard import (
    Closed,
    ConnectionClosed,
    Deny,
    HandlerStopped,
    Handshake,
    Initiator,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._senders import Senders, Suspect, _retrieve, senders_of
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}
TEXT: Message = {"type": "websocket.send", "text": "x"}

Handler = Callable[[Receive, Send], Awaitable[None]]


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _serve(handler: Handler, *, seen: Recorder | None = None, **options: Any) -> ScriptedServer:
    """Run a handler whose client has left, in a task as servers do, and see that the server is not disturbed."""
    server = ScriptedServer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        assert (await receive())["type"] == "websocket.disconnect"
        await handler(receive, send)

    guard = WebSocketGuardMiddleware(app, observers=() if seen is None else (seen,), **options)

    async def serve() -> None:
        await guard(server.scope, server.receive, server.send)
        await asyncio.sleep(0)  # a cancellation that was left behind would strike here
        await asyncio.sleep(1)
        if sys.version_info >= (3, 11):
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

    server.connect()
    server.disconnect(1001, "left")
    await asyncio.create_task(serve())
    return server


def _how(seen: Recorder) -> list[str]:
    return [stopped.how for stopped in seen.of(HandlerStopped)]


@contextlib.contextmanager
def _no_reports() -> Iterator[list[str]]:
    """Collect what the loop would log, such as exceptions that nobody retrieved."""
    reports: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reports.append(f"{context['message']} {context.get('exception')!r}"))
    yield reports
    loop.set_exception_handler(None)


# The handler's own task


def test_a_late_send_of_the_handler_raises_after_the_linger_time_and_that_ends_at_the_guard() -> None:
    """Dropped until `linger_s`, then `ConnectionClosed`, an `OSError` with the facts, absorbed at the edge."""

    async def main() -> None:
        seen = Recorder()

        async def handler(receive: Receive, send: Send) -> None:
            async def push() -> None:
                while True:
                    await send(TEXT)
                    sent_at_s.append(_now())
                    await asyncio.sleep(1)

            with pytest.raises(OSError, match="ended by the client") as caught:
                await push()
            error = caught.value
            assert isinstance(error, ConnectionClosed)
            assert (error.close_code, error.close_reason, error.initiator) == (1001, "left", Initiator.CLIENT)
            raise error

        sent_at_s: list[float] = []
        await _serve(handler, seen=seen, linger_s=10)
        assert sent_at_s == [float(second) for second in range(10)]
        assert _how(seen) == ["raised"]
        closed = seen.one(Closed)
        assert closed.lingered_s == 10
        assert closed.error_type is None
        assert closed.books.dropped == {"client_disconnected": 11}

    run(main)


def test_the_linger_time_counts_from_the_end() -> None:
    """A handler that first does something else has what is left of `linger_s` for late sends, not all of it anew."""

    async def main() -> None:
        raised_at_s: list[float] = []

        async def handler(receive: Receive, send: Send) -> None:
            await asyncio.sleep(8)
            try:
                while True:
                    await send(TEXT)
                    await asyncio.sleep(1)
            except ConnectionClosed:
                raised_at_s.append(_now())

        await _serve(handler, linger_s=10)
        assert raised_at_s == [10.0]

    run(main)


def test_a_catch_all_sees_nothing_during_the_linger_time_and_its_loop_is_cancelled_later() -> None:
    """`except Exception: log` around each send: silent for `linger_s`, and the loop is cancelled `linger_s` after."""

    async def main() -> None:
        seen, errors = Recorder(), list[float]()

        async def handler(receive: Receive, send: Send) -> None:
            while True:
                try:
                    await send(TEXT)
                except Exception:
                    errors.append(_now())
                await asyncio.sleep(0.5)

        started = _now()
        await _serve(handler, seen=seen, linger_s=10)
        assert min(errors) >= 10
        assert 20 <= _now() - started - 1 <= 20.5
        assert _how(seen) == ["raised", "cancelled"]
        assert seen.one(Closed).error_type is None

    run(main)


@pytest.mark.parametrize("period_s", [1, 6, 11, 15, 30, 300])
def test_a_loop_is_cancelled_however_slow_it_is(period_s: float) -> None:
    """Three late sends show a loop, also when it pauses longer than `linger_s`, as one does that sends a heartbeat."""

    async def main() -> None:
        seen = Recorder()

        async def handler(receive: Receive, send: Send) -> None:
            while True:
                await asyncio.sleep(period_s)
                with contextlib.suppress(Exception):
                    await send(TEXT)

        await _serve(handler, seen=seen, linger_s=10)
        assert _how(seen) == ["raised", "cancelled"]
        assert _now() - 1 <= max(20 + period_s, 3 * period_s)

    run(main)


def test_a_loop_above_a_starlette_object_is_cancelled() -> None:
    """After one raise a Starlette object refuses by itself, above the guard; the zombie is cancelled all the same."""

    async def main() -> None:
        seen, server = Recorder(), ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            socket = WebSocket(scope, receive, send)
            await socket.accept()
            while True:
                with contextlib.suppress(Exception):
                    await socket.send_text("tick")
                await asyncio.sleep(1)

        server.connect()
        server.disconnect(1001)
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,), linger_s=5))
        assert _how(seen) == ["raised", "cancelled"]
        assert _now() <= 12

    run(main)


def test_a_tight_loop_with_a_catch_all_is_stopped_too() -> None:
    """A handler that sends late without any sleep, and swallows what is raised, lets others run and is cancelled."""

    async def main() -> None:
        seen, turns, is_over = Recorder(), 0, False
        loop = asyncio.get_running_loop()

        def turn() -> None:  # the virtual clock stands still while a loop spins: let it tick as a real one does
            nonlocal turns
            turns += 1
            getattr(loop, "advance")(0.01)  # noqa: B009 - only the virtual loop has it
            if not is_over:
                loop.call_soon(turn)

        async def handler(receive: Receive, send: Send) -> None:
            nonlocal is_over
            turn()
            try:
                while True:
                    with contextlib.suppress(Exception):
                        await send(TEXT)
            finally:
                is_over = True
                assert 4.0 <= _now() <= 4.5

        await _serve(handler, seen=seen, linger_s=2)
        assert _how(seen) == ["raised", "cancelled"]
        assert turns >= 400

    run(main)


def test_a_handler_that_swallows_its_cancellation_is_cancelled_again() -> None:
    """`asyncio.wait_for` of 3.11 can swallow a cancellation; whoever does is cancelled until it ends."""

    async def main() -> None:
        seen, cancelled_at_s = Recorder(), list[float]()

        async def handler(receive: Receive, send: Send) -> None:
            while len(cancelled_at_s) < 4:
                try:
                    with contextlib.suppress(Exception):
                        await send(TEXT)
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    cancelled_at_s.append(_now())

        await _serve(handler, seen=seen, linger_s=5)
        assert cancelled_at_s == [10.0, 15.0, 20.0, 25.0]
        assert _how(seen) == ["raised", "cancelled"]

    run(main)


def test_a_handler_that_cleans_up_in_its_cancellation_ends_in_peace() -> None:
    """The `finally` of a cancelled handler may still send (dropped or raised) and await."""

    async def main() -> None:
        cleaned = []

        async def handler(receive: Receive, send: Send) -> None:
            try:
                while True:
                    with contextlib.suppress(Exception):
                        await send(TEXT)
                    await asyncio.sleep(1)
            finally:
                await asyncio.sleep(0.5)
                with contextlib.suppress(ConnectionClosed):
                    await send(CLOSE)
                cleaned.append(True)

        await _serve(handler, linger_s=5)
        assert cleaned

    run(main)


@pytest.mark.parametrize(("linger_s", "pause_s"), [(0, 0), (0, 0.1), (10, 12.5), (1, 5)])
def test_a_handler_that_ends_in_the_step_in_which_it_is_cancelled_leaves_no_cancellation(
    linger_s: float, pause_s: float
) -> None:
    """Three late sends, each error swallowed, then a return: the server's task is never cancelled behind the guard."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send) -> None:
            for number in range(3):
                if number and pause_s:
                    await asyncio.sleep(pause_s)
                with contextlib.suppress(ConnectionClosed):
                    await send(TEXT)

        await _serve(handler, linger_s=linger_s)

    run(main)


def test_a_real_error_of_the_clean_up_of_a_cancelled_handler_goes_on() -> None:
    """What the guard takes back is its cancellation; an error that the handler raises from it is the application's."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send) -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                raise LookupError("bug") from None

        with pytest.raises(LookupError, match="bug"):
            await _serve(handler, cancel_after_s=5)
        assert _now() == 5

    run(main)


def test_a_cancellation_of_the_guard_ends_at_the_guard() -> None:
    """The server's task goes on after its handler was cancelled, and its count of cancellations is back at 0."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send) -> None:
            while True:
                with contextlib.suppress(Exception):
                    await send(TEXT)
                await asyncio.sleep(1)

        await _serve(handler, linger_s=1)  # looks at `Task.cancelling` itself

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps no count of cancellations")
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_cancellation_from_outside_at_the_same_time_is_not_lost(order: str) -> None:
    """A server that cancels the task in the turn in which the guard does (shutdown) sees it cancelled."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = ScriptedServer()

        def cancel_too(event: object) -> None:
            if isinstance(event, HandlerStopped) and event.how == "cancelled":
                if order == "before":
                    task.cancel()
                else:
                    loop.call_soon(task.cancel)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            while True:
                with contextlib.suppress(Exception):
                    await send(TEXT)
                await asyncio.sleep(1)

        server.connect()
        server.disconnect()
        task = server.call(WebSocketGuardMiddleware(app, observers=(cancel_too,), linger_s=1))
        await asyncio.wait({task})
        assert task.cancelled() or order == "after"
        if sys.version_info >= (3, 11) and order == "after":
            assert task.cancelling() == (1 if task.cancelled() else 0)

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps no count of cancellations")
@pytest.mark.parametrize("late_calls", ["send", "receive", "send in a handled error"])
@pytest.mark.parametrize("swallows_ours", [False, True])
def test_a_cancellation_that_the_handler_took_before_is_nobodys_from_outside(
    late_calls: str, swallows_ours: bool
) -> None:
    """`asyncio.TaskGroup` up to 3.12 leaves a request behind: the guard's own cancellation still ends at the guard."""

    async def main() -> None:
        seen, server = Recorder(), ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
            taken = 0
            while True:
                try:
                    if late_calls == "send in a handled error":
                        raise LookupError
                    with contextlib.suppress(ConnectionClosed):
                        await (send(TEXT) if late_calls == "send" else receive())
                except LookupError:
                    with contextlib.suppress(ConnectionClosed):
                        await send(TEXT)
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    taken += 1
                    if not swallows_ours or taken == 3:
                        raise

        server.connect()
        server.disconnect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,), linger_s=1)
        task = server.call(guard)
        await asyncio.wait({task}, timeout=100)
        assert task.done()
        assert not task.cancelled()
        assert _how(seen) == ["raised", "cancelled"]
        if sys.version_info >= (3, 11):
            assert task.cancelling() == 1

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps no count of cancellations")
@pytest.mark.parametrize("within", ["finally", "another error"])
def test_a_cancellation_from_outside_goes_on_though_its_clean_up_is_cancelled(within: str) -> None:
    """A server cancels the handler (shutdown), whose clean-up sends late for ever, until the guard cancels that too."""

    async def main() -> None:
        seen, server = Recorder(), ScriptedServer()

        async def say_goodbye(send: Send) -> None:
            while True:
                with contextlib.suppress(ConnectionClosed):
                    await send(TEXT)
                await asyncio.sleep(1)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            try:
                await asyncio.sleep(100)
            finally:
                if within == "finally":
                    await say_goodbye(send)
                try:
                    raise LookupError
                except LookupError:
                    await say_goodbye(send)

        server.connect()
        server.disconnect()
        task = server.call(WebSocketGuardMiddleware(app, observers=(seen,), linger_s=1))
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.wait({task}, timeout=50)
        assert task.cancelled()
        assert _how(seen) == ["raised", "cancelled"]

    run(main)


def test_a_handler_that_only_cleans_up_is_never_stopped() -> None:
    """One late send, or two, and then minutes of clean-up: raised in at most, never cancelled."""

    async def main() -> None:
        for late_sends in (0, 1, 2):
            seen, over = Recorder(), list[int]()

            async def handler(
                receive: Receive, send: Send, *, over: list[int] = over, late_sends: int = late_sends
            ) -> None:
                await asyncio.sleep(11)
                for _ in range(late_sends):
                    with contextlib.suppress(ConnectionClosed):
                        await send(TEXT)
                await asyncio.sleep(900)
                over.append(late_sends)

            await _serve(handler, seen=seen, linger_s=10)
            assert over == [late_sends]
            assert "cancelled" not in _how(seen)

    run(main)


def test_a_clean_up_of_many_quick_sends_is_not_stopped() -> None:
    """Fifty late sends within the linger time and a long clean-up after them: neither raised in nor cancelled."""

    async def main() -> None:
        seen, over = Recorder(), []

        async def handler(receive: Receive, send: Send) -> None:
            for _ in range(50):
                await send(TEXT)
            await asyncio.sleep(900)
            over.append(True)

        await _serve(handler, seen=seen, linger_s=10)
        assert over
        assert _how(seen) == []

    run(main)


@pytest.mark.parametrize("cancel_after_s", [None, 0, 30])
def test_a_parked_handler_is_stopped_only_when_asked_for(cancel_after_s: float | None) -> None:
    """A handler that does not send is left alone for ever, unless `cancel_after_s` says how long."""

    async def main() -> None:
        seen, over = Recorder(), []

        async def handler(receive: Receive, send: Send) -> None:
            await asyncio.sleep(900)
            over.append(True)

        await _serve(handler, seen=seen, cancel_after_s=cancel_after_s)
        if cancel_after_s is None:
            assert over
            assert _how(seen) == []
        else:
            assert not over
            assert _how(seen) == ["cancelled"]
            assert seen.one(Closed).lingered_s == pytest.approx(cancel_after_s)

    run(main)


def test_an_end_that_is_heard_of_twice_counts_once() -> None:
    """The server's disconnect that follows an own close arms `cancel_after_s` no second time: a clean-up is spared."""

    async def main() -> None:
        server, done_at_s = ScriptedServer(), list[float]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            reading = asyncio.create_task(asyncio.wait_for(receive(), 10))
            await asyncio.sleep(0)
            await send(CLOSE)
            asyncio.get_running_loop().call_later(0.5, server.disconnect)
            await reading
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(4)
                done_at_s.append(_now())

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), linger_s=10, cancel_after_s=5))
        assert done_at_s == [9.0]

    run(main)


def test_cancel_after_spares_the_task_of_a_client_that_a_policy_denied() -> None:
    """There has been no handler, and the server goes on in the same task; nor does a timer stay for ever."""

    class Deaf:
        def admit(self, _: Handshake) -> Deny:
            return Deny()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(), policies=(Deaf(),), cancel_after_s=5)
        await guard(server.scope, server.receive, server.send)
        await asyncio.sleep(6)

    run(main)


def test_cancel_after_strikes_a_handler_that_swallows_it_again() -> None:
    """`cancel_after_s` means it: a handler that swallows the first cancellation gets another."""

    async def main() -> None:
        cancelled_at_s = list[float]()

        async def handler(receive: Receive, send: Send) -> None:
            while len(cancelled_at_s) < 2:
                try:
                    await asyncio.sleep(900)
                except asyncio.CancelledError:
                    cancelled_at_s.append(_now())

        await _serve(handler, cancel_after_s=3, linger_s=0)
        assert cancelled_at_s == [3.0, 4.0]

    run(main)


def test_no_timer_survives_the_handler() -> None:
    """A handler that ends before it is stopped leaves nothing that could cancel the server's task later."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send) -> None:
            await asyncio.sleep(2)
            for _ in range(3):
                with contextlib.suppress(ConnectionClosed):
                    await send(TEXT)
                await asyncio.sleep(0.1)

        server = ScriptedServer()
        await _serve(handler, linger_s=1, cancel_after_s=5)
        await asyncio.sleep(20)
        assert server.sent == []

    run(main)


@pytest.mark.parametrize("how", ["late", "return", "raise", "close"])
def test_nothing_is_due_after_the_handler(how: str) -> None:
    """The timers of a connection go with its handler, however it ended: each would hold the connection in memory."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if how == "late":
                await receive()
                with contextlib.suppress(ConnectionClosed):
                    await send(TEXT)
                    await asyncio.sleep(100)
                    await send(TEXT)
            if how == "raise":
                raise ValueError("bug")
            if how == "close":
                await send(CLOSE)
                loop.call_later(0.1, server.disconnect)
                await receive()

        server = ScriptedServer()
        server.connect()
        if how == "late":
            server.disconnect()
        before = _timers(loop)
        task = server.call(WebSocketGuardMiddleware(app, observers=(), linger_s=100, cancel_after_s=1000))
        await asyncio.wait({task})
        assert isinstance(task.exception(), ValueError) == (how == "raise")
        assert _timers(loop) == before

    run(main)


def _timers(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    scheduled: list[asyncio.TimerHandle] = getattr(loop, "_scheduled")  # noqa: B009 - there is no public name
    return [timer for timer in scheduled if not timer.cancelled()]


def test_a_late_send_of_the_servers_task_after_the_handler_is_not_the_handlers() -> None:
    """Servers and outer middleware go on in the task that ran the handler: what is sent there then is anybody's."""

    async def main() -> None:
        kept: list[Send] = []

        async def serve() -> None:
            server = ScriptedServer()
            guard = WebSocketGuardMiddleware(app, observers=(), linger_s=1)
            server.connect()
            server.disconnect()
            await guard(server.scope, server.receive, server.send)
            for _ in range(10):
                await kept[0](TEXT)
                await asyncio.sleep(1)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            kept.append(send)
            await send(TEXT)

        await asyncio.create_task(serve())

    run(main)


# late_sends="raise"


@pytest.mark.parametrize("who", ["handler", "child", "somebody"])
def test_late_sends_raise_tells_at_the_first_late_send(who: str) -> None:
    """With ``late_sends="raise"`` everybody gets `ConnectionClosed` at once; from the handler it ends at the guard."""

    async def main() -> None:
        seen, kept = Recorder(), list[Send]()

        async def handler(receive: Receive, send: Send) -> None:
            async def child() -> None:
                with pytest.raises(ConnectionClosed):
                    await send(TEXT)

            kept.append(send)
            if who == "handler":
                await send(TEXT)
                raise AssertionError
            if who == "child":
                await asyncio.create_task(child())

        await _serve(handler, seen=seen, late_sends="raise")
        if who == "somebody":
            with pytest.raises(ConnectionClosed):
                await kept[0](TEXT)
        assert seen.one(Closed).error_type is None

    run(main)


def test_a_loop_that_catches_what_late_sends_raise_is_cancelled() -> None:
    """An earlier error is no reason to leave a zombie: `linger_s` after it a loop is cancelled, a clean-up is not."""

    async def main() -> None:
        for rounds, how in ((2, ["raised"]), (1000, ["raised", "cancelled"])):
            seen = Recorder()

            async def handler(receive: Receive, send: Send, rounds: int = rounds) -> None:
                for _ in range(rounds):
                    with contextlib.suppress(ConnectionClosed):
                        await send(TEXT)
                    await asyncio.sleep(1)
                await asyncio.sleep(60)

            await _serve(handler, seen=seen, late_sends="raise", linger_s=10)
            assert _how(seen) == how
            assert seen.one(Closed).lingered_s == (62 if rounds == 2 else 10)

    run(main)


@pytest.mark.parametrize("lost_in_send", [False, True])
def test_late_sends_raise_in_a_child_makes_no_noise(lost_in_send: bool) -> None:
    """A task that nobody awaits ends by the error that it is told the end with."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send) -> None:
            async def push() -> None:
                while True:
                    await send(TEXT)
                    await asyncio.sleep(1)

            pushing.append(asyncio.create_task(push()))
            await asyncio.sleep(5)

        pushing: list[asyncio.Task[None]] = []
        with _no_reports() as reports:
            if lost_in_send:
                server = ScriptedServer()

                async def app(scope: Scope, receive: Receive, send: Send) -> None:
                    await receive()
                    await send(ACCEPT)
                    server.fail_sends(ConnectionResetError())
                    await handler(receive, send)

                server.connect()
                await server.call(WebSocketGuardMiddleware(app, observers=(), late_sends="raise"))
            else:
                await _serve(handler, late_sends="raise")
            assert isinstance(pushing[0]._exception, ConnectionClosed)
            pushing.clear()
            gc.collect()
            await asyncio.sleep(0)
            assert reports == []

    run(main)


def test_late_sends_raise_also_tells_of_the_send_that_lost_the_peer() -> None:
    """The send at which the server says "gone" raises `ConnectionClosed` from the server's error."""

    async def main() -> None:
        server = ScriptedServer()
        gone = ConnectionResetError()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.fail_sends(gone)
            with pytest.raises(ConnectionClosed) as caught:
                await send(TEXT)
            assert caught.value.__cause__ is gone
            assert caught.value.initiator is Initiator.TRANSPORT
            raise caught.value

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), late_sends="raise"))

    run(main)


# A task that the handler created


def test_a_child_is_dropped_then_raised_in_and_makes_no_noise() -> None:
    """A child that only serves its own connection: silent for `linger_s`, then `ConnectionClosed`, unretrieved."""

    async def main() -> None:
        with _no_reports() as reports:
            sent_at_s = list[float]()

            async def handler(receive: Receive, send: Send) -> None:
                async def push() -> None:
                    while True:
                        await send(TEXT)
                        sent_at_s.append(_now())
                        await asyncio.sleep(1)

                task = asyncio.create_task(push())
                await asyncio.wait({task}, timeout=60)
                assert task.done()
                assert not task.cancelled()
                del task

            await _serve(handler, linger_s=10)
            gc.collect()
            await asyncio.sleep(1)
            assert max(sent_at_s) == 9
        assert reports == []

    run(main)


def test_a_child_is_stopped_although_its_handler_is_done() -> None:
    """A pusher that outlives its handler, when there are other connections that it does not serve, is stopped."""

    async def main() -> None:
        with _no_reports() as reports:
            tasks = list[asyncio.Task[None]]()

            async def handler(receive: Receive, send: Send) -> None:
                async def push() -> None:
                    while True:
                        await send(TEXT)
                        await asyncio.sleep(1)

                tasks.append(asyncio.create_task(push()))

            await _serve(handler, linger_s=10)
            await asyncio.wait(tasks, timeout=60)
            assert tasks[0].done()
            assert not tasks[0].cancelled()
            assert 10 <= _now() <= 12
            tasks.clear()
            gc.collect()
            await asyncio.sleep(1)
        assert reports == []

    run(main)


def test_a_starlette_disconnect_raised_from_it_makes_no_noise_either() -> None:
    """Starlette turns the `OSError` into its own `WebSocketDisconnect`: it counts as retrieved just the same."""

    async def main() -> None:
        with _no_reports() as reports:
            server = ScriptedServer()
            ended = asyncio.Event()

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                socket = WebSocket(scope, receive, send)
                await socket.accept()

                async def push() -> None:
                    try:
                        while True:
                            await socket.send_text("tick")
                            await asyncio.sleep(1)
                    finally:
                        ended.set()

                task = asyncio.create_task(push())
                await ended.wait()
                await asyncio.sleep(1)
                assert task.done()
                assert not task.cancelled()
                del task

            server.connect()
            server.disconnect()
            await server.call(WebSocketGuardMiddleware(app, observers=(), linger_s=3))
            gc.collect()
            await asyncio.sleep(1)
        assert reports == []

    run(main)


def test_a_real_error_of_a_child_is_still_reported() -> None:
    """A child that turns `ConnectionClosed` into an error of its own is reported by asyncio as ever."""

    async def main() -> None:
        with _no_reports() as reports:

            async def handler(receive: Receive, send: Send) -> None:
                async def push() -> None:
                    try:
                        while True:
                            await send(TEXT)
                            await asyncio.sleep(1)
                    except ConnectionClosed:
                        raise ValueError("real") from None

                task = asyncio.create_task(push())
                await asyncio.wait({task})
                del task

            await _serve(handler, linger_s=3)
            gc.collect()
            await asyncio.sleep(1)
        assert len(reports) == 1
        assert "never retrieved" in reports[0]
        assert "real" in reports[0]

    run(main)


def test_a_child_with_a_catch_all_is_never_cancelled() -> None:
    """A created task that swallows everything is raised in, and lives: the guard cannot know what else it does."""

    async def main() -> None:
        errors, rounds = 0, 0

        async def handler(receive: Receive, send: Send) -> None:
            nonlocal errors, rounds

            async def push() -> None:
                nonlocal errors, rounds
                for _ in range(200):
                    rounds += 1
                    try:
                        await send(TEXT)
                    except Exception:
                        errors += 1
                    await asyncio.sleep(1)

            await asyncio.create_task(push())

        await _serve(handler, linger_s=10)
        assert rounds == 200
        assert errors > 0

    run(main)


def test_gather_and_wait_for_in_a_handler_are_its_children() -> None:
    """`asyncio.gather(send(...))` makes tasks: they are dropped or raised in, and the handler hears of it."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send) -> None:
            while _now() < 100:
                await asyncio.gather(asyncio.wait_for(send(TEXT), 5), send(TEXT))
                await asyncio.sleep(1)

        await _serve(handler, linger_s=3)

    run(main)


# Anybody else


class _Room:
    """An application with one room, whose broadcaster the first handler starts lazily."""

    def __init__(self, *, period_s: float, repeat: int = 1, dead_first: bool = True) -> None:
        self.members: list[Send] = []
        self.errors: list[tuple[float, BaseException]] = []
        self.period_s = period_s
        self.repeat = repeat
        self.dead_first = dead_first
        self.task: asyncio.Task[None] | None = None
        self.stay = asyncio.Event()
        self.rounds = 0

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        if self.dead_first:
            self.members.append(send)
        else:
            self.members.insert(0, send)
        if self.task is None:
            self.task = asyncio.create_task(self.broadcast())
        await self.stay.wait()

    async def broadcast(self) -> None:
        while True:
            for send in self.members:
                for _ in range(self.repeat):
                    try:
                        await send(TEXT)
                    except BaseException as error:
                        self.errors.append((_now(), error))
                        raise
            self.rounds += 1
            await asyncio.sleep(self.period_s)


@contextlib.asynccontextmanager
async def _left_by_the_first(
    room: _Room, guard: WebSocketGuardMiddleware, *, members: int = 3, idle_s: float = 0.1
) -> AsyncIterator[list[ScriptedServer]]:
    """Let members come into a room, and the first one leave; let all go at the end, with the broadcaster."""
    servers = [ScriptedServer() for _ in range(members)]
    tasks = []
    for server in servers:
        server.connect()
        tasks.append(server.call(guard))
        await asyncio.sleep(0.1 if server is not servers[-1] else idle_s)
    servers[0].disconnect(1001)
    yield servers
    assert room.task is not None
    room.task.cancel()
    room.stay.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("linger_s", [0, 10])
@pytest.mark.parametrize("period_s", [0.5, 60])
@pytest.mark.parametrize("repeat", [1, 2, 5])
@pytest.mark.parametrize("dead_first", [True, False])
@pytest.mark.parametrize("idle", [True, False])
def test_the_lazily_started_broadcaster_lives_for_ever(
    linger_s: float, period_s: float, repeat: int, dead_first: bool, idle: bool
) -> None:
    """Started by the handler whose client left, serving others: never raised in and never cancelled, in any order."""

    async def main() -> None:
        room = _Room(period_s=period_s, repeat=repeat, dead_first=dead_first)
        guard = WebSocketGuardMiddleware(room.app, observers=(), linger_s=linger_s)
        async with _left_by_the_first(room, guard, idle_s=30.1 if idle else 0.1) as servers:
            await asyncio.sleep(20 * 60)
            assert room.errors == []
            assert room.task is not None
            assert not room.task.done()
            assert abs(len(servers[1].sent) - 1 - room.rounds * repeat) <= 2 * repeat
            assert guard.totals().dropped_total > 0

    run(main)


@pytest.mark.parametrize("linger_s", [0, 5])
@pytest.mark.parametrize("how", ["gather", "a task for each round"])
def test_a_broadcaster_that_sends_in_tasks_of_its_own_lives(linger_s: float, how: str) -> None:
    """A task for each send, or for each round, inherits the first handler's context too, and is not raised in."""

    async def main() -> None:
        room = _Room(period_s=1)
        guard = WebSocketGuardMiddleware(room.app, observers=(), linger_s=linger_s)

        async def one_round() -> None:
            for send in [*room.members, *room.members]:
                await send(TEXT)

        async def broadcast() -> None:
            while True:
                if how == "gather":
                    await asyncio.gather(*(send(TEXT) for send in [*room.members, *room.members]))
                else:
                    await asyncio.create_task(one_round())
                room.rounds += 1
                await asyncio.sleep(1)

        setattr(room, "broadcast", broadcast)  # noqa: B010 - a method of the test's own application
        async with _left_by_the_first(room, guard) as servers:
            await asyncio.sleep(300)
            assert room.task is not None
            assert not room.task.done()
            assert room.rounds >= 299
            assert len(servers[1].sent) >= 2 * 298

    run(main)


def test_the_broadcaster_of_a_connection_left_alone_is_spared_once_it_serves_others() -> None:
    """Alone with its dead connection it may be raised in; from the moment it serves another one, never again."""

    async def main() -> None:
        room = _Room(period_s=5)
        guard = WebSocketGuardMiddleware(room.app, observers=(), linger_s=10)
        errors: list[float] = []

        async def stubborn() -> None:
            while True:
                for send in list(room.members):
                    try:
                        await send(TEXT)
                    except Exception:
                        errors.append(_now())
                await asyncio.sleep(5)

        setattr(room, "broadcast", stubborn)  # noqa: B010 - a method of the test's own application
        first, second = ScriptedServer(), ScriptedServer()
        first.connect()
        first_task = first.call(guard)
        await asyncio.sleep(1)
        first.disconnect()
        await asyncio.sleep(100)
        assert errors
        second.connect()
        second_task = second.call(guard)
        await asyncio.sleep(10)
        served_at_s = _now()
        await asyncio.sleep(600)
        assert len(second.sent) > 100
        assert [at_s for at_s in errors if at_s > served_at_s] == []
        room.stay.set()
        await asyncio.gather(first_task, second_task)

    run(main)


def test_two_broadcasters_are_told_apart() -> None:
    """Two tasks of two handlers whose clients left, one quick and one slow, both serve a third: both live."""

    async def main() -> None:
        members: list[Send] = []
        tasks: list[asyncio.Task[None]] = []
        stay = asyncio.Event()

        async def broadcast(period_s: float) -> None:
            while True:
                for send in members:
                    await send(TEXT)
                await asyncio.sleep(period_s)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            members.append(send)
            if len(tasks) < 2:
                tasks.append(asyncio.create_task(broadcast(1 + 29 * len(tasks))))
            await stay.wait()

        guard = WebSocketGuardMiddleware(app, observers=(), linger_s=10)
        servers = [ScriptedServer() for _ in range(3)]
        served = []
        for server in servers:
            server.connect()
            served.append(server.call(guard))
            await asyncio.sleep(0.1)
        servers[0].disconnect()
        servers[1].disconnect()
        await asyncio.sleep(600)
        assert [task.done() for task in tasks] == [False, False]
        for task in tasks:
            task.cancel()
        stay.set()
        await asyncio.gather(*served)

    run(main)


def test_another_handler_that_broadcasts_is_never_raised_in() -> None:
    """A handler that forwards to a dead member of its room is dropped quietly for ever, and lives."""

    async def main() -> None:
        room: list[Send] = []
        dead, living = ScriptedServer(), ScriptedServer()
        stay = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            room.append(send)
            if scope["path"] == "/dead":
                await stay.wait()
                return
            while (message := await receive())["type"] == "websocket.receive":
                for member in room:
                    await member({"type": "websocket.send", "text": message["text"]})

        dead.scope["path"] = "/dead"
        guard = WebSocketGuardMiddleware(app, observers=(), linger_s=1)
        dead.connect()
        living.connect()
        tasks = [dead.call(guard), living.call(guard)]
        await asyncio.sleep(0.1)
        dead.disconnect()
        for number in range(100):
            living.text(str(number))
            await asyncio.sleep(5)
        assert [message.get("text") for message in living.sent[1:]] == [str(number) for number in range(100)]
        living.disconnect()
        stay.set()
        await asyncio.gather(*tasks)
        assert guard.totals().dropped_total == 100 - 1 or guard.totals().dropped_total == 100

    run(main)


def test_a_background_job_is_dropped_quietly_for_ever() -> None:
    """A task that no handler created sends to a dead connection for an hour and sees nothing."""

    async def main() -> None:
        kept: list[Send] = []
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            kept.append(send)
            await receive()

        async def job() -> None:
            for _ in range(600):
                for send in kept:
                    await send(TEXT)
                await asyncio.sleep(5)

        background = asyncio.create_task(job())
        server.connect()
        server.disconnect()
        guard = WebSocketGuardMiddleware(app, observers=(), linger_s=0)
        await server.call(guard)
        await background
        assert guard.totals().dropped_total >= 598

    run(main)


@pytest.mark.parametrize("what", ["send", "receive"])
def test_a_late_call_outside_of_any_task_is_quiet(what: str) -> None:
    """What a callback of the loop drives by hand, long after the handler is done, is anybody else's."""

    async def main() -> None:
        kept: list[Callable[[], Awaitable[object]]] = []
        server, ends = ScriptedServer(), list[BaseException | None]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            kept.append(receive if what == "receive" else lambda: send(TEXT))
            await receive()

        def call() -> None:
            coroutine = kept[0]()
            assert inspect.iscoroutine(coroutine)
            try:
                coroutine.send(None)
            except BaseException as end:
                ends.append(end)

        server.connect()
        server.disconnect()
        guard = WebSocketGuardMiddleware(app, observers=(), linger_s=1)
        await server.call(guard)
        await asyncio.sleep(5)
        for _ in range(5):
            asyncio.get_running_loop().call_soon(call)
        await asyncio.sleep(0.1)
        assert [type(end) for end in ends] == [StopIteration] * 5

    run(main)


def test_a_task_of_another_handler_is_not_a_child() -> None:
    """A task created by handler B that sends to the dead connection of A is anybody else for A."""

    async def main() -> None:
        kept: dict[str, Send] = {}
        servers = {name: ScriptedServer() for name in "ab"}
        done = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            kept[scope["path"]] = send
            if scope["path"] == "b":

                async def push() -> None:
                    for _ in range(100):
                        await kept["a"](TEXT)
                        await asyncio.sleep(1)
                    done.set()

                task = asyncio.create_task(push())
                await done.wait()
                await task
            else:
                await receive()
                await asyncio.sleep(1)

        guard = WebSocketGuardMiddleware(app, observers=(), linger_s=1)
        tasks = []
        for name, server in servers.items():
            server.scope["path"] = name
            server.connect()
            tasks.append(server.call(guard))
            await asyncio.sleep(0.1)
        servers["a"].disconnect()
        await asyncio.gather(*tasks)
        assert done.is_set()

    run(main)


def test_looking_at_senders_ends_and_the_fast_path_comes_back() -> None:
    """Once it is clear what a created task is, open connections forward again as before, and nothing was miscounted."""

    async def main() -> None:
        dead, living, seen = ScriptedServer(), ScriptedServer(), Recorder()
        stay = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if scope["path"] == "/dead":

                async def push() -> None:
                    while True:
                        await send(TEXT)
                        await asyncio.sleep(1)

                task = asyncio.create_task(push())
                await asyncio.wait({task})
                assert isinstance(task.exception(), ConnectionClosed)
            else:
                for _ in range(100):
                    await send(TEXT)
                    await asyncio.sleep(0.5)
                await stay.wait()

        guard = WebSocketGuardMiddleware(app, observers=(seen,), linger_s=3)
        dead.scope["path"] = "/dead"
        dead.connect()
        living.connect()
        tasks = [dead.call(guard), living.call(guard)]
        await asyncio.sleep(1)
        dead.disconnect()
        await asyncio.sleep(100)
        stay.set()
        await asyncio.gather(*tasks)
        assert [closed.books.sent for closed in seen.of(Closed)][-1] == 100

    run(main)


@pytest.mark.parametrize("linger_s", [0, 10])
@pytest.mark.parametrize("dead", [2, 3])
def test_a_slow_broadcaster_with_one_living_member_is_spared(dead: int, linger_s: float) -> None:
    """It pauses longer than the linger time between single sends: the pauses say how long it must be looked at."""

    async def main() -> None:
        room = _Room(period_s=0)

        async def one_by_one() -> None:
            while True:
                for number in (1, *[0] * dead):
                    try:
                        await room.members[number](TEXT)
                    except BaseException as error:
                        room.errors.append((_now(), error))
                        raise
                    await asyncio.sleep(15)

        setattr(room, "broadcast", one_by_one)  # noqa: B010 - a method of the test's own application
        guard = WebSocketGuardMiddleware(room.app, observers=(), linger_s=linger_s)
        first, second = ScriptedServer(), ScriptedServer()
        for server in (first, second):
            server.connect()
        tasks = [first.call(guard), second.call(guard)]
        await asyncio.sleep(1)
        first.disconnect()
        await asyncio.sleep(600)
        assert room.errors == []
        assert room.task is not None
        room.task.cancel()
        room.stay.set()
        await asyncio.gather(*tasks)

    run(main)


@pytest.mark.parametrize("pauses_s", [(1, 1, 1, 2), (30, 1, 1)])
def test_a_task_that_begins_to_send_late_is_looked_at_for_as_long(pauses_s: tuple[float, ...]) -> None:
    """Its first late send comes long after the end; it is looked at from there, by its longest pause of all."""

    async def main() -> None:
        room = _Room(period_s=0)

        async def late_rounds() -> None:
            await asyncio.sleep(100)
            while True:
                for number, pause_s in (*((0, pause_s) for pause_s in pauses_s), (1, 60)):
                    try:
                        await room.members[number](TEXT)
                    except BaseException as error:
                        room.errors.append((_now(), error))
                        raise
                    await asyncio.sleep(pause_s)

        setattr(room, "broadcast", late_rounds)  # noqa: B010 - a method of the test's own application
        guard = WebSocketGuardMiddleware(room.app, observers=(), linger_s=10)
        async with _left_by_the_first(room, guard, members=2):
            await asyncio.sleep(600)
            assert room.errors == []

    run(main)


def test_looking_at_all_sends_lasts_until_it_is_clear_what_each_created_task_is() -> None:
    """It begins with the first suspect, and is over when every one is known to serve others or is done."""

    async def main() -> None:
        looks: list[float] = []

        class Looker:
            def look_at_sends(self) -> None:
                looks.append(_now())

        looker, senders = Looker(), Senders(_now)
        senders.add(looker)

        async def suspect(*others: str) -> None:
            task = asyncio.current_task()
            assert task is not None
            assert not senders.may_stop(task, Suspect("dead", _now(), 10))
            await asyncio.sleep(1)
            for connection_id in ("dead", *others):
                assert senders.looking
                senders.seen(connection_id, "dead")
            assert senders.looking != bool(others)
            await asyncio.sleep(1)

        assert not senders.looking
        senders.seen("living", None)
        assert not senders.looking
        for others in ((), ("living",)):
            await asyncio.create_task(suspect(*others))
            await asyncio.sleep(0)
            assert not senders.looking
        both = [asyncio.create_task(suspect()), asyncio.create_task(suspect())]
        await asyncio.wait(both)
        assert looks == [0.0, 2.0, 4.0]

    run(main)


def test_a_created_task_is_excused_once_and_not_held() -> None:
    """A task that goes on after many raises gets one callback for all of them, and nothing keeps it when it is done."""

    async def main() -> None:
        senders = Senders(_now)
        task: asyncio.Task[object] = asyncio.create_task(asyncio.sleep(0))
        for _ in range(3):
            senders.excuse(task)
        assert task.remove_done_callback(_retrieve) == 1
        gone = weakref.ref(task)
        await asyncio.wait({task})
        del task
        await asyncio.sleep(0)
        gc.collect()
        assert gone() is None

    run(main)


# Tasks of one send


async def _send_text(send: Send) -> None:
    await send(TEXT)


async def _in_a_group(send: Send) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_send_text, send)


ONE_SEND: dict[str, Callable[[Send], Awaitable[Any]]] = {
    "gather": lambda send: asyncio.gather(send(TEXT)),
    "shield": lambda send: asyncio.shield(asyncio.ensure_future(send(TEXT))),
    "task": lambda send: asyncio.ensure_future(send(TEXT)),
    "wait_for": lambda send: asyncio.wait_for(send(TEXT), 5),
    "task group": _in_a_group,
}
"""Ways to send one message, most of which make a task for it (`asyncio.wait_for` does up to 3.11)."""


@pytest.mark.parametrize("how", ONE_SEND)
@pytest.mark.parametrize("who", ["handler", "task"])
@pytest.mark.parametrize("period_s", [0.1, 1, 60])
def test_a_loop_that_makes_a_task_for_each_send_is_stopped_too(how: str, who: str, period_s: float) -> None:
    """No such task can be looked at, so all of them are together; an error from them stops the loop."""

    async def main() -> None:
        stopped_at_s: list[float] = []

        async def push(send: Send) -> None:
            try:
                while True:
                    await ONE_SEND[how](send)
                    await asyncio.sleep(period_s)
            finally:
                stopped_at_s.append(_now())

        async def handler(receive: Receive, send: Send) -> None:
            if who == "handler":
                await push(send)
            pushing.append(asyncio.create_task(push(send)))

        pushing: list[asyncio.Task[None]] = []
        with _no_reports() as reports:
            await asyncio.wait_for(_serve(handler, linger_s=10), 20 * 60)
            await asyncio.wait(pushing or [asyncio.create_task(asyncio.sleep(0))], timeout=20 * 60)
            pushing.clear()
            gc.collect()
            await asyncio.sleep(0)
        assert [at_s for at_s in stopped_at_s if at_s < 10] == []
        assert len(stopped_at_s) == 1
        assert [report for report in reports if "ConnectionClosed" not in report] == []

    run(main)


@pytest.mark.parametrize("how", ONE_SEND)
@pytest.mark.parametrize("period_s", [0.5, 15, 60])
@pytest.mark.parametrize("linger_s", [0, 10])
def test_a_broadcaster_that_makes_a_task_for_each_send_lives(how: str, period_s: float, linger_s: float) -> None:
    """Started by a handler whose client left, it is of that handler's family, which serves others."""

    async def main() -> None:
        room = _Room(period_s=0)

        async def one_by_one() -> None:
            while True:
                for send in room.members:
                    try:
                        await ONE_SEND[how](send)
                    except BaseException as error:
                        room.errors.append((_now(), error))
                        raise
                    await asyncio.sleep(period_s)

        setattr(room, "broadcast", one_by_one)  # noqa: B010 - a method of the test's own application
        guard = WebSocketGuardMiddleware(room.app, observers=(), linger_s=linger_s)
        async with _left_by_the_first(room, guard):
            await asyncio.sleep(20 * 60)
            assert room.errors == []

    run(main)


def test_a_clean_up_in_tasks_of_one_send_makes_nobody_look() -> None:
    """The connections that live go on without a question once those tasks are done."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send) -> None:
            for how in ("gather", "wait_for"):
                await ONE_SEND[how](send)
            await asyncio.sleep(0)
            assert not senders_of(asyncio.get_running_loop(), _now).looking

        await _serve(handler)

    run(main)


def test_looking_at_a_family_ends_when_it_is_silent() -> None:
    """Nobody is asked any more when the tasks of one send have stopped by themselves."""

    async def main() -> None:
        living = ScriptedServer()
        seen: list[bool] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if scope["path"] == "/living":
                for _ in range(100):
                    await send(TEXT)
                    await asyncio.sleep(1)
                    seen.append(senders_of(asyncio.get_running_loop(), _now).looking)
                return
            for _ in range(5):
                await asyncio.gather(send(TEXT))
                await asyncio.sleep(1)

        dead = ScriptedServer()
        living.scope["path"] = "/living"
        guard = WebSocketGuardMiddleware(app, observers=(), linger_s=10)
        for server in (living, dead):
            server.connect()
        tasks = [living.call(guard), dead.call(guard)]
        dead.disconnect()
        await asyncio.gather(*tasks)
        assert any(seen)
        assert not any(seen[30:])

    run(main)


@pytest.mark.parametrize("linger_s", [0, 10])
def test_a_broadcaster_that_serves_the_connections_of_two_guards_lives(linger_s: float) -> None:
    """Whom a task serves is known of the event loop, not of one guard: several may be mounted in one application."""

    async def main() -> None:
        room = _Room(period_s=1)
        guards = [WebSocketGuardMiddleware(room.app, observers=(), linger_s=linger_s) for _ in range(2)]
        servers = [ScriptedServer() for _ in range(2)]
        tasks = []
        for guard, server in zip(guards, servers, strict=True):
            server.connect()
            tasks.append(server.call(guard))
            await asyncio.sleep(0.1)
        servers[0].disconnect()
        await asyncio.sleep(300)
        assert room.errors == []
        assert room.task is not None
        assert not room.task.done()
        room.task.cancel()
        room.stay.set()
        await asyncio.gather(*tasks)

    run(main)
