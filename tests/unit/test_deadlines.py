"""Deadlines: whoever takes too long is closed for it, in time, with its own code and class, and nobody hangs."""

from __future__ import annotations

import asyncio
import sys
import time
import types
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_ws_guard import (
    Allow,
    Closed,
    CloseStatus,
    Deadlines,
    Deny,
    Handshake,
    Identity,
    Initiator,
    PolicyApplied,
    Rejected,
    SendTimedOut,
    WebSocketGuardMiddleware,
    current_connection,
)
from asgi_ws_guard._close import CloseCode
from asgi_ws_guard._receiving import DRAIN_S
from asgi_ws_guard._sending import CLOSE_S
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard._watch import TICK_S
from asgi_ws_guard._wheel import WIDTH_S
from asgi_ws_guard.testing import Recorder, ScriptedServer, VirtualTimeLoop, run

ACCEPT: Message = {"type": "websocket.accept"}
LATE_S = TICK_S + WIDTH_S
"""A deadline is noticed by the watch's next tick."""
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Lays:
    """A policy that lets everybody in on a test's terms."""

    def __init__(self, answer: Allow) -> None:
        self.answer = answer

    def admit(self, handshake: Handshake) -> Allow | Deny:
        return self.answer


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _serve(
    app: App,
    server: ScriptedServer,
    deadlines: Deadlines | None = None,
    identity: Identity | None = None,
    **options: Any,
) -> Recorder:
    """Serve one connection to its end; give what was told."""
    seen = Recorder()
    policy = _Lays(Allow(deadlines=deadlines, identity=identity))
    guard = WebSocketGuardMiddleware(app, observers=(seen,), policies=(policy,), **options)
    server.connect()
    await server.call(guard)
    assert guard.connections == 0
    return seen


def _told(seen: Recorder) -> tuple[str, str, str]:
    applied = seen.one(PolicyApplied)
    return applied.policy, applied.decision, applied.reason


async def _receive_all(receive: Receive) -> list[Message]:
    """Receive to the disconnect."""
    received = [await receive()]
    while received[-1]["type"] != "websocket.disconnect":
        received.append(await receive())
    return received


async def _receiving(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    await _receive_all(receive)


def test_who_says_nothing_is_closed_after_the_idle_deadline() -> None:
    """Counted from the accept; the handler has its disconnect at once, with the code that was given."""

    async def main() -> None:
        server, took, given = ScriptedServer(), list[float](), list[Message]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await asyncio.sleep(7)
            await send(ACCEPT)
            accepted_s = _now()
            given.append(await receive())
            took.append(_now() - accepted_s)

        seen = await _serve(app, server, Deadlines(idle_s=3.0, idle_code=4000))
        assert 3.0 <= took[0] <= 3.0 + LATE_S
        assert given == [{"type": "websocket.disconnect", "code": 4000, "reason": "idle"}]
        assert server.sent[-1] == {"type": "websocket.close", "code": 4000, "reason": "idle"}
        end = seen.one(Closed)
        assert (end.status, end.initiator, end.code) == (CloseStatus.TIMEOUT, Initiator.GUARD, 4000)
        assert _told(seen) == ("deadlines", "close", "idle")

    run(main)


@pytest.mark.parametrize("interval_s", [0.7, 2.9])
def test_who_says_something_in_time_stays(interval_s: float) -> None:
    """Each message starts the idle deadline again; after the last one it comes at most a quarter late."""

    async def main() -> None:
        server = ScriptedServer()

        async def client() -> None:
            for _ in range(20):
                await asyncio.sleep(interval_s)
                server.text("x")

        talking = asyncio.create_task(client())
        received = list[Message]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            received.extend(await _receive_all(receive))

        await _serve(app, server, Deadlines(idle_s=3.0))
        await talking
        assert len(received) == 21
        silent_s = _now() - 20 * interval_s
        assert 3.0 <= silent_s <= 3.0 * 1.25 + 2 * LATE_S

    run(main)


def test_a_message_that_nobody_received_yet_is_not_idle() -> None:
    """A handler that is busy is not the client's silence; what arrived is delivered before the disconnect."""

    async def main() -> None:
        server, received = ScriptedServer(), list[Message]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.text("waits")
            await asyncio.sleep(30)
            received.extend(await _receive_all(receive))

        seen = await _serve(app, server, Deadlines(idle_s=3.0), watch=False)
        assert [one["type"] for one in received] == ["websocket.receive", "websocket.disconnect"]
        assert seen.one(Closed).duration_s >= 30

    run(main)


def test_a_message_that_arrives_with_the_deadline_is_delivered() -> None:
    """What the server has when a connection is too old comes before the disconnect."""

    async def main() -> None:
        server, received = ScriptedServer(), list[Message]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.text("early")
            await current_connection().wait_closed()
            received.extend(await _receive_all(receive))

        await _serve(app, server, Deadlines(max_age_s=2.0), watch=False)
        assert [one.get("text") for one in received] == ["early", None]

    run(main)


def test_a_message_that_the_server_has_keeps_from_idleness() -> None:
    """Just before the close it is seen what the server has: a client that has spoken is not closed for silence."""

    async def main() -> None:
        server = ScriptedServer()
        reads = asyncio.Event()

        async def receive() -> Message:
            message = await server.receive()
            if message["type"] == "websocket.receive":
                reads.set()
            return message

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            while True:
                try:
                    message = await asyncio.wait_for(receive(), 2.99)
                except asyncio.TimeoutError:
                    server.text("just in time")
                    await asyncio.sleep(0.2)
                    continue
                if message["type"] == "websocket.disconnect":
                    return

        seen = Recorder()
        policy = _Lays(Allow(deadlines=Deadlines(idle_s=3.0)))
        guard = WebSocketGuardMiddleware(app, observers=(seen,), policies=(policy,), watch=False)
        server.connect()
        serving = asyncio.create_task(guard(server.scope, receive, server.send))
        await asyncio.sleep(20)
        assert reads.is_set()
        assert not seen.of(Closed)
        server.disconnect()
        await serving

    run(main)


def test_an_old_connection_is_closed() -> None:
    """Counted from the accept, whatever passes."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await asyncio.sleep(5)
            await send(ACCEPT)
            while True:
                await send({"type": "websocket.send", "text": "x"})
                server.text("y")
                if (await receive())["type"] == "websocket.disconnect":
                    return
                await asyncio.sleep(1)

        seen = await _serve(app, server, Deadlines(max_age_s=60.0, idle_s=10.0))
        end = seen.one(Closed)
        assert 60.0 <= end.duration_s <= 60.0 + LATE_S
        assert (end.code, end.reason, end.status) == (1012, "max_age", CloseStatus.TIMEOUT)
        assert server.types()[-1] == "websocket.close"

    run(main)


@pytest.mark.parametrize("can_deny", [True, False])
@pytest.mark.parametrize("on_granian", [True, False])
def test_a_handshake_that_takes_too_long_is_denied(
    can_deny: bool, on_granian: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 503, or a close where the server cannot; the handler has its disconnect, and a late accept is dropped."""
    if on_granian:
        monkeypatch.setitem(sys.modules, "granian._granian", types.ModuleType("granian._granian"))

    async def main() -> None:
        server, given, pending = ScriptedServer(), list[Message](), list[int]()
        if not can_deny:
            server.scope["extensions"] = {}

        def note(message: Message) -> None:
            pending.append(server.receives)

        server.fail_sends(note)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert (await receive())["type"] == "websocket.connect"
            given.append(await receive())
            await send(ACCEPT)

        seen = await _serve(app, server, Deadlines(handshake_s=4.0, idle_s=1.0, max_age_s=1.0))
        assert given == [{"type": "websocket.disconnect", "code": 1006}]
        end = seen.one(Rejected)
        assert (end.status, end.initiator, end.response_status) == (CloseStatus.TIMEOUT, Initiator.GUARD, 503)
        assert 4.0 <= end.duration_s + end.handshake_s <= 4.0 + LATE_S
        assert _told(seen) == ("deadlines", "deny", "handshake_timeout")
        if can_deny:
            assert server.types() == ["websocket.http.response.start", "websocket.http.response.body"]
            assert server.sent[0]["status"] == 503
        else:
            assert server.types() == ["websocket.close"]
        assert not on_granian or not any(pending), "granian deadlocks while a read is pending"

    run(main)


def test_a_handshake_that_was_answered_has_no_deadline() -> None:
    """An accept, or a denial that has begun, is an answer."""

    async def main() -> None:
        server = ScriptedServer()

        async def denies(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
            await asyncio.sleep(10)
            await send({"type": "websocket.http.response.body", "body": b"tea"})

        seen = await _serve(denies, server, Deadlines(handshake_s=1.0), Identity("u", time.time() + 2))
        assert seen.one(Rejected).response_status == 418
        assert not seen.of(PolicyApplied)

        async def accepts(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await asyncio.sleep(10)

        seen = await _serve(accepts, ScriptedServer(), Deadlines(handshake_s=1.0))
        assert seen.one(Closed).status is CloseStatus.APP_CLOSE

    run(main)


def test_a_token_that_ends_ends_the_connection() -> None:
    """With 4401, by the clock of the admission; the class is the one of a missing right."""

    async def main() -> None:
        server = ScriptedServer()
        seen = await _serve(_receiving, server, identity=Identity("u", time.time() + 5.0))
        end = seen.one(Closed)
        assert (end.code, end.reason, end.status) == (4401, "expired", CloseStatus.UNAUTHORIZED)
        assert 4.9 <= _now() <= 5.0 + LATE_S
        assert server.sent[-1] == {"type": "websocket.close", "code": 4401, "reason": "expired"}
        assert type(server.sent[-1]["code"]) is int, "daphne 4.2 (autobahn) takes no subclass of int"

    run(main)


def test_a_token_that_ends_before_the_accept_is_a_denial() -> None:
    """With 401."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await asyncio.sleep(10)
            await send(ACCEPT)

        server = ScriptedServer()
        seen = await _serve(app, server, identity=Identity("u", time.time() + 5.0))
        end = seen.one(Rejected)
        assert (end.response_status, end.status) == (401, CloseStatus.UNAUTHORIZED)
        assert server.sent[0]["status"] == 401

    run(main)


def test_an_identity_that_is_renewed_keeps_its_connection() -> None:
    """The deadline of the identity before is gone; one that is known only later has its own."""

    async def main() -> None:
        ends = list[float]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            session = current_connection()._session
            await asyncio.sleep(4)
            session.identify(Identity("u", time.time() + 20.0))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 10)
            session.identify(Identity("u", time.time() + 2.0))
            assert (await receive())["code"] == CloseCode.UNAUTHORIZED
            ends.append(_now())
            session.identify(Identity("u", time.time() + 2.0))

        await _serve(app, ScriptedServer(), identity=Identity("u", time.time() + 5.0))
        assert 15.9 <= ends[0] <= 16.0 + LATE_S
        ends.clear()

        async def without(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            current_connection()._session.identify(Identity("u", time.time() + 2.0))
            assert (await receive())["code"] == CloseCode.UNAUTHORIZED

        await _serve(without, ScriptedServer())

    run(main)


def test_the_shorter_send_deadline_counts() -> None:
    """That of the guard or that of a policy; the connection ends as with ``send_timeout_s``."""

    async def main() -> None:
        for option, send_s, expected_s in ((None, 2.0, 2.0), (30.0, 2.0, 2.0), (2.0, 30.0, 2.0)):
            server = ScriptedServer()

            async def app(scope: Scope, receive: Receive, send: Send, server: ScriptedServer = server) -> None:
                await receive()
                await send(ACCEPT)
                server.stall_sends()
                await send({"type": "websocket.send", "text": "x"})

            seen = await _serve(app, server, Deadlines(send_s=send_s), send_timeout_s=option)
            assert seen.one(SendTimedOut).timeout_s == expected_s
            end = seen.one(Closed)
            assert end.status is CloseStatus.SLOW_CONSUMER
            assert expected_s <= end.duration_s <= expected_s + 2 * TICK_S

    run(main)


def test_a_close_behind_a_stalled_send_does_not_hang_with_a_send_deadline() -> None:
    """The send deadline ends both, the application's send and the guard's close."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            await send({"type": "websocket.send", "text": "x"})
            assert (await receive())["code"] == 1012

        seen = await _serve(app, server, Deadlines(max_age_s=3.0, send_s=5.0))
        assert seen.one(Closed).status is CloseStatus.TIMEOUT
        assert _now() <= 3.0 + 5.0 + 3 * TICK_S

    run(main)


def test_a_close_that_is_stuck_at_the_server_is_given_up() -> None:
    """Without a send deadline nobody waits longer for it than for any close; the handler gets its disconnect."""

    async def main() -> None:
        server, given = ScriptedServer(), list[float]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            await receive()
            given.append(_now())

        await _serve(app, server, Deadlines(max_age_s=3.0))
        assert CLOSE_S <= given[0] <= 3.0 + CLOSE_S + 3 * TICK_S
        assert "websocket.close" not in server.types()
        assert _now() <= given[0] + 1.0

    run(main)


def test_a_handler_that_ends_while_its_connection_is_closed_waits_for_the_close() -> None:
    """The server hears of the end of the application only when the close is out."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            asyncio.get_running_loop().call_later(10, server.resume_sends)
            await asyncio.sleep(4)

        seen = await _serve(app, server, Deadlines(max_age_s=3.0))
        assert server.types() == ["websocket.accept", "websocket.close"]
        assert 10 <= _now() <= 11
        assert seen.one(Closed).code == 1012

    run(main)


def test_a_handler_that_is_cancelled_waits_for_no_close() -> None:
    """Whoever ends the process does not wait for a peer that does not read."""

    async def main() -> None:
        server, tasks = ScriptedServer(), asyncio.all_tasks()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            await asyncio.sleep(4)

        guard = WebSocketGuardMiddleware(
            app, policies=(_Lays(Allow(deadlines=Deadlines(max_age_s=3.0))),), observers=()
        )
        server.connect()
        serving = server.call(guard)
        await asyncio.sleep(5)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= tasks

    run(main)


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("a bug")])
@pytest.mark.parametrize("deadlines", [Deadlines(handshake_s=1.0), Deadlines(max_age_s=1.0)])
def test_what_the_server_raises_at_the_end_reaches_nobody(
    error: Exception, deadlines: Deadlines, caplog: pytest.LogCaptureFixture
) -> None:
    """A lost peer is an end; anything else is logged, since the application did not send."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            if deadlines.handshake_s is None:
                await send(ACCEPT)
            server.fail_sends(error)
            assert (await receive())["type"] == "websocket.disconnect"

        await _serve(app, server, deadlines)

    run(main)
    assert ("deadline" in caplog.text) == isinstance(error, RuntimeError)


@pytest.mark.parametrize("answer", [{"type": "websocket.close", "code": 4321}, ACCEPT])
def test_who_answers_in_the_moment_of_the_deadline_has_answered(answer: Message) -> None:
    """Between the watch and the task that closes a turn passes: what came first counts."""

    async def main() -> None:
        server, loop = ScriptedServer(), asyncio.get_running_loop()
        is_late_accept = answer is ACCEPT

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            if not is_late_accept:
                await send(ACCEPT)
            session = current_connection()._session
            assert isinstance(loop, VirtualTimeLoop)
            assert session.timing is not None
            loop.advance(3.5)
            session.timing.due(loop.time())
            await send(answer)
            await asyncio.sleep(0.01)

        seen = await _serve(app, server, Deadlines(handshake_s=3.0, max_age_s=3.0))
        assert not seen.of(PolicyApplied)
        assert seen.one(Closed).code == (1000 if is_late_accept else 4321)
        assert server.types() == ["websocket.accept", "websocket.close"]

    run(main)


@pytest.mark.parametrize("many", [3, 400])
def test_every_connection_has_its_own_deadline(many: int) -> None:
    """One timer serves them all, each in its time, and stops with the last one."""

    async def main() -> None:
        class Ages:
            count = 0

            def admit(self, handshake: Handshake) -> Allow:
                self.count += 1
                return Allow(deadlines=Deadlines(max_age_s=float(self.count)))

        seen = Recorder()
        guard = WebSocketGuardMiddleware(_receiving, observers=(seen,), policies=(Ages(),))
        servers = [ScriptedServer() for _ in range(many)]
        for server in servers:
            server.connect()
        await asyncio.gather(*(server.call(guard) for server in servers))
        ages = [end.duration_s for end in seen.of(Closed)]
        assert all(index <= age <= index + LATE_S for index, age in enumerate(sorted(ages), 1))
        assert guard.connections == 0

    run(main)


def test_a_policy_that_closes_is_heard_at_once() -> None:
    """The disconnect follows the close: nobody waits for what may still arrive, as nothing more is wanted."""

    async def main() -> None:
        server, took = ScriptedServer(), list[float]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            took.append(_now())

        await _serve(app, server, Deadlines(max_age_s=1.0))
        assert took[0] < 1.0 + LATE_S + DRAIN_S / 4

    run(main)
