"""The seam: policies answer before, observers hear after; neither can hurt a connection."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable
from typing import Any

import pytest

from asgi_ws_guard import (
    Accepted,
    Allow,
    Close,
    Closed,
    CloseStatus,
    Deny,
    Drop,
    Event,
    Handshake,
    Initiator,
    MessageReceived,
    MessageSent,
    ObserverFailed,
    PolicyApplied,
    Rejected,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
TEXT: Message = {"type": "websocket.send", "text": "x"}


class _Admits:
    """A policy whose answer, or exception, a test chooses."""

    def __init__(self, answer: Any, *, is_async: bool = False) -> None:
        self.answer = answer
        self.is_async = is_async
        self.asked: list[Handshake] = []

    def admit(self, handshake: Handshake) -> Allow | Deny | Awaitable[Allow | Deny]:
        self.asked.append(handshake)
        if self.is_async:
            return self._later()
        return self._now()

    async def _later(self) -> Allow | Deny:
        await asyncio.sleep(1)
        return self._now()

    def _now(self) -> Allow | Deny:
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: Allow | Deny = self.answer
        return answer


def _knock(*policies: Any, can_deny: bool = True) -> tuple[ScriptedServer, Recorder, list[int]]:
    """Open one connection; give the server, what was told, and whether the application was called."""

    async def main() -> tuple[ScriptedServer, Recorder, list[int]]:
        called: list[int] = []
        server, seen = ScriptedServer("/room"), Recorder()
        if not can_deny:
            server.scope["extensions"] = {}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            called.append(1)
            await receive()
            await send(ACCEPT)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,), policies=policies)
        await server.call(guard)
        assert guard.connections == 0
        return server, seen, called

    return run(main)


@pytest.mark.parametrize("is_async", [False, True])
def test_who_is_allowed_comes_in(is_async: bool) -> None:
    """Every policy is asked, with the handshake, and nothing is told of an `Allow`."""
    policies = [_Admits(Allow(), is_async=is_async), _Admits(Allow())]
    server, seen, called = _knock(*policies)
    assert called
    assert server.types() == ["websocket.accept", "websocket.close"]
    assert [policy.asked[0].path for policy in policies] == ["/room", "/room"]
    assert not seen.of(PolicyApplied)


@pytest.mark.parametrize("is_async", [False, True])
def test_who_is_denied_gets_an_answer_and_the_application_never_hears(is_async: bool) -> None:
    """Status, headers and body arrive; later policies are not asked; the end is the guard's, with the given class."""
    last = _Admits(Allow())
    deny = Deny(status=401, body=b"who?", headers=((b"x-a", b"b"),), end=CloseStatus.UNAUTHORIZED, reason="no_token")
    server, seen, called = _knock(_Admits(Allow()), _Admits(deny, is_async=is_async), last)
    assert not called
    assert not last.asked
    assert server.sent == [
        {
            "type": "websocket.http.response.start",
            "status": 401,
            "headers": [(b"x-a", b"b"), (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"4")],
        },
        {"type": "websocket.http.response.body", "body": b"who?"},
    ]
    applied = seen.one(PolicyApplied)
    assert (applied.decision, applied.reason) == ("deny", "no_token")
    assert applied.policy.endswith("_Admits")
    end = seen.one(Rejected)
    assert (end.status, end.initiator, end.response_status) == (CloseStatus.UNAUTHORIZED, Initiator.GUARD, 401)
    assert seen.names() == ["Opened", "PolicyApplied", "Ended", "Rejected"]


@pytest.mark.parametrize(
    ("deny", "headers", "body"),
    [
        (
            Deny(status=429, headers=((b"retry-after", b"7"),), reason="too_many"),
            [(b"retry-after", b"7"), (b"content-type", b"application/json"), (b"content-length", b"36")],
            b'{"error": "too_many", "status": 429}',
        ),
        (Deny(body=b""), [(b"content-length", b"0")], b""),
        (
            Deny(body=b"<p>", headers=((b"content-type", b"text/html"), (b"content-length", b"99"))),
            [(b"content-type", b"text/html"), (b"content-length", b"3")],
            b"<p>",
        ),
    ],
)
def test_a_denial_is_a_whole_answer(deny: Deny, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Without a body of its own the reason goes out as JSON; length and type are right whatever a policy gives."""
    server, _, _ = _knock(_Admits(deny))
    assert server.sent[0]["headers"] == headers
    assert server.sent[1]["body"] == body


def test_a_server_without_the_extension_gets_a_close() -> None:
    """Where no denial response is possible (daphne), a close before the accept is a 403."""
    server, seen, called = _knock(_Admits(Deny(status=429)), can_deny=False)
    assert not called
    assert server.sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    assert seen.one(Rejected)


def test_a_denial_goes_out_in_one_turn_of_the_loop() -> None:
    """The websockets implementation of uvicorn loses a body that comes a turn after the start."""

    async def main() -> None:
        server, turns = ScriptedServer(), 0

        async def server_send(message: Message) -> None:
            nonlocal turns
            if message["type"] == "websocket.http.response.start":
                asyncio.get_running_loop().call_soon(later)
            assert turns == 0
            await server.send(message)

        def later() -> None:
            nonlocal turns
            turns += 1

        async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

        guard = WebSocketGuardMiddleware(app, observers=(), policies=(_Admits(Deny(body=b"x" * 1000)),))
        await guard(server.scope, server.receive, server_send)
        assert len(server.sent) == 2

    run(main)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("answer", [ValueError("s3cr3t"), None, True, Drop()])
def test_a_policy_that_fails_denies(answer: object, is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    """An exception, and whatever is no decision, keeps the client out; the exception is logged, but not its text."""
    with caplog.at_level(logging.ERROR, "asgi_ws_guard"):
        server, seen, called = _knock(_Admits(answer, is_async=is_async))
    assert not called
    is_error = isinstance(answer, Exception)
    assert server.sent[0]["status"] == (500 if is_error else 403)
    assert server.sent[1]["body"] == b""
    assert seen.one(PolicyApplied).reason == ("policy_failed" if is_error else "not_a_decision")
    assert len(caplog.records) == is_error
    if is_error:
        assert "test_policies._Admits raised ValueError at a handshake: denied\n" in caplog.text
        assert ", in _now\n" in caplog.text
    assert "s3cr3t" not in caplog.text


def test_a_policy_whose_own_work_is_cancelled_denies() -> None:
    """That is an error of the policy; on Python 3.10, where nobody can tell, it goes up as a cancellation."""

    class Cancelled:
        async def admit(self, handshake: Handshake) -> Allow:
            work = asyncio.ensure_future(asyncio.sleep(1))
            work.cancel()
            await work
            return Allow()

    if sys.version_info >= (3, 11):
        server, seen, called = _knock(Cancelled())
        assert (server.sent[0]["status"], seen.one(PolicyApplied).reason) == (500, "policy_failed")
        assert not called
    else:
        with pytest.raises(asyncio.CancelledError):
            _knock(Cancelled())


def test_a_handshake_cancelled_while_a_policy_thinks_is_over() -> None:
    """A server that gives up while a policy waits for a database sees its cancellation; the story has its end."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise AssertionError

        guard = WebSocketGuardMiddleware(app, observers=(seen,), policies=(_Admits(Allow(), is_async=True),))
        task = server.call(guard)
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.sent == []
        assert seen.names() == ["Opened", "Ended", "Rejected"]
        assert guard.connections == 0

    run(main)


class _Judges:
    """A message policy that answers by size, and remembers what it was asked."""

    def __init__(self, direction: str, answers: dict[int, Any]) -> None:
        self.direction = direction
        self.answers = answers
        self.asked: list[tuple[str, int]] = []

    def message(self, connection_id: str, direction: str, size: int) -> Allow | Drop | Close:
        assert len(connection_id) == 16
        self.asked.append((direction, size))
        answer = self.answers.get(size, Allow()) if direction == self.direction else Allow()
        if isinstance(answer, Exception):
            raise answer
        decided: Allow | Drop | Close = answer
        return decided


def _talk(policy: _Judges, texts: list[str]) -> tuple[ScriptedServer, Recorder, list[Any]]:
    """Echo texts behind a policy; give the server, what was told, and what the application received."""

    async def main() -> tuple[ScriptedServer, Recorder, list[Any]]:
        server, seen = ScriptedServer(), Recorder(wants_messages=True)
        received: list[Any] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            while (message := await receive())["type"] == "websocket.receive":
                received.append(message["text"])
                await send({"type": "websocket.send", "text": message["text"]})
            received.append(message["code"])

        server.connect()
        server.text(*texts)
        asyncio.get_running_loop().call_later(1, server.disconnect, 4321)
        guard = WebSocketGuardMiddleware(app, observers=(seen,), policies=(policy,))
        await server.call(guard)
        return server, seen, received

    return run(main)


def test_a_message_policy_sees_every_message_in_bytes() -> None:
    """Both directions, in order, with the size that goes over the wire."""
    policy = _Judges("sent", {})
    server, _, received = _talk(policy, ["a", "éé"])
    assert policy.asked == [("received", 1), ("sent", 1), ("received", 4), ("sent", 4)]
    assert received == ["a", "éé", 4321]
    assert len(server.sent) == 3


def test_a_dropped_message_is_not_received() -> None:
    """A client's message that a policy drops is passed over; the next one is received; that is told."""
    _, seen, received = _talk(_Judges("received", {2: Drop("too_long")}), ["a", "bb", "c"])
    assert received == ["a", "c", 4321]
    assert (seen.one(PolicyApplied).decision, seen.one(PolicyApplied).reason) == ("drop", "too_long")
    assert len(seen.of(MessageReceived)) == 2


def test_a_dropped_message_is_not_sent() -> None:
    """The application's send returns None, and the drop is counted with the reason ``policy``."""
    server, seen, received = _talk(_Judges("sent", {2: Drop()}), ["a", "bb", "c"])
    assert received == ["a", "bb", "c", 4321]
    assert [message.get("text") for message in server.sent] == [None, "a", "c"]
    assert seen.one(Closed).books.dropped == {"policy": 1}
    assert len(seen.of(MessageSent)) == 2


@pytest.mark.parametrize("direction", ["received", "sent"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_policy_can_close(direction: str, fails: bool) -> None:
    """The connection ends with the policy's code and class; a policy that raises ends it with 1011."""
    answer = ValueError("bug") if fails else Close(4008, "slow down", CloseStatus.RATE_LIMITED)
    server, seen, received = _talk(_Judges(direction, {2: answer}), ["a", "bb", "c"])
    expected = (1011, "policy_failed") if fails else (4008, "slow down")
    assert (server.sent[-1]["code"], server.sent[-1]["reason"]) == expected
    end = seen.one(Closed)
    assert (end.code, end.initiator) == (expected[0], Initiator.GUARD)
    assert end.status is (CloseStatus.APP_ERROR if fails else CloseStatus.RATE_LIMITED)
    assert "bb" not in [message.get("text") for message in server.sent]
    assert ("bb" in received) == (direction == "sent")
    assert server.types().count("websocket.close") == 1


def test_a_policy_that_closes_from_two_tasks_closes_once() -> None:
    """Two messages that are both too much end the connection once, and nothing follows the close."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            asyncio.get_running_loop().call_later(5, server.resume_sends)
            await asyncio.gather(*(send({"type": "websocket.send", "text": "bb"}) for _ in range(3)))

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(), policies=(_Judges("sent", {2: Close()}),))
        await server.call(guard)
        assert server.types() == ["websocket.accept", "websocket.close"]
        assert guard.totals().dropped_total == 3

    run(main)


def test_a_policy_judges_what_was_read_ahead() -> None:
    """Messages that the guard reads by itself are judged before they wait for the application."""
    policy = _Judges("received", {2: Drop()})

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.text("bb", "a", "bb", "c")
            await asyncio.sleep(5)
            assert len(policy.asked) == 4
            assert [(await receive())["text"], (await receive())["text"]] == ["a", "c"]

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(policy,)))

    run(main)


# Observers


class _Broken:
    """An observer that raises at every event, or at those of one class."""

    def __init__(self, kind: type[Event] = Event) -> None:
        self.kind = kind

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, self.kind):
            raise ZeroDivisionError


def test_an_observer_that_raises_is_contained_counted_and_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """The application, the server and the other observers go on; one report per observer and connection."""

    async def main() -> None:
        before, after = Recorder(), Recorder()
        broken = _Broken()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)

        guard = WebSocketGuardMiddleware(app, observers=(before, broken, after))
        for count in (1, 2):
            server = ScriptedServer()
            server.connect()
            await server.call(guard)
            assert server.types() == ["websocket.accept", "websocket.close"]
            for seen in (before, after):
                assert len(seen.of(ObserverFailed)) == count
                assert [name for name in seen.names() if name != "ObserverFailed"] == [
                    "Opened",
                    "Accepted",
                    "Ended",
                    "Closed",
                ] * count
        failed = after.of(ObserverFailed)[0]
        assert (failed.error_type, failed.event) == ("ZeroDivisionError", "Opened")
        assert failed.observer.endswith("_Broken")
        assert guard.observer_failures == {failed.observer: 8}

    with caplog.at_level(logging.ERROR, "asgi_ws_guard"):
        run(main)
    assert len(caplog.records) == 2


def test_two_broken_observers_are_both_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Observers of one class are told apart, and one that raises at the report of another ends no recursion."""

    async def main() -> None:
        seen = Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)

        server = ScriptedServer()
        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(_Broken(), _Broken(Accepted), _Broken(), seen))
        await server.call(guard)
        assert len(seen.of(ObserverFailed)) == 3
        assert sum(guard.observer_failures.values()) >= 4 + 1 + 4

    with caplog.at_level(logging.ERROR, "asgi_ws_guard"):
        run(main)
    assert len(caplog.records) == 3


def test_functions_and_methods_are_observers_too() -> None:
    """Any callable that takes one event will do."""

    async def main() -> None:
        names: list[str] = []

        class Collector:
            def hear(self, event: Event) -> None:
                names.append(type(event).__name__)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()

        server = ScriptedServer()
        server.connect()
        observers = (lambda event: names.append("lambda"), Collector().hear)
        await server.call(WebSocketGuardMiddleware(app, observers=observers))
        assert names == ["lambda", "Opened", "lambda", "Ended", "Rejected", "lambda"]

    run(main)


def test_the_accept_is_told_before_what_happens_during_it() -> None:
    """A disconnect that is read while the accept is on its way is heard after `Accepted`."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def receive_one(receive: Receive) -> Message:
            return await receive()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            server.stall_sends()
            reading = asyncio.create_task(receive_one(receive))
            server.disconnect(1001)
            asyncio.get_running_loop().call_later(1, server.resume_sends)
            await send(ACCEPT)
            assert (await reading)["code"] == 1001
            await send(TEXT)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        assert seen.names() == ["Opened", "Accepted", "Ended", "LateSend", "Closed"]
        assert server.types() == ["websocket.accept"]

    run(main)


def test_a_loop_whose_every_message_is_dropped_starves_nobody() -> None:
    """No server is awaited for a message that a policy drops, so the guard lets the event loop go round."""

    class DropAll:
        def message(self, connection_id: str, direction: str, size: int) -> Drop:
            return Drop("all")

    async def main() -> None:
        server, turns = ScriptedServer(), 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            for _ in range(1000):
                await send(TEXT)

        server.connect()
        task = server.call(WebSocketGuardMiddleware(app, observers=(), policies=[DropAll()]))
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 1000

    run(main)
