"""The sums of a guard by route, exact and only ever growing, in whatever thread they are read (G13)."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from asgi_ws_guard import Books, Deny, Event, Statistics, Tally, WebSocketGuardMiddleware
from asgi_ws_guard._account import Account
from asgi_ws_guard._bookkeeping import Bookkeeping
from asgi_ws_guard._ledger import MAX_ROUTES, Ledger
from asgi_ws_guard._plugin import OVERFLOW
from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 1000}
TEXT: Message = {"type": "websocket.send", "text": "é"}

Handler = Callable[[ScriptedServer, Receive, Send], Coroutine[Any, Any, None]]


class Attached(Recorder):
    """An observer that is given the statistics, and wants sizes."""

    wants_sizes = True

    def __init__(self) -> None:
        super().__init__()
        self.statistics: list[Statistics] = []

    def attach(self, statistics: Statistics) -> None:
        """Take the statistics of one guard."""
        self.statistics.append(statistics)

    def tally(self, route: str | None, scheme: str = "ws") -> Tally:
        """Give the only tally of a route and scheme."""
        (one,) = [one for one in self.statistics[0].tallies() if (one.route, one.scheme) == (route, scheme)]
        return one

    def sum(self) -> Books:
        """Sum up all tallies."""
        return sum((one.books for one in self.statistics[0].tallies()), Books())


def routed(scope: Scope, route: str | None) -> None:
    """Do what a framework does that has matched *route*."""
    if route is not None:
        scope["route"] = SimpleNamespace(path=route)


def serving(handlers: dict[str, Handler], servers: dict[str, ScriptedServer]) -> ASGIApp:
    """Make an application whose path is the name of a handler, and its route."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        routed(scope, scope["path"])
        await handlers[scope["path"]](servers[scope["path"]], receive, send)

    return app


async def _accept(server: ScriptedServer, receive: Receive, send: Send) -> None:
    await send(ACCEPT)
    server.text("abc")
    await receive()
    await send(TEXT)


async def _deny(server: ScriptedServer, receive: Receive, send: Send) -> None:
    await send(CLOSE)


async def _leave_unanswered(server: ScriptedServer, receive: Receive, send: Send) -> None:
    pass


async def _abort(server: ScriptedServer, receive: Receive, send: Send) -> None:
    server.disconnect(1006)
    await receive()


async def _stay(server: ScriptedServer, receive: Receive, send: Send) -> None:
    await _accept(server, receive, send)
    await asyncio.sleep(100)


async def _linger(server: ScriptedServer, receive: Receive, send: Send) -> None:
    await _accept(server, receive, send)
    server.disconnect(1001)
    await receive()
    await send(TEXT)
    await asyncio.sleep(100)


async def _wait(server: ScriptedServer, receive: Receive, send: Send) -> None:
    await asyncio.sleep(100)


ACCEPTED = Books(
    *(1, 1, 2, 0, 0, {}), received_texts=1, received_bytes=3, sent_texts=1, sent_bytes=2
)  # received, sent, forwarded, ...


@pytest.mark.parametrize(
    ("handler", "during", "after"),
    [
        (_accept, None, Tally("/x", "ws", 1, 0, 0, 0, 0, ACCEPTED)),
        (_stay, Tally("/x", "ws", 1, 0, 0, 1, 0, ACCEPTED), Tally("/x", "ws", 1, 0, 0, 0, 0, ACCEPTED)),
        (
            _linger,
            Tally("/x", "ws", 1, 0, 0, 0, 1, replace(ACCEPTED, dropped={"client_disconnected": 1})),
            Tally("/x", "ws", 1, 0, 0, 0, 0, replace(ACCEPTED, dropped={"client_disconnected": 1})),
        ),
        (_deny, None, Tally("/x", "ws", 0, 1, 0, 0, 0, Books(forwarded=1))),
        (_leave_unanswered, None, Tally("/x", "ws", 0, 1, 0, 0, 0, Books())),
        (_abort, None, Tally("/x", "ws", 0, 0, 1, 0, 0, Books())),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_the_tally_of_one_connection(handler: Handler, during: Tally | None, after: Tally) -> None:
    """Each handshake counts by its result, a live connection as active or zombie, and its messages at any time."""

    async def main() -> None:
        observer, server = Attached(), ScriptedServer("/x")
        guard = WebSocketGuardMiddleware(
            serving({"/x": handler}, {"/x": server}), observers=(observer,), close_on_return=None
        )
        server.connect()
        task = server.call(guard)
        await asyncio.sleep(30)  # a handler is a zombie from 21 s after the end on
        if during is not None:
            assert observer.statistics[0].tallies() == [during]
            assert guard.totals() == during.books
            (connection_id,) = {event.connection_id for event in observer.events}
            assert observer.statistics[0].books() == {connection_id: during.books}
        await task
        assert observer.statistics[0].tallies() == [after]
        assert observer.statistics[0].books() == {}
        assert guard.totals() == after.books

    run(main)


async def _use_all(server: ScriptedServer, receive: Receive, send: Send) -> None:
    await send(ACCEPT)
    server.text("é")
    await asyncio.sleep(2)
    await receive()
    server.fail_sends(RuntimeError("bug"))
    with pytest.raises(RuntimeError):
        await send(TEXT)
    server.fail_sends(None)
    with pytest.raises(RuntimeError):
        await send({})
    await send(CLOSE)
    await send(TEXT)
    await asyncio.sleep(100)


def test_a_live_tally_has_all_books() -> None:
    """What went beside the path, failed, was refused or dropped counts while the handler runs."""

    async def main() -> None:
        observer, server = Attached(), ScriptedServer("/x")
        guard = WebSocketGuardMiddleware(serving({"/x": _use_all}, {"/x": server}), observers=(observer,))
        server.connect()
        task = server.call(guard)
        await asyncio.sleep(30)  # a handler is a zombie from 21 s after the end on
        books = Books(
            *(1, 0, 2, 1, 1, {"app_closed": 1}),  # received, sent, forwarded, failed, refused, dropped
            received_texts=1,
            received_bytes=2,
        )
        assert observer.statistics[0].tallies() == [Tally("/x", "ws", 1, 0, 0, 0, 1, books)]
        await task
        assert observer.statistics[0].tallies() == [Tally("/x", "ws", 1, 0, 0, 0, 0, books)]

    run(main)


def test_a_denial_of_the_guard_counts_as_denied() -> None:
    """What a policy denies has no route yet, and counts nonetheless."""

    class No:
        """Denies everybody."""

        def admit(self, handshake: object) -> Deny:
            """Deny."""
            return Deny()

    async def main() -> None:
        observer, server = Attached(), ScriptedServer("/x", scheme="wss")
        app = serving({"/x": _accept}, {"/x": server})
        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(observer,), policies=(No(),)))
        assert observer.statistics[0].tallies() == [Tally(None, "wss", 0, 1, 0, 0, 0, Books())]

    run(main)


def test_routes_and_schemes_are_told_apart() -> None:
    """One tally for each pair; any scheme but wss counts as ws; a connection without a route counts under None."""

    async def main() -> None:
        observer = Attached()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            routed(scope, scope["template"])
            for _ in range(scope["sends"] + 1):
                await send(TEXT if _ else ACCEPT)

        guard = WebSocketGuardMiddleware(app, observers=(observer,), close_on_return=None)
        for template, scheme, sends in [
            ("/a", "ws", 1),
            ("/a", "wss", 2),
            ("/b", "https", 4),
            (None, "ws", 8),
            ("/a", "ws", 16),
        ]:
            server = ScriptedServer("/path", scheme=scheme, template=template, sends=sends)
            server.connect()
            await server.call(guard)
        found = {(one.route, one.scheme): (one.accepted, one.books.sent) for one in observer.statistics[0].tallies()}
        assert found == {("/a", "ws"): (2, 17), ("/a", "wss"): (1, 2), ("/b", "ws"): (1, 4), (None, "ws"): (1, 8)}
        assert observer.sum() == guard.totals()

    run(main)


@pytest.mark.parametrize("outcome", ["dropped", "forwarded", "failed", "refused"])
def test_what_comes_after_the_handler_is_in_its_tally(outcome: str) -> None:
    """The outcome of a message of a task that outlives its handler is added to the route of that connection."""

    async def main() -> None:
        observer = Attached()
        servers = {"/late": ScriptedServer("/late"), "/other": ScriptedServer("/other")}
        pushing: list[asyncio.Task[None]] = []

        async def push(send: Send) -> None:
            await asyncio.sleep(0 if outcome in ("forwarded", "failed") else 1)
            await send({} if outcome == "refused" else TEXT)

        async def late(server: ScriptedServer, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            server.stall_sends()
            pushing.append(asyncio.create_task(push(send)))
            await asyncio.sleep(0.1)
            if outcome == "failed":
                server.fail_sends(RuntimeError("bug"))

        app = serving({"/late": late, "/other": _stay}, servers)
        guard = WebSocketGuardMiddleware(app, observers=(observer,), close_on_return=None)
        tasks = []
        for server in servers.values():
            server.connect()
            tasks.append(server.call(guard))
        await tasks[0]
        assert observer.tally("/late").books == Books(forwarded=1)
        servers["/late"].resume_sends()
        await asyncio.wait(pushing)
        assert (pushing[0].exception() is None) == (outcome in ("forwarded", "dropped"))
        expected = {
            "dropped": Books(forwarded=1, dropped={"handler_done": 1}),
            "forwarded": Books(forwarded=2, sent=1, sent_texts=1, sent_bytes=2),
            "failed": Books(forwarded=1, failed=1),
            "refused": Books(forwarded=1, refused=1),
        }[outcome]
        assert observer.tally("/late") == Tally("/late", "ws", 1, 0, 0, 0, 0, expected)
        assert observer.tally("/other") == Tally("/other", "ws", 1, 0, 0, 1, 0, ACCEPTED)
        await tasks[1]

    run(main)


def test_more_routes_than_the_bound_share_one_tally() -> None:
    """Nothing is lost beyond `MAX_ROUTES`; a route that was there before keeps its own tally."""

    async def main() -> None:
        observer = Attached()
        many = MAX_ROUTES + 50
        servers = {f"/{number}": ScriptedServer(f"/{number}") for number in range(many)}
        guard = WebSocketGuardMiddleware(
            serving(dict.fromkeys(servers, _accept), servers), observers=(observer,), close_on_return=None
        )
        for _ in range(2):
            for server in servers.values():
                server.connect()
                await server.call(guard)
        tallies = observer.statistics[0].tallies()
        assert len(tallies) == MAX_ROUTES + 1
        assert {one.accepted for one in tallies if one.route != OVERFLOW} == {2}
        assert observer.tally(OVERFLOW).accepted == 2 * 50
        assert observer.tally(OVERFLOW).books.sent_bytes == 2 * 50 * 2
        assert observer.sum() == guard.totals()
        assert guard.totals().sent == 2 * many
        secure = ScriptedServer("/0", scheme="wss")
        servers["/0"] = secure
        secure.connect()
        await secure.call(guard)
        assert observer.tally(OVERFLOW, "wss").accepted == 1

    run(main)


def test_totals_hold_handshakes_that_have_no_tally_yet() -> None:
    """The totals are the tallies and the live handshakes, whose route is not known."""

    async def refuse_then_wait(server: ScriptedServer, receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError):
            await send(TEXT)
        await asyncio.sleep(50)
        await send(ACCEPT)
        await asyncio.sleep(50)

    async def main() -> None:
        observer = Attached()
        servers = {"/stay": ScriptedServer("/stay"), "/wait": ScriptedServer("/wait")}
        app = serving({"/stay": _stay, "/wait": refuse_then_wait}, servers)
        guard = WebSocketGuardMiddleware(app, observers=(observer,), close_on_return=None)
        for server in servers.values():
            server.connect()
            server.call(guard)
        await asyncio.sleep(10)
        assert [one.route for one in observer.statistics[0].tallies()] == ["/stay"]
        assert guard.totals() == observer.sum() + Books(refused=1, dropped={})
        assert len(observer.statistics[0].books()) == guard.connections == 2
        await asyncio.sleep(50)
        assert observer.tally("/wait") == Tally("/wait", "ws", 1, 0, 0, 1, 0, Books(forwarded=1, refused=1))
        assert guard.totals() == observer.sum()

    run(main)


def numbers(tally: Tally) -> dict[str, int]:
    """Give every number of a tally that only ever grows."""
    found = asdict(tally)
    books = found.pop("books")
    dropped = books.pop("dropped")
    for name in ("route", "scheme", "active", "zombies"):
        del found[name]
    return {**found, **books, **dropped}


class Reading(threading.Thread):
    """Reads the tallies of guards over and over, as an exporter does, and keeps what it finds wrong."""

    def __init__(self, *guards: WebSocketGuardMiddleware) -> None:
        super().__init__(daemon=True)
        self.guards = guards
        self.rounds = 0
        self.wrong: list[object] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        """Read until told to stop, or until something is wrong."""
        before: dict[object, dict[str, int]] = {}
        while not self.stopped.is_set() and not self.wrong:
            try:
                for guard in self.guards:
                    self._look(guard, before)
            except Exception as error:
                self.wrong.append(error)
            self.rounds += 1

    def _look(self, guard: WebSocketGuardMiddleware, before: dict[object, dict[str, int]]) -> None:
        totals = guard.totals()
        known = {**asdict(totals), "attempted": totals.attempted}
        known.update(known.pop("dropped"))
        self._compare((id(guard), "totals"), known, before)
        for tally in guard._ledger.tallies():
            self._compare((id(guard), tally.route, tally.scheme), numbers(tally), before)
            if not 0 <= tally.active + tally.zombies <= tally.accepted:
                self.wrong.append(tally)

    def _compare(self, key: object, found: dict[str, int], before: dict[object, dict[str, int]]) -> None:
        known = before.get(key, {})
        less = {name: (known[name], found.get(name, 0)) for name in known if found.get(name, 0) < known[name]}
        if less:
            self.wrong.append((key, less))
        before[key] = found


@contextmanager
def read_by(*guards: WebSocketGuardMiddleware) -> Iterator[None]:
    """Read the guards in another thread that is switched to as often as it can be."""
    interval, reading = sys.getswitchinterval(), Reading(*guards)
    sys.setswitchinterval(1e-6)
    try:
        reading.start()
        yield
    finally:
        reading.stopped.set()
        reading.join(60)
        sys.setswitchinterval(interval)
    assert not reading.wrong
    assert reading.rounds > 10


async def _busy(guard: WebSocketGuardMiddleware, servers: dict[str, ScriptedServer], rounds: int) -> None:
    for _ in range(rounds):
        calls = []
        for server in servers.values():
            server.connect()
            calls.append(server.call(guard))
        await asyncio.gather(*calls)


def churning(routes: int) -> ASGIApp:
    """Make an application whose connections use everything that is counted, also after their handler."""
    opened = iter(range(10**9))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/stay":
            routed(scope, "/stay")
            await send(ACCEPT)
            await receive()
            return
        number = next(opened)
        routed(scope, f"/{number % routes}")
        if number % 7 == 0:
            return
        await send(ACCEPT)
        for _ in range(20):
            await send(TEXT)
        with pytest.raises(RuntimeError):
            await send({})
        asyncio.create_task(late(send))  # noqa: RUF006 - it ends before the test
        await asyncio.sleep(0)
        if number % 2:
            await send(CLOSE)
            await send(TEXT)

    async def late(send: Send) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            await send(TEXT)
        with pytest.raises(RuntimeError):
            await send({})

    return app


def test_every_number_only_grows_in_another_thread() -> None:
    """While connections open, send, end and are sent to late, a reader sees no number fall, and at the end all."""
    observer, rounds, each, parked = Attached(), 60, 10, 200
    guard = WebSocketGuardMiddleware(churning(40), observers=(observer,), linger_s=1)

    async def main() -> None:
        stay = [ScriptedServer("/stay") for _ in range(parked)]
        calls = [server.call(guard) for server in stay]
        for server in stay:
            server.connect()
        await _busy(guard, {str(number): ScriptedServer() for number in range(each)}, rounds)
        for server in stay:
            server.disconnect()
        await asyncio.gather(*calls)
        await asyncio.sleep(5)

    with read_by(guard):
        run(main)
    count = rounds * each
    denied = len(range(0, count, 7))
    tallies = [one for one in observer.statistics[0].tallies() if one.route != "/stay"]
    assert observer.tally("/stay") == Tally("/stay", "ws", parked, 0, 0, 0, 0, Books(forwarded=parked))
    assert sum(one.accepted for one in tallies) == count - denied
    assert sum(one.denied for one in tallies) == denied
    assert {(one.active, one.zombies, one.aborted) for one in tallies} == {(0, 0, 0)}
    totals = guard.totals()
    assert totals == observer.sum()
    assert totals.refused == 2 * (count - denied)
    late = 3 * (count - denied) + len([number for number in range(count) if number % 7 and number % 2])
    assert totals.sent + totals.dropped_total == 20 * (count - denied) + late
    assert totals.sent_bytes == 2 * totals.sent


def test_live_connections_of_several_loops() -> None:
    """Two loops in two threads serve one guard: all their connections are live ones."""
    observer, meeting = Attached(), threading.Barrier(3)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        meeting.wait(60)
        meeting.wait(60)

    guard = WebSocketGuardMiddleware(app, observers=(observer,))

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        await server.call(guard)

    loops = [threading.Thread(target=run, args=(main,), daemon=True) for _ in range(2)]
    for loop in loops:
        loop.start()
    meeting.wait(60)
    (tally,) = observer.statistics[0].tallies()
    live = (tally.active, guard.connections, len(observer.statistics[0].books()), guard.totals().forwarded)
    meeting.wait(60)
    for loop in loops:
        loop.join(60)
    assert live == (2, 2, 2, 2)
    (tally,) = observer.statistics[0].tallies()
    assert (tally.active, guard.connections, guard.totals().forwarded) == (0, 0, 2)


def test_several_loops_and_guards() -> None:
    """Two guards on two loops in two threads: each counts its own, whoever reads; one observer is given both."""
    observer, rounds, each = Attached(), 20, 5
    guards = [WebSocketGuardMiddleware(churning(11), observers=(observer,), linger_s=1) for _ in range(2)]
    assert len(observer.statistics) == 2

    async def main() -> None:
        for guard in guards:
            await _busy(guard, {str(number): ScriptedServer() for number in range(each)}, rounds)
        await asyncio.sleep(5)

    with read_by(*guards):
        loops = [threading.Thread(target=run, args=(main,)) for _ in range(2)]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join(60)
    for statistics, guard in zip(observer.statistics, guards, strict=True):
        tallies = statistics.tallies()
        assert sum(one.accepted + one.denied for one in tallies) == 2 * rounds * each
        assert sum(one.denied for one in tallies) == len(range(0, 2 * rounds * each, 7))
        assert sum((one.books for one in tallies), Books()) == guard.totals()
        assert guard.totals().refused == 2 * sum(one.accepted for one in tallies)


@contextmanager
def meanwhile(function: Any, do: Callable[[], None]) -> Iterator[None]:
    """Do something at the moment when *function* is called first, as another thread might."""

    def hook(frame: FrameType, what: str, argument: object) -> None:
        if what == "call" and frame.f_code is function.__code__:
            sys.setprofile(None)
            do()
            done.append(1)

    done: list[int] = []
    sys.setprofile(hook)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert done


class _Pause:
    """Suspends a coroutine that is run by hand."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class ByHand:
    """One connection whose handler the test runs step by step, without the event loop in between."""

    def __init__(self, guard: WebSocketGuardMiddleware, route: str) -> None:
        self.scope = ScriptedServer(route).scope
        self._call = guard(self.scope, self.receive, self.send)

    async def receive(self) -> Message:
        """Let the handshake begin."""
        return {"type": "websocket.connect"}

    async def send(self, message: Message) -> None:
        """Take everything."""

    def step(self) -> bool:
        """Go on to the next pause; tell whether there is one."""
        try:
            self._call.send(None)
        except StopIteration:
            return False
        return True


def now(work: Awaitable[None]) -> None:
    """Run a coroutine that does not suspend."""
    with pytest.raises(StopIteration):
        next(iter(work.__await__()))


def test_what_is_over_while_it_is_read() -> None:
    """A connection that ends between the two steps of a reader counts as it did at its end: none is lost or doubled."""

    async def main() -> None:
        observer, sends = Attached(), list[Send]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            routed(scope, scope["path"])
            sends.append(send)
            await send(ACCEPT)
            await _Pause()
            await send(TEXT)

        guard = WebSocketGuardMiddleware(app, observers=(observer,), close_on_return=None)
        one, statistics = ByHand(guard, "/a"), observer.statistics[0]
        assert one.step()

        def end() -> None:
            assert not one.step()
            now(sends[0](TEXT))

        with meanwhile(Account.add_live, end):
            (tally,) = statistics.tallies()
        at_end = Books(forwarded=2, sent=1, sent_texts=1, sent_bytes=2)
        assert tally == Tally("/a", "ws", 1, 0, 0, 0, 0, at_end)
        late = replace(at_end, dropped={"handler_done": 1})
        assert statistics.tallies() == [replace(tally, books=late)]
        assert guard.totals() == late

    run(main)


def test_totals_of_what_is_over_while_it_is_read() -> None:
    """The totals take such a connection as it was at its end too."""

    async def main() -> None:
        sends = list[Send]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            sends.append(send)
            await send(ACCEPT)
            await _Pause()

        guard = WebSocketGuardMiddleware(app, observers=(), close_on_return=None)
        first, second = ByHand(guard, "/a"), ByHand(guard, "/a")
        first.step()
        second.step()

        def end() -> None:
            for one, send in ((first, sends[0]), (second, sends[1])):
                assert not one.step()
                now(send(TEXT))

        with meanwhile(Bookkeeping.books, end):
            assert guard.totals() == Books(forwarded=2)
        assert guard.totals() == Books(forwarded=2, dropped={"handler_done": 2})

    run(main)


def test_what_is_accepted_while_it_is_read() -> None:
    """A connection whose route is new since the reader looked is left to the next look."""

    async def main() -> None:
        observer = Attached()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            routed(scope, scope["path"])
            if scope["path"] == "/new":
                await _Pause()
            await send(ACCEPT)
            await _Pause()

        guard = WebSocketGuardMiddleware(app, observers=(observer,), close_on_return=None)
        old, new = ByHand(guard, "/old"), ByHand(guard, "/new")
        assert old.step()
        assert new.step()
        statistics = observer.statistics[0]
        with meanwhile(Account.add_live, lambda: now_step(new)):
            assert [one.route for one in statistics.tallies()] == ["/old"]
        assert [(one.route, one.accepted, one.active) for one in statistics.tallies()] == [
            ("/old", 1, 1),
            ("/new", 1, 1),
        ]
        assert not old.step()
        assert not new.step()

    def now_step(one: ByHand) -> None:
        assert one.step()

    run(main)


@contextmanager
def at_step(step: int, function: Any, do: Callable[[], None]) -> Iterator[None]:
    """Do something before the *step*-th instruction of *function*, where another thread may come to run."""

    def hook(frame: FrameType, what: str, argument: object) -> Any:
        inside = {frame.f_code, frame.f_back.f_code if frame.f_back else None}
        if function.__code__ not in inside:
            return None
        frame.f_trace_opcodes = True
        if what == "opcode":
            steps.append(1)
            if len(steps) == step:
                do()
        return hook

    steps: list[int] = []
    before = sys.gettrace()
    sys.settrace(hook)
    try:
        yield
    finally:
        sys.settrace(before)


def test_connections_that_begin_while_they_are_listed() -> None:
    """Whenever another thread opens a connection: the list has it or not, and nothing is raised."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            await _Pause()

        guard = WebSocketGuardMiddleware(app, observers=(), close_on_return=None)
        opened = [ByHand(guard, "/x") for _ in range(2)]
        for one in opened:
            one.step()

        def begin() -> None:
            opened.append(ByHand(guard, "/x"))
            opened[-1].step()

        for step in range(1, 80):
            before = len(opened)
            with at_step(step, Ledger.live, begin):
                found = len(guard._ledger.live())
            assert before <= found <= len(opened)
        assert len(opened) > 2 + 10
        for one in opened:
            assert not one.step()

    run(main)


def test_observer_failures_can_be_read() -> None:
    """The statistics say which observer failed and how often, in a copy."""

    class Broken(Attached):
        """Fails at every event."""

        def __call__(self, event: Event, /) -> None:
            """Fail."""
            raise ValueError

    async def main() -> None:
        observer, server = Broken(), ScriptedServer("/x")
        guard = WebSocketGuardMiddleware(serving({"/x": _accept}, {"/x": server}), observers=(observer,))
        assert observer.statistics[0].observer_failures() == {}
        server.connect()
        await server.call(guard)
        found = observer.statistics[0].observer_failures()
        assert list(found.values()) == [4]
        assert found == guard.observer_failures
        found.clear()
        assert observer.statistics[0].observer_failures() == guard.observer_failures != {}

    run(main)


def test_statistics_are_given_once_to_each_observer_that_takes_them() -> None:
    """`attach` is called when a guard is built, once; an observer without it, or with something else there, is fine."""

    class Odd(Recorder):
        """Has something else under that name."""

        attach = 5

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    observer, other = Attached(), Attached()
    first = WebSocketGuardMiddleware(app, observers=(Recorder(), observer, print, Odd()))
    assert len(observer.statistics) == 1
    assert observer.statistics[0].tallies() == []
    second = WebSocketGuardMiddleware(app, observers=(observer, other))
    assert len(observer.statistics) == 2
    assert len(other.statistics) == 1
    assert observer.statistics == [first._ledger, second._ledger]
    assert other.statistics == [second._ledger]
