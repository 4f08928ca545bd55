"""G2: a lost peer is an end, not an exception; whatever else a server raises stays. And the send deadline."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from asgi_ws_guard import (
    Allow,
    Close,
    CloseAdjusted,
    Closed,
    CloseStatus,
    Deny,
    Ended,
    Handshake,
    Initiator,
    LateSend,
    SendTimedOut,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._receiving import DRAIN_S
from asgi_ws_guard._servers import GONE, private_code
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard._watch import TICK_S
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}
TEXT: Message = {"type": "websocket.send", "text": "x"}


def _foreign(module: str, name: str, base: type[Exception] = Exception) -> type[Exception]:
    """Make a class that looks like a server's own, by module and name: the guard imports no server either."""
    return type(name, (base,), {"__module__": module, "__qualname__": name})


_STATES = "Unexpected message type, {!r} given the state ASGIWebsocketState.{}"
GONE_ERRORS: list[Callable[[], Exception]] = [
    OSError,
    ConnectionResetError,
    BrokenPipeError,
    _foreign("uvicorn.protocols.utils", "ClientDisconnected", OSError),
    lambda: RuntimeError("Unexpected ASGI message 'websocket.send', after sending 'websocket.close' or response ..."),
    lambda: RuntimeError("Unexpected ASGI message 'websocket.close', after sending 'websocket.close' or response ..."),
    lambda: RuntimeError(
        "Expected ASGI message 'websocket.accept', 'websocket.close' or 'websocket.http.response.start' "
        "but got 'websocket.send'."
    ),
    lambda: RuntimeError("Cannot call write() after write_eof()"),
    lambda: RuntimeError(
        "Expected ASGI message 'websocket.send' or 'websocket.close', but got 'websocket.http.response.start'."
    ),
    lambda: AttributeError("'WebSocketProtocol' object has no attribute 'transfer_data_task'"),
    lambda: RuntimeError("ASGI flow error: Connection already upgraded"),
    lambda: _foreign("hypercorn.utils", "UnexpectedMessageError")(_STATES.format("websocket.send", "CLOSED")),
    lambda: _foreign("hypercorn.utils", "UnexpectedMessageError")(_STATES.format("websocket.send", "HTTPCLOSED")),
    _foreign("autobahn.exception", "Disconnected", RuntimeError),
    lambda: RuntimeError("ASGI flow error: Transport not initialized or closed"),
]
REAL_ERRORS: list[Callable[[], BaseException]] = [
    lambda: RuntimeError("bug"),
    lambda: RuntimeError("Unexpected ASGI message 'websocket.send', after sending 'websocket.accept'."),
    lambda: RuntimeError("ASGI flow error"),
    lambda: ValueError("closed"),
    lambda: Exception("connection closed"),
    lambda: _foreign("hypercorn.utils", "UnexpectedMessageError")(_STATES.format("websocket.send", "HANDSHAKE")),
    lambda: _foreign("somewhere.else", "Disconnected")("gone"),
    KeyboardInterrupt,
    asyncio.CancelledError,
]


@pytest.mark.parametrize("gone", GONE_ERRORS)
@pytest.mark.parametrize("message", [TEXT, CLOSE], ids=["send", "close"])
def test_what_servers_raise_for_a_lost_peer_ends_the_connection(
    gone: Callable[[], Exception], message: Message
) -> None:
    """The application sees None; the books see a drop; the end is the transport's, and nothing more is sent."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.fail_sends(gone())
            assert await send(message) is None  # type: ignore[func-returns-value]
            server.fail_sends(None)
            await send(TEXT)
            left = await receive()
            assert left["type"] == "websocket.disconnect"
            assert left["code"] == (1006 if message is TEXT else 4001)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,))
        await server.call(guard)
        assert server.types() == ["websocket.accept"]
        books = guard.totals()
        assert (books.attempted, books.forwarded, books.failed, books.dropped_total) == (3, 1, 0, 2)
        end = seen.one(Closed)
        if message is TEXT:
            assert (end.initiator, end.status, end.code) == (Initiator.TRANSPORT, CloseStatus.TRANSPORT_ERROR, 1006)
        assert seen.one(LateSend).message_type == message["type"]
        assert len(seen.of(Ended)) == 1

    run(main)


@pytest.mark.parametrize("real", REAL_ERRORS)
@pytest.mark.parametrize("message", [TEXT, CLOSE], ids=["send", "close"])
def test_any_other_error_of_a_server_propagates_unchanged(real: Callable[[], BaseException], message: Message) -> None:
    """The application gets the very object that the server raised; the connection goes on, the message has failed."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            error = real()
            server.fail_sends(error)
            caught: BaseException | None = None
            try:
                await send(message)
            except BaseException as raised:
                caught = raised
            assert caught is error
            server.fail_sends(None)
            if message is TEXT:
                await send(TEXT)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=())
        await server.call(guard)
        books = guard.totals()
        assert books.failed == 1
        assert books.sent == (1 if message is TEXT else 0)
        assert books.attempted == (3 if message is TEXT else 2)
        assert books.dropped == {}

    run(main)


def test_every_row_of_the_table_is_tried() -> None:
    """Each row of the table of servers is matched by at least one of the errors above."""
    errors = [gone() for gone in GONE_ERRORS]
    for row in GONE:
        kinds = [{f"{base.__module__}.{base.__qualname__}" for base in type(error).__mro__} for error in errors]
        assert any(
            row.exception in names and (row.text is None or row.text.search(str(error)))
            for names, error in zip(kinds, errors, strict=True)
        ), row


def test_a_peer_lost_in_the_accept_is_an_end() -> None:
    """A server that raises `OSError` at the accept ends the connection; the handler is not disturbed."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            server.fail_sends(OSError())
            await send(ACCEPT)
            await send(TEXT)
            assert (await receive())["type"] == "websocket.disconnect"

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,))
        await server.call(guard)
        assert guard.totals().dropped == {"transport_lost": 2}

    run(main)


def test_the_disconnect_that_the_server_has_queued_gives_the_true_cause() -> None:
    """After a failed send the code and reason of the end are those of the disconnect that was waiting to be read."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.fail_sends(OSError())
            server.disconnect(4321, "cya")
            await send(TEXT)
            handle = scope["asgi_ws_guard.connection"]
            assert (handle.close_code, handle.close_reason, handle.initiator) == (4321, "cya", Initiator.CLIENT)
            for _ in range(3):
                assert await receive() == {"type": "websocket.disconnect", "code": 4321, "reason": "cya"}

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        end = seen.one(Closed)
        assert (end.code, end.reason, end.initiator, end.status) == (
            4321,
            "cya",
            Initiator.CLIENT,
            CloseStatus.NORMAL_CLOSURE,
        )
        assert end.books.dropped == {"transport_lost": 1} or end.books.dropped == {"client_disconnected": 1}

    run(main)


def test_a_lost_peer_in_receive_is_a_disconnect() -> None:
    """A server that raises `OSError` in `receive` gives the application a disconnect; any other error propagates."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            bug = RuntimeError("bug")
            server.deliver(bug)
            with pytest.raises(RuntimeError) as caught:
                await receive()
            assert caught.value is bug
            server.deliver(ConnectionResetError())
            assert (await receive())["code"] == 1006
            assert (await receive())["code"] == 1006

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)


@pytest.mark.parametrize("when", ["receive", "send", "pump"])
def test_a_server_that_raises_at_every_receive_neither_recurses_nor_spins(when: str) -> None:
    """A `receive` of the server that raises `OSError` whenever it is called is asked a few times, not thousands."""

    async def main() -> None:
        server, calls = ScriptedServer(), 0

        async def server_receive() -> Message:
            await asyncio.sleep(0.01)
            return await raise_at_once()

        async def raise_at_once() -> Message:
            nonlocal calls
            calls += 1
            if calls > 100:
                await asyncio.sleep(3600)
            raise ConnectionResetError

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            if when == "send":
                server.fail_sends(OSError())
                await send(TEXT)
            elif when == "pump":
                await scope["asgi_ws_guard.connection"].wait_closed()
            for _ in range(3):
                assert (await receive())["code"] == 1006

        guard = WebSocketGuardMiddleware(app, observers=())
        for server_side in (raise_at_once, server_receive):
            calls = 0
            await guard(server.scope, server_side, ScriptedServer().send)
            assert calls <= 10

    run(main)


def test_a_peer_lost_during_a_denial_of_the_guard_is_no_error() -> None:
    """A client that leaves while a policy denies it leaves no exception to the server."""

    class Nobody:
        def admit(self, handshake: Handshake) -> Deny:
            return Deny()

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise AssertionError

        server = ScriptedServer()
        server.fail_sends(ConnectionResetError())
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(Nobody(),)))

    run(main)


@pytest.mark.parametrize("at", ["denial", "close"])
def test_a_real_error_at_what_a_policy_decides_goes_on(at: str) -> None:
    """The server's own bug is not hidden when the guard denies or closes for a policy."""
    bug = RuntimeError("server bug")

    class Strict:
        def admit(self, handshake: Handshake) -> Allow | Deny:
            return Deny() if at == "denial" else Allow()

        def message(self, connection_id: str, direction: str, size: int) -> Allow | Close:
            return Close()

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.fail_sends(bug)
            await send(TEXT)

        server.connect()
        if at == "denial":
            server.fail_sends(bug)
        task = server.call(WebSocketGuardMiddleware(app, observers=(), policies=(Strict(),)))
        await asyncio.wait({task})
        assert task.exception() is bug

    run(main)


def test_a_server_that_refuses_a_legal_code_gets_a_private_one() -> None:
    """Daphne 4.2 refuses 1001 to 1014: the same number in the range for private use goes out, and that is told."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        def refuse(message: Message) -> Exception | None:
            code = message.get("code", 1000)
            return Exception(f"invalid close code {code}") if 1000 < code < 3000 else None

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.fail_sends(refuse)
            await send({"type": "websocket.close", "code": 1012, "reason": "restart"})

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,))
        await server.call(guard)
        assert server.sent[-1] == {"type": "websocket.close", "code": private_code(1012), "reason": "restart"}
        adjusted = seen.one(CloseAdjusted)
        assert (adjusted.asked_code, adjusted.code) == (1012, 4012)
        assert guard.totals().forwarded == 2

    run(main)


def test_a_server_that_refuses_the_guards_code_for_an_error_closes_by_itself() -> None:
    """Daphne 4.2 closes with 1011 when an error reaches it, which it would not send for us: no other code goes out."""

    async def main() -> None:
        server, bug = ScriptedServer(), ValueError("bug")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.fail_sends(lambda message: Exception("invalid close code 1011") if message["code"] == 1011 else None)
            raise bug

        server.connect()
        task = server.call(WebSocketGuardMiddleware(app, observers=()))
        await asyncio.wait({task})
        assert task.exception() is bug
        assert server.types() == ["websocket.accept"]

    run(main)


# The send deadline


def test_a_deadline_shorter_than_the_watch_is_kept() -> None:
    """The timer that looks is as fine as the deadline asks for: a tenth of a second is not a quarter."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            await send(TEXT)
            assert 0.1 <= asyncio.get_running_loop().time() <= 0.15

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), send_timeout_s=0.1))

    run(main)


def test_a_stalled_send_ends_the_connection() -> None:
    """A send that takes longer than `send_timeout_s` returns None; the end is `slow_consumer`, of the guard."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            started = asyncio.get_running_loop().time()
            assert await send(TEXT) is None  # type: ignore[func-returns-value]
            took = asyncio.get_running_loop().time() - started
            assert 2.0 <= took <= 2.0 + TICK_S
            assert (await receive())["type"] == "websocket.disconnect"
            await send(TEXT)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,), send_timeout_s=2)
        await server.call(guard)
        end = seen.one(Closed)
        assert (end.status, end.initiator) == (CloseStatus.SLOW_CONSUMER, Initiator.GUARD)
        assert seen.one(SendTimedOut).timeout_s == 2
        assert (end.books.failed, end.books.dropped) == (1, {"guard_closed": 1})
        assert seen.names().index("SendTimedOut") < seen.names().index("Ended")
        assert server.types() == ["websocket.accept"]

    run(main)


def test_sends_that_finish_in_time_are_untouched() -> None:
    """A peer that takes each message a little within the limit stays connected for as long as it likes."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()

        async def slow(message: Message) -> None:
            await asyncio.sleep(0.9)
            await server.send(message)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            for _ in range(20):
                await asyncio.gather(*(send(TEXT) for _ in range(3)))

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,), send_timeout_s=1)
        await guard(server.scope, server.receive, slow)
        assert guard.totals().sent == 60
        assert not seen.of(SendTimedOut)
        assert server.types()[-1] == "websocket.close"

    run(main)


def test_all_stalled_sends_return_and_a_parked_reader_is_woken() -> None:
    """Concurrent stalled sends of several tasks all return, and whoever waits in the server's `receive` is woken."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            reader = asyncio.create_task(_receive_one(receive))
            await asyncio.sleep(0)
            assert server.receives == 1
            server.stall_sends()
            sends = [asyncio.create_task(_send_one(send)) for _ in range(5)]
            await asyncio.sleep(0.6)
            sends.append(asyncio.create_task(_send_one(send)))
            await asyncio.wait_for(asyncio.gather(*sends), 3)
            woken = await asyncio.wait_for(reader, DRAIN_S + 0.1)
            assert woken["type"] == "websocket.disconnect"
            assert (await receive())["type"] == "websocket.disconnect"

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(), send_timeout_s=1)
        await server.call(guard)
        assert guard.totals().failed == 6

    run(main)


def test_what_a_server_makes_of_the_interruption_is_not_the_deadline() -> None:
    """Only the guard's own interruption is absorbed: an error that the server's clean-up raises goes on unchanged."""

    async def main() -> None:
        server, bug = ScriptedServer(), ValueError("bug in the clean-up")

        async def server_send(message: Message) -> None:
            try:
                await server.send(message)
            except asyncio.CancelledError:
                raise bug from None

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            with pytest.raises(ValueError, match="clean-up") as caught:
                await send(TEXT)
            assert caught.value is bug

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(), send_timeout_s=1)
        await guard(server.scope, server.receive, server_send)
        assert guard.totals().failed == 1

    run(main)


def test_later_sends_do_not_put_the_deadline_off() -> None:
    """The oldest pending send counts: a task for each message, started faster than the limit, hides no stalled peer."""

    async def main() -> None:
        server, sends = ScriptedServer(), list[asyncio.Task[None]]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            while scope["asgi_ws_guard.connection"].is_open and len(sends) < 100:
                sends.append(asyncio.create_task(_send_one(send)))
                await asyncio.sleep(0.3)
            assert asyncio.get_running_loop().time() <= 2
            await asyncio.gather(*sends)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(), send_timeout_s=1)
        await server.call(guard)
        assert guard.totals().failed + guard.totals().dropped_total == len(sends)

    run(main)


def test_an_awaitable_that_a_server_gives_again_is_no_stalled_send() -> None:
    """A server may return the same awaitable from every `send`: the time of each send counts from its own start."""

    class Slow:
        def __await__(self) -> Generator[Any, None, None]:
            return asyncio.sleep(0.9).__await__()

    async def main() -> None:
        server, seen, slow = ScriptedServer(), Recorder(), Slow()

        def server_send(message: Message) -> Awaitable[None]:
            return slow if message["type"] == "websocket.send" else server.send(message)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            for _ in range(5):
                await send(TEXT)
                await asyncio.sleep(5)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,), send_timeout_s=1)
        await guard(server.scope, server.receive, server_send)
        assert not seen.of(SendTimedOut)
        assert guard.totals().sent == 5

    run(main)


async def _receive_one(receive: Receive) -> Message:
    return await receive()


async def _send_one(send: Send) -> None:
    await send(TEXT)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps no count of cancellations")
@pytest.mark.parametrize("first", ["deadline", "cancel"])
def test_a_cancellation_of_the_sender_at_the_deadline_is_not_lost(first: str) -> None:
    """Whoever cancels the sending task in the very turn in which the deadline strikes has cancelled it."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()
        loop = asyncio.get_running_loop()

        def cancel_at_the_deadline(event: object) -> None:
            if isinstance(event, SendTimedOut):
                if first == "cancel":
                    senders[0].cancel()
                else:
                    loop.call_soon(senders[0].cancel)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            senders.append(asyncio.create_task(_send_one(send)))
            await asyncio.wait(senders)
            assert senders[0].cancelled()

        senders: list[asyncio.Task[None]] = []
        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen, cancel_at_the_deadline), send_timeout_s=1)
        await server.call(guard)
        assert seen.one(SendTimedOut)
        assert guard.totals().failed == 1

    run(main)


def test_a_timeout_of_the_application_around_a_stalled_send_still_works() -> None:
    """`asyncio.wait_for` that is shorter than the deadline raises `TimeoutError`; one that is longer sees None."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.stall_sends()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(send(TEXT), 1)
            assert scope["asgi_ws_guard.connection"].is_open
            assert await asyncio.wait_for(send(TEXT), 60) is None  # type: ignore[func-returns-value]
            assert not scope["asgi_ws_guard.connection"].is_open

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(), send_timeout_s=5)
        await server.call(guard)
        assert guard.totals().failed == 2

    run(main)


def test_asyncio_timeout_around_a_stalled_send_still_works() -> None:
    """`asyncio.timeout` that is shorter than the deadline raises `TimeoutError`; one that is longer sees None."""
    if sys.version_info < (3, 11):
        pytest.skip("asyncio.timeout is new in 3.11")
    else:

        async def main() -> None:
            server = ScriptedServer()

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                await receive()
                await send(ACCEPT)
                server.stall_sends()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1):
                        await send(TEXT)
                task = asyncio.current_task()
                assert task is not None
                assert task.cancelling() == 0
                async with asyncio.timeout(60):
                    await send(TEXT)
                assert task.cancelling() == 0
                assert not scope["asgi_ws_guard.connection"].is_open

            server.connect()
            await server.call(WebSocketGuardMiddleware(app, observers=(), send_timeout_s=5))

        run(main)


@pytest.mark.parametrize("how", ["return", "raise", "close", "accept"])
def test_a_stalled_close_or_accept_never_cancels_the_server(how: str) -> None:
    """The deadline also bounds accept, the application's close and the guard's own, and leaves no cancellation."""

    async def main() -> None:
        server = ScriptedServer()
        bug = ValueError("bug")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            if how == "accept":
                server.stall_sends()
            await send(ACCEPT)
            server.stall_sends()
            if how == "close":
                await send(CLOSE)
            if how == "raise":
                raise bug

        server.connect()
        task = server.call(WebSocketGuardMiddleware(app, observers=(), send_timeout_s=1))
        await asyncio.wait({task}, timeout=10)
        assert task.done()
        assert not task.cancelled()
        assert task.exception() is (bug if how == "raise" else None)

    run(main)


def test_a_send_that_waits_for_no_future_is_told_once() -> None:
    """A server whose send cannot be woken by the guard gets one report of it, not one at each look."""

    class Stubborn:
        """Waits without a future: as an event loop of C code may."""

        def __await__(self) -> object:
            while not self.over:
                yield None

        over = False

    async def main() -> None:
        server, seen, stubborn = ScriptedServer(), Recorder(), Stubborn()
        loop = asyncio.get_running_loop()

        async def server_send(message: Message) -> None:
            if message["type"] == "websocket.send":
                await stubborn  # type: ignore[misc]
            await server.send(message)

        def hurry() -> None:
            getattr(loop, "advance")(0.05)  # noqa: B009 - only the virtual loop has it
            if loop.time() > 20:
                stubborn.over = True
            else:
                loop.call_soon(hurry)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            hurry()
            await send(TEXT)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,), send_timeout_s=1)
        await guard(server.scope, server.receive, server_send)
        assert len(seen.of(SendTimedOut)) == 1
        assert seen.one(Closed).status is CloseStatus.SLOW_CONSUMER

    run(main)
