"""The fast path equals the tables: whatever passes it, or does not, is what the state machine would have said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_ws_guard import (
    ALLOW,
    Allow,
    Books,
    Handshake,
    MessageReceived,
    MessageSent,
    ProtocolError,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._connection import Connection, Verdict
from asgi_ws_guard._path import GRANT
from asgi_ws_guard._send_lanes import tracked
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}


class _Text(str):
    """A subclass of `str`, which is a legal text."""


class _Mapping(dict[str, Any]):
    """A message that is no plain `dict`."""


_MISSING = object()
_texts = st.sampled_from([_MISSING, None, "", "x", "é" * 10, _Text("sub"), 5, b"x", ["x"], True])
_payloads = st.sampled_from([_MISSING, None, b"", b"x", bytearray(b"x"), memoryview(b"x"), "x", 5])


def _message(kind: Any, text: Any, data: Any, extra: dict[str, Any], mapping: bool) -> Any:
    pairs = {"type": kind, "text": text, "bytes": data, **extra}
    message = {key: value for key, value in pairs.items() if value is not _MISSING}
    return _Mapping(message) if mapping else message


_sends = st.one_of(
    st.builds(_message, st.just("websocket.send"), _texts, _payloads, st.just({}), st.booleans()),
    st.builds(
        _message,
        st.sampled_from(
            [
                "websocket.accept",
                "websocket.close",
                "websocket.http.response.start",
                "websocket.http.response.body",
                "websocket.receive",
                "websocket.ping",
                None,
                5,
                ("x",),
                _MISSING,
            ]
        ),
        st.just(_MISSING),
        st.just(_MISSING),
        st.sampled_from([{}, {"code": 1000}, {"code": 1006}, {"code": "x"}, {"status": 403, "headers": []}]),
        st.booleans(),
    ),
    st.sampled_from([None, 5, "websocket.send", b"x", [], ["type"]]),
)
_arrivals = st.one_of(
    st.builds(_message, st.just("websocket.receive"), _texts, _payloads, st.just({}), st.just(value=False)),
    st.sampled_from([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}, {"type": "x"}, {}]),
)
_steps = st.one_of(
    st.tuples(st.just("send"), _sends),
    st.tuples(st.just("send"), st.just({"type": "websocket.send", "text": "plain"})),
    st.tuples(st.just("receive"), _arrivals),
)
_scripts = st.tuples(st.sampled_from([[], [("send", ACCEPT)], [("send", ACCEPT)]]), st.lists(_steps, max_size=20)).map(
    lambda parts: [*parts[0], *parts[1]]
)


@dataclass
class _Run:
    """What an application and its server saw of a script."""

    outcomes: list[object] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    forwarded: list[Any] = field(default_factory=list)
    books: Books = field(default_factory=Books)
    measured: Books = field(default_factory=Books, compare=False)


class _Measuring(Recorder):
    """An observer that wants to know how much passes."""

    wants_sizes = True


class _Yes:
    """A message policy that allows everything: every message takes the slow path."""

    def message(self, connection_id: str, direction: str, size: int) -> Allow:
        return Allow()


class _Gated:
    """A policy whose gate allows everything, in one way or another."""

    def __init__(self, answer: Allow) -> None:
        self.answer = answer

    def admit(self, handshake: Handshake) -> Allow:
        return Allow(gate=lambda size: self.answer)


class _Crediting(_Gated):
    """The same, with credit for a few small messages."""

    credit_bytes = 3

    def admit(self, handshake: Handshake) -> Allow:
        return Allow(gate=self)

    def __call__(self, size: int) -> Allow:
        return self.answer

    def credit(self) -> int:
        return 2

    def settle(self, messages: int, size: int) -> None:
        assert messages <= 2
        assert size <= 6


def _through_the_guard(script: list[tuple[str, Any]], **options: Any) -> _Run:
    result = _Run()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for what, message in script:
            try:
                if what == "send":
                    result.outcomes.append(await send(message))  # type: ignore[func-returns-value]
                elif scope["asgi_ws_guard.connection"].state.value != "CLOSED":
                    servers[0].deliver(message)
                    result.outcomes.append(await receive())
            except ProtocolError as error:
                result.outcomes.append(str(error))
            result.states.append(scope["asgi_ws_guard.connection"].state.value)
        result.forwarded = list(servers[0].sent)
        result.books = scope["asgi_ws_guard.connection"].books

    async def main() -> None:
        servers.append(ScriptedServer())
        servers[0].connect()
        await servers[0].call(WebSocketGuardMiddleware(app, **options))

    servers: list[ScriptedServer] = []
    run(main)
    return result


def _measured(messages: list[Any]) -> tuple[int, int, int]:
    """Count the texts and binaries among messages and their bytes on the wire, in a way of the test's own."""
    texts = [one["text"].encode() for one in messages if isinstance(one.get("text"), str)]
    others = [one.get("bytes") for one in messages if not isinstance(one.get("text"), str)]
    binaries = [one for one in others if one is not None and not isinstance(one, str | int)]
    return len(texts), len(binaries), len(b"".join([*texts, *binaries]))


def _through_the_tables(script: list[tuple[str, Any]]) -> _Run:
    """Do what a script says with the sans-IO core alone."""
    result, core = _Run(), Connection("0" * 16, at_s=0, can_deny=True)
    received: list[Any] = []
    core.receive({"type": "websocket.connect"}, 0)
    for what, message in script:
        if what == "send":
            step = core.send(message, 0)
            result.outcomes.append(None if step.error is None else str(step.error))
            if step.verdict is Verdict.FORWARD:
                result.forwarded.append(step.message)
                if step.message["type"] == "websocket.send":
                    core.sent += 1
                else:
                    core.answers += 1
            elif step.verdict is Verdict.DROP:
                assert core.ended is not None
                core.drop(core.ended.because)
        elif core.state.value != "CLOSED":
            try:
                core.receive(message, 0)
                received += [message] if message["type"] == "websocket.receive" else []
                result.outcomes.append(message)
            except ProtocolError as error:
                result.outcomes.append(str(error))
        result.states.append(core.state.value)
    result.books = core.books
    received_texts, received_binaries, received_bytes = _measured(received)
    sends = [one for one in result.forwarded if one["type"] == "websocket.send"]
    sent_texts, sent_binaries, sent_bytes = _measured(sends)
    result.measured = replace(
        core.books,
        received_texts=received_texts,
        received_binaries=received_binaries,
        received_bytes=received_bytes,
        sent_texts=sent_texts,
        sent_binaries=sent_binaries,
        sent_bytes=sent_bytes,
    )
    return result


@settings(max_examples=500, deadline=None)
@given(script=_scripts)
def test_the_fast_path_equals_the_tables(script: list[tuple[str, Any]]) -> None:
    """The same messages forwarded, errors raised, states passed and numbers counted, and measured, whoever observes."""
    expected = _through_the_tables(script)
    ways: list[dict[str, Any]] = [
        {},
        {"send_timeout_s": 30},
        {"observers": (Recorder(wants_messages=True),)},
        {"policies": (_Yes(),)},
        {"policies": (_Gated(ALLOW),)},
        {"policies": (_Gated(Allow()),)},
        {"policies": (_Crediting(ALLOW),)},
        {"policies": (_Gated(ALLOW), _Gated(ALLOW), _Yes())},
    ]
    for options in ways:
        seen = _through_the_guard(script, **{"observers": (), **options})
        assert seen == expected, options
    measured = replace(expected, books=expected.measured)
    ways = [{}, {"send_timeout_s": 30}, *({"policies": (one,)} for one in (_Yes(), _Gated(ALLOW), _Crediting(ALLOW)))]
    for options in ways:
        assert _through_the_guard(script, observers=(_Measuring(),), **options) == measured, options
    assert _through_the_guard(script, observers=(_Measuring(wants_messages=True),)) == measured


def test_observers_of_messages_hear_of_each_one() -> None:
    """An observer that asks for messages hears their kind and size, in order, and never a payload."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder(wants_messages=True)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.deliver({"type": "websocket.receive", "bytes": b"abc"}, {"type": "websocket.receive", "text": "é"})
            await receive()
            await receive()
            await send({"type": "websocket.send", "text": "éé"})
            await send({"type": "websocket.send", "bytes": b"12345", "text": None})

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        heard = [
            (type(event).__name__, event.kind, event.size)
            for event in seen.events
            if isinstance(event, MessageReceived | MessageSent)
        ]
        assert heard == [
            ("MessageReceived", "binary", 3),
            ("MessageReceived", "text", 2),
            ("MessageSent", "text", 4),
            ("MessageSent", "binary", 5),
        ]

    run(main)


def test_observers_that_do_not_ask_hear_of_none() -> None:
    """Without ``wants_messages`` no event is made per message."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.text("a")
            await receive()
            await send({"type": "websocket.send", "text": "x"})

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        assert not seen.of(MessageReceived)
        assert not seen.of(MessageSent)

    run(main)


@pytest.mark.parametrize("send_timeout_s", [None, 30])
@pytest.mark.parametrize("observer", [None, Recorder(wants_messages=True), _Measuring()], ids=["", "heard", "measured"])
@pytest.mark.parametrize("count", [GRANT - 1, GRANT, GRANT + 1, 3 * GRANT])
def test_every_message_counts_around_the_grant(
    count: int, observer: Recorder | None, send_timeout_s: float | None
) -> None:
    """The path hands its counter over now and then; nothing is lost or counted twice there."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            for number in range(count):
                await send({"type": "websocket.send", "text": "x"})
                if number % 700 == 0:
                    assert scope["asgi_ws_guard.connection"].books.sent == number + 1
            assert scope["asgi_ws_guard.connection"].books.sent == count

        server.connect()
        observers = () if observer is None else (observer,)
        guard = WebSocketGuardMiddleware(app, observers=observers, send_timeout_s=send_timeout_s)
        await server.call(guard)
        totals = guard.totals()
        assert totals.sent == count
        assert (totals.sent_texts, totals.sent_bytes) == (
            (count, count) if isinstance(observer, _Measuring) else (0, 0)
        )

    run(main)


def test_the_very_message_is_forwarded() -> None:
    """Nothing is copied: the server gets the application's object, and the application the server's."""

    async def main() -> None:
        server = ScriptedServer()
        arriving, leaving = {"type": "websocket.receive", "text": "a"}, {"type": "websocket.send", "text": "b"}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            for _ in range(3):
                server.deliver(arriving)
                assert await receive() is arriving
                await send(leaving)
                assert server.sent[-1] is leaving

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)


def test_an_ordinary_message_costs_no_turn_of_the_loop() -> None:
    """A send that the server takes at once, and a receive of what has arrived, never suspend."""

    async def main() -> None:
        server, turns = ScriptedServer(), list[int]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.text(*map(str, range(100)))
            asyncio.get_running_loop().call_soon(turns.append, 1)
            for _ in range(100):
                await receive()
                await send({"type": "websocket.send", "text": "x"})
            assert not turns

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), send_timeout_s=5))

    run(main)


def test_tracked_sends_are_visible_while_they_wait() -> None:
    """What the server has not finished is in the set, and leaves it however it ends."""

    async def main() -> None:
        server, in_flight = ScriptedServer(), dict[Awaitable[None], Any]()
        side: Any = object()
        send = tracked(side, server.send, in_flight)

        async def one() -> None:
            await send({"type": "websocket.send", "text": "x"})

        server.stall_sends()
        tasks = [asyncio.create_task(one()) for _ in range(3)]
        await asyncio.sleep(0)
        assert list(in_flight.values()) == [side, side, side]
        tasks[0].cancel()
        server.fail_sends(OSError())
        server.resume_sends()
        await asyncio.wait(tasks)
        assert not in_flight
        assert len(server.sent) == 0

    run(main)
