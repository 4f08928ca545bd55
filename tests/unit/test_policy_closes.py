"""What a policy decides is carried out whole: its close goes out, whoever is cancelled or done meanwhile."""

from __future__ import annotations

import asyncio
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
    Deadlines,
    Delay,
    Drop,
    WebSocketGuardMiddleware,
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
