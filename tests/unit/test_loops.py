"""What the guard needs of an event loop: clean timers and tasks, and nothing that keeps it alive."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import weakref
from collections.abc import Generator
from contextvars import Context, ContextVar
from typing import Any

import pytest
import trio

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._loops import AsyncioLoop, TrioLoop, running_loop
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import ScriptedServer, VirtualTimeLoop, run

_variable: ContextVar[str] = ContextVar("_variable", default="empty")


def test_timers_and_tasks_keep_no_context_but_the_given_one() -> None:
    """What the guard starts never inherits a handler's variables: it would count as its child, and keep it alive."""

    async def main() -> None:
        loop = AsyncioLoop()
        seen: list[str] = []
        _variable.set("of the handler")

        async def work() -> None:
            seen.append(_variable.get())

        loop.soon(lambda: seen.append(_variable.get()))
        timer = loop.later(1, lambda: seen.append(_variable.get()))
        assert timer is not None
        await loop.start(work(), Context())
        await asyncio.sleep(2)
        assert seen == ["empty"] * 3
        cancelled = loop.later(1, lambda: seen.append("never"))
        assert cancelled is not None
        cancelled.cancel()
        await asyncio.sleep(2)
        assert seen == ["empty"] * 3

    run(main)


def test_work_that_fails_in_the_turn_of_its_callers_cancellation_is_retrieved() -> None:
    """Nobody is left to hear of it; asyncio would tell of an exception that was never retrieved."""
    told: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        caller = asyncio.create_task(AsyncioLoop().within(answer, 10))
        await asyncio.sleep(0)
        answer.set_exception(ValueError("of a policy"))
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        del answer, caller
        await asyncio.sleep(0)
        gc.collect()

    run(main)
    assert not told


def test_a_turn_is_a_turn_on_both_loops() -> None:
    """Another task that is ready runs meanwhile."""
    seen: list[str] = []

    async def on_asyncio() -> None:
        loop = AsyncioLoop()
        asyncio.get_running_loop().call_soon(seen.append, "asyncio")
        await loop.turn()
        assert seen == ["asyncio"]
        assert loop.current_task() is asyncio.current_task()

    async def on_trio() -> None:
        loop = TrioLoop()

        async def other() -> None:
            seen.append("trio")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(3):
                await loop.turn()
            assert seen == ["asyncio", "trio"]
        assert loop.current_task() is trio.lowlevel.current_task()
        assert loop.time() == pytest.approx(trio.current_time(), abs=1)
        assert not loop.soon(lambda: None)
        assert loop.later(1, lambda: None) is None
        flag = loop.flag()
        flag.set()
        assert flag.is_set()
        await flag.wait()
        assert running_loop() is None

    run(on_asyncio)
    trio.run(on_trio)


def test_without_any_loop_the_error_is_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither asyncio nor trio: `RuntimeError`, and trio is not imported to find out."""
    monkeypatch.delitem(sys.modules, "trio")
    with pytest.raises(RuntimeError, match="no running event loop"):
        running_loop()


def test_the_running_loop_is_asyncios() -> None:
    """On asyncio it is the loop itself."""

    async def main() -> None:
        assert running_loop() is asyncio.get_running_loop()

    run(main)


def test_a_guard_keeps_no_loop_alive() -> None:
    """A guard that served on many event loops, as in a test suite, holds none of them when they are gone."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    guard = WebSocketGuardMiddleware(app, observers=())
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        server = ScriptedServer()
        server.connect()
        await server.call(guard)

    for _ in range(3):
        run(main)
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3
    assert guard.totals().attempted == 0


def test_a_handler_that_is_thrown_away_with_its_loop_goes_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python closes the coroutine of a pending task: nothing may be awaited then, and there is no running loop."""
    noise: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: noise.append(unraisable.exc_value))
    left: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await asyncio.Event().wait()
        finally:
            left.append("app")

    guard = WebSocketGuardMiddleware(app, observers=(lambda event: left.append(type(event).__name__),))

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        serving = guard(server.scope, server.receive, server.send)
        serving.send(None)
        kept.append(serving)

    kept: list[object] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    kept.clear()
    gc.collect()
    assert left == ["Opened", "Accepted", "app", "Ended", "Closed"]
    assert noise == []
    assert guard.connections == 0


def test_one_guard_serves_several_loops() -> None:
    """Each loop has its own timer; the totals are those of all."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        server.text("a")
        asyncio.get_running_loop().call_later(5, server.disconnect)
        await server.call(guard)

    guard = WebSocketGuardMiddleware(app, observers=())
    for count in range(1, 4):
        run(main)
        assert guard.totals().sent == count
        assert guard.connections == 0


def test_an_ended_connection_is_not_kept_alive() -> None:
    """When its handler is done and the application forgot it, nothing of the guard holds a connection."""

    async def main() -> None:
        server = ScriptedServer()
        handles: list[weakref.ref[object]] = []

        class Canary:
            pass

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["canary"] = Canary()
            handles.append(weakref.ref(scope["canary"]))
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            await send({"type": "websocket.send", "text": "late"})

        server.connect()
        server.disconnect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        del app
        await asyncio.sleep(5)
        gc.collect()
        assert handles[0]() is None

    run(main)


def test_messages_are_read_by_hand_in_an_odd_loop() -> None:
    """A receive whose awaitable is no coroutine works on the path and in the drain."""

    class Received:
        def __init__(self, message: Message) -> None:
            self._message = message

        def __await__(self) -> Generator[Any, None, Message]:
            return asyncio.sleep(0, self._message).__await__()

    async def main() -> None:
        messages: list[Message] = [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "a"},
            {"type": "websocket.disconnect", "code": 1001},
        ]

        def server_receive() -> Received:
            return Received(messages.pop(0))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            assert (await receive())["text"] == "a"
            assert (await receive())["code"] == 1001

        server = ScriptedServer()
        await WebSocketGuardMiddleware(app, observers=())(server.scope, server_receive, server.send)

    run(main)


def test_the_virtual_loop_is_a_loop_like_any_other() -> None:
    """`VirtualTimeLoop` runs a guard under `asyncio.Runner`-like use, and its time is its own."""
    loop = VirtualTimeLoop()
    try:
        loop.run_until_complete(asyncio.sleep(1000))
        assert loop.time() >= 1000
    finally:
        loop.close()


def test_the_time_is_finer_than_uvloops_own() -> None:
    """Events tell microseconds where uvloop counts whole milliseconds, of the same clock."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        before_s = time.monotonic()
        seen = {AsyncioLoop().time() for _ in range(1000)}
        assert len(seen) > 100
        assert before_s <= min(seen) <= max(seen) <= time.monotonic()
        assert abs(asyncio.get_running_loop().time() - max(seen)) < 0.1

    uvloop.run(main())


def test_no_timer_is_early_under_uvloop() -> None:
    """When a timer is due, its time is over by the finer clock too, or a look would have to wait for the next one."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        loop, early_s = AsyncioLoop(), []
        for _ in range(100):
            due_s = loop.time() + 0.01
            loop.later(0.01, lambda due_s=due_s: early_s.append(due_s - loop.time()))  # type: ignore[misc]
            spun_s = time.monotonic() + 0.00013
            while time.monotonic() < spun_s:
                pass
        while len(early_s) < 100:
            await asyncio.sleep(0.01)
        assert max(early_s) <= 0

    uvloop.run(main())
