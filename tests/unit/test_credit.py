"""Credit: messages pass a gate unasked, the gate hears of exactly those, and nothing else passes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from gated import Gated, Measuring

from asgi_ws_guard import ALLOW, Allow, Books, Closed, CloseStatus, Drop, WebSocketGuardMiddleware
from asgi_ws_guard._ticks import ENDLESS
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
END: Message = {"type": "websocket.disconnect", "code": 1001}
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """A gate that writes down what it is asked and told: a size, or messages and their bytes."""

    def __init__(self, credit: Any, *answers: Any, credit_bytes: int = 10) -> None:
        self.given = credit
        self.answers = list(answers)
        self.credit_bytes = credit_bytes
        self.heard: list[int | tuple[int, int]] = []

    def __call__(self, size: int) -> Any:
        """Answer as told."""
        self.heard.append(size)
        return self.answers.pop(0) if self.answers else ALLOW

    def credit(self) -> Any:
        """Give what a test wants."""
        if isinstance(self.given, Exception):
            raise self.given
        return self.given

    def settle(self, messages: int, size: int) -> None:
        """Write it down."""
        self.heard.append((messages, size))
        if self.given == "settle raises":
            raise ValueError


@pytest.fixture(params=["direct", "measured"])
def seen(request: pytest.FixtureRequest) -> Recorder:
    """Run a test on each lane that knows gates."""
    return Measuring() if request.param == "measured" else Recorder()


def _texts(*texts: str) -> list[Message]:
    return [{"type": "websocket.receive", "text": text} for text in texts]


def _serve(seen: Recorder, messages: list[Message], *gates: Any) -> tuple[list[Any], Books]:
    """Let messages arrive through gates; give what the handler received of them, and the totals."""
    got: list[Any] = []

    async def main() -> Books:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.deliver(*messages)
            while (message := await receive())["type"] != "websocket.disconnect":
                got.append(message.get("text") or message.get("bytes"))
                assert scope["asgi_ws_guard.connection"].books.received >= len(got)
            got.append(message["code"])

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,), policies=[Gated(gate) for gate in gates])
        await server.call(guard)
        return guard.totals()

    return got, run(main)


def test_the_gate_is_asked_when_the_credit_is_used_up(seen: Recorder) -> None:
    """It hears the number and the bytes of what passed, of UTF-8 for text, before it is asked; all of it is counted."""
    gate = Gate(2)
    data: list[Message] = [
        {"type": "websocket.receive", "bytes": b"four"},
        {"type": "websocket.receive", "bytes": b"x", "text": None},
    ]
    got, books = _serve(seen, [*_texts("a", "é", "cde"), *data, *_texts("f", "last"), END], gate)
    assert got == ["a", "é", "cde", b"four", b"x", "f", "last", 1001]
    assert gate.heard == [1, (2, 5), 4, (2, 2), 4]
    assert books.received == 7
    if isinstance(seen, Measuring):
        assert (books.received_texts, books.received_binaries, books.received_bytes) == (5, 2, 16)


def test_a_larger_message_is_asked_about(seen: Recorder) -> None:
    """In bytes too: what is longer than the gate said never passes on credit, and what passed before is told first."""
    gate = Gate(100, credit_bytes=4)
    got, books = _serve(seen, [*_texts("a", "four", "five5", "ééé", "éé", "z"), END], gate)
    assert got == ["a", "four", "five5", "ééé", "éé", "z", 1001]
    assert gate.heard == [1, (1, 4), 5, 6]
    assert books.received == 6


def test_what_is_no_ordinary_message_does_not_pass_on_credit(seen: Recorder) -> None:
    """It is asked about beside the lane, after what passed there."""
    gate = Gate(100)
    odd: list[Message] = [{"type": "websocket.receive", "bytes": bytearray(b"12")}, {"type": "websocket.receive"}]
    _, books = _serve(seen, [*_texts("a", "b"), *odd, *_texts("c", "d"), END], gate)
    assert gate.heard == [1, (1, 1), 2, 0, 1]
    assert books.received == 6


@pytest.mark.parametrize("credit", [0, -5])
def test_without_credit_each_message_is_asked_about(seen: Recorder, credit: int) -> None:
    """A gate may have none to give."""
    gate = Gate(credit)
    got, books = _serve(seen, [*_texts(*"abc"), END], gate)
    assert (got, gate.heard, books.received) == (["a", "b", "c", 1001], [1, 1, 1], 3)


def test_credit_may_have_no_end(seen: Recorder) -> None:
    """More than anybody can use does no harm."""
    gate = Gate(ENDLESS * 4)
    got, books = _serve(seen, [*_texts(*"abc"), END], gate)
    assert (got, gate.heard, books.received) == (["a", "b", "c", 1001], [1], 3)


def test_only_allow_gives_credit(seen: Recorder) -> None:
    """Who is dropped, or allowed with reservations, is asked again."""
    gate = Gate(1, ALLOW, Drop(), Allow(), ALLOW)
    got, books = _serve(seen, [*_texts(*"abcdef"), END], gate)
    assert got == ["a", "b", "d", "e", "f", 1001]
    assert gate.heard == [1, (1, 1), 1, 1, 1]
    assert books.received == 6


@pytest.mark.parametrize("credit", [ValueError(), "settle raises", None])
def test_a_gate_that_fails_at_its_credit_closes(seen: Recorder, credit: Any) -> None:
    """Whatever it raises, or gives instead of a number, lets nothing pass."""
    gate = Gate(credit)
    got, _ = _serve(seen, [*_texts(*"ab")], gate)
    assert got == [1011]
    assert seen.one(Closed).status is CloseStatus.APP_ERROR


def test_a_gate_among_several_gives_none(seen: Recorder) -> None:
    """Each of them is asked about every message."""
    gates = Gate(5), Gate(5)
    _serve(seen, [*_texts(*"abc"), END], *gates)
    assert [gate.heard for gate in gates] == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("fails", [False, True])
def test_what_the_guard_reads_ahead_is_asked_about(seen: Recorder, fails: bool) -> None:
    """A handler that stops to receive leaves credit behind: the gate hears what was used of it first."""
    gate, got = Gate("settle raises" if fails else 9), list[Any]()

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            gate.given = 9
            server.text("a", "b")
            for _ in range(2):
                got.append((await receive())["text"])
            gate.given = "settle raises" if fails else 9
            await asyncio.sleep(5)
            server.text("read ahead")
            await asyncio.sleep(5)
            server.disconnect(1001)
            while (message := await receive())["type"] != "websocket.disconnect":
                got.append(message["text"])
            got.append(message["code"])

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,), policies=[Gated(gate)]))

    run(main)
    assert gate.heard == ([1, (1, 1)] if fails else [1, (1, 1), 10])
    assert got == (["a", "b", 1011] if fails else ["a", "b", "read ahead", 1001])
