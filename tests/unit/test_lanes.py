"""What the lanes count: messages, and texts and bytes where somebody wants to know."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_ws_guard import Allow, Books, Close, ConnectionHandle, Drop, ProtocolError, WebSocketGuardMiddleware
from asgi_ws_guard._ticks import ENDLESS, Ticks, payload_size
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 1000}
TEXT: Message = {"type": "websocket.send", "text": "é!"}
DATA: Message = {"type": "websocket.send", "bytes": b"12345"}

Work = Callable[[ScriptedServer, Receive, Send], Awaitable[None]]


class Measuring(Recorder):
    """An observer that wants to know how much passes."""

    def __init__(self, *, wants_messages: bool = False, wants_sizes: bool = True) -> None:
        super().__init__(wants_messages=wants_messages)
        self.wants_sizes = wants_sizes


class Answering:
    """A message policy with one answer for each direction."""

    def __repr__(self) -> str:
        return "Answering"  # the same in each process: it becomes the name of a test

    def __init__(self, received: Allow | Drop | Close, sent: Allow | Drop | Close) -> None:
        self.answers = {"received": received, "sent": sent}

    def message(self, connection_id: str, direction: str, size: int) -> Allow | Drop | Close:
        """Answer as told."""
        return self.answers[direction]


def play(work: Work, **options: Any) -> Books:
    """Let *work* be the handler of an accepted connection, and give the totals: the tally's and the handle's too."""

    async def main() -> Books:
        server = ScriptedServer()

        handles: list[ConnectionHandle] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            handles.append(scope["asgi_ws_guard.connection"])
            await receive()
            await send(ACCEPT)
            await work(server, receive, send)

        server.connect()
        guard = WebSocketGuardMiddleware(app, **{"observers": (Measuring(),), **options})
        await server.call(guard)
        await asyncio.sleep(10)
        (tally,) = guard._ledger.tallies()
        assert tally.books == guard.totals() == handles[0].books
        return guard.totals()

    return run(main)


def sizes(books: Books) -> tuple[int, int, int, int, int, int]:
    return (
        *(books.received, books.received_texts, books.received_bytes),
        *(books.sent, books.sent_texts, books.sent_bytes),
    )


def test_a_tick_is_counted_when_it_is_taken() -> None:
    """A counter goes on from where the one before it stood, and gives no more than was granted."""
    ticks = Ticks(3, before=7)
    assert (ticks.before, ticks.granted, ticks.counted) == (7, 3, 7)
    assert [ticks.counted for _ in ticks] == [8, 9, 10]
    assert next(ticks, "none") == "none"
    assert ticks.counted == 10
    assert (Ticks().granted, Ticks().before, Ticks(0).counted) == (ENDLESS, 0, 0)


PAYLOADS = [
    # text, data, texts, bytes
    ("abc", None, 1, 3),
    ("é€😀", None, 1, 9),
    ("", None, 1, 0),
    ("\ud800", None, 1, 1),
    (None, b"", 0, 0),
    (None, b"\xff\x00\xff", 0, 3),
    (None, bytearray(b"1234"), 0, 4),
    (None, memoryview(b"12345"), 0, 5),
]
KEYS = ["one key", "both keys"]


def keyed(kind: str, text: object, data: object, keys: str) -> Message:
    message: Message = {"type": kind, "text": text, "bytes": data}
    return message if keys == "both keys" else {key: one for key, one in message.items() if one is not None}


@pytest.mark.parametrize("options", [{}, {"send_timeout_s": 30}, {"policies": (Answering(Allow(), Allow()),)}], ids=str)
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize(("text", "data", "texts", "size"), PAYLOADS)
def test_every_payload_is_measured(
    text: object, data: object, texts: int, size: int, keys: str, options: dict[str, Any]
) -> None:
    """Bytes of UTF-8 for text, a lone surrogate as one; Quart's two keys, one of them None, count as the one."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        for number in (1, 2):
            server.deliver(keyed("websocket.receive", text, data, keys))
            await receive()
            await send(keyed("websocket.send", text, data, keys))
            assert len(server.sent) == 1 + number

    assert sizes(play(work, **options)) == (2, 2 * texts, 2 * size, 2, 2 * texts, 2 * size)
    assert sizes(play(work, observers=(), **options)) == (2, 0, 0, 2, 0, 0)


@pytest.mark.parametrize("message", [{}, {"text": 5}, {"text": None, "bytes": "x"}, {"bytes": ["x"]}])
def test_what_is_no_payload_has_no_size(message: Message) -> None:
    """A server's malformed message is delivered as it is, and counted without a size."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        whole = {"type": "websocket.receive", **message}
        server.deliver(whole)
        assert await receive() is whole

    assert payload_size(message) == 0
    assert sizes(play(work)) == (1, 0, 0, 0, 0, 0)


def test_what_is_no_mapping_is_refused() -> None:
    """An object that only looks like a message is the server's violation, not an error of the guard's own."""

    class Odd:
        """Has a type, and is no mapping."""

        def __getitem__(self, key: str) -> str:
            return "websocket.receive"

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        odd: Any = Odd()
        server.deliver(odd)
        with pytest.raises(ProtocolError):
            await receive()

    assert sizes(play(work)) == (0, 0, 0, 0, 0, 0)


def _arrive(server: ScriptedServer) -> None:
    server.text("é")
    server.deliver({"type": "websocket.receive", "bytes": b"123"})


async def _read_ahead(server: ScriptedServer, receive: Receive, send: Send) -> None:
    _arrive(server)
    await asyncio.sleep(2)
    assert not server._inbox.qsize()
    await receive()
    await receive()


async def _polled(server: ScriptedServer, receive: Receive, send: Send) -> None:
    _arrive(server)


async def _second_reader(server: ScriptedServer, receive: Receive, send: Send) -> None:
    readers = [asyncio.create_task(_receive(receive)) for _ in range(2)]
    await asyncio.sleep(0)
    _arrive(server)
    await asyncio.gather(*readers)


async def _receive(receive: Receive) -> None:
    await receive()


async def _after_the_end(server: ScriptedServer, receive: Receive, send: Send) -> None:
    _arrive(server)
    await send(CLOSE)
    await receive()
    await receive()


@pytest.mark.parametrize("work", [_read_ahead, _polled, _second_reader, _after_the_end])
def test_messages_beside_the_path_are_measured(work: Work) -> None:
    """What the guard itself reads, before the application does or in its place, counts once like any other."""
    assert sizes(play(work))[:3] == (2, 1, 5)
    assert sizes(play(work, observers=()))[:3] == (2, 0, 0)


@pytest.mark.parametrize(("answer", "sent"), [(Allow(), (1, 1, 3)), (Drop(), (0, 0, 0)), (Close(), (0, 0, 0))])
def test_a_message_that_a_policy_drops_is_not_sent(answer: Allow | Drop | Close, sent: tuple[int, int, int]) -> None:
    """A dropped send has no size; a received message was received, although the application never saw it."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        _arrive(server)
        readers = [asyncio.create_task(_receive(receive)) for _ in range(2)]
        await asyncio.wait(readers, timeout=1)
        await send(TEXT)
        for reader in readers:
            reader.cancel()

    policy = Answering(answer if isinstance(answer, Drop) else Allow(), answer)
    assert sizes(play(work, policies=(policy,))) == (2, 1, 5, *sent)


async def _try(send: Send, message: Message) -> None:
    with contextlib.suppress(RuntimeError, asyncio.CancelledError):
        await send(message)


async def _fails(server: ScriptedServer, receive: Receive, send: Send) -> None:
    server.fail_sends(RuntimeError("bug"))
    await _try(send, TEXT)
    server.fail_sends(None)


async def _lost(server: ScriptedServer, receive: Receive, send: Send) -> None:
    server.fail_sends(OSError())
    await send(TEXT)


async def _late(server: ScriptedServer, receive: Receive, send: Send) -> None:
    await send(CLOSE)
    await send(TEXT)


async def _cancelled(server: ScriptedServer, receive: Receive, send: Send) -> None:
    server.stall_sends()
    task = asyncio.create_task(_try(send, TEXT))
    await asyncio.sleep(0)
    task.cancel()
    await task
    server.resume_sends()


async def _timed_out(server: ScriptedServer, receive: Receive, send: Send) -> None:
    server.stall_sends()
    await send(TEXT)


async def _refused(server: ScriptedServer, receive: Receive, send: Send) -> None:
    await _try(send, {**TEXT, "bytes": b"x"})


@pytest.mark.parametrize("wants_messages", [False, True])
@pytest.mark.parametrize(
    ("work", "send_timeout_s"),
    [*itertools.product([_fails, _lost, _late, _cancelled, _refused], [None, 1]), (_timed_out, 1)],
)
def test_what_the_server_did_not_take_is_not_sent(
    work: Work, send_timeout_s: float | None, wants_messages: bool
) -> None:
    """A failed, dropped or refused send has no size, a sent one before it has."""

    async def both(server: ScriptedServer, receive: Receive, send: Send) -> None:
        await send(DATA)
        await work(server, receive, send)

    observer = Measuring(wants_messages=wants_messages)
    books = play(both, send_timeout_s=send_timeout_s, observers=(observer,))
    assert sizes(books)[3:] == (1, 0, 5)
    assert books.failed + books.dropped_total + books.refused == 1


@pytest.mark.parametrize("wants_messages", [False, True])
def test_what_is_taken_after_the_handler_is_measured(wants_messages: bool) -> None:
    """Messages whose sends outlive the handler count in the tally with their sizes, on the path and beside it."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        await send(DATA)
        server.stall_sends()
        pushing.extend(asyncio.create_task(_try(send, message)) for message in (TEXT, DATA, TEXT))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(5, server.resume_sends)

    pushing: list[asyncio.Task[None]] = []
    books = play(work, close_on_return=None, observers=(Measuring(wants_messages=wants_messages),))
    assert sizes(books)[3:] == (4, 2, 16)
    assert books.forwarded == 5
    assert sizes(play(work, close_on_return=None, observers=()))[3:] == (4, 0, 0)


def test_what_is_received_after_the_handler_is_measured() -> None:
    """A message that a task of the handler still reads counts in the tally too."""

    async def work(server: ScriptedServer, receive: Receive, send: Send) -> None:
        reading.append(asyncio.create_task(_receive(receive)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.5, server.text, "é")

    reading: list[asyncio.Task[None]] = []
    assert sizes(play(work))[:3] == (1, 1, 2)
    assert sizes(play(work, observers=()))[:3] == (1, 0, 0)


def test_who_wants_sizes_later_gets_those_of_later_connections() -> None:
    """The wish is looked at when a connection starts: a live one is not measured from its middle on."""

    async def main() -> None:
        observer, servers = Measuring(wants_sizes=False), [ScriptedServer(), ScriptedServer()]

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server = servers.pop(0)
            server.text("abc")
            await receive()
            observer.wants_sizes = True
            server.text("abc")
            await receive()
            await send(TEXT)

        guard = WebSocketGuardMiddleware(app, observers=(observer,))
        found = []
        for server in list(servers):
            server.connect()
            await server.call(guard)
            found.append(sizes(guard.totals()))
        assert found == [(2, 0, 0, 1, 0, 0), (4, 2, 6, 2, 1, 3)]

    run(main)
