"""G13: books that balance, counted by the test itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_ws_guard import Books, ConnectionClosed, ConnectionHandle, ProtocolError, Terminal, WebSocketGuardMiddleware
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}
TEXT: Message = {"type": "websocket.send", "text": "x"}

MESSAGES: dict[str, Message] = {
    "accept": ACCEPT,
    "close": CLOSE,
    "illegal close": {"type": "websocket.close", "code": 1006, "reason": "x" * 200},
    "text": TEXT,
    "bytes": {"type": "websocket.send", "bytes": b"x"},
    "quart": {"type": "websocket.send", "bytes": None, "text": "x"},
    "buffer": {"type": "websocket.send", "bytes": bytearray(b"x")},
    "both": {"type": "websocket.send", "text": "x", "bytes": b"x"},
    "neither": {"type": "websocket.send"},
    "number": {"type": "websocket.send", "text": 5},
    "unknown": {"type": "websocket.ping"},
    "untyped": {},
    "start": {"type": "websocket.http.response.start", "status": 403, "headers": []},
    "more": {"type": "websocket.http.response.body", "body": b"x", "more_body": True},
    "body": {"type": "websocket.http.response.body", "body": b"x"},
}
FAULTS = ("gone", "bug", "fine", "stall", "resume", "message", "disconnect")
HANDLER = ("receive", "sleep", "child", "child twice", "cancelled send")

_actions = st.one_of(
    st.sampled_from(sorted(MESSAGES)), st.sampled_from(["text", "bytes"]), st.sampled_from([*FAULTS, *HANDLER])
)
_scripts = st.tuples(st.sampled_from([[], ["accept"], ["accept"], ["start"]]), st.lists(_actions, max_size=25)).map(
    lambda parts: [*parts[0], *parts[1]]
)


@dataclass
class _Count:
    """What the test itself saw of one connection."""

    attempted: int = 0
    refused: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


class _CountingServer(ScriptedServer):
    """Counts what it took and what it failed to take, of the application's own messages."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: Counter[str] = Counter()
        self.failed = 0

    async def send(self, message: Message) -> None:
        own = "mark" in message
        try:
            await super().send(message)
        except BaseException as error:
            self.failed += own and not isinstance(error, OSError)
            raise
        self.taken[message["type"]] += own


async def _play(script: list[str], server: _CountingServer, count: _Count, receive: Receive, send: Send) -> None:
    """Do what a script says; no error ends it."""
    children: list[asyncio.Task[None]] = []

    async def give(message: Message) -> None:
        count.attempted += 1
        try:
            await send({**message, "mark": 1})
        except ProtocolError:
            count.refused += 1
        except (ConnectionClosed, RuntimeError):
            pass

    async def give_twice(message: Message) -> None:
        await give(message)
        await asyncio.sleep(0.3)
        await give(message)

    for action in script:
        if action in MESSAGES:
            task = asyncio.create_task(give(MESSAGES[action]))
            await asyncio.wait({task}, timeout=0.2)
            children.append(task)
        elif action == "gone":
            server.fail_sends(ConnectionResetError())
        elif action == "bug":
            server.fail_sends(RuntimeError("bug"))
        elif action == "fine":
            server.fail_sends(None)
        elif action == "stall":
            server.stall_sends()
        elif action == "resume":
            server.resume_sends()
        elif action == "message":
            server.text("x")
        elif action == "disconnect":
            server.disconnect(1001)
        elif action == "receive":
            task = asyncio.create_task(_receive_one(receive))
            await asyncio.wait({task}, timeout=0.2)
            task.cancel()
        elif action == "sleep":
            await asyncio.sleep(0.7)
        elif action == "cancelled send":
            task = asyncio.create_task(give(TEXT))
            await asyncio.sleep(0)
            task.cancel()
            children.append(task)
        else:
            children.append(asyncio.create_task(give_twice(TEXT) if action == "child twice" else give(TEXT)))
    server.resume_sends()
    await asyncio.gather(*children, return_exceptions=True)


async def _receive_one(receive: Receive) -> None:
    with contextlib.suppress(RuntimeError):
        await receive()


@settings(max_examples=400, deadline=None)
@given(
    scripts=st.lists(_scripts, min_size=1, max_size=3),
    send_timeout_s=st.sampled_from([None, 0.5]),
    late_sends=st.sampled_from(["drop", "raise"]),
    observed=st.booleans(),
)
def test_the_books_are_what_happened(
    scripts: list[list[str]], send_timeout_s: float | None, late_sends: Any, observed: bool
) -> None:
    """For random handlers and server faults every number of the guard equals the test's own count, and they add up."""

    async def main() -> None:
        servers = [_CountingServer() for _ in scripts]
        counts = [_Count() for _ in scripts]
        seen = Recorder(wants_messages=observed)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            number = scope["number"]
            await _play(scripts[number], servers[number], counts[number], receive, send)

        guard = WebSocketGuardMiddleware(
            app, observers=(seen,), late_sends=late_sends, send_timeout_s=send_timeout_s, linger_s=1
        )
        tasks = []
        for number, server in enumerate(servers):
            server.scope["number"] = number
            server.connect()
            tasks.append(server.call(guard))
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(error is None or str(error) == "bug" for error in ended)
        for number, (server, count) in enumerate(zip(servers, counts, strict=True)):
            ids = [event.connection_id for event in seen.events if type(event).__name__ == "Opened"]
            books = next(one.books for one in seen.of(Terminal) if one.connection_id == ids[number])
            assert books.attempted == count.attempted
            assert books.attempted == books.forwarded + books.failed + books.refused + books.dropped_total
            assert books.refused == count.refused
            assert books.forwarded == sum(server.taken.values())
            assert books.sent == server.taken["websocket.send"]
            assert books.failed >= server.failed
            if not send_timeout_s:
                cancelled = scripts[number].count("cancelled send")
                assert server.failed <= books.failed <= server.failed + cancelled
        total: Books = sum((one.books for one in seen.of(Terminal)), Books())
        assert guard.totals() == total

    run(main)


def test_the_totals_hold_at_any_time() -> None:
    """Live connections count too, and nothing is counted twice when one is over."""

    async def main() -> None:
        server = ScriptedServer()
        totals: list[Books] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.text("a")
            await receive()
            for _ in range(5):
                await send(TEXT)
                totals.append(guard.totals())
                assert scope["asgi_ws_guard.connection"].books == guard.totals()
            assert guard.connections == 1

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=())
        await server.call(guard)
        assert [(books.attempted, books.sent, books.received) for books in totals] == [
            (number + 2, number + 1, 1) for number in range(5)
        ]
        assert guard.totals() == totals[-1]
        assert guard.connections == 0

    run(main)


def test_a_send_that_lost_the_peer_is_a_drop_with_the_reason_of_the_end() -> None:
    """What a server raises for a lost peer is no failure, so that the success rate is the same on every server."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.fail_sends(OSError())
            await send(TEXT)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=())
        await server.call(guard)
        assert guard.totals() == Books(forwarded=1, dropped={"transport_lost": 1})

    run(main)


@pytest.mark.parametrize("outcome", ["forwarded", "failed", "refused", "dropped"])
def test_what_ends_after_the_handler_is_in_the_totals(outcome: str) -> None:
    """Messages of tasks that outlive their handler are counted, each when its outcome is known, also in total."""

    async def main() -> None:
        server = ScriptedServer()
        pushing: list[asyncio.Task[None]] = []

        async def push(send: Send) -> None:
            await send({} if outcome == "refused" else TEXT)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            if outcome in ("forwarded", "failed"):
                server.stall_sends()
                pushing.extend(asyncio.create_task(push(send)) for _ in range(3))
                await asyncio.sleep(0)
                if outcome == "failed":
                    server.fail_sends(RuntimeError("bug"))
            else:
                pushing.extend(asyncio.create_task(_later(push(send))) for _ in range(3))

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(), close_on_return=None)
        await server.call(guard)
        server.resume_sends()
        await asyncio.wait(pushing)
        for task in pushing:
            assert (task.exception() is None) == (outcome in ("forwarded", "dropped"))
        books = guard.totals()
        assert books.attempted == 4
        assert (
            books
            == {
                "forwarded": Books(forwarded=4, sent=3),
                "failed": Books(forwarded=1, failed=3),
                "refused": Books(forwarded=1, refused=3),
                "dropped": Books(forwarded=1, dropped={"handler_done": 3}),
            }[outcome]
        )

    run(main)


def test_a_close_that_outlives_its_handler_is_in_the_totals() -> None:
    """A close of a task, which the server takes when the handler is done already, is forwarded; the handle agrees."""

    async def main() -> None:
        server, handles, closing = ScriptedServer(), list[ConnectionHandle](), list[asyncio.Task[None]]()

        async def close(send: Send) -> None:
            await send({"type": "websocket.close"})

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await send(TEXT)
            handles.append(scope["asgi_ws_guard.connection"])
            server.stall_sends()
            closing.append(asyncio.create_task(close(send)))
            await asyncio.sleep(0)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=())
        await server.call(guard)
        assert handles[0].books == guard.totals() == Books(forwarded=2, sent=1)
        server.resume_sends()
        await closing[0]
        assert handles[0].books == guard.totals() == Books(forwarded=3, sent=1)

    run(main)


async def _later(work: Any) -> None:
    await asyncio.sleep(1)
    await work
