"""What observers are told of routes, of single messages, of late sends and of handlers that run on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from asgi_ws_guard import (
    Accepted,
    Allow,
    Books,
    Closed,
    CloseStatus,
    ConnectionClosed,
    DropReason,
    Ended,
    Event,
    HandlerOutlived,
    LateSend,
    Leaked,
    MessageHandled,
    MessageLost,
    MessageReceived,
    MessageSent,
    PolicyApplied,
    Terminal,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._plugin import Drop
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 1000}
TEXT: Message = {"type": "websocket.send", "text": "é"}
DATA: Message = {"type": "websocket.send", "bytes": b"123"}
OF_MESSAGES = (MessageReceived, MessageHandled, MessageSent, MessageLost)

Work = Callable[[ScriptedServer, Receive, Send], Awaitable[None]]


class _OnPurpose(Exception):
    """What a handler raises in a test."""


def play(work: Work, *, wants_messages: bool = True, after_s: float = 0.0, **options: Any) -> Recorder:
    """Let *work* be the handler of an accepted connection, wait *after_s* after its end, and give what was told."""
    observer = Recorder(wants_messages=wants_messages)

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await work(server, receive, send)

        server.connect()
        with contextlib.suppress(_OnPurpose):
            await server.call(WebSocketGuardMiddleware(app, observers=(observer,), **options))
        await asyncio.sleep(after_s)

    run(main)
    (connection_id,) = {event.connection_id for event in observer.events}
    assert len(connection_id) == 16
    times = [event.at_s for event in observer.events]
    assert times == sorted(times)
    return observer


def heard(observer: Recorder, *kinds: type[Event]) -> list[tuple[Any, ...]]:
    """Give name and own values of the events of some classes, rounded."""
    found = []
    for event in observer.events:
        if isinstance(event, kinds):
            own = dataclasses.fields(event)[len(dataclasses.fields(Event)) :]
            values = [getattr(event, field.name) for field in own]
            found.append((type(event).__name__, *(round(one, 6) if isinstance(one, float) else one for one in values)))
    return found


# --- routes


def test_the_route_is_told_at_the_accept_and_at_the_end() -> None:
    """What the framework matched stays, also when the application changes the scope later."""
    observer = Recorder()

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            scope["route"] = SimpleNamespace(path="/rooms/{room}")
            await send(ACCEPT)
            scope["route"] = SimpleNamespace(path="/other")
            await send(CLOSE)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(observer,)))

    run(main)
    assert observer.one(Accepted).route == "/rooms/{room}"
    assert observer.one(Closed).route == "/rooms/{room}"


def test_no_route_is_found_after_the_accept() -> None:
    """The tally was chosen at the accept: a route that comes later would contradict it."""
    observer = Recorder()

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            scope["route"] = SimpleNamespace(path="/late")
            await send(TEXT)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(observer,)))

    run(main)
    assert (observer.one(Accepted).route, observer.one(Closed).route) == (None, None)


def test_the_route_of_a_handshake_without_an_answer() -> None:
    """The terminal event has what was matched by the end, or at the first message, whatever came of it."""
    observer = Recorder()

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            scope["route"] = SimpleNamespace(path="/silent")

        server = ScriptedServer()
        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(observer,)))

    run(main)
    assert observer.one(Terminal).route == "/silent"


def test_the_route_that_was_found_first_stays() -> None:
    """A denial is told with the route of its first message, also when nobody knows it any more at the end."""
    observer = Recorder()

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            scope["route"] = SimpleNamespace(path="/denied")
            await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
            del scope["route"]
            await send({"type": "websocket.http.response.body", "body": b""})

        server = ScriptedServer()
        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(observer,)))

    run(main)
    assert observer.one(Terminal).route == "/denied"


# --- handlers that run on


def _ending(lives_s: float) -> Work:
    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)
        server.disconnect(1001)
        await receive()
        with contextlib.suppress(ConnectionClosed):
            await send(TEXT)
        await asyncio.sleep(lives_s)

    return work


@pytest.mark.parametrize("watch", [True, False])
@pytest.mark.parametrize("linger_s", [0, 2, 10])
def test_a_handler_that_runs_on_is_told_once(linger_s: float, watch: bool) -> None:
    """At the first look of the watch when twice the linger time and a second are over, with the books so far."""
    due_s = 2 * linger_s + 1
    observer = play(_ending(10 * due_s), linger_s=linger_s, watch=watch, wants_messages=False)
    told = observer.one(HandlerOutlived)
    ended = observer.one(Ended)
    assert ended.at_s == pytest.approx(1)
    assert told.at_s == pytest.approx(1 + due_s)
    assert told.lingered_s == pytest.approx(due_s)
    assert told.books == Books(forwarded=1, dropped={"client_disconnected": 1})
    assert observer.names()[-2:] == ["HandlerOutlived", "Closed"]


@pytest.mark.parametrize(("lives_s", "is_told"), [(4.99, False), (5.01, True)])
def test_a_handler_that_ends_in_time_is_not_told(lives_s: float, is_told: bool) -> None:
    """Who is done before that time is only cleaning up."""
    observer = play(_ending(lives_s), linger_s=2)
    assert bool(observer.of(HandlerOutlived)) == is_told
    assert observer.one(Closed).lingered_s == pytest.approx(lives_s)


def test_an_open_connection_is_not_outlived() -> None:
    """However long a handler runs: only the time since the end counts."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1000)

    assert not play(work, linger_s=0).of(HandlerOutlived)


def test_each_connection_is_told_for_itself() -> None:
    """Two handlers that run on are two facts."""
    observer = Recorder()

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await send(CLOSE)
            await asyncio.sleep(20)

        guard = WebSocketGuardMiddleware(app, observers=(observer,), linger_s=1)
        servers = [ScriptedServer() for _ in range(2)]
        for server in servers:
            server.connect()
        await asyncio.gather(*(server.call(guard) for server in servers))

    run(main)
    assert len({event.connection_id for event in observer.of(HandlerOutlived)}) == 2
    assert len(observer.of(HandlerOutlived)) == 2


def test_on_trio_nobody_looks() -> None:
    """Where there are no timers a handler that runs on is seen at its end only."""
    observer = Recorder()

    async def main() -> None:
        arriving: list[Message] = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}]

        async def receive() -> Message:
            return arriving.pop(0)

        async def send(message: Message) -> None:
            await trio.lowlevel.checkpoint()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            await trio.sleep(100)

        guard = WebSocketGuardMiddleware(app, observers=(observer,), linger_s=1)
        await guard({"type": "websocket", "path": "/ws"}, receive, send)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert observer.names() == ["Opened", "Accepted", "Ended", "Closed"]
    assert observer.one(Closed).lingered_s == pytest.approx(100)


# --- single messages


async def _echo(server: ScriptedServer, receive: Receive, send: Send) -> None:
    server.text("é")
    server.deliver({"type": "websocket.receive", "bytes": b"123", "text": None})
    await receive()
    await asyncio.sleep(0.1)
    await send(TEXT)
    await receive()
    await asyncio.sleep(0.2)
    server.disconnect()
    await receive()
    await asyncio.sleep(5)


def test_how_long_the_application_is_at_each_message() -> None:
    """From its delivery to the next `receive`; the disconnect is no message, and its time is nobody's."""
    assert heard(play(_echo), *OF_MESSAGES) == [
        ("MessageReceived", "text", 2),
        ("MessageSent", "text", 2, 0.0),
        ("MessageHandled", "text", 2, 0.1),
        ("MessageReceived", "binary", 3),
        ("MessageHandled", "binary", 3, 0.2),
    ]


async def _echo_and_fail(server: ScriptedServer, receive: Receive, send: Send) -> None:
    server.text("é")
    await receive()
    await send(TEXT)
    server.fail_sends(KeyError("bug"))
    with pytest.raises(KeyError):
        await send(TEXT)
    server.fail_sends(None)


class _AllowsAll:
    """A policy that allows everything, for which every message takes the slow path."""

    def __repr__(self) -> str:
        return "AllowsAll"  # the same in each process: it becomes the name of a test

    def message(self, connection_id: str, direction: str, size: int) -> Allow:
        """Allow."""
        return Allow()


@pytest.mark.parametrize("options", [{}, {"send_timeout_s": 30}, {"policies": (_AllowsAll(),)}], ids=str)
@pytest.mark.parametrize("work", [_echo, _ending(30), _echo_and_fail])
def test_who_does_not_ask_hears_of_no_message(work: Work, options: dict[str, Any]) -> None:
    """Without ``wants_messages`` nothing is told of single messages, whatever becomes of them."""
    observer = play(work, wants_messages=False, **options)
    assert not heard(observer, *OF_MESSAGES)
    assert len(observer.of(Terminal)) == 1


def test_the_last_message_is_handled_when_the_handler_is_done() -> None:
    """Before the terminal event, also when an exception leaves the handler; waiting for a message is no work."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.text("abc")
        await receive()
        await asyncio.sleep(0.3)
        raise _OnPurpose

    observer = play(work)
    assert heard(observer, MessageHandled) == [("MessageHandled", "text", 3, 0.3)]
    assert observer.names()[-3:] == ["Ended", "MessageHandled", "Closed"]


def test_each_message_is_handled_once_whoever_receives() -> None:
    """With two readers a message is handled when the next one is delivered; a cancelled receive loses nothing."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        async def read() -> None:
            await receive()

        readers = [asyncio.create_task(read()) for _ in range(3)]
        await asyncio.sleep(1)
        readers[2].cancel()
        server.text("1")
        await asyncio.sleep(0.25)
        server.text("22")
        await asyncio.wait(readers)
        await asyncio.sleep(0.5)
        lost = asyncio.create_task(read())
        await asyncio.sleep(1)
        lost.cancel()
        await asyncio.sleep(1)

    observer = play(work)
    assert heard(observer, MessageReceived, MessageHandled) == [
        ("MessageReceived", "text", 1),
        ("MessageReceived", "text", 2),
        ("MessageHandled", "text", 1, 0.25),
        ("MessageHandled", "text", 2, 0.5),
    ]


@pytest.mark.parametrize("send_timeout_s", [None, 30])
def test_how_long_a_send_took(send_timeout_s: float | None) -> None:
    """The time of the server's `send`, for messages only: an accept and a close are none."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.stall_sends()
        asyncio.get_running_loop().call_later(0.75, server.resume_sends)
        await send(TEXT)
        await send(DATA)
        await send(CLOSE)

    assert heard(play(work, send_timeout_s=send_timeout_s), *OF_MESSAGES) == [
        ("MessageSent", "text", 2, 0.75),
        ("MessageSent", "binary", 3, 0.0),
    ]


async def _fail(server: ScriptedServer, receive: Receive, send: Send) -> None:
    server.fail_sends(KeyError("bug"))
    with pytest.raises(KeyError):
        await send(TEXT)
    server.fail_sends(None)


async def _lose(server: ScriptedServer, receive: Receive, send: Send) -> None:
    server.fail_sends(OSError())
    await send(TEXT)


async def _lose_late(server: ScriptedServer, receive: Receive, send: Send) -> None:
    server.disconnect(1001)
    server.fail_sends(OSError())
    await send(TEXT)


async def _cancel(server: ScriptedServer, receive: Receive, send: Send) -> None:
    async def push() -> None:
        await send(TEXT)

    server.stall_sends()
    task = asyncio.create_task(push())
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.wait({task})
    server.resume_sends()


async def _time_out(server: ScriptedServer, receive: Receive, send: Send) -> None:
    server.stall_sends()
    await send(TEXT)


@pytest.mark.parametrize(
    ("work", "options", "took_s", "reason", "error_type"),
    [
        (_fail, {}, 0, None, "KeyError"),
        (_lose, {}, 0, DropReason.TRANSPORT_LOST, None),
        (_lose_late, {}, 0, DropReason.CLIENT_DISCONNECTED, None),
        (_cancel, {}, 0.5, None, "CancelledError"),
        (_time_out, {"send_timeout_s": 2}, 2.5, None, "CancelledError"),
    ],
)
def test_a_message_that_the_server_did_not_take(
    work: Work, options: dict[str, Any], took_s: float, reason: DropReason | None, error_type: str | None
) -> None:
    """It is told once, with the reason of its drop or the type of its error, and is none of those that were sent."""
    observer = play(work, **options)
    (lost,) = observer.of(MessageLost)
    assert (lost.kind, lost.size, lost.reason, lost.error_type) == ("text", 2, reason, error_type)
    assert lost.took_s == pytest.approx(took_s, abs=0.26 if options else 1e-6)
    assert not observer.of(MessageSent)
    assert not play(work, wants_messages=False, **options).of(MessageLost)


def test_what_the_server_was_not_given_is_not_lost() -> None:
    """A late send and a close that fails are no lost messages."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.fail_sends(lambda message: KeyError("x") if message["type"] == "websocket.close" else None)
        with contextlib.suppress(KeyError):
            await send(CLOSE)
        await send(TEXT)

    observer = play(work)
    assert not observer.of(MessageLost)
    assert observer.one(Closed).books.failed == 1
    assert observer.one(Closed).books.dropped_total == 1


class _DropsReceived:
    """A policy that drops what is received."""

    def message(self, connection_id: str, direction: str, size: int) -> Allow | Drop:
        """Answer."""
        return Drop() if direction == "received" else Allow()


@pytest.mark.parametrize("policies", [(), (_DropsReceived(),)])
def test_nothing_follows_the_terminal_event(policies: tuple[object, ...]) -> None:
    """Sends and receives that outlive the handler are counted, and told to nobody; only a leak is."""
    tasks: list[asyncio.Task[None]] = []

    async def push(send: Send, message: Message) -> None:
        await send(message)

    async def pull(receive: Receive) -> None:
        await receive()
        await receive()

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.stall_sends()
        tasks.append(asyncio.create_task(pull(receive)))
        tasks.append(asyncio.create_task(push(send, TEXT)))
        tasks.append(asyncio.create_task(push(send, DATA)))
        await asyncio.sleep(0.1)
        server.fail_sends(lambda message: KeyError("bug") if "bytes" in message else None)
        asyncio.get_running_loop().call_later(0.5, server.resume_sends)
        asyncio.get_running_loop().call_later(0.5, server.text, "late")

    async def leak(server: ScriptedServer, receive: Receive, send: Send) -> None:
        await work(server, receive, send)
        asyncio.get_running_loop().call_later(3, lambda: tasks.append(asyncio.create_task(push(send, TEXT))))

    for one, last in ((work, []), (leak, ["Leaked"])):
        tasks.clear()
        observer = play(one, after_s=5, close_on_return=None, policies=policies)
        assert [task.done() for task in tasks] == [True] * (3 + len(last))
        assert isinstance(tasks[2].exception(), KeyError)
        assert observer.names()[observer.names().index("Closed") + 1 :] == last
        assert not observer.of(PolicyApplied)
        assert len(observer.of(Leaked)) == len(last)


# --- late sends


def test_a_late_send_is_told_once_per_reason() -> None:
    """Two of one reason are one fact; when the server says what had happened, the next one has another reason."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        server.fail_sends(OSError())
        await send(TEXT)
        await send(TEXT)
        server.disconnect(1001)
        await receive()
        for _ in range(3):
            await send(CLOSE)

    observer = play(work, wants_messages=False)
    assert [(late.message_type, late.reason) for late in observer.of(LateSend)] == [
        ("websocket.send", DropReason.TRANSPORT_LOST),
        ("websocket.close", DropReason.CLIENT_DISCONNECTED),
    ]
    closed = observer.one(Closed)
    assert closed.books.dropped == {"transport_lost": 2, "client_disconnected": 3}
    assert closed.status is CloseStatus.GOING_AWAY


def test_late_sends_of_one_reason_are_told_once() -> None:
    """However many there are."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        await send(CLOSE)
        for _ in range(5):
            await send(TEXT)

    observer = play(work, wants_messages=False)
    assert observer.one(LateSend).reason is DropReason.APP_CLOSED
    assert observer.one(Closed).books.dropped == {"app_closed": 5}
