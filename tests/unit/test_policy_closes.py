"""What a policy decides is carried out whole: its close goes out, whoever is cancelled or done meanwhile."""

from __future__ import annotations

import asyncio
import gc
import sys
import types
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_ws_guard import (
    ALLOW,
    Allow,
    Books,
    Close,
    Closed,
    Deadlines,
    Delay,
    Drain,
    Drop,
    WebSocketGuardMiddleware,
    current_connection,
)
from asgi_ws_guard._sending import CLOSE_S
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard._watch import TICK_S
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
TEXT: Message = {"type": "websocket.send", "text": "x"}
Handler = Callable[[Receive, Send, ScriptedServer], Awaitable[None]]


class _Lays:
    """A policy that lets everybody in on a test's terms."""

    def __init__(self, **terms: Any) -> None:
        self.answer = Allow(**terms)

    def admit(self, handshake: object) -> Allow:
        return self.answer


class _Sent:
    """A policy that closes for whatever the application sends."""

    def admit(self, handshake: object) -> Allow:
        return ALLOW

    def message(self, connection_id: str, direction: str, size: int) -> Allow | Close:
        return Close(1008, "sent") if direction == "sent" else ALLOW


class _Later:
    """Answers the first message, after some time."""

    timeout_s = 5.0

    def __init__(self, answer: Allow | Close, after_s: float) -> None:
        self.answer, self.after_s = answer, after_s

    async def __call__(self, payload: str | bytes, /) -> Allow | Close:
        await asyncio.sleep(self.after_s)
        return self.answer


def _now() -> float:
    return asyncio.get_running_loop().time()


def _closes(server: ScriptedServer) -> list[int]:
    return [one["code"] for one in server.sent if one["type"] == "websocket.close"]


def _says(*answers: Any) -> Callable[[int], Any]:
    left = list(answers)
    return lambda size: left.pop(0) if left else ALLOW


async def _serve(
    handler: Handler, *policies: Any, server: ScriptedServer | None = None, **options: Any
) -> tuple[ScriptedServer, Recorder, Books]:
    """Serve one connection whose handler has accepted; nothing of it is left."""
    server, seen, before = server or ScriptedServer(), Recorder(), asyncio.all_tasks()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await handler(receive, send, server)

    server.connect()
    guard = WebSocketGuardMiddleware(app, observers=(seen,), policies=policies, **options)
    await server.call(guard)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    return server, seen, guard.totals()


def test_a_close_goes_out_although_who_received_is_cancelled() -> None:
    """A receive with a timeout gives up; the server takes the close of the gate when it can."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
            server.stall_sends()
            server.text("a")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 1)
            asyncio.get_running_loop().call_later(4, server.resume_sends)
            assert (await receive())["code"] == 1008
            assert _now() == pytest.approx(5)

        server, _, _ = await _serve(handler, _Lays(gate=_says(Close(1008))))
        assert _closes(server) == [1008]

    run(main)


def test_a_close_goes_out_although_the_handler_is_done() -> None:
    """What read ahead is stopped, but not halfway through a close."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
            await asyncio.sleep(2)
            server.stall_sends()
            server.text("a")
            await asyncio.sleep(1)
            asyncio.get_running_loop().call_later(2, server.resume_sends)

        server, _, _ = await _serve(handler, _Lays(gate=_says(Close(1008))))
        assert _closes(server) == [1008]
        assert _now() == pytest.approx(5)

    run(main)


def test_a_receive_does_not_hang_for_a_close_that_is_stuck() -> None:
    """A client that floods and reads nothing keeps no handler for ever."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
            server.stall_sends()
            server.text("a")
            assert (await receive())["code"] == 1008
            assert CLOSE_S <= _now() <= CLOSE_S + 2 * TICK_S

        await _serve(handler, _Lays(gate=_says(Close(1008))))

    run(main)


def test_a_message_for_which_a_policy_closes_is_counted_although_its_sender_is_cancelled() -> None:
    """The sender does not wait for the close at all; its message is dropped."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
            server.stall_sends()
            sending = asyncio.ensure_future(send(TEXT))
            await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait({sending})
            server.resume_sends()

        server, _, books = await _serve(handler, _Sent())
        assert books.dropped == {"policy": 1}
        assert _closes(server) == [1008]

    run(main)


def test_nobody_overtakes_the_close_of_a_message_that_waited() -> None:
    """Who is woken in the moment in which it is decided is too late."""

    async def main() -> None:
        decided = asyncio.Event()

        def then() -> Close:
            decided.set()
            return Close(1013)

        async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
            server.text("a")
            receiving = asyncio.ensure_future(receive())
            await decided.wait()
            await send({"type": "websocket.close", "code": 4000})
            assert (await receiving)["code"] == 1013

        server, seen, _ = await _serve(handler, _Lays(gate=_says(Delay(1.0, "slow", then))))
        assert _closes(server) == [1013]
        assert seen.one(Closed).code == 1013

    run(main)


@pytest.mark.parametrize("answer", [Close(1008), Delay(1.0, "slow", lambda: Close(1008))], ids=["now", "later"])
@pytest.mark.parametrize("own", [None, KeyError("own")], ids=["returns", "raises"])
def test_what_the_server_raises_at_a_policys_close_goes_on(answer: Any, own: Exception | None) -> None:
    """When the handler is done, unless that raises too; it hears of the end alone, and asyncio of nothing."""
    bug, heard = ValueError("a real error"), list[Any]()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context))

        async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
            server.text("a")
            server.fail_sends(bug)
            assert (await receive())["code"] == 1008
            if own is not None:
                raise own

        with pytest.raises((ValueError, KeyError)) as raised:
            await _serve(handler, _Lays(gate=_says(answer)))
        assert raised.value is (own or bug)

    run(main)
    gc.collect()
    assert heard == []


def test_a_close_for_what_the_handler_left_unread_is_carried_out() -> None:
    """It is asked about when the handler is done, and its answer counts."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
            server.text("a")

        server, _, _ = await _serve(handler, _Lays(gate=_says(Close(1009))))
        assert _closes(server) == [1009]

    run(main)


@pytest.mark.parametrize(
    ("answer", "expected"), [(Close(1009), [1009]), (Drop(), [1012]), (Delay(9.0), ["a", 1012])], ids=repr
)
def test_a_deadline_that_finds_a_message_does_what_is_decided_about_it(answer: Any, expected: list[Any]) -> None:
    """A close comes before the deadline's own; what was to wait is delivered, as all is that had arrived."""

    async def main() -> None:
        got = list[Any]()

        async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
            server.text("a")
            await asyncio.sleep(3)
            while (message := await receive())["type"] != "websocket.disconnect":
                got.append(message["text"])
            got.append(message["code"])

        policy = _Lays(gate=_says(answer), deadlines=Deadlines(max_age_s=1.0))
        server, _, _ = await _serve(handler, policy, watch=False)
        assert got == expected
        assert _closes(server) == expected[-1:]

    run(main)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(Delay(9.0), ["a", "b", 1000]), (Delay(9.0, "slow", lambda: Drop("many")), ["b", 1000])],
    ids=["delivered", "asked"],
)
def test_what_arrives_behind_the_end_never_waits(answer: Delay, expected: list[Any]) -> None:
    """The client had sent it before it saw the close: it is delivered, or asked about, at once."""

    async def main() -> None:
        got = list[Any]()

        async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
            await send({"type": "websocket.close", "code": 1000})
            server.text("a", "b")
            while (message := await receive())["type"] != "websocket.disconnect":
                got.append(message["text"])
            got.append(message["code"])

        await _serve(handler, _Lays(gate=_says(answer)))
        assert got == expected
        assert _now() < 2

    run(main)


def test_what_arrives_behind_a_close_of_the_guard_reaches_nobody_when_a_send_finds_the_peer_gone() -> None:
    """What the server has is taken in then, for the disconnect that may be among it."""

    async def main() -> None:
        async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
            server.stall_sends()
            sending = asyncio.ensure_future(send(TEXT))
            await asyncio.sleep(2)
            server.text("late")
            server.fail_sends(ConnectionResetError())
            server.resume_sends()
            await sending
            assert (await receive())["code"] == 1012

        await _serve(handler, _Lays(deadlines=Deadlines(max_age_s=1.0)), watch=False)

    run(main)


def test_a_denial_that_is_stuck_keeps_nobody_from_hearing_of_the_end() -> None:
    """The server does not take the answer of a handshake that took too long; the handler hears of it nevertheless."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            server.stall_sends()
            assert (await receive())["type"] == "websocket.disconnect"

        server.connect()
        policy = _Lays(deadlines=Deadlines(handshake_s=1.0))
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(policy,)))
        assert 1 + CLOSE_S <= _now() <= 1 + CLOSE_S + 4 * TICK_S

    run(main)


def test_no_read_is_pending_while_the_application_closes_before_the_first_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever waits for the first message does not read again behind the end: granian deadlocks otherwise."""
    monkeypatch.setitem(sys.modules, "granian._granian", types.ModuleType("granian._granian"))

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            accepting = asyncio.ensure_future(send(ACCEPT))
            await asyncio.sleep(1)
            assert server.receives == 1
            server.stall_sends()
            closing = asyncio.ensure_future(send({"type": "websocket.close", "code": 1000}))
            await asyncio.sleep(1)
            assert server.receives == 0
            server.resume_sends()
            await asyncio.wait({accepting, closing})

        server.connect()
        policy = _Lays(first_message=_Later(ALLOW, 1.0))
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(policy,)))
        assert _closes(server) == [1000]

    run(main)


def test_a_close_before_the_first_message_leaves_no_task_behind() -> None:
    """The guard is cancelled while it waits for the close of a stranger to go out."""

    async def main() -> None:
        server, before = ScriptedServer(), asyncio.all_tasks()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            accepting = asyncio.ensure_future(send(ACCEPT))
            await asyncio.sleep(0.5)
            server.stall_sends()
            server.text("stranger")
            await asyncio.sleep(2)
            accepting.cancel()

        server.connect()
        policy = _Lays(first_message=_Later(Close(4403), 0.5))
        serving = server.call(WebSocketGuardMiddleware(app, observers=(), policies=(policy,)))
        await asyncio.sleep(5)
        serving.cancel()
        await asyncio.wait({serving})
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    run(main)


def test_the_first_short_deadline_is_kept_as_finely_as_the_next_one() -> None:
    """The watch had meant to look only a quarter of a second later."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await receive()

        server = ScriptedServer()
        server.connect()
        policy = _Lays(deadlines=Deadlines(handshake_s=0.04))
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(policy,)))
        assert 0.04 <= _now() <= 0.04 + 0.01 + 0.025
        assert server.types()[0] == "websocket.http.response.start"

    run(main)


@pytest.mark.parametrize(
    "terms",
    [{"gate": lambda size: Close(1008)}, {"first_message": _Later(Close(1008), 0.5)}],
    ids=["gate", "first_message"],
)
def test_a_drain_waits_no_longer_for_a_policys_close_than_for_its_own(terms: dict[str, Any]) -> None:
    """At three quarters of its deadline the handler hears of the end."""

    async def main() -> None:
        server, before = ScriptedServer(), asyncio.all_tasks()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            asyncio.get_running_loop().call_later(0.1, server.stall_sends)
            asyncio.get_running_loop().call_later(0.2, server.text, "a")
            await send(ACCEPT)
            assert (await receive())["code"] == 1008

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(), policies=(_Lays(**terms),))
        serving = server.call(guard)
        await asyncio.sleep(1)
        report = await guard.drain(Drain(deadline_s=8.0))
        await serving
        assert _now() == pytest.approx(7)
        assert (report.cancelled, report.running) == (0, 0)
        assert asyncio.all_tasks() == before

    run(main)


def test_a_policys_close_leaves_no_task_behind_whatever_is_waited_for_first() -> None:
    """The first message was refused by a gate too, its close is stuck, and the server cancels the guard, twice."""

    async def main() -> None:
        server, before = ScriptedServer(), asyncio.all_tasks()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            asyncio.get_running_loop().call_later(0.1, server.stall_sends)
            asyncio.get_running_loop().call_later(0.2, server.text, "a")
            await send(ACCEPT)

        server.connect()
        policy = _Lays(first_message=_Later(ALLOW, 0.5), gate=_says(Close(1008)))
        serving = server.call(WebSocketGuardMiddleware(app, observers=(), policies=(policy,)))
        for _ in range(2):
            await asyncio.sleep(1)
            serving.cancel()
        await asyncio.wait({serving})
        assert _now() == pytest.approx(2)
        await asyncio.sleep(0.1)
        assert asyncio.all_tasks() == before

    run(main)


def test_a_close_that_is_cancelled_before_it_begins_is_the_end_for_all() -> None:
    """Somebody cancels all tasks of the loop but those that he knows."""

    async def main() -> None:
        def then() -> Close:
            known = asyncio.all_tasks()
            asyncio.get_running_loop().call_soon(lambda: [one.cancel() for one in asyncio.all_tasks() - known])
            return Close(1008)

        async def handler(receive: Receive, send: Send, server: ScriptedServer) -> None:
            server.text("a")
            waiting = asyncio.ensure_future(current_connection().wait_closed())
            assert (await receive())["code"] == 1008
            await waiting
            assert _now() == pytest.approx(1)

        server, _, _ = await _serve(handler, _Lays(gate=_says(Delay(1.0, "slow", then))))
        assert _closes(server) == []

    run(main)


def test_what_a_look_before_a_deadlines_close_takes_in_is_received_first() -> None:
    """A `receive` that was cancelled just then is asked again, and a message came meanwhile: the client is not idle."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.text("first", "second")
            handle = current_connection()
            assert handle is not None
            handle._session.receiving.poll()
            server.text("third")
            assert [(await receive())["text"] for _ in range(3)] == ["first", "second", "third"]

        server.connect()
        await server.call(
            WebSocketGuardMiddleware(app, observers=(), policies=[_Lays(deadlines=Deadlines(idle_s=1.0))])
        )

    run(main)
