"""A drain: nobody is admitted, everybody is told, closed in time and accounted for, and nothing holds it up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from asgi_ws_guard import (
    Allow,
    Closed,
    CloseStatus,
    ConfigurationError,
    Deny,
    Drain,
    Draining,
    DrainReport,
    Handshake,
    Initiator,
    PolicyApplied,
    Rejected,
    WebSocketGuardMiddleware,
    current_connection,
)
from asgi_ws_guard._drain import CLOSING_PART, STUCK_PART
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
App = Callable[[Scope, Receive, Send], Awaitable[None]]
QUICK = Drain(deadline_s=8.0, batch=10, every_s=0.1, retry_after_s=(5, 5))


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Guards with the option hold SIGTERM back; no test leaves that behind."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give what the drain said: a thread that another test left, as of exporters, and asyncio may warn meanwhile."""
    return [record.getMessage() for record in caplog.records if record.module == "_drain"]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Receive until the disconnect."""
    await receive()
    await send(ACCEPT)
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def parked(scope: Scope, receive: Receive, send: Send) -> None:
    """Wait for something else."""
    await receive()
    await send(ACCEPT)
    await asyncio.sleep(1000)


class Never:
    """A policy that never answers."""

    async def admit(self, handshake: Handshake) -> Allow:
        """Wait for something else."""
        await asyncio.sleep(1000)
        return Allow()


class Floor:
    """
    A guard with live connections.

    Args:
        app: The application.
        number: How many of them.
        options: Of the guard.
    """

    def __init__(self, app: App, number: int, **options: Any) -> None:
        self.seen = Recorder()
        self.guard = WebSocketGuardMiddleware(app, observers=(self.seen,), **options)
        self.servers = [ScriptedServer() for _ in range(number)]
        self.calls: list[asyncio.Task[None]] = []

    async def fill(self) -> None:
        """Let all of them come in."""
        for server in self.servers:
            server.connect()
            self.calls.append(server.call(self.guard))
        await asyncio.sleep(0.01)

    async def stranger(self, **scope: object) -> ScriptedServer:
        """Let one more knock, and give its server when the handler is done."""
        server = ScriptedServer(**scope)  # type: ignore[arg-type]
        server.connect()
        await server.call(self.guard)
        return server

    def closes(self) -> list[Message]:
        """Give the closes that the servers took."""
        return [message for server in self.servers for message in server.sent if message["type"] == "websocket.close"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("deadline_s", value) for value in (0, -1, None, True, "1", float("nan"), float("inf"))],
        *[("notice_s", value) for value in (-1, None, 2.1)],
        *[("stop_s", value) for value in (-1, None)],
        *[("every_s", value) for value in (-0.1, None)],
        *[("batch", value) for value in (0, 1.5, True, None)],
        *[("code", value) for value in (1005, 999, 5000, None, "1012", True)],
        *[
            ("retry_after_s", value)
            for value in (5, (1,), (1, 2, 3), (3, 2), (-1, 2), (0.5, 2), (1, 86_401), "12", None, (True, 2))
        ],
    ],
)
def test_a_wrong_option_is_refused(option: str, value: object) -> None:
    """When the drain is described, by name and value."""
    wrong: Any = {option: value}
    with pytest.raises(ConfigurationError) as info:
        Drain(**wrong)
    assert info.value.option == option
    assert info.value.value == value or value != value


def test_the_guard_takes_a_drain_alone() -> None:
    """As an option and in the call."""
    wrong: Any = 10.0
    with pytest.raises(ConfigurationError, match=r"^drain=10\.0 is not allowed: expected a Drain, or None$"):
        WebSocketGuardMiddleware(echo, drain=wrong)

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"^drain=10\.0"):
            await WebSocketGuardMiddleware(echo).drain(wrong)

    asyncio.run(main())


def test_everybody_is_closed_and_told_why() -> None:
    """The client by code and reason, the handler by its disconnect, observers by event, class and count."""

    async def main() -> None:
        floor = Floor(echo, 3)
        await floor.fill()
        report = await floor.guard.drain(Drain(code=1001, retry_after_s=(5, 5)))
        assert report == DrainReport(closed=3, took_s=report.took_s)
        assert floor.closes() == [{"type": "websocket.close", "code": 1001, "reason": "retry_after=5"}] * 3
        assert [call.done() for call in floor.calls] == [True] * 3
        for closed in floor.seen.of(Closed):
            assert (closed.code, closed.reason) == (1001, "retry_after=5")
            assert (closed.status, closed.initiator) == (CloseStatus.SHUTDOWN, Initiator.GUARD)
            assert closed.decisions == {("drain", "close", "draining"): 1}
        assert len(floor.seen.of(Closed)) == len(floor.seen.of(Draining)) == 3
        assert floor.seen.of(Draining)[0].deadline_s == Drain().deadline_s == 8.0
        assert floor.guard._ledger.decisions() == {("drain", "close", "draining"): 3}

    run(main)


def test_nobody_is_admitted() -> None:
    """503 with Retry-After where the server can, else a close; no policy is asked, and the application never called."""

    async def main() -> None:
        asked: list[str] = []

        class Asked:
            def admit(self, handshake: Handshake) -> Allow:
                asked.append(handshake.path)
                return Allow()

        floor = Floor(echo, 0, policies=(Asked(),))
        report = await floor.guard.drain(QUICK)
        assert report == DrainReport()
        server = await floor.stranger()
        start, body = server.sent
        assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"5")
        assert body["body"] == b'{"error": "draining", "status": 503}'
        assert (await floor.stranger(extensions={})).types() == ["websocket.close"]
        assert not asked
        rejected = floor.seen.of(Rejected)
        assert [(one.response_status, one.status) for one in rejected] == [(503, CloseStatus.SHUTDOWN)] * 2
        assert rejected[0].decisions == {("drain", "deny", "draining"): 1}

    run(main)


def test_who_comes_in_between_is_denied_and_counted() -> None:
    """Also who was being asked about when the drain began; a handshake without an answer gets one."""

    async def main() -> None:
        answered = asyncio.Event()

        class Slow:
            async def admit(self, handshake: Handshake) -> Allow | Deny:
                if handshake.path == "/asked":
                    await answered.wait()
                return Allow()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["path"] != "/asked"
            await receive()
            if scope["path"] == "/undecided":
                assert (await receive())["type"] == "websocket.disconnect"
            else:
                await send(ACCEPT)
                await asyncio.sleep(3)

        floor = Floor(app, 0, policies=(Slow(),))
        floor.servers = [ScriptedServer("/asked"), ScriptedServer("/undecided"), ScriptedServer("/busy")]
        await floor.fill()
        drained = asyncio.ensure_future(floor.guard.drain(QUICK))
        await asyncio.sleep(1)
        assert floor.servers[0].sent == []
        for server in (await floor.stranger(), floor.servers[1]):
            assert (server.sent[0]["status"], dict(server.sent[0]["headers"])[b"retry-after"]) == (503, b"5")
        answered.set()
        report = await drained
        assert floor.servers[0].sent[0]["status"] == 503
        assert report == DrainReport(closed=3, denied=2, took_s=report.took_s)

    run(main)


def test_a_handler_that_is_told_may_end_by_itself() -> None:
    """Before the notice is over, with its own code."""

    async def main() -> None:
        async def polite(scope: Scope, receive: Receive, send: Send) -> None:
            connection = current_connection()
            await receive()
            await send(ACCEPT)
            told = [connection.is_draining]
            await connection.wait_draining()
            told.append(connection.is_draining)
            await connection.wait_draining()  # at once
            assert told == [False, True]
            await send({"type": "websocket.close", "code": 4001})

        floor = Floor(polite, 2)
        await floor.fill()
        report = await floor.guard.drain(Drain(notice_s=2.0))
        assert report == DrainReport(ended=2, took_s=report.took_s)
        assert report.took_s < 2.0
        assert [close["code"] for close in floor.closes()] == [4001] * 2

    run(main)


@pytest.mark.parametrize("notice_s", [0.0, 2.0])
@pytest.mark.parametrize(("number", "every_s"), [(95, 0.1), (95, 1.0), (95, 10.0), (35, 0.0)])
def test_closes_are_spread_over_the_first_half(number: int, every_s: float, notice_s: float) -> None:
    """In batches with pauses that chance decides; in larger ones where these would take too long."""

    async def main() -> list[float]:
        at: list[float] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await echo(scope, receive, send)
            at.append(_now() - began_s)

        floor = Floor(app, number)
        await floor.fill()
        began_s = _now()
        report = await floor.guard.drain(Drain(deadline_s=8.0, notice_s=notice_s, batch=10, every_s=every_s))
        assert report.closed == number
        return at

    at = sorted(run(main))
    assert at[0] == pytest.approx(notice_s, abs=0.01)
    assert at[-1] <= 8.0 * CLOSING_PART + 0.01
    moments = sorted(set(at))
    if every_s == 0.1:
        assert len(moments) == 10
        pauses = [after - before for before, after in itertools.pairwise(moments)]
        assert all(0.05 <= pause <= 0.151 for pause in pauses)
        assert len({round(pause, 4) for pause in pauses}) > 1
    else:
        assert len(moments) == (1 if every_s != 1.0 else 3 if not notice_s else 2)


def test_clients_come_back_at_different_times() -> None:
    """The seconds in the reasons are spread over all that is allowed, in no order of the connections."""

    async def main() -> tuple[list[int], list[int]]:
        closed: list[int] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await echo(scope, receive, send)
            closed.append(scope["number"])

        floor = Floor(app, 200)
        for number, server in enumerate(floor.servers):
            server.scope["number"] = number
        await floor.fill()
        await floor.guard.drain(Drain(retry_after_s=(3, 6), batch=1, every_s=0.001))
        return [int(close["reason"].removeprefix("retry_after=")) for close in floor.closes()], closed

    asked, closed = run(main)
    assert set(asked) == {3, 4, 5, 6}
    assert asked != sorted(asked)
    assert sorted(closed) == list(range(200)) != closed


def test_a_handler_that_goes_on_is_cancelled_at_the_deadline() -> None:
    """The guard takes its own cancellation back; a clean-up gets its time, and counts as cancelled too."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await parked(scope, receive, send)
            finally:
                await asyncio.sleep(0.5)

        floor = Floor(app, 2)
        await floor.fill()
        report = await floor.guard.drain(QUICK)
        assert report == DrainReport(cancelled=2, took_s=report.took_s)
        assert report.took_s == pytest.approx(8.5, abs=0.01)
        assert [call.exception() for call in floor.calls] == [None, None]
        assert len(floor.closes()) == 2

    run(main)


def test_who_swallows_that_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """And holds the drain up no longer."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await parked(scope, receive, send)
            except asyncio.CancelledError:
                await asyncio.sleep(20)

        floor = Floor(app, 1, linger_s=100.0)
        await floor.fill()
        with caplog.at_level(logging.ERROR, "asgi_ws_guard"):
            report = await floor.guard.drain(QUICK)
        assert report == DrainReport(running=1, took_s=report.took_s)
        assert report.took_s == pytest.approx(9.0, abs=0.01)
        (said,) = _said(caplog)
        assert floor.seen.of(Draining)[0].connection_id in said
        await asyncio.sleep(30)
        assert floor.calls[0].done()

    run(main)


def test_a_close_that_the_server_does_not_take_holds_nobody_up() -> None:
    """Its handler hears of the end before the deadline, and ends by itself."""

    async def main() -> None:
        heard: list[float] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await echo(scope, receive, send)
            heard.append(_now() - began_s)

        floor = Floor(app, 1)
        await floor.fill()
        floor.servers[0].stall_sends()
        began_s = _now()
        report = await floor.guard.drain(QUICK)
        assert report == DrainReport(closed=1, took_s=report.took_s)
        assert heard == [pytest.approx(8.0 * STUCK_PART, abs=0.01)]

    run(main)


@pytest.mark.parametrize("returned", [False, True])
def test_a_handler_that_is_stuck_in_a_send_ends(returned: bool) -> None:
    """Its client does not read, so that its own sends, or the close after its return, never end by themselves."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            floor.servers[0].stall_sends()
            if not returned:
                await send({"type": "websocket.send", "text": "x"})

        floor = Floor(app, 1)
        await floor.fill()
        report = await floor.guard.drain(QUICK)
        assert report == DrainReport(cancelled=1, took_s=report.took_s)
        assert report.took_s == pytest.approx(8.0, abs=0.01)
        assert floor.calls[0].done()
        assert not floor.calls[0].cancelled()

    run(main)


def test_the_error_of_a_handler_whose_close_is_stuck_goes_on() -> None:
    """The drain gives up the close, and nothing else."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            floor.servers[0].stall_sends()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)  # whoever takes a cancellation leaves a request behind
            raise ValueError("own")

        floor = Floor(app, 1)
        await floor.fill()
        await floor.guard.drain(QUICK)
        assert repr(floor.calls[0].exception()) == "ValueError('own')"

    run(main)


def test_a_read_that_is_still_being_stopped_ends_without_a_trace() -> None:
    """The handler is done and closed; the guard had read ahead, and the server lets go of that slowly."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await asyncio.sleep(1)

        floor = Floor(app, 1)
        server = floor.servers[0]

        async def receive() -> Message:
            try:
                return await server.receive()
            except asyncio.CancelledError:
                await asyncio.sleep(0.5)
                raise

        server.connect()
        serving = asyncio.ensure_future(floor.guard(server.scope, receive, server.send))
        await asyncio.sleep(1.2)
        assert server.types() == ["websocket.accept", "websocket.close"]
        (session,) = floor.guard._ledger.live()
        session.stop_handler()
        await asyncio.wait({serving})
        assert not serving.cancelled()

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps no count of cancellations")
def test_who_else_cancels_a_stuck_close_is_not_the_drain() -> None:
    """The server's own cancellation goes on, although the drain's came with it."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            floor.servers[0].stall_sends()

        floor = Floor(app, 1)
        await floor.fill()
        (session,) = floor.guard._ledger.live()
        session.stop_handler()
        floor.calls[0].cancel()
        await asyncio.wait(floor.calls)
        assert floor.calls[0].cancelled()

    run(main)


def test_a_policy_that_never_answers_ends() -> None:
    """The handshake behind it is denied at the deadline, as every other that comes in a drain."""

    async def main() -> None:
        floor = Floor(echo, 1, policies=(Never(),))
        await floor.fill()
        report = await floor.guard.drain(QUICK)
        assert report == DrainReport(cancelled=1, denied=1, took_s=report.took_s)
        assert report.took_s == pytest.approx(8.0, abs=0.01)
        start, body = floor.servers[0].sent
        assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"5")
        assert json.loads(body["body"])["error"] == "draining"
        assert floor.seen.one(Rejected).response_status == 503
        assert not floor.calls[0].cancelled()
        assert floor.calls[0].exception() is None

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps no count of cancellations")
def test_who_else_cancels_a_policy_is_not_the_drain() -> None:
    """The server's own cancellation goes on, although the drain's came with it."""

    async def main() -> None:
        floor = Floor(echo, 1, policies=(Never(),))
        await floor.fill()
        asyncio.get_running_loop().call_at(_now() + 8.0, floor.calls[0].cancel)
        await floor.guard.drain(QUICK)
        assert floor.calls[0].cancelled()
        assert floor.servers[0].sent == []

    run(main)


def test_a_policys_denial_that_is_stuck_is_not_followed_by_another() -> None:
    """It is given up with its task."""

    async def main() -> None:
        class Nobody:
            def admit(self, handshake: Handshake) -> Deny:
                floor.servers[0].stall_sends()
                return Deny()

        floor = Floor(echo, 1, policies=(Nobody(),))
        await floor.fill()
        report = await floor.guard.drain(QUICK)
        assert report == DrainReport(cancelled=1, took_s=report.took_s)
        assert floor.calls[0].cancelled()

    run(main)


def test_a_denial_that_has_begun_is_the_applications() -> None:
    """Nothing is sent in between; the handler is stopped like all others."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.http.response.start", "status": 402, "headers": []})
            await asyncio.sleep(5)
            await send({"type": "websocket.http.response.body", "body": b"pay"})

        floor = Floor(app, 1)
        await floor.fill()
        report = await floor.guard.drain(QUICK)
        assert report == DrainReport(ended=1, took_s=report.took_s)
        assert floor.servers[0].types() == ["websocket.http.response.start", "websocket.http.response.body"]

    run(main)


def test_a_close_that_is_under_way_is_the_one_that_is_given_up() -> None:
    """A deadline may have begun to end the connection in the same turn of the loop."""

    async def main() -> None:
        floor = Floor(echo, 1)
        await floor.fill()
        floor.servers[0].stall_sends()
        (session,) = floor.guard._ledger.live()
        farewell = floor.guard._watch().drain._farewell()
        session.leave(farewell)
        session.leave(farewell)
        await asyncio.sleep(1)
        session.give_up_close()
        await asyncio.sleep(1)
        assert floor.calls[0].done()

    run(main)


def test_the_call_does_as_the_option_says() -> None:
    """Unless it is told otherwise."""

    async def main() -> None:
        for asked, code in ((None, 1001), (Drain(code=4000), 4000)):
            floor = Floor(echo, 1, drain=Drain(code=1001))
            await floor.fill()
            await floor.guard.drain(asked)
            assert floor.closes()[0]["code"] == code

    run(main)


def test_a_second_call_joins_the_first() -> None:
    """Whatever it asks for; also when all is over."""

    async def main() -> None:
        floor = Floor(parked, 1)
        await floor.fill()
        first = asyncio.ensure_future(floor.guard.drain(QUICK))
        await asyncio.sleep(1)
        second = await floor.guard.drain(Drain(deadline_s=100.0))
        assert second is await first
        assert second.took_s == pytest.approx(8.0, abs=0.01)
        assert await floor.guard.drain() is second
        assert len(floor.closes()) == 1

    run(main)


def test_who_waits_may_be_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """The drain goes on, and that is said."""

    async def main() -> None:
        floor = Floor(parked, 1)
        await floor.fill()
        waiting = asyncio.ensure_future(floor.guard.drain(QUICK))
        await asyncio.sleep(1)
        waiting.cancel()
        with caplog.at_level(logging.WARNING, "asgi_ws_guard"), pytest.raises(asyncio.CancelledError):
            await waiting
        assert _said(caplog) == ["who waited for the drain was cancelled; it goes on: 1 connections"]
        assert (await floor.guard.drain()).cancelled == 1

    run(main)


def test_a_drain_that_ends_with_its_loop_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Everything is cancelled, the drain's own task too."""

    async def main() -> None:
        floor = Floor(parked, 2)
        await floor.fill()
        floor.guard._watch().drain.start(QUICK)
        await asyncio.sleep(0.1)

    with caplog.at_level(logging.WARNING, "asgi_ws_guard"):
        run(main)
    assert _said(caplog) == ["the drain was cancelled halfway: 2 of 2 connections are left"]


def test_a_connection_that_has_ended_is_not_closed_again() -> None:
    """Its handler is waited for all the same, and it is told nothing."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await echo(scope, receive, send)
            await asyncio.sleep(3)

        floor = Floor(app, 1)
        await floor.fill()
        floor.servers[0].disconnect(1001)
        await asyncio.sleep(0.5)
        report = await floor.guard.drain(QUICK)
        assert report == DrainReport(ended=1, took_s=report.took_s)
        assert report.took_s == pytest.approx(2.5, abs=0.1)
        assert not floor.closes()
        assert not floor.seen.of(Draining)
        assert not floor.seen.of(PolicyApplied)

    run(main)


@pytest.mark.parametrize("drain", [None, QUICK])
def test_the_lifespan_is_drained_first(drain: Drain | None) -> None:
    """With the option, before the application hears of its shutdown; without it nothing stands in between."""

    async def main() -> None:
        inbox: asyncio.Queue[Message] = asyncio.Queue()
        heard: list[tuple[str, int]] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "lifespan":
                await echo(scope, receive, send)
                return
            assert (receive == inbox.get) is (drain is None)
            for _ in range(2):
                heard.append(((await receive())["type"], floor.guard.connections))

        async def send(message: Message) -> None: ...

        floor = Floor(app, 3, drain=drain)
        lifespan = asyncio.ensure_future(floor.guard({"type": "lifespan"}, inbox.get, send))
        inbox.put_nowait({"type": "lifespan.startup"})
        await asyncio.sleep(0.1)
        await floor.fill()
        inbox.put_nowait({"type": "lifespan.shutdown"})
        await lifespan
        assert heard == [("lifespan.startup", 0), ("lifespan.shutdown", 3 if drain is None else 0)]

    run(main)


def test_under_trio_nobody_is_closed() -> None:
    """But nobody is admitted any more, and the connections are told."""

    async def main() -> None:
        told: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await current_connection().wait_draining()
            told.append(scope["path"])

        guard = WebSocketGuardMiddleware(app, observers=())
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "websocket.connect"}

        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard, _scope("/live"), receive, send)
            await trio.testing.wait_all_tasks_blocked()
            assert await guard.drain(QUICK) == DrainReport(running=1)
        assert told == ["/live"]
        sent.clear()
        await guard(_scope("/late"), receive, send)
        assert sent[0]["status"] == 503
        assert await guard.drain() == DrainReport(denied=1)

    trio.run(main)


def _scope(path: str) -> Scope:
    """Make a scope without an event loop."""
    return {
        "type": "websocket",
        "path": path,
        "headers": [],
        "query_string": b"",
        "extensions": {"websocket.http.response": {}},
    }
