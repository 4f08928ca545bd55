"""G11: nothing after close, no read pending during it where that deadlocks; and a cancellation at any await."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import sys
import types
from typing import Any

import pytest

from asgi_ws_guard import Allow, Close, Closed, ConnectionHandle, Terminal, WebSocketGuardMiddleware
from asgi_ws_guard._sending import CLOSE_S
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}
TEXT: Message = {"type": "websocket.send", "text": "x"}


def _granian(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "granian._granian", types.ModuleType("granian._granian"))


class _SlowServer(ScriptedServer):
    """A server whose sends take time, and that notes in which order they were called."""

    def __init__(self, delays_s: list[float]) -> None:
        super().__init__()
        self.delays_s = delays_s
        self.called: list[str] = []
        self.pending_at_close: int | None = None
        self.pending = 0
        self.most_pending = 0

    async def send(self, message: Message) -> None:
        self.called.append(message["type"])
        if message["type"] == "websocket.close":
            self.pending_at_close = self.receives
        delay_s = self.delays_s[len(self.called) % len(self.delays_s)]
        if delay_s:
            await asyncio.sleep(delay_s)
        await super().send(message)


@pytest.mark.parametrize("seed", range(30))
def test_however_sends_and_closes_interleave_the_close_is_last(seed: int) -> None:
    """Several tasks send and close at once, with stalls: the server is called with nothing after its one close."""

    async def main() -> None:
        chance = random.Random(seed)
        server, seen = _SlowServer([chance.choice([0, 0, 0.1, 1]) for _ in range(7)]), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)

            async def work() -> None:
                for _ in range(10):
                    await asyncio.sleep(chance.choice([0, 0.05, 0.3]))
                    await send(CLOSE if chance.random() < 0.1 else TEXT)

            await asyncio.gather(*(work() for _ in range(5)))

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        assert server.called.count("websocket.close") == 1
        assert server.called[-1] == "websocket.close"
        books = seen.one(Closed).books
        assert (books.forwarded, books.attempted, books.failed) == (
            len(server.called) - (seen.one(Closed).code == 1000),
            51,
            0,
        )

    run(main)


@pytest.mark.parametrize("who", ["reader", "waiter", "ahead"])
def test_nobody_is_woken_before_the_close_has_gone_out(who: str) -> None:
    """Quart cancels the sender when its reader is woken: readers and `wait_closed` go on only after the close."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            handle: ConnectionHandle = scope["asgi_ws_guard.connection"]

            async def watch() -> None:
                await (handle.wait_closed() if who == "waiter" else receive())
                closing.cancel()

            if who == "ahead":
                await asyncio.sleep(2)
            watching = asyncio.create_task(watch())
            await asyncio.sleep(0)
            server.stall_sends()
            closing = asyncio.create_task(_send_one(send, CLOSE))
            await asyncio.sleep(20)
            assert not watching.done()
            late = asyncio.create_task(_receive_one(receive))
            await asyncio.sleep(20)
            assert not late.done()
            server.resume_sends()
            await asyncio.wait({watching, late, closing})
            assert not closing.cancelled()
            assert (await late)["code"] == 4001

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        assert server.types() == ["websocket.accept", "websocket.close"]

    run(main)


async def _send_one(send: Send, message: Message) -> None:
    await send(message)


async def _receive_one(receive: Receive) -> Message:
    return await receive()


def test_a_reader_whose_server_fails_during_a_close_is_told_behind_it() -> None:
    """Though its own `receive` has said that the peer is gone: told at once it might cancel the sender halfway."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            reading = asyncio.create_task(_receive_one(receive))
            await asyncio.sleep(0)
            server.stall_sends()
            closing = asyncio.create_task(_send_one(send, CLOSE))
            await asyncio.sleep(0)
            server.deliver(OSError("gone"))
            await asyncio.sleep(20)
            assert not reading.done()
            server.resume_sends()
            await closing
            assert (await reading)["code"] == 4001

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        assert server.types() == ["websocket.accept", "websocket.close"]

    run(main)


def test_a_stuck_close_of_another_task_holds_up_nobody_when_the_handler_is_done() -> None:
    """The watch looks at the connection no more, and still everybody hears of the end after `CLOSE_S`."""

    async def main() -> None:
        server, tasks = ScriptedServer(), list[asyncio.Task[Any]]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            tasks.append(asyncio.create_task(_send_one(send, CLOSE)))
            tasks.append(asyncio.create_task(_receive_one(receive)))
            await asyncio.sleep(5)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        closing, hearing = tasks
        await asyncio.sleep(CLOSE_S - 5.5)
        assert not hearing.done()
        assert (await asyncio.wait_for(hearing, 2))["code"] == 4001
        assert not closing.done()
        server.resume_sends()
        await closing
        assert server.types() == ["websocket.accept", "websocket.close"]

    run(main)


@pytest.mark.parametrize("on_granian", [False, True])
@pytest.mark.parametrize("watch", [False, True])
@pytest.mark.parametrize("who", ["reader", "waiter", "late reader", "two readers", "reader of a handler that is done"])
def test_a_close_that_is_stuck_holds_up_nobody_for_ever(who: str, watch: bool, on_granian: bool) -> None:
    """After `CLOSE_S` everybody hears of the end; the close may go out later, on granian without a read before it."""

    async def main() -> None:
        server, hearing = ScriptedServer(), list[asyncio.Task[Any]]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if who == "waiter":
                hearing.append(asyncio.create_task(scope["asgi_ws_guard.connection"].wait_closed()))
            elif who != "late reader":
                hearing.extend(asyncio.create_task(_receive_one(receive)) for _ in range(1 + (who == "two readers")))
            await asyncio.sleep(0)
            server.stall_sends()
            if who == "reader of a handler that is done":
                return
            closing = asyncio.create_task(_send_one(send, CLOSE))
            await asyncio.sleep(0)
            if who == "late reader":
                hearing.append(asyncio.create_task(_receive_one(receive)))
            await closing

        server.connect()
        task = server.call(WebSocketGuardMiddleware(app, observers=(), watch=watch))
        await asyncio.sleep(CLOSE_S - 1)
        assert not any(one.done() for one in hearing)
        receives = server.receives
        _, pending = await asyncio.wait(hearing, timeout=3)
        assert not pending
        assert server.receives <= receives
        if who != "waiter":
            code = 1000 if who == "reader of a handler that is done" else 4001
            assert [one.result()["code"] for one in hearing] == [code] * len(hearing)
        await asyncio.sleep(10)
        assert not task.done()
        assert not on_granian or server.receives == 0
        server.resume_sends()
        await task
        assert server.types() == ["websocket.accept", "websocket.close"]

    with pytest.MonkeyPatch.context() as patch:
        if on_granian:
            _granian(patch)
        run(main)


@pytest.mark.parametrize("on_granian", [False, True])
@pytest.mark.parametrize("read_first", [False, True])
def test_after_a_denial_granian_is_asked_nothing(read_first: bool, on_granian: bool) -> None:
    """
    The disconnect is given all the same; other servers still give their ``websocket.connect``.

    granian 2.8.7 panics at a receive behind a denial before which nobody had read.
    """

    async def main() -> None:
        server, asked, given = ScriptedServer(), list[str](), list[str]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if read_first:
                await receive()
            await send(CLOSE)
            asked.clear()
            given.extend([(await receive())["type"], (await receive())["type"]])
            await asyncio.sleep(5)  # for the watch

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            def ask() -> Any:
                asked.append("receive")
                return receive()

            await WebSocketGuardMiddleware(app, observers=())(scope, ask, send)

        server.connect()
        await server.call(serve)
        first = "websocket.disconnect" if read_first else "websocket.connect"
        assert given == [first, "websocket.disconnect"]
        assert bool(asked) is not on_granian

    with pytest.MonkeyPatch.context() as patch:
        if on_granian:
            _granian(patch)
        run(main)


def test_a_handler_that_is_stuck_in_its_close_is_cancelled_when_asked_for() -> None:
    """`cancel_after_s` counts from when the close was given up."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            await send(CLOSE)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,), cancel_after_s=5))
        assert seen.one(Closed).lingered_s == pytest.approx(CLOSE_S + 5, abs=0.5)
        assert server.types() == ["websocket.accept"]

    run(main)


def test_a_disconnect_that_arrives_during_the_close_wakes_after_it() -> None:
    """The server's own disconnect may be read while the close is on its way; it is given when the close is out."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            reading = asyncio.create_task(_receive_one(receive))
            await asyncio.sleep(0)
            server.stall_sends()
            closing = asyncio.create_task(_send_one(send, CLOSE))
            await asyncio.sleep(0)
            waiting = asyncio.create_task(scope["asgi_ws_guard.connection"].wait_closed())
            server.disconnect(1005)
            await asyncio.sleep(5)
            assert not reading.done()
            assert not waiting.done()
            assert not closing.done()
            server.resume_sends()
            assert (await reading)["code"] == 4001
            await closing
            await waiting

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)


@pytest.mark.parametrize("ahead", [False, True])
def test_what_arrives_during_the_close_is_given_before_the_disconnect(ahead: bool) -> None:
    """A message that was read while the close was on its way is not lost to a receiver that waited for the close."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if ahead:
                await asyncio.sleep(2)
            server.stall_sends()
            closing = asyncio.create_task(_send_one(send, CLOSE))
            await asyncio.sleep(0)
            reading = asyncio.create_task(_receive_one(receive))
            await asyncio.sleep(0)
            server.text("late", "later")
            server.disconnect(1005)
            await asyncio.sleep(0.1)
            server.resume_sends()
            assert (await reading).get("text") == "late"
            assert (await receive()).get("text") == "later"
            assert (await receive())["code"] == 4001
            await closing

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)


@pytest.mark.parametrize("on_granian", [False, True])
@pytest.mark.parametrize("watch", [False, True])
def test_a_receive_during_the_close_begins_no_read_at_the_server(watch: bool, on_granian: bool) -> None:
    """It waits in the guard, on every server; only the watch reads then, and not where that deadlocks."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            closing = asyncio.create_task(_send_one(send, CLOSE))
            await asyncio.sleep(0)
            reading = asyncio.create_task(_receive_one(receive))
            await asyncio.sleep(0.25)
            assert server.receives == 0
            await asyncio.sleep(5)
            assert server.receives == (1 if watch and not on_granian else 0)
            assert not reading.done()
            server.resume_sends()
            assert (await reading)["code"] == 4001
            await closing

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), watch=watch))

    with pytest.MonkeyPatch.context() as patch:
        if on_granian:
            _granian(patch)
        run(main)


def test_a_close_waits_for_no_read_where_that_deadlocks_nothing() -> None:
    """On other servers than granian the read of the guard stays, and the close goes out without a turn of the loop."""

    async def main() -> None:
        server = _SlowServer([0.0])

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await asyncio.sleep(2)
            assert server.receives == 1
            closing = send(CLOSE)
            assert inspect.iscoroutine(closing)
            with pytest.raises(StopIteration):
                closing.send(None)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        assert server.pending_at_close == 1
        assert server.types() == ["websocket.accept", "websocket.close"]

    run(main)


@pytest.mark.parametrize("who", ["reader", "ahead", "return"])
def test_on_granian_no_receive_is_pending_during_a_close(who: str) -> None:
    """Granian deadlocks when a close is sent while a receive waits at it: the guard takes its own back before."""

    async def main() -> None:
        server = _SlowServer([0.5])

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if who == "ahead":
                await asyncio.sleep(2)
            reading = asyncio.create_task(_receive_one(receive))
            await asyncio.sleep(0.1)
            assert server.receives == 1
            if who != "return":
                await send(CLOSE)
                assert (await reading)["code"] == 4001
                assert (await receive())["code"] == 4001
            else:
                asyncio.get_running_loop().call_later(5, reading.cancel)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        assert server.pending_at_close == 0
        assert server.called == ["websocket.accept", "websocket.close"]

    with pytest.MonkeyPatch.context() as patch:
        _granian(patch)
        run(main)


def test_on_granian_two_closes_and_a_reader_end_in_one_close() -> None:
    """The close waits for the read to be taken back; who sends or closes meanwhile is late."""

    async def main() -> None:
        server = _SlowServer([0.5])

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            reading = asyncio.create_task(_receive_one(receive))
            await asyncio.sleep(0.1)
            await asyncio.gather(send(CLOSE), send(TEXT), send(CLOSE), send(TEXT))
            assert (await reading)["code"] == 4001

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=())
        await server.call(guard)
        assert server.called == ["websocket.accept", "websocket.close"]
        assert guard.totals().dropped == {"app_closed": 3}

    with pytest.MonkeyPatch.context() as patch:
        _granian(patch)
        run(main)


def test_a_policy_closes_no_connection_that_has_ended() -> None:
    """A message that had arrived before the application's close is judged after it: no second close goes out."""

    class Strict:
        def message(self, connection_id: str, direction: str, size: int) -> Allow | Close:
            return Close(code=1008) if direction == "received" else Allow()

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.text("a")
            await send(CLOSE)
            assert (await receive())["code"] == 4001

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(Strict(),)))
        assert server.sent == [ACCEPT, CLOSE]

    run(main)


def test_on_granian_a_policy_closes_from_the_read_itself() -> None:
    """The task that reads ahead cannot be taken back by itself: the close goes out at once, with its code."""

    class Strict:
        def message(self, connection_id: str, direction: str, size: int) -> Allow | Close:
            return Close(code=1008) if direction == "received" else Allow()

    async def main() -> None:
        server = _SlowServer([0.0])

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.text("a")
            server.disconnect(1008)
            started = asyncio.get_running_loop().time()
            assert (await receive())["code"] == 1008
            assert asyncio.get_running_loop().time() == started

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(Strict(),)))
        assert [message.get("code") for message in server.sent] == [None, 1008]
        assert server.pending_at_close == 0

    with pytest.MonkeyPatch.context() as patch:
        _granian(patch)
        run(main)


def test_a_close_that_fails_is_not_tried_again() -> None:
    """A real error at the application's close goes to the application; nothing follows it at the server."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.fail_sends(RuntimeError("bug"))
            with pytest.raises(RuntimeError, match="bug"):
                await send(CLOSE)
            server.fail_sends(None)
            await send(CLOSE)
            await send(TEXT)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=())
        await server.call(guard)
        assert server.types() == ["websocket.accept"]
        assert guard.totals().dropped == {"app_closed": 2}

    run(main)


# A cancellation at every await


class _TimedServer(ScriptedServer):
    """A server in which everything takes a tenth of a second, so that a cancellation can strike anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []
        self.forwarded = 0

    async def receive(self) -> Message:
        message = await super().receive()
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            self.deliver(message)
            raise
        return message

    async def send(self, message: Message) -> None:
        self.called.append(message["type"])
        await asyncio.sleep(0.1)
        await super().send(message)
        self.forwarded += "mark" in message


def _mark(message: Message) -> Message:
    return {**message, "mark": 1}


async def _talk(receive: Receive, send: Send, how: str) -> None:
    """Go once through everything that an application does."""
    await receive()
    await send(_mark(ACCEPT))
    await receive()
    await send(_mark(TEXT))
    if how == "ahead":
        await asyncio.sleep(2.05)
        await receive()
    if how == "reader":
        reading = asyncio.create_task(_receive_one(receive))
        await asyncio.sleep(0.15)
        await send(_mark(CLOSE))
        await reading
    elif how == "close":
        await send(_mark(CLOSE))
        await receive()
        await receive()
    elif how == "lost":
        await receive()
        await send(_mark(TEXT))
        await receive()


@pytest.mark.parametrize("how", ["return", "ahead", "reader", "close", "lost", "raise"])
@pytest.mark.parametrize("server_kind", ["direct", "granian"])
@pytest.mark.parametrize("options", [{}, {"send_timeout_s": 0.15}], ids=["plain", "deadline"])
def test_a_cancellation_at_any_await_leaves_nothing_behind(how: str, server_kind: str, options: dict[str, Any]) -> None:
    """At whatever moment the server cancels: one terminal event, balanced books, no task, nothing after the close."""

    async def main() -> None:
        before = asyncio.all_tasks()
        for step in range(90 if how in ("ahead", "reader", "close") else 30):
            server, seen = _TimedServer(), Recorder()
            attempted = 0

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                async def counting(message: Message) -> None:
                    nonlocal attempted
                    attempted += 1
                    await send(message)

                await _talk(receive, counting, how)
                if how == "raise":
                    raise ValueError

            server.connect()
            server.text("a")
            if how == "lost":
                server.disconnect(1001)
            else:
                server.text("b")
            guard = WebSocketGuardMiddleware(app, observers=(seen,), **options)
            task = server.call(guard)
            asyncio.get_running_loop().call_later(step * 0.05, task.cancel)
            await asyncio.wait({task}, timeout=30)
            assert task.done()
            if not task.cancelled():
                assert isinstance(task.exception(), ValueError) == (how == "raise")
            await asyncio.sleep(2)  # the handler's own child, if it has one, ends too
            assert server.receives == 0, step
            assert asyncio.all_tasks() == before, step
            assert guard.connections == 0
            if seen.events:
                assert len(seen.of(Terminal)) == 1, step
                assert isinstance(seen.events[-1], Terminal)
                books = seen.one(Terminal).books
                assert (books.attempted, books.forwarded) == (attempted, server.forwarded), step
                assert books.dropped_total == (1 if how == "lost" and attempted == 3 else 0)
            assert server.called.count("websocket.close") <= 1
            assert "websocket.close" not in server.called[:-1]

    run(main)


def test_a_task_cancelled_in_its_send_leaves_the_connection_alone() -> None:
    """One of many senders is cancelled in the server's `send`: its message has failed, the others' go on."""

    async def main() -> None:
        server = _TimedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            task = asyncio.create_task(_send_one(send, TEXT))
            await asyncio.sleep(0.05)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await send(TEXT)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=())
        await server.call(guard)
        books = guard.totals()
        assert (books.sent, books.failed, books.attempted) == (1, 1, 3)
        assert server.types() == ["websocket.accept", "websocket.send", "websocket.close"]

    run(main)


class _FullQueueServer(ScriptedServer):
    """As hypercorn 0.18: a send that fails waits, with the lock that all sends take, for room in the queue."""

    def __init__(self, unread: int) -> None:
        super().__init__()
        self.unread = unread
        self.lock = asyncio.Lock()
        self.room = asyncio.Event()

    async def receive(self) -> Message:
        """Give a message; the last one makes room."""
        message = await super().receive()
        if message["type"] == "websocket.receive":
            self.unread -= 1
            if not self.unread:
                self.room.set()
                self.disconnect(1006)
        return message

    async def send(self, message: Message) -> None:
        """Take a message when there is room."""
        async with self.lock:
            if message["type"] != "websocket.accept":
                await self.room.wait()
            await super().send(message)


@pytest.mark.parametrize("unread", [1, 40])
@pytest.mark.parametrize("how", ["close", "close and receive", "send and close", "receive first", "return"])
def test_a_send_that_waits_until_everything_is_read_does_not_hang_the_connection(how: str, unread: int) -> None:
    """The client left behind messages that nobody reads: the guard reads on during a close and after the end."""

    async def main() -> None:
        server = _FullQueueServer(unread)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if how == "close":
                await send(CLOSE)
            elif how == "close and receive":
                await asyncio.gather(send(CLOSE), receive())
            elif how == "send and close":
                await asyncio.gather(send(TEXT), send(CLOSE), receive())
            elif how == "receive first":
                reading = asyncio.ensure_future(receive())
                await asyncio.sleep(0)
                await asyncio.gather(send(TEXT), send(CLOSE), reading)

        server.connect()
        server.text(*("x" for _ in range(unread)))
        task = server.call(WebSocketGuardMiddleware(app, observers=()))
        await asyncio.wait_for(task, 5)

    run(main)
