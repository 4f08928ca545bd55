"""The registry: what is connected now, what became of the rest, in bounded memory and in any thread."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from asgi_ws_guard import (
    Accepted,
    Allow,
    Books,
    Close,
    CloseCode,
    Closed,
    CloseStatus,
    Deny,
    Drop,
    DropReason,
    Ended,
    HandlerOutlived,
    Handshake,
    Identity,
    Initiator,
    Leaked,
    Opened,
    Tally,
    Terminal,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send
from asgi_ws_guard.plugins.registry import ConnectionRecord, Registry, Summary
from asgi_ws_guard.plugins.registry._window import MAX_PRIVATE_CODES
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
TEXT: Message = {"type": "websocket.send", "text": "x"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}


def registry_of_loop() -> Registry:
    """A registry on the virtual clock of the running loop."""
    return Registry(clock=asyncio.get_running_loop().time)


async def settled() -> None:
    """Let every task do what it can do now."""
    for _ in range(20):
        await asyncio.sleep(0)


def balanced(summary: Summary) -> Summary:
    """Prove what holds at any time."""
    over = summary.denied + summary.aborted + summary.closed
    assert summary.opened == summary.connecting + summary.open + summary.lingering + over
    assert sum(summary.ends_by_status.values()) == over + summary.lingering
    assert sum(summary.ends_by_initiator.values()) == over + summary.lingering
    return summary


def ended(connection_id: str, *, code: int | None = 1000, status: CloseStatus = CloseStatus.NORMAL_CLOSURE) -> Ended:
    return Ended(connection_id, 0.0, code, "bye", Initiator.CLIENT, status)


def closed(end: Ended, **changes: Any) -> Closed:
    facts: dict[str, Any] = {
        "connection_id": end.connection_id,
        "at_s": 0.0,
        "path": "/",
        "route": None,
        "code": end.code,
        "reason": end.reason,
        "initiator": end.initiator,
        "status": end.status,
        "handshake_s": 0.0,
        "duration_s": 0.0,
        "lingered_s": 0.0,
        "error_type": None,
        "absorbed_type": None,
        "books": Books(),
    }
    return Closed(**{**facts, **changes})


def handshake(path: str = "/ws", **changes: Any) -> Handshake:
    asked = Handshake(path, b"", (), ("127.0.0.1", 50000), None, "ws", "1.1", (), True)
    return dataclasses.replace(asked, **changes)


NO_TIME = Registry(clock=lambda: 0.0).summary().recent


class HandClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now_s


def test_a_connection_from_its_handshake_to_its_end() -> None:
    """Its record says at each step what is so, with times of the clock, and is gone when the handler is done."""

    async def main() -> None:
        registry, server = registry_of_loop(), ScriptedServer("/rooms/7", client=["10.0.0.9", 4711], scheme="wss")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await asyncio.sleep(2)
            scope["path_template"] = "/rooms/{room}"
            await send(ACCEPT)
            await send(TEXT)
            await asyncio.sleep(5)
            await receive()
            await send(TEXT)
            await asyncio.sleep(3)

        server.connect()
        serving = server.call(WebSocketGuardMiddleware(app, observers=[registry]))
        assert registry.connections() == []
        await asyncio.sleep(1)
        [record] = registry.connections()
        assert len(record.connection_id) == 16
        connecting = ConnectionRecord(
            number=1,
            connection_id=record.connection_id,
            path="/rooms/7",
            route=None,
            scheme="wss",
            client=("10.0.0.9", 4711),
            identity=None,
            state="connecting",
            is_accepted=False,
            is_zombie=False,
            opened_s=1.0,
            duration_s=0.0,
            lingered_s=0.0,
            code=None,
            initiator=None,
            status=None,
            books=Books(),
        )
        assert record == connecting
        assert balanced(registry.summary()).connecting == 1
        await asyncio.sleep(4)
        opened = dataclasses.replace(
            connecting,
            route="/rooms/{room}",
            state="open",
            is_accepted=True,
            opened_s=5.0,
            duration_s=3.0,
            books=Books(sent=1, forwarded=2),
        )
        assert registry.connections() == [opened]
        assert (balanced(registry.summary()).open, registry.summary().oldest_s) == (1, 3.0)
        server.disconnect(1001, "a secret reason")
        await asyncio.sleep(4)
        over = dataclasses.replace(
            opened,
            state="ended",
            opened_s=9.0,
            duration_s=record_duration(registry),
            lingered_s=registry.connections()[0].lingered_s,
            code=1001,
            initiator="client",
            status="going_away",
            books=Books(sent=1, forwarded=2, dropped={"client_disconnected": 1}),
        )
        assert registry.connections() == [over]
        assert over.late_sends == 1
        assert over.duration_s + over.lingered_s == 7.0
        assert 1.9 < over.lingered_s <= 4.0
        summary = balanced(registry.summary())
        assert (summary.open, summary.lingering, summary.oldest_s) == (0, 1, None)
        await serving
        assert registry.connections() == []
        assert dataclasses.astuple(balanced(registry.summary()))[:10] == (0, 0, 0, 0, None, 1, 1, 0, 0, 1)

    run(main)


def record_duration(registry: Registry) -> float:
    """The duration of the only record."""
    return registry.connections()[0].duration_s


async def client_closes(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """The client says why."""
    await send(ACCEPT)
    server.disconnect(4321)
    await receive()


async def application_closes(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """The application says why."""
    await send(ACCEPT)
    await send(CLOSE)


async def handler_returns(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """The guard closes with 1000."""
    await send(ACCEPT)


async def handler_raises(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """The guard closes with 1011."""
    await send(ACCEPT)
    raise ValueError("a bug")


async def transport_is_lost(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """The server raises in send."""
    await send(ACCEPT)
    server.fail_sends(ConnectionResetError())
    await send(TEXT)


async def transport_is_lost_and_named(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """The server raises in send, and says afterwards what had happened."""
    await send(ACCEPT)
    server.fail_sends(ConnectionResetError())
    server.disconnect(4321)
    await send(TEXT)
    await receive()


async def peer_is_slow(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """The peer takes nothing for a second."""
    await send(ACCEPT)
    server.stall_sends()
    await send(TEXT)


async def policy_closes(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """The policy below closes at the first message."""
    await send(ACCEPT)
    await send({"type": "websocket.send", "text": "forbidden"})


async def application_denies(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """403."""
    await send(CLOSE)


async def application_answers(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """A denial response."""
    await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b""})


async def handshake_fails(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """The handler raises before it answers."""
    raise ValueError("a bug")


async def client_leaves_early(server: ScriptedServer, receive: Receive, send: Send) -> None:
    """Before the answer."""
    server.disconnect(1006)
    await receive()


class Policy:
    """Denies one path, drops one text by its size and closes at another."""

    def admit(self, asked: Handshake) -> Allow | Deny:
        """Let most in."""
        return Deny(status=401, end=CloseStatus.UNAUTHORIZED) if asked.path == "/denied" else Allow()

    def message(self, connection_id: str, direction: str, size: int) -> Allow | Drop | Close:
        """Close at nine bytes, drop three."""
        return Close(code=4008) if size == 9 else Drop() if size == 3 else Allow()


Story = Callable[[ScriptedServer, Receive, Send], Any]
STORIES: list[tuple[Story, str, str, dict[str, int], str]] = [
    (client_closes, "normal_closure", "client", {"4321": 1}, "closed"),
    (application_closes, "app_close", "application", {"4001": 1}, "closed"),
    (handler_returns, "app_close", "application", {"1000": 1}, "closed"),
    (handler_raises, "app_error", "application", {"1011": 1}, "closed"),
    (transport_is_lost, "transport_error", "transport", {"1006": 1}, "closed"),
    (transport_is_lost_and_named, "normal_closure", "client", {"4321": 1}, "closed"),
    (peer_is_slow, "slow_consumer", "guard", {"1006": 1}, "closed"),
    (policy_closes, "rate_limited", "guard", {"4008": 1}, "closed"),
    (application_denies, "denied", "application", {}, "denied"),
    (application_answers, "denied", "application", {}, "denied"),
    (handshake_fails, "app_error", "application", {}, "denied"),
    (client_leaves_early, "going_away", "client", {}, "aborted"),
]


@pytest.mark.parametrize(("story", "status", "initiator", "codes", "result"), STORIES)
def test_whoever_ends_a_connection(
    story: Story, status: str, initiator: str, codes: dict[str, int], result: str
) -> None:
    """The sums say what the terminal event said, once, and nothing of the connection is left."""

    async def main() -> None:
        registry, seen, server = registry_of_loop(), Recorder(), ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await story(server, receive, send)

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=[registry, seen], policies=[Policy()], send_timeout_s=1.0)
        with contextlib.suppress(ValueError):
            await server.call(guard)
        event = seen.one(Terminal)
        summary = balanced(registry.summary())
        assert summary.ends_by_status == summary.recent.ends_by_status == {status: 1} == {str(event.status): 1}
        assert summary.ends_by_initiator == {initiator: 1} == {str(event.initiator): 1}
        assert summary.close_codes == codes
        assert (summary.opened, summary.accepted) == (1, int(result == "closed"))
        found = {"denied": summary.denied, "aborted": summary.aborted, "closed": summary.closed}
        assert found == {"denied": 0, "aborted": 0, "closed": 0, result: 1}
        assert summary.books == event.books == guard.totals()
        assert summary.success_rate == (
            event.books.forwarded / event.books.attempted if event.books.attempted else None
        )
        assert registry.connections() == []

    run(main)


def test_a_client_that_a_policy_denies() -> None:
    """It is counted as denied, by the guard, with the policy's class."""

    async def main() -> None:
        registry, server = registry_of_loop(), ScriptedServer("/denied")
        await server.call(WebSocketGuardMiddleware(client_closes, observers=[registry], policies=[Policy()]))
        summary = balanced(registry.summary())
        assert (summary.denied, summary.ends_by_status, summary.ends_by_initiator) == (
            1,
            {"unauthorized": 1},
            {"guard": 1},
        )
        assert (summary.close_codes, summary.success_rate) == ({}, None)

    run(main)


def test_a_drop_by_a_policy_is_no_late_send() -> None:
    """Late are those after the end."""

    async def main() -> None:
        registry, server, go_on = registry_of_loop(), ScriptedServer(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            await send({"type": "websocket.send", "text": "abc"})
            await send(CLOSE)
            await send(TEXT)
            await send(TEXT)
            await go_on.wait()

        serving = server.call(WebSocketGuardMiddleware(app, observers=[registry], policies=[Policy()]))
        await settled()
        [record] = registry.connections()
        assert record.books is not None
        assert record.books.dropped == {"policy": 1, "app_closed": 2}
        assert (record.late_sends, record.as_dict()["late_sends"]) == (2, 2)
        summary = registry.summary()
        assert summary.books.dropped == {"policy": 1, "app_closed": 2}
        assert summary.success_rate == 2 / 5
        go_on.set()
        await serving

    run(main)


def test_a_zombie_until_it_is_done() -> None:
    """A handler that is parked after the end lingers, is a zombie once that is told, and is gone with its handler."""

    async def main() -> None:
        registry, seen, server, go_on = registry_of_loop(), Recorder(), ScriptedServer(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            await receive()
            await receive()
            await go_on.wait()

        server.connect()
        server.disconnect()
        serving = server.call(WebSocketGuardMiddleware(app, observers=[registry, seen], linger_s=1.0))
        await asyncio.sleep(2)
        assert (registry.summary().lingering, registry.summary().zombies) == (1, 0)
        await asyncio.sleep(3)
        assert seen.one(HandlerOutlived)
        assert (registry.summary().lingering, registry.summary().zombies) == (1, 1)
        assert registry.connections()[0].is_zombie
        assert registry.connections()[0].as_dict()["zombie"] is True
        go_on.set()
        await serving
        assert (balanced(registry.summary()).lingering, registry.summary().zombies) == (0, 0)

    run(main)


def test_guards_may_share_a_registry() -> None:
    """The sums are those of all; a guard that is attached twice counts once; routes stay apart."""

    async def main() -> None:
        registry, gates = registry_of_loop(), [asyncio.Event(), asyncio.Event()]

        def app_of(number: int) -> ASGIApp:
            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                scope["path_template"] = f"/{number}"
                await send(ACCEPT)
                for _ in range(number):
                    await send(TEXT)
                await gates[number - 1].wait()

            return app

        guards = [WebSocketGuardMiddleware(app_of(number), observers=[registry]) for number in (1, 2)]
        registry.attach(guards[0]._ledger)
        serving = [ScriptedServer().call(guard) for guard in guards]
        await settled()
        assert [(one.number, one.route, one.books) for one in registry.connections()] == [
            (1, "/1", Books(sent=1, forwarded=2)),
            (2, "/2", Books(sent=2, forwarded=3)),
        ]
        gates[0].set()
        await asyncio.sleep(7)
        summary = balanced(registry.summary())
        assert (summary.open, summary.closed, summary.oldest_s) == (1, 1, 7.0)
        assert summary.books == Books(sent=3, forwarded=5)
        assert [(one.route, one.accepted, one.active, one.books.sent) for one in summary.routes] == [
            ("/1", 1, 0, 1),
            ("/2", 1, 1, 2),
        ]
        gates[1].set()
        await asyncio.gather(*serving)

    run(main)


def test_pages_are_stable() -> None:
    """Whoever pages by number sees every connection that stays, once, while others come and go."""
    registry = Registry()
    for number in range(10):
        registry(Opened(f"c{number}", 0.0, handshake()))
    first = registry.connections(limit=4)
    assert [one.connection_id for one in first] == ["c0", "c1", "c2", "c3"]
    for gone in ("c1", "c3", "c4"):
        registry(ended(gone))
        registry(closed(ended(gone)))
    registry(Opened("c10", 0.0, handshake()))
    second = registry.connections(after=first[-1].number, limit=4)
    assert [one.connection_id for one in second] == ["c5", "c6", "c7", "c8"]
    assert [one.connection_id for one in registry.connections(after=second[-1].number)] == ["c9", "c10"]
    assert registry.connections(after=11) == []


def test_the_oldest_is_the_one_that_was_accepted_first() -> None:
    """Of the open ones; neither a handshake that takes its time nor a handler that lingers."""
    clock = HandClock()
    registry = Registry(clock=clock)
    for name in ("slow", "over", "second", "first"):
        registry(Opened(name, 0.0, handshake()))
    for name in ("over", "first", "second"):
        clock.now_s += 10
        registry(Accepted(name, 0.0, None, None, 0.0))
    registry(ended("over"))
    clock.now_s += 5
    assert registry.summary().oldest_s == 15


def test_ends_leave_the_window_after_five_minutes() -> None:
    """Recent ends are those of the sliding window, all ends are kept in the totals; the ring is reused."""
    clock = HandClock()
    registry = Registry(clock=clock)

    def end(name: str, status: CloseStatus) -> None:
        registry(Opened(name, 0.0, handshake()))
        registry(ended(name, status=status))
        registry(closed(ended(name, status=status)))

    end("a", CloseStatus.APP_ERROR)
    clock.now_s += 280
    end("b", CloseStatus.GOING_AWAY)
    end("c", CloseStatus.APP_ERROR)
    recent = registry.summary().recent
    assert recent.ends_by_status == {"app_error": 2, "going_away": 1}
    assert recent.as_dict()["ends_per_minute"] == {"app_error": 0.4, "going_away": 0.2}
    clock.now_s += 20
    assert registry.summary().recent.ends_by_status == {"app_error": 1, "going_away": 1}
    clock.now_s += 10_000
    assert registry.summary().recent.ends_by_status == {}
    end("d", CloseStatus.TIMEOUT)
    assert registry.summary().recent.ends_by_status == {"timeout": 1}
    assert balanced(registry.summary()).ends_by_status == {"app_error": 2, "going_away": 1, "timeout": 1}


def test_an_end_that_is_named_after_its_bucket_is_gone() -> None:
    """A correction that comes ten minutes later changes the totals, and nothing of the window."""
    clock = HandClock()
    registry = Registry(clock=clock)
    registry(Opened("a", 0.0, handshake()))
    registry(Accepted("a", 0.0, None, None, 0.0))
    told = ended("a", code=1006, status=CloseStatus.TRANSPORT_ERROR)
    registry(told)
    clock.now_s += 600
    registry(Opened("b", 0.0, handshake()))
    registry(ended("b"))
    registry(closed(told, code=4321, status=CloseStatus.NORMAL_CLOSURE))
    summary = balanced(registry.summary())
    assert (summary.close_codes, summary.ends_by_status) == ({"4321": 1}, {"normal_closure": 2})
    assert summary.recent.ends_by_status == {"normal_closure": 1}


def test_a_named_end_is_corrected_in_its_own_bucket() -> None:
    """The correction within the window leaves one recent end."""
    registry = Registry(clock=HandClock())
    registry(Opened("a", 0.0, handshake()))
    told = ended("a", status=CloseStatus.TRANSPORT_ERROR)
    registry(told)
    registry(closed(told, status=CloseStatus.GOING_AWAY, initiator=Initiator.TRANSPORT))
    summary = registry.summary()
    assert summary.recent.ends_by_status == {"going_away": 1}
    assert summary.ends_by_initiator == {"transport": 1}


def test_close_codes_are_a_finite_set() -> None:
    """Registered codes, a bounded number of private ones and no code have their own number, the rest share one."""
    registry = Registry()
    private = [code for code in range(3000, 5000) if code != CloseCode.UNAUTHORIZED]
    codes = [None, *(code.value for code in CloseCode), *private, 3000, *([4999] * 2)]
    for number, code in enumerate(codes):
        name = str(number)
        registry(Opened(name, 0.0, handshake()))
        registry(Accepted(name, 0.0, None, None, 0.0))
        registry(ended(name, code=code))
        registry(closed(ended(name, code=code)))
    found = dict(registry.summary().close_codes)
    assert found.pop("none") == 1
    assert found.pop("other") == 1999 - MAX_PRIVATE_CODES + 2
    assert found.pop("3000") == 2
    assert {found.pop(str(code.value)) for code in CloseCode} == {1}
    assert sorted(found) == [str(code) for code in range(3001, 3000 + MAX_PRIVATE_CODES)]


class Told:
    """The statistics of a guard, as a test says."""

    def __init__(self) -> None:
        self.all = Books()
        self.failures = 0
        self.asked: Callable[[], object] = lambda: None

    def tallies(self) -> list[Tally]:
        """One route."""
        self.asked()
        return [Tally("/", "ws", 0, 0, 0, 0, 0, self.all)]

    def books(self) -> dict[str, Books]:
        """Nobody."""
        self.asked()
        return {}

    def decisions(self) -> dict[tuple[str, str, str], int]:
        """Give none."""
        return {}

    def observer_failures(self) -> dict[str, int]:
        """One observer."""
        self.asked()
        return {"a": self.failures, "b": 1}


def test_recent_sends_are_those_of_the_window() -> None:
    """The difference to five minutes ago, when somebody reads: a bad hour is forgotten, a new failure not diluted."""
    clock, told = HandClock(), Told()
    registry = Registry(clock=clock)
    registry.attach(told)

    def recent() -> tuple[float, int, int, int, float | None]:
        one = registry.summary().recent
        return one.sends_over_s, one.attempted, one.forwarded, one.observer_failures, one.success_rate

    assert recent() == (0.0, 0, 0, 1, None)
    for step in range(1, 31):
        clock.now_s += 10
        told.all, told.failures = Books(forwarded=step, dropped={"client_disconnected": step}), step
        assert recent() == (step * 10.0, 2 * step, step, step + 1, 0.5)
    clock.now_s += 10
    told.all = Books(forwarded=130, dropped={"client_disconnected": 30})
    assert recent() == (300.0, 158, 129, 29, 129 / 158)
    clock.now_s += 290
    assert recent() == (300.0, 100, 100, 0, 1.0)
    clock.now_s += 5000
    told.all += Books(forwarded=1)
    assert recent() == (5000.0, 1, 1, 0, 1.0)
    assert registry.summary().success_rate == 131 / 161
    assert registry.summary().observer_failures == 31


def test_samples_are_bounded() -> None:
    """Reading a hundred times a second keeps no more than one sample in ten seconds."""
    clock = HandClock()
    registry = Registry(clock=clock)
    registry.attach(Told())
    for _ in range(5000):
        clock.now_s += 0.25
        registry.summary()
    assert len(registry._samples._kept) == 31


def test_facts_about_strangers_are_passed_over() -> None:
    """What comes after the terminal event, or of a connection that was never opened, makes no record and no number."""
    registry = Registry()
    registry(Opened("a", 0.0, handshake()))
    registry(ended("a"))
    registry(closed(ended("a")))
    before = dataclasses.replace(registry.summary(), recent=NO_TIME)
    registry(Leaked("a", 0.0, "websocket.send", DropReason.HANDLER_DONE, None))
    registry(
        HandlerOutlived("a", 0.0, None, 1001, "", Initiator.CLIENT, CloseStatus.GOING_AWAY, True, 0.0, 1.0, Books())
    )
    registry(Accepted("b", 0.0, None, None, 0.0))
    registry(ended("a"))
    registry(closed(ended("a")))
    assert dataclasses.replace(registry.summary(), recent=NO_TIME) == before
    assert registry.connections() == []


def test_foreign_texts_are_cut() -> None:
    """A long path, address or route takes no room; a scheme that is none is ws; a port that is none is none."""
    registry = Registry()
    odd: Any = ("h" * 9999, "http")
    registry(Opened("a", 0.0, handshake("/" + "p" * 9999, scheme="gopher", client=odd)))
    registry(Accepted("a", 0.0, None, "/" + "r" * 9999, 0.0))
    registry(Opened("b", 0.0, handshake(client=None)))
    first, second = registry.connections()
    assert (len(first.path), first.path[:2]) == (200, "/p")
    assert first.client == ("h" * 200, None)
    assert (first.route, first.scheme) == ("/" + "r" * 199, "ws")
    assert (second.client, second.as_dict()["client"], second.books) == (None, None, None)
    assert second.late_sends == 0


def test_memory_of_a_connection_is_small_and_given_back() -> None:
    """Whatever a client sends in its handshake, it costs less than 1 KiB; nothing stays when the handlers are done."""
    registry, number = Registry(), 2000
    names = [f"{one:016x}" for one in range(number)]

    def come() -> None:
        for name in names:
            asked = handshake(f"/{name}/" + "p" * 5000, query_string=b"q" * 5000, headers=((b"cookie", b"c" * 5000),))
            registry(Opened(name, 0.0, asked))
            registry(Accepted(name, 0.0, None, None, 0.0))

    def go() -> None:
        for name in names:
            end = Ended(name, 0.0, 1000, name + "r" * 5000, Initiator.CLIENT, CloseStatus.NORMAL_CLOSURE)
            registry(end)
        used.append(tracemalloc.get_traced_memory()[0])
        for name in names:
            registry(closed(ended(name)))

    used: list[int] = []
    tracemalloc.start()
    try:
        used.append(tracemalloc.get_traced_memory()[0])
        come()
        used.append(tracemalloc.get_traced_memory()[0])
        go()
        used.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    before, live, lingering, after = used
    assert live - before < 1024 * number
    assert lingering - before < 1024 * number
    assert after - before < 100 * number
    assert registry._live == {}


def test_readers_in_another_thread() -> None:
    """While connections come and go, what another thread reads balances, and reading breaks nothing."""
    registry, done = Registry(), threading.Event()
    wrong: list[BaseException] = []
    readings = 0

    def read() -> None:
        nonlocal readings
        try:
            while not done.is_set():
                balanced(registry.summary())
                numbers = [one.number for one in registry.connections(limit=50)]
                assert numbers == sorted(numbers)
                readings += 1
        except BaseException as error:
            wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    draw, live, number = random.Random(7), list[str](), 0
    while not wrong and (readings < 50 or number < 20_000):
        if draw.random() < 0.5 or not live:
            number += 1
            name = str(number)
            registry(Opened(name, 0.0, handshake()))
            registry(Accepted(name, 0.0, None, None, 0.0))
            live.append(name)
        else:
            end = ended(live.pop(draw.randrange(len(live))))
            registry(end)
            registry(closed(end))
    done.set()
    reader.join()
    assert wrong == []
    assert balanced(registry.summary()).open == len(live)


def test_a_guard_is_asked_without_the_lock() -> None:
    """An event that comes on another thread while a guard sums up is heard: nobody waits for two locks."""
    registry, told = Registry(), Told()
    registry.attach(told)
    registry(Opened("a", 0.0, handshake()))
    heard: list[bool] = []

    def hear() -> None:
        other = threading.Thread(target=registry, args=(Accepted("a", 0.0, None, None, 0.0),), daemon=True)
        other.start()
        other.join(5)
        heard.append(not other.is_alive())

    told.asked = hear
    registry.summary()
    registry.connections()
    assert heard == [True] * 3


def test_an_event_in_the_middle_of_another() -> None:
    """The garbage collector ends a forgotten connection in the middle of whatever runs, in the same thread."""
    heard: list[str] = []

    def clock() -> float:
        if heard == ["now"]:
            heard.append("again")
            registry(Opened("b", 0.0, handshake()))
        return 0.0

    registry = Registry(clock=clock)
    heard.append("now")
    other = threading.Thread(target=registry, args=(Opened("a", 0.0, handshake()),), daemon=True)
    other.start()
    other.join(5)
    assert not other.is_alive()
    assert sorted(one.connection_id for one in registry.connections()) == ["a", "b"]


def test_the_documents_are_plain() -> None:
    """What goes out as JSON has words, numbers, lists and dicts, in the agreed places."""

    async def main() -> None:
        registry, server, go_on = registry_of_loop(), ScriptedServer("/r/1"), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["path_template"] = "/r/{r}"
            scope["asgi_ws_guard.connection"].identify(Identity("ann", label="a1"))
            await receive()
            await send(ACCEPT)
            await receive()
            await send(TEXT)
            await go_on.wait()

        server.connect()
        server.text("hi")
        serving = server.call(WebSocketGuardMiddleware(app, observers=[registry]))
        await asyncio.sleep(1.5)
        messages = {"received": 1, "sent": 1, "attempted": 2, "forwarded": 2, "failed": 0, "refused": 0, "dropped": {}}
        assert registry.connections()[0].as_dict() == {
            "number": 1,
            "connection_id": registry.connections()[0].connection_id,
            "path": "/r/1",
            "route": "/r/{r}",
            "scheme": "ws",
            "client": ["127.0.0.1", 50000],
            "identity": "a1",
            "state": "open",
            "accepted": True,
            "zombie": False,
            "opened_s": 1.5,
            "duration_s": 1.5,
            "lingered_s": 0.0,
            "code": None,
            "initiator": None,
            "status": None,
            "late_sends": 0,
            "books": messages,
        }
        counts = {"connecting": 0, "open": 1, "lingering": 0, "opened": 1, "accepted": 1}
        assert registry.summary().as_dict() == {
            "connections": {**counts, "zombies": 0, "denied": 0, "aborted": 0, "closed": 0, "oldest_s": 1.5},
            "messages": {**messages, "success_rate": 1.0},
            "ends_by_status": {},
            "ends_by_initiator": {},
            "close_codes": {},
            "observer_failures": 0,
            "routes": [
                {
                    "route": "/r/{r}",
                    "scheme": "ws",
                    "accepted": 1,
                    "denied": 0,
                    "aborted": 0,
                    "open": 1,
                    "zombies": 0,
                    **messages,
                    "success_rate": 1.0,
                }
            ],
            "recent": {
                "window_s": 300.0,
                "ends_by_status": {},
                "ends_per_minute": {},
                "sends_over_s": 1.5,
                "attempted": 2,
                "forwarded": 2,
                "success_rate": 1.0,
                "observer_failures": 0,
            },
        }
        go_on.set()
        await serving

    run(main)


def test_every_terminal_event_has_its_number() -> None:
    """The three that there are; a new one must be decided about."""
    names = {one.__name__ for one in Terminal.__subclasses__()}
    assert {one.__name__ for one in Registry()._over} == names == {"Rejected", "Abandoned", "Closed"}
