"""The first message tells who the client is: nothing passes before, and who is not known is closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest

from asgi_ws_guard import (
    Allow,
    Close,
    Closed,
    CloseStatus,
    Drop,
    Handshake,
    Identified,
    Identity,
    Initiator,
    PolicyApplied,
    WebSocketGuardMiddleware,
    current_connection,
)
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
TEXT: Message = {"type": "websocket.send", "text": "x"}
ANN = Identity("ann", label="a1")


class _First:
    """Answers the first message: by what a test gives, after some time."""

    def __init__(self, answer: Any = None, *, after_s: float | None = None, timeout_s: float = 5.0) -> None:
        self.answer = Allow(identity=ANN) if answer is None else answer
        self.after_s = after_s
        self.timeout_s = timeout_s
        self.asked: list[str | bytes] = []
        self.cancelled = 0

    def __call__(self, payload: str | bytes, /) -> Allow | Close | Awaitable[Allow | Close]:
        self.asked.append(payload)
        return self._now() if self.after_s is None else self._later(self.after_s)

    async def _later(self, after_s: float) -> Allow | Close:
        try:
            await asyncio.sleep(after_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._now()

    def _now(self) -> Allow | Close:
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: Allow | Close = self.answer
        return answer


class _Wants:
    """A policy that lets everybody in who sends something first."""

    def __init__(self, first: _First) -> None:
        self.first = first
        self.released = 0

    def admit(self, handshake: Handshake) -> Allow:
        return Allow(first_message=self.first)

    def release(self, connection_id: str) -> None:
        self.released += 1


Handler = Callable[[Receive, Send, ScriptedServer], Awaitable[None]]


def _serve(handler: Handler, *policies: Any, prepare: Callable[[ScriptedServer], None] | None = None) -> Any:
    """Serve one connection; give the server and what was told; nothing of it is left afterwards."""

    async def main() -> tuple[ScriptedServer, Recorder]:
        server, seen, before = ScriptedServer(), Recorder(), asyncio.all_tasks()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await handler(receive, send, server)

        server.connect()
        if prepare is not None:
            prepare(server)
        guard = WebSocketGuardMiddleware(app, observers=(seen,), policies=policies)
        await server.call(guard)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        assert guard.connections == 0
        assert all(policy.released == 1 for policy in policies if isinstance(policy, _Wants))
        books = guard.totals()
        assert books.attempted == books.forwarded + books.dropped_total + books.failed + books.refused
        return server, seen

    return run(main)


async def _echo(receive: Receive, send: Send, server: ScriptedServer) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def _texts(*texts: str) -> Callable[[ScriptedServer], None]:
    def prepare(server: ScriptedServer) -> None:
        server.text(*texts)
        asyncio.get_running_loop().call_later(10, server.disconnect)

    return prepare


@pytest.mark.parametrize("after_s", [None, 1.0])
def test_the_first_message_is_swallowed(after_s: float | None) -> None:
    """The policy gets it, the application the rest in order; the identity is known when the accept returns."""
    first = _First(after_s=after_s)
    known: list[Identity | None] = []

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        async def noted(message: Message) -> None:
            await send(message)
            if message is ACCEPT:
                known.append(current_connection().identity)

        await _echo(receive, noted, server)

    server, seen = _serve(handler, _Wants(first), prepare=_texts("token", "a", "b"))
    assert first.asked == ["token"]
    assert known == [ANN]
    assert [message.get("text") for message in server.sent] == [None, "a", "b"]
    assert seen.names()[:3] == ["Opened", "Accepted", "Identified"]
    closed = seen.one(Closed)
    assert (closed.books.received, closed.books.sent) == (3, 2)


def test_a_binary_message_will_do() -> None:
    """Bytes are given as bytes."""
    first = _First()

    def prepare(server: ScriptedServer) -> None:
        server.deliver({"type": "websocket.receive", "bytes": b"token"})
        asyncio.get_running_loop().call_later(1, server.disconnect)

    _serve(_echo, _Wants(first), prepare=prepare)
    assert first.asked == [b"token"]


def test_a_connect_that_nobody_has_read_is_the_applications() -> None:
    """An application may accept first and receive later: connect comes first, then what followed the token."""
    received: list[str] = []

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await send(ACCEPT)
        for _ in range(3):
            message = await receive()
            received.append(message.get("text", message["type"]))

    _serve(handler, _Wants(_First()), prepare=_texts("token", "a"))
    assert received == ["websocket.connect", "a", "websocket.disconnect"]


def test_an_application_that_receives_meanwhile_gets_what_follows() -> None:
    """Quart reads in a task of its own before it accepts: it never sees the token, and waits for the answer."""
    received: list[str] = []

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        async def read() -> None:
            await receive()
            while (message := await receive())["type"] == "websocket.receive":
                assert current_connection().identity is ANN
                received.append(message["text"])

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().call_later(1, server.text, "token", "a", "b")
        asyncio.get_running_loop().call_later(9, server.disconnect)
        await send(ACCEPT)
        await reading

    first = _First(after_s=2.0)
    _serve(handler, _Wants(first))
    assert first.asked == ["token"]
    assert received == ["a", "b"]


def test_a_receive_that_is_cancelled_meanwhile_loses_nothing() -> None:
    """The guard reads on by itself where the application has stopped to."""
    first = _First()

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        async def read() -> None:
            await receive()
            await receive()

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().call_later(1, reading.cancel)
        asyncio.get_running_loop().call_later(2, server.text, "token", "a")
        await send(ACCEPT)
        assert (await receive())["text"] == "a"

    _serve(handler, _Wants(first))
    assert first.asked == ["token"]


@pytest.mark.parametrize("after_s", [None, 1.0])
@pytest.mark.parametrize(
    ("answer", "code", "reason"),
    [
        (Close(4403, "who?"), 4403, "who?"),
        (Close(1005, ""), 1000, ""),
        (KeyError("token"), 4401, "policy_failed"),
        (Drop(), 4401, "policy_failed"),
        (Close("4403"), 4401, "policy_failed"),  # type: ignore[arg-type]
        (Allow(identity=Identity(["ann"])), 4401, "policy_failed"),  # type: ignore[arg-type]
    ],
)
def test_who_is_not_known_is_closed(
    answer: Any, code: int, reason: str, after_s: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The accept returns, all that follows is late, and the next receive gives the disconnect."""
    received: list[Message] = []

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await receive()
        await send(ACCEPT)
        await send(TEXT)
        received.append(await receive())
        assert current_connection().identity is None

    with caplog.at_level(logging.ERROR, "asgi_ws_guard"):
        server, seen = _serve(handler, _Wants(_First(answer, after_s=after_s)), prepare=_texts("token", "a"))
    assert server.types() == ["websocket.accept", "websocket.close"]
    assert (server.sent[1]["code"], server.sent[1]["reason"]) == (code, reason)
    closed = seen.one(Closed)
    assert (closed.status, closed.initiator) == (CloseStatus.UNAUTHORIZED, Initiator.GUARD)
    assert closed.books.dropped == {"guard_closed": 1}
    assert seen.one(PolicyApplied).decision == "close"
    assert len(caplog.records) == (reason == "policy_failed")
    assert "token" not in caplog.text
    assert [message["type"] for message in received] == ["websocket.disconnect"]
    assert received[0]["code"] == code


@pytest.mark.parametrize("after_s", [None, 60.0])
def test_who_says_nothing_in_time_is_closed(after_s: float | None) -> None:
    """The time counts from the accept, for the message and for the answer to it, which is cancelled."""
    first, waited = _First(after_s=after_s), []

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await receive()
        began_s = asyncio.get_running_loop().time()
        await send(ACCEPT)
        waited.append(asyncio.get_running_loop().time() - began_s)

    prepare = None if after_s is None else _texts("token")
    server, seen = _serve(handler, _Wants(first), prepare=prepare)
    assert server.sent[1] == {"type": "websocket.close", "code": 4401, "reason": "first_message_timeout"}
    assert waited == [5.0]
    assert seen.one(Closed).status is CloseStatus.UNAUTHORIZED
    assert seen.one(PolicyApplied).reason == "first_message_timeout"
    assert first.cancelled == (after_s is not None)


@pytest.mark.parametrize("after_s", [None, 3.0])
def test_a_client_that_leaves_meanwhile_ends_as_always(after_s: float | None) -> None:
    """Before its message or before the answer to it: the end is the client's, and the accept returns at once."""
    first = _First(after_s=after_s)

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await receive()
        asyncio.get_running_loop().call_later(1, server.disconnect, 1001)
        if after_s is not None:
            server.text("token", "a")
        await send(ACCEPT)
        assert asyncio.get_running_loop().time() == 1.0
        assert (await receive())["code"] == 1001

    server, seen = _serve(handler, _Wants(first))
    assert server.types() == ["websocket.accept"]
    assert seen.one(Closed).initiator is Initiator.CLIENT
    assert not seen.of(PolicyApplied)
    assert not seen.of(Identified)
    assert first.cancelled == (after_s is not None)


@pytest.mark.parametrize("answer", [None, Close(4401)])
@pytest.mark.parametrize("stalls", [False, True])
def test_sends_of_other_tasks_are_held(answer: Any, stalls: bool) -> None:
    """Also while the accept is on its way: they go out in order to who is known, and to nobody else."""

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        async def push(text: str) -> None:
            await send({"type": "websocket.send", "text": text})

        await receive()
        if stalls:
            server.stall_sends()
            asyncio.get_running_loop().call_later(0.5, server.resume_sends)
        accepting = asyncio.create_task(_sent(send, ACCEPT))
        await asyncio.sleep(0.1)
        pushing = [asyncio.create_task(push(text)) for text in "abc"]
        await asyncio.sleep(1)
        assert server.types() == ["websocket.accept"]
        assert not any(task.done() for task in (*pushing, accepting))
        server.text("token")
        await asyncio.gather(accepting, *pushing)

    server, seen = _serve(handler, _Wants(_First(answer)))
    if answer is None:
        assert [message.get("text") for message in server.sent] == [None, "a", "b", "c", None]
    else:
        assert server.types() == ["websocket.accept", "websocket.close"]
        assert seen.one(Closed).books.dropped == {"guard_closed": 3}


async def _sent(send: Send, message: Message) -> None:
    await send(message)


def test_the_application_may_close_meanwhile() -> None:
    """A close says nothing to a stranger: it goes out at once, and everybody goes on."""

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await receive()
        accepting = asyncio.create_task(_sent(send, ACCEPT))
        await asyncio.sleep(1)
        await send({"type": "websocket.close", "code": 4000})
        await accepting
        assert asyncio.get_running_loop().time() == 1.0

    server, seen = _serve(handler, _Wants(_First()))
    assert [message.get("code") for message in server.sent] == [None, 4000]
    assert seen.one(Closed).status is CloseStatus.APP_CLOSE


@pytest.mark.parametrize("after_s", [None, 60.0])
def test_a_handler_that_is_cancelled_meanwhile_leaves_nothing(after_s: float | None) -> None:
    """No task, no timer, no answer that is still thought about."""
    first, policy = _First(after_s=after_s), None

    async def main() -> None:
        nonlocal policy
        server, seen, before = ScriptedServer(), Recorder(), asyncio.all_tasks()
        policy = _Wants(first)
        server.connect()
        if after_s is not None:
            server.text("token")
        task = server.call(WebSocketGuardMiddleware(_accept_only, observers=(seen,), policies=(policy,)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == before
        assert server.types() == ["websocket.accept"]
        assert seen.one(Closed).status is CloseStatus.SHUTDOWN

    run(main)
    assert policy is not None
    assert policy.released == 1


async def _accept_only(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)


def test_an_accept_that_is_cancelled_lets_nobody_in() -> None:
    """A handler that waits for its accept with a deadline of its own goes on, and its sends wait for the answer."""

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await receive()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(send(ACCEPT), 1)
        await send(TEXT)
        assert asyncio.get_running_loop().time() == 5.0

    server, seen = _serve(handler, _Wants(_First()))
    assert server.types() == ["websocket.accept", "websocket.close"]
    assert server.sent[1]["code"] == 4401
    assert seen.one(Closed).books.dropped == {"guard_closed": 1}


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("a real error")])
def test_an_accept_that_fails_lets_nobody_in(error: Exception) -> None:
    """Whatever the server raised, nothing waits for a first message, and nothing goes out."""

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await receive()
        server.fail_sends(error)
        expected = pytest.raises(ValueError, match="real") if isinstance(error, ValueError) else nullcontext()
        with expected:
            await send(ACCEPT)
        server.fail_sends(None)
        await send(TEXT)

    server, seen = _serve(handler, _Wants(_First()))
    assert server.sent == []
    assert seen.one(Closed).books.dropped_total >= 1


def test_every_policy_that_wants_to_is_asked_about_the_one_message() -> None:
    """In order, until one does not allow it; the shortest time and the last identity count."""
    bob = Identity("bob")
    one, two, three = _First(timeout_s=9), _First(Allow(identity=bob)), _First(Allow(), timeout_s=7)
    found: list[Identity | None] = []

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await receive()
        await send(ACCEPT)
        found.append(current_connection().identity)

    _serve(handler, _Wants(one), _Wants(two), _Wants(three), prepare=_texts("token"))
    assert [one.asked, two.asked, three.asked] == [["token"]] * 3
    assert found == [bob]
    refused = _First(Close(4401))
    _serve(handler, _Wants(one), _Wants(refused), _Wants(three), prepare=_texts("token"))
    assert [len(one.asked), len(refused.asked), len(three.asked)] == [2, 1, 1]


class _Sizes:
    """A message policy that drops what is long."""

    def message(self, connection_id: str, direction: str, size: int) -> Allow | Drop:
        return Drop("too_long") if size > 5 else Allow()


def test_a_message_that_a_policy_drops_is_not_the_first() -> None:
    """A token of a megabyte reaches nobody; what comes next is the first message."""
    first = _First()
    server, _ = _serve(_echo, _Sizes(), _Wants(first), prepare=_texts("x" * 1000, "token", "a"))
    assert first.asked == ["token"]
    assert [message.get("text") for message in server.sent] == [None, "a"]


def test_what_arrives_before_the_answer_waits() -> None:
    """Any number of messages behind the first: order is kept, and none passes before the client is known."""
    texts = [f"m{number}" for number in range(300)]
    server, seen = _serve(_echo, _Wants(_First(after_s=3.0)), prepare=_texts("token", *texts))
    assert [message["text"] for message in server.sent[1:]] == texts
    assert seen.one(Closed).books.received == 301


def test_a_denied_client_is_asked_nothing() -> None:
    """An application that denies the handshake itself waits for nobody."""

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await receive()
        await send({"type": "websocket.close"})

    server, _ = _serve(handler, _Wants(_First()))
    assert server.types() == ["websocket.close"]


@pytest.mark.parametrize("answer", [Close(4401), ValueError("bug")])
def test_what_a_stranger_sent_reaches_nobody(answer: Any) -> None:
    """Messages behind a bad token are thrown away, also for a task that receives while the close is on its way."""
    received: list[str] = []

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        async def read() -> None:
            while (message := await receive())["type"] != "websocket.disconnect":
                received.append(message["type"])

        accepting = asyncio.create_task(_sent(send, ACCEPT))
        await asyncio.sleep(0.1)
        server.text("token", "a", "b")
        asyncio.get_running_loop().call_later(1, server.stall_sends)
        asyncio.get_running_loop().call_later(4, server.resume_sends)
        await asyncio.sleep(3)
        server.text("c")
        reading = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        server.text("d")
        await accepting
        await reading

    _serve(handler, _Wants(_First(answer, after_s=2.0)))
    assert received == ["websocket.connect"]


def test_what_a_stranger_sends_behind_the_applications_close_reaches_nobody() -> None:
    """Messages that arrive before the server's disconnect are the application's, but not those of a stranger."""
    received: list[str] = []

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await receive()
        accepting = asyncio.create_task(_sent(send, ACCEPT))
        await asyncio.sleep(1)
        await send({"type": "websocket.close", "code": 4000})
        await accepting
        server.text("token", "a")
        server.disconnect(4000)
        received.append((await receive())["type"])

    _serve(handler, _Wants(_First()))
    assert received == ["websocket.disconnect"]


def test_behind_the_first_message_nothing_is_slower() -> None:
    """Plain messages pass on the path again, without a question."""
    cells: list[object] = []

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await receive()
        await send(ACCEPT)
        cells.append(current_connection()._session.path._cell("sendable").cell_contents)

    _serve(handler, _Wants(_First()), prepare=_texts("token"))
    assert cells == ["websocket.send"]


def test_an_answer_that_is_cancelled_by_others_closes() -> None:
    """It is a failure of the policy, not a cancellation of the connection's, on every Python."""

    class Cancelled(_First):
        async def __call__(self, payload: str | bytes, /) -> Allow:
            work = asyncio.ensure_future(asyncio.sleep(1))
            work.cancel()
            await work
            return Allow()

    async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
        await receive()
        await send(ACCEPT)

    server, seen = _serve(handler, _Wants(Cancelled()), prepare=_texts("token"))
    assert server.types() == ["websocket.accept", "websocket.close"]
    assert (server.sent[1]["code"], seen.one(PolicyApplied).reason) == (4401, "policy_failed")
