"""Gates: asked about each message that a connection receives, however it is read, and taken at their word."""

from __future__ import annotations

import asyncio
import math
import sys
import types
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from gated import Gated, Measuring

from asgi_ws_guard import (
    ALLOW,
    Allow,
    Books,
    Close,
    Closed,
    CloseStatus,
    Delay,
    Deny,
    Drop,
    Initiator,
    MessageReceived,
    PolicyApplied,
    WebSocketGuardMiddleware,
    current_connection,
)
from asgi_ws_guard._receiving import DRAIN_S, IDLE_S
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard._watch import TICK_S
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """A gate that says what a test wants, message by message, and `ALLOW` when there is nothing left to say."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    def __call__(self, size: int) -> Any:
        """Answer as told."""
        self.asked.append(size)
        answer = self.answers.pop(0) if self.answers else ALLOW
        if isinstance(answer, Exception):
            raise answer
        return answer

    def later(self) -> Any:
        """Answer for a message that was delayed."""
        return self(-1)


def _recorder(mode: str) -> Recorder:
    return Measuring() if mode == "measured" else Recorder(wants_messages=mode == "telling")


@pytest.fixture(params=["direct", "measured", "telling", "granian"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test in each way in which messages are read."""
    if request.param == "granian":
        monkeypatch.setitem(sys.modules, "granian._granian", types.ModuleType("granian._granian"))
    return str(request.param)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _serve(app: App, server: ScriptedServer, seen: Recorder, *gates: Any, **options: Any) -> Books:
    """Serve one connection to its end, through gates; give the books of the guard."""
    policies = [Gated(gate) for gate in gates]
    guard = WebSocketGuardMiddleware(app, observers=(seen,), policies=policies, **options)
    server.connect()
    await server.call(guard)
    return guard.totals()


def _collector(into: list[Any], server: ScriptedServer, *messages: Message) -> App:
    """Make a handler that lets messages arrive and receives to the disconnect: payloads, or the disconnect's code."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        server.deliver(*messages)
        while (message := await receive())["type"] != "websocket.disconnect":
            into.append(message.get("text", message.get("bytes")))
        into.append(message["code"])

    return app


def _timed(into: list[Any], server: ScriptedServer, *messages: Message) -> App:
    """Make a handler as `_collector` does, which takes down the time too."""
    got = list[Any]()
    inner = _collector(got, server, *messages)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_timed() -> Message:
            message = await receive()
            if message["type"] != "websocket.connect":
                into.append((message.get("text", message.get("code")), _now()))
            return message

        await inner(scope, receive_timed, send)

    return app


def _texts(*texts: str) -> list[Message]:
    return [{"type": "websocket.receive", "text": text} for text in texts]


END: Message = {"type": "websocket.disconnect", "code": 1001}


def test_a_gate_is_asked_once_for_each_message_with_its_size(mode: str) -> None:
    """In bytes of UTF-8 for text; for what is odd too, and never for anything that is no message."""

    async def main() -> None:
        server, gate, got = ScriptedServer(), Gate(), list[Any]()
        odd: Message = {"type": "websocket.receive", "text": None, "bytes": b"12345"}
        array: Message = {"type": "websocket.receive", "bytes": bytearray(b"12")}
        neither: Message = {"type": "websocket.receive"}
        messages = [*_texts("abc", "é", ""), {"type": "websocket.receive", "bytes": b"1234"}, odd, array, neither, END]
        books = await _serve(_collector(got, server, *messages), server, _recorder(mode), gate)
        assert gate.asked == [3, 2, 0, 4, 5, 2, 0]
        assert got == ["abc", "é", "", b"1234", None, bytearray(b"12"), None, 1001]
        assert books.received == 7

    run(main)


def test_what_a_gate_drops_never_arrives(mode: str) -> None:
    """It counts as received, is told once, and what follows is delivered in order."""

    async def main() -> None:
        server, seen, got = ScriptedServer(), _recorder(mode), list[Any]()
        gate = Gate(ALLOW, Drop("flood"), Drop("flood"), Allow(), Drop("flood"))
        books = await _serve(_collector(got, server, *_texts(*"abcdef"), END), server, seen, gate)
        assert got == ["a", "d", "f", 1001]
        assert books.received == 6
        told = seen.one(PolicyApplied)
        assert (told.policy.rpartition(".")[2], told.decision, told.reason) == ("Gated", "drop", "flood")
        assert seen.one(Closed).decisions == {(told.policy, "drop", "flood"): 3}
        if mode == "telling":
            assert len(seen.of(MessageReceived)) == 3
        if mode == "measured":
            assert (books.received_texts, books.received_bytes) == (6, 6)

    run(main)


def test_a_flood_of_dropped_messages_starves_nobody(mode: str) -> None:
    """Thousands in a row neither recurse nor keep the loop from others."""

    async def main() -> None:
        server, got, turns = ScriptedServer(), list[Any](), list[int]()
        many = 3000

        async def other() -> None:
            while True:
                turns.append(1)
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        messages = [*_texts(*["x"] * many), *_texts("last"), END]
        await _serve(_collector(got, server, *messages), server, _recorder(mode), Gate(*[Drop()] * many))
        beside.cancel()
        assert got == ["last", 1001]
        assert len(turns) >= many

    run(main)


def test_a_message_policy_may_drop_a_flood_too() -> None:
    """As a gate."""

    class Drops:
        def message(self, connection_id: str, direction: str, size: int) -> Allow | Drop:
            return Drop() if size == 1 else Allow()

    async def main() -> None:
        server, got = ScriptedServer(), list[Any]()
        app = _collector(got, server, *_texts(*["x"] * 3000), *_texts("last"), END)
        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(Drops(),)))
        assert got == ["last", 1001]

    run(main)


def test_a_gate_that_closes_closes_at_once(mode: str) -> None:
    """With its code and class; the refused message is not delivered, and the disconnect follows the close."""

    async def main() -> None:
        server, seen, got = ScriptedServer(), _recorder(mode), list[Any]()
        gate = Gate(ALLOW, Close(1009, "too big", CloseStatus.RATE_LIMITED))
        started_s = _now()
        await _serve(_collector(got, server, *_texts("a", "b", "c")), server, seen, gate)
        assert got == ["a", 1009]
        assert server.sent[-1] == {"type": "websocket.close", "code": 1009, "reason": "too big"}
        end = seen.one(Closed)
        assert (end.status, end.initiator) == (CloseStatus.RATE_LIMITED, Initiator.GUARD)
        assert [one.decision for one in seen.of(PolicyApplied)] == ["close"]
        assert len(gate.asked) == 2
        assert _now() - started_s < DRAIN_S / 4

    run(main)


@pytest.mark.parametrize(
    "answer",
    [
        KeyError("size"),
        ValueError("bug"),
        None,
        True,
        "allow",
        Deny(),
        Allow,
        Delay(0.0),
        Delay(-1.0),
        Delay(math.inf),
        Delay(math.nan),
        Delay("1"),  # type: ignore[arg-type]
        Delay(1.0, 5),  # type: ignore[arg-type]
        Delay(1.0, "slow", "later"),  # type: ignore[arg-type]
        Drop(None),  # type: ignore[arg-type]
        Close("1000"),  # type: ignore[arg-type]
        Close(1008, 5),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_a_gate_that_fails_closes(mode: str, answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What raises, or is no answer, lets nothing pass: 1011, and the log says which policy."""

    async def main() -> None:
        server, seen, got = ScriptedServer(), _recorder(mode), list[Any]()
        gate = Gate(answer)
        await _serve(_collector(got, server, *_texts("a", "b")), server, seen, gate)
        assert got == [1011]
        assert len(gate.asked) == 1
        assert seen.one(Closed).status is CloseStatus.APP_ERROR
        assert seen.one(PolicyApplied).reason == "policy_failed"

    run(main)
    assert "Gated" in caplog.text


def test_gates_are_asked_in_order_until_one_does_not_allow(mode: str) -> None:
    """The one that answered is named; those after it are not asked."""

    async def main() -> None:
        server, seen, got = ScriptedServer(), _recorder(mode), list[Any]()
        first, second, third = Gate(Allow()), Gate(ALLOW, Drop("second"), ValueError()), Gate()
        books = await _serve(_collector(got, server, *_texts(*"abc")), server, seen, first, second, third)
        assert got == ["a", 1011]
        assert (len(first.asked), len(second.asked), len(third.asked)) == (3, 3, 1)
        assert [one.reason for one in seen.of(PolicyApplied)] == ["second", "policy_failed"]
        assert books.received == 3

    run(main)


def test_a_delayed_message_comes_later_and_nothing_is_read_meanwhile(mode: str) -> None:
    """The transport is to push back: the server is not asked before the time is over; order is kept."""

    async def main() -> None:
        server, seen, got, reads = ScriptedServer(), _recorder(mode), list[tuple[str, float]](), list[float]()

        async def receive_counted() -> Message:
            reads.append(_now())
            return await server.receive()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.deliver(*_texts("a", "b", "c"), END)
            reads.clear()
            while (message := await receive())["type"] != "websocket.disconnect":
                got.append((message["text"], _now()))

        policies = [Gated(Gate(Delay(5.0, "slow"), ALLOW, Delay(2.0, "slow")))]
        guard = WebSocketGuardMiddleware(app, observers=(seen,), policies=policies)
        server.connect()
        await guard(server.scope, receive_counted, server.send)
        assert got == [("a", 5.0), ("b", 5.0), ("c", 7.0)]
        assert [at for at in reads if 0 < at < 5 or 5 < at < 7] == []
        assert (seen.one(PolicyApplied).decision, seen.one(PolicyApplied).reason) == ("delay", "slow")
        assert list(seen.one(Closed).decisions.values()) == [2]
        assert guard.totals().received == 3

    run(main)


def test_a_delay_may_ask_again(mode: str) -> None:
    """What it says then counts as any answer: wait on, pass, be dropped; the delay itself is told once."""

    async def main() -> None:
        server, seen, got = ScriptedServer(), _recorder(mode), list[Any]()
        passes = Delay(1.0, "slow", Gate(Delay(2.0, "slow", lambda: ALLOW)).later)
        gate = Gate(passes, Delay(1.0, "slow", lambda: Drop("many")), Delay(4.0, "slow", lambda: Delay(8.0, "slow")))
        await _serve(_timed(got, server, *_texts("a", "b", "c", "d"), END), server, seen, gate)
        assert got == [("a", 3.0), ("c", 16.0), ("d", 16.0), (1001, 16.0)]
        counts = {kind[1:]: number for kind, number in seen.one(Closed).decisions.items()}
        assert counts == {("delay", "slow"): 3, ("drop", "many"): 1}
        assert {kind[0].rpartition(".")[2] for kind in seen.one(Closed).decisions} == {"Gated"}

    run(main)


@pytest.mark.parametrize(
    ("then", "code"), [(Close(1013, "many"), 1013), (ValueError("bug"), 1011), (None, 1011)], ids=repr
)
def test_a_delay_may_close_in_the_end(mode: str, then: object, code: int) -> None:
    """When its time is over; what raises or is no answer closes as well."""

    async def main() -> None:
        server, seen, got = ScriptedServer(), _recorder(mode), list[Any]()
        gate = Gate(ALLOW, Delay(3.0, "slow", Gate(then).later))
        await _serve(_timed(got, server, *_texts("a", "b", "c")), server, seen, gate)
        assert got == [("a", 0.0), (code, pytest.approx(3.0, abs=DRAIN_S / 4))]
        assert [one["code"] for one in server.sent if one["type"] == "websocket.close"] == [code]
        assert [one.decision for one in seen.of(PolicyApplied)] == ["delay", "close"]

    run(main)


@pytest.mark.parametrize(("then", "expected"), [(ALLOW, ["a", 1000]), (Delay(1.0, "slow"), [1000])], ids=repr)
def test_what_waits_at_the_end_passes_only_if_it_may(then: Allow | Delay, expected: list[Any]) -> None:
    """A connection that ends meanwhile is asked for at once, and waits for nothing more; a drop is counted."""

    async def main() -> None:
        server, seen, got = ScriptedServer(), Recorder(), list[Any]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.deliver(*_texts("a"))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 1)
            await send({"type": "websocket.close", "code": 1000})
            while (message := await receive())["type"] != "websocket.disconnect":
                got.append(message["text"])
            got.append(message["code"])

        await _serve(app, server, seen, Gate(Delay(5.0, "slow", lambda: then)))
        assert got == expected
        counts = {kind[1:] for kind in seen.one(Closed).decisions}
        assert (("drop", "slow") in counts) is (then is not ALLOW)

    run(main)


def test_a_receive_that_is_cancelled_in_a_delay_loses_nothing(mode: str) -> None:
    """The next one waits for what is left of it; or finds the message, when it is over."""

    async def main() -> None:
        server, got = ScriptedServer(), list[tuple[str, float]]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.deliver(*_texts("a", "b", "c"), END)
            for _ in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(receive(), 1)
            got.append(((await receive())["text"], _now()))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 1)
            await asyncio.sleep(10)
            got.append(((await receive())["text"], _now()))
            got.append(((await receive())["text"], _now()))
            assert (await receive())["type"] == "websocket.disconnect"

        await _serve(app, server, _recorder(mode), Gate(Delay(5.0), Delay(5.0)))
        assert got == [("a", 5.0), ("b", 16.0), ("c", 16.0)]

    run(main)


def test_several_receivers_share_what_is_delayed(mode: str) -> None:
    """Each gets one message, none is forgotten."""

    async def main() -> None:
        server, got = ScriptedServer(), list[str]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.deliver(*_texts("a", "b", "c"))
            got.extend(one["text"] for one in await asyncio.gather(receive(), receive(), receive()))
            server.disconnect()

        await _serve(app, server, _recorder(mode), Gate(Delay(3.0), Delay(3.0), ALLOW))
        assert sorted(got) == ["a", "b", "c"]
        assert _now() < 7

    run(main)


def test_a_disconnect_in_a_delay_is_seen_when_it_is_over(mode: str) -> None:
    """Also by a handler that never receives, and not before: nothing is read."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.deliver(*_texts("a"), END)
            await current_connection().wait_closed()

        await _serve(app, server, _recorder(mode), Gate(Delay(5.0)))
        assert 5.0 <= _now() <= 5.0 + IDLE_S + 2 * TICK_S

    run(main)


def test_what_is_delayed_is_delivered_before_the_disconnect(mode: str) -> None:
    """It arrived before the end, whoever closes; and no timer is left."""

    async def main() -> None:
        server, got = ScriptedServer(), list[Any]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.deliver(*_texts("a"))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 1)
            await send({"type": "websocket.close", "code": 4000})
            server.disconnect(4000)
            got.append((await receive())["text"])
            got.append((await receive())["code"])

        await _serve(app, server, _recorder(mode), Gate(Delay(50.0)))
        assert got == ["a", 4000]
        assert _now() < 3

    run(main)


def test_a_handler_that_ends_in_a_delay_leaves_nothing_behind(mode: str) -> None:
    """The message is gone with its connection."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.deliver(*_texts("a"), END)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 1)

        books = await _serve(app, server, _recorder(mode), Gate(Delay(50.0)))
        assert _now() < 2
        assert server.types() == ["websocket.accept", "websocket.close"]
        assert books.received == 1

    run(main)


def test_what_was_read_ahead_went_through_the_gate() -> None:
    """The pump asks too, drops, waits, and closes."""

    async def main() -> None:
        server, got = ScriptedServer(), list[tuple[Any, float]]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await asyncio.sleep(2)
            server.deliver(*_texts("a", "b", "c", "d", "e"))
            await asyncio.sleep(10)
            while (message := await receive())["type"] != "websocket.disconnect":
                got.append((message["text"], _now()))
            got.append((message["code"], _now()))

        gate = Gate(ALLOW, Drop(), Delay(20.0), ALLOW, Close(1008))
        await _serve(app, server, _recorder("direct"), gate)
        assert got == [("a", 12.0), ("c", 22.0), ("d", 22.0), (1008, 22.0)]

    run(main)


def test_under_another_loop_without_timers_a_delay_is_none() -> None:
    """Under trio nothing can be due later: the message is delivered at once."""
    trio = pytest.importorskip("trio")
    got: list[str] = []

    async def main() -> None:
        messages = [{"type": "websocket.connect"}, *_texts("a", "b"), END]

        async def receive() -> Message:
            await trio.lowlevel.checkpoint()
            return messages.pop(0)

        async def send(message: Message) -> None:
            await trio.lowlevel.checkpoint()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            while (message := await receive())["type"] != "websocket.disconnect":
                got.append(message["text"])

        guard = WebSocketGuardMiddleware(app, observers=(), policies=(Gated(Gate(Delay(5.0), ALLOW)),))
        await guard({"type": "websocket", "path": "/"}, receive, send)

    trio.run(main)
    assert got == ["a", "b"]
