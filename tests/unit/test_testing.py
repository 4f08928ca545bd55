"""The tools for tests: a scripted server, a recorder, a clock that jumps."""

from __future__ import annotations

import asyncio
import time

import pytest

from asgi_ws_guard import Event, Opened
from asgi_ws_guard._scope import handshake_of
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, VirtualTimeLoop, run

TEXT: Message = {"type": "websocket.send", "text": "x"}


def test_time_jumps_and_nothing_waits() -> None:
    """An hour of sleeping costs no time, in order, and the result is returned."""

    async def main() -> list[str]:
        order: list[str] = []

        async def later(name: str, delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            order.append(f"{name} {asyncio.get_running_loop().time():.0f}")

        await asyncio.gather(later("b", 2000), later("a", 1000), later("c", 3000))
        return order

    started = time.monotonic()
    assert run(main) == ["a 1000", "b 2000", "c 3000"]
    assert time.monotonic() - started < 10


def test_a_test_that_takes_too_long_is_ended() -> None:
    """After so many virtual seconds `TimeoutError` is raised."""

    async def main() -> None:
        await asyncio.sleep(100)

    with pytest.raises(asyncio.TimeoutError):
        run(main, at_most_s=50)


def test_what_is_left_is_cancelled() -> None:
    """Tasks and asynchronous generators that a test leaves are cleaned up, also when it fails."""
    ended: list[str] = []

    async def main() -> None:
        async def left() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append("task")

        background = asyncio.create_task(left())
        await asyncio.sleep(0)
        assert not background.done()
        raise ValueError("of the test")

    with pytest.raises(ValueError, match="of the test"):
        run(main)
    assert ended == ["task"]


def test_a_server_delivers_in_order_and_raises_what_it_is_given() -> None:
    """Messages and exceptions arrive in order; `receives` counts who waits; nothing left means waiting for ever."""

    async def main() -> None:
        server = ScriptedServer("/path", scheme="wss")
        assert (server.scope["path"], server.scope["raw_path"], server.scope["scheme"]) == ("/path", b"/path", "wss")
        server.connect()
        server.text("a", "b")
        server.deliver(ValueError("bug"))
        server.disconnect(4321, "cya")
        assert (await server.receive())["type"] == "websocket.connect"
        assert [(await server.receive())["text"], (await server.receive())["text"]] == ["a", "b"]
        with pytest.raises(ValueError, match="bug"):
            await server.receive()
        assert await server.receive() == {"type": "websocket.disconnect", "code": 4321, "reason": "cya"}
        waiting = asyncio.ensure_future(server.receive())
        await asyncio.sleep(1000)
        assert server.receives == 1
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert server.receives == 0

    run(main)


def test_a_server_fails_and_stalls_as_it_is_told() -> None:
    """`fail_sends` takes an exception, a function or None; `stall_sends` lets every send wait."""

    async def main() -> None:
        server = ScriptedServer()
        await server.send(TEXT)
        server.fail_sends(OSError("gone"))
        with pytest.raises(OSError, match="gone"):
            await server.send(TEXT)
        server.fail_sends(lambda message: ValueError("no") if message["type"] == "websocket.close" else None)
        await server.send(TEXT)
        with pytest.raises(ValueError, match="no"):
            await server.send({"type": "websocket.close"})
        server.fail_sends(None)
        server.stall_sends()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(server.send(TEXT), 5)
        server.resume_sends()
        await server.send({"type": "websocket.close"})
        assert server.types() == ["websocket.send", "websocket.send", "websocket.close"]

    run(main)


def test_call_runs_an_application_in_a_task_of_its_own() -> None:
    """As servers do; an exception is the task's."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope is server.scope
            assert asyncio.current_task() is task
            raise ValueError("of the application")

        task = server.call(app)
        with pytest.raises(ValueError, match="of the application"):
            await task

    run(main)


def test_a_recorder_remembers_and_finds() -> None:
    """All events in order; the only one of a class; a helpful error when there is none or there are several."""
    recorder = Recorder(wants_messages=True)
    assert recorder.wants_messages
    handshake = handshake_of(_scope())
    opened = Opened("0" * 16, 0.0, handshake)
    with pytest.raises(LookupError, match="0 events of Opened"):
        recorder.one(Opened)
    recorder(opened)
    assert recorder.one(Opened) is opened
    assert recorder.of(Event) == [opened]
    recorder(opened)
    assert recorder.names() == ["Opened", "Opened"]
    with pytest.raises(LookupError, match="2 events of Opened"):
        recorder.one(Opened)


def _scope() -> Scope:
    async def main() -> Scope:
        return ScriptedServer().scope

    return run(main)


def test_a_deadlock_is_told_instead_of_waited_for() -> None:
    """Without any timer left nothing can ever happen: the loop says so. `run` itself always has one, its limit."""

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(asyncio.TimeoutError):
        run(main, at_most_s=5)
    loop = VirtualTimeLoop()
    task = loop.create_task(main())
    try:
        with pytest.raises(RuntimeError, match="nobody will do"):
            loop.run_until_complete(task)
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()


def test_a_task_that_spins_is_told() -> None:
    """A task that never sleeps would stop the clock for ever: it is an error instead of a test that hangs."""

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="spins without sleeping"):
        run(main)
