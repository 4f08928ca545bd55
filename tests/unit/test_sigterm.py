"""SIGTERM is held back until the drain is over, whoever handles it, and what was put aside is put back."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import uvloop

from asgi_ws_guard import Drain, WebSocketGuardMiddleware
from asgi_ws_guard._sigterm import Hold, drained_first, hold
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import ScriptedServer

NUMBER = signal.SIGTERM
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """No test leaves a handler or a descriptor behind."""
    before = signal.getsignal(NUMBER)
    yield
    assert signal.getsignal(NUMBER) == before
    assert signal.set_wakeup_fd(-1) == -1


class Served:
    """What a server and a drain hear, in order."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.finish = asyncio.Event()

    def start(self) -> asyncio.Future[None]:
        """Begin a drain that ends with `finish`, once."""
        self.heard.append("drain")
        return asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        await self.finish.wait()
        self.heard.append("drained")

    def handle(self, *_: object) -> None:
        """Be the server's handler."""
        self.heard.append("server")


async def _soon() -> None:
    for _ in range(5):
        await asyncio.sleep(0.005)


def _run(main: Callable[[], Any], make: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
    loop = make()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.parametrize("make", LOOPS)
@pytest.mark.parametrize("how", ["signal", "loop", "both"])
def test_the_server_hears_of_it_when_all_are_drained(how: str, make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Whether its handler is Python's or its loop's; other signals are not held."""

    async def main() -> None:
        loop, served = asyncio.get_running_loop(), Served()
        others: list[str] = []
        before = signal.getsignal(NUMBER)
        if how != "signal":
            loop.add_signal_handler(signal.SIGUSR1, others.append, "other")
        if how == "loop":
            loop.add_signal_handler(NUMBER, served.handle)
        else:
            signal.signal(NUMBER, served.handle)
        own = signal.getsignal(NUMBER)
        holding = hold(loop, served.start)
        assert isinstance(holding, Hold)
        os.kill(os.getpid(), NUMBER)
        if how != "signal":
            os.kill(os.getpid(), signal.SIGUSR1)
        await _soon()
        assert served.heard == ["drain"]
        assert others == ([] if how == "signal" else ["other"])
        served.finish.set()
        await _soon()
        assert served.heard == ["drain", "drained", "server"]
        assert signal.getsignal(NUMBER) == own
        os.kill(os.getpid(), NUMBER)
        await _soon()
        assert served.heard == ["drain", "drained", "server", "server"]
        loop.remove_signal_handler(signal.SIGUSR1)
        loop.remove_signal_handler(NUMBER)
        signal.signal(NUMBER, before)

    _run(main, make)


def test_a_signal_on_its_way_is_not_lost() -> None:
    """One that came in the turn in which all is put back reaches the loop; a descriptor of somebody else's stays."""

    async def main() -> None:
        loop, served = asyncio.get_running_loop(), Served()
        others: list[str] = []
        before = signal.signal(NUMBER, served.handle)
        loop.add_signal_handler(signal.SIGUSR1, others.append, "other")
        holding = hold(loop, served.start)
        assert holding is not None
        signal.raise_signal(signal.SIGUSR1)
        holding.release()
        await _soon()
        assert others == ["other"]

        holding = hold(loop, served.start)
        assert holding is not None
        one, other = socket.socketpair()
        one.setblocking(False)
        own = signal.set_wakeup_fd(one.fileno())
        assert own != -1
        holding.release()
        assert signal.set_wakeup_fd(-1) == one.fileno()
        one.close()
        other.close()
        loop.remove_signal_handler(signal.SIGUSR1)
        signal.signal(NUMBER, before)

    _run(main)


def test_a_second_signal_goes_to_the_server_at_once() -> None:
    """Whoever sends two does not want to wait; the end of the drain raises no third."""

    async def main() -> None:
        served = Served()
        before = signal.signal(NUMBER, served.handle)
        hold(asyncio.get_running_loop(), served.start)
        signal.raise_signal(NUMBER)
        await _soon()
        signal.raise_signal(NUMBER)
        await _soon()
        assert served.heard == ["drain", "server"]
        served.finish.set()
        await _soon()
        assert served.heard == ["drain", "server", "drained"]
        signal.signal(NUMBER, before)

    _run(main)


def test_a_drain_that_fails_holds_nothing() -> None:
    """The server hears of the signal whatever happens, when the other drains are over."""

    async def main() -> None:
        served = Served()
        before = signal.signal(NUMBER, served.handle)

        async def fail() -> None:
            raise OSError("no")

        hold(asyncio.get_running_loop(), lambda: asyncio.ensure_future(fail()))
        hold(asyncio.get_running_loop(), served.start)
        signal.raise_signal(NUMBER)
        await _soon()
        assert served.heard == ["drain"]
        served.finish.set()
        await _soon()
        assert served.heard == ["drain", "drained", "server"]
        signal.signal(NUMBER, before)

    _run(main)


def test_guards_share_a_hold() -> None:
    """All drains begin at once, and the server hears after the last."""

    async def main() -> None:
        loop, one, other = asyncio.get_running_loop(), Served(), Served()
        before = signal.signal(NUMBER, one.handle)
        assert hold(loop, one.start) is hold(loop, other.start)
        signal.raise_signal(NUMBER)
        await _soon()
        assert one.heard == other.heard == ["drain"]
        other.finish.set()
        await _soon()
        assert one.heard == ["drain"]
        one.finish.set()
        await _soon()
        assert one.heard == ["drain", "drained", "server"]
        signal.signal(NUMBER, before)

    _run(main)


def test_who_stands_in_front_is_not_lost() -> None:
    """Somebody who handles the signal later, and hands it on, stays there; the server hears it once it is time."""

    async def main() -> None:
        served = Served()
        before = signal.signal(NUMBER, served.handle)
        hold(asyncio.get_running_loop(), served.start)
        inner = signal.getsignal(NUMBER)

        def front(number: int, frame: FrameType | None) -> None:
            served.heard.append("front")
            assert callable(inner)
            inner(number, frame)

        signal.signal(NUMBER, front)
        signal.raise_signal(NUMBER)
        await _soon()
        served.finish.set()
        await _soon()
        assert served.heard == ["front", "drain", "drained", "front", "server"]
        assert signal.getsignal(NUMBER) is front
        signal.signal(NUMBER, before)

    _run(main)


def test_a_hold_of_a_loop_that_is_gone_hands_on() -> None:
    """At once; a new loop begins a hold of its own, before the server and not before the old hold."""
    served = Served.__new__(Served)
    served.heard = []
    before = signal.signal(NUMBER, served.handle)

    async def main() -> Hold | None:
        return hold(asyncio.get_running_loop(), served.start)

    loop = asyncio.new_event_loop()
    old = loop.run_until_complete(main())
    loop.close()
    signal.raise_signal(NUMBER)
    assert served.heard == ["server"]
    assert signal.getsignal(NUMBER) == served.handle

    loop = asyncio.new_event_loop()
    old = loop.run_until_complete(main())
    other = asyncio.new_event_loop()
    new = other.run_until_complete(main())
    assert new is not None
    assert new is not old
    assert new._before == served.handle
    new.release()
    other.close()
    loop.close()
    signal.signal(NUMBER, before)


def test_where_it_cannot_be_held() -> None:
    """Nothing is changed in a thread, on Windows, and where the process ignores the signal."""

    async def main() -> Hold | None:
        return hold(asyncio.get_running_loop(), Served().start)

    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(main())))
    thread.start()
    thread.join()
    assert found == [None]
    before = signal.signal(NUMBER, signal.SIG_IGN)
    assert asyncio.run(main()) is None
    assert signal.getsignal(NUMBER) is signal.SIG_IGN
    signal.signal(NUMBER, before)


def test_not_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody sends the signal."""

    async def main() -> Hold | None:
        monkeypatch.setattr(sys, "platform", "win32")
        return hold(asyncio.get_running_loop(), Served().start)

    before = signal.getsignal(NUMBER)
    assert asyncio.run(main()) is None
    assert signal.getsignal(NUMBER) == before


class _Event:
    """As `multiprocessing.Event`."""

    def __init__(self) -> None:
        self.value = False

    def is_set(self) -> bool:
        return self.value


async def check_multiprocess_shutdown_event(event: _Event, sleep: Callable[[float], Any]) -> None:
    """As hypercorn's, which asks ten times a second."""
    while not event.is_set():
        await sleep(0.001)


def _hypercorn(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Give `raise_shutdown` of a module that is called as hypercorn's; its frame is what leads to the event."""
    module = types.ModuleType("hypercorn.utils")
    exec("async def raise_shutdown(shutdown_event):\n    await shutdown_event()\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "hypercorn.utils", module)
    found: Callable[[Any], Any] = module.raise_shutdown
    return found


@pytest.mark.parametrize("signalled", [False, True])
def test_a_worker_of_hypercorn_is_asked_to_wait(monkeypatch: pytest.MonkeyPatch, *, signalled: bool) -> None:
    """Its event answers no until the drain is over; a SIGTERM of its parent meanwhile does not kill it."""

    async def main() -> None:
        served, event = Served(), _Event()
        before = signal.signal(NUMBER, signal.SIG_DFL)
        raise_shutdown = _hypercorn(monkeypatch)
        asked = functools.partial(check_multiprocess_shutdown_event, event, asyncio.sleep)
        worker = asyncio.ensure_future(raise_shutdown(asked))
        await asyncio.sleep(0)
        holding = hold(asyncio.get_running_loop(), served.start)
        assert holding is not None
        await _soon()
        assert served.heard == []
        event.value = True
        await _soon()
        if signalled:
            signal.raise_signal(NUMBER)
            await _soon()
        assert served.heard == ["drain"]
        assert not worker.done()
        served.finish.set()
        await _soon()
        assert worker.done()
        assert "is_set" not in vars(event)
        holding.release()  # once more does nothing
        assert signal.signal(NUMBER, before) is signal.SIG_DFL

    _run(main)


def test_the_lifespan_puts_all_back() -> None:
    """Its shutdown is delivered after the drain; other messages pass."""

    async def main() -> None:
        served = Served()
        before = signal.signal(NUMBER, served.handle)
        hold(asyncio.get_running_loop(), served.start)
        inbox: list[Message] = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]

        async def receive() -> Message:
            return inbox.pop()

        async def drain() -> None:
            served.heard.append("drained")

        receiving = drained_first(receive, drain)
        assert (await receiving())["type"] == "lifespan.startup"
        assert served.heard == []
        assert (await receiving())["type"] == "lifespan.shutdown"
        assert served.heard == ["drained"]
        assert signal.signal(NUMBER, before) == served.handle

    _run(main)


@pytest.mark.parametrize("drain", [None, Drain(deadline_s=0.2)])
def test_the_guard_holds_from_its_first_connection_on(drain: Drain | None) -> None:
    """With the option; once for each event loop. Then a signal closes the connection before the server hears of it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def main() -> None:
        served = Served()
        before = signal.signal(NUMBER, served.handle)
        guard = WebSocketGuardMiddleware(app, observers=(), drain=drain)
        assert signal.getsignal(NUMBER) == served.handle
        servers = [ScriptedServer(), ScriptedServer()]
        for server in servers:
            server.connect()
        calls = [server.call(guard) for server in servers]
        await _soon()
        owner = getattr(signal.getsignal(NUMBER), "__self__", None)
        assert isinstance(owner, Hold) is (drain is not None)
        if isinstance(owner, Hold):
            assert len(owner._starts) == 1
            signal.raise_signal(NUMBER)
            await asyncio.wait(calls)
            assert served.heard == []
            assert [server.sent[-1]["code"] for server in servers] == [1012, 1012]
        else:
            signal.raise_signal(NUMBER)
            for server in servers:
                server.disconnect()
        await _soon()
        assert served.heard == ["server"]
        signal.signal(NUMBER, before)

    _run(main)
