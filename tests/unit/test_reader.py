"""The reader: one pump at most, a bounded buffer, and nothing lost when somebody who waits is cancelled."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, cast

import pytest

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._loops import AsyncioLoop, TrioLoop
from asgi_ws_guard._reader import MAX_BYTES, MAX_MESSAGES, STOP_S, Reader
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import ScriptedServer, run


class _Owner:
    """The session's part, as simple as can be."""

    def __init__(self) -> None:
        self.is_over = False
        self.context = Context()
        self.failures: list[Exception] = []
        self.full: list[tuple[int, int]] = []
        self.dropping = False
        self.is_pumped = self.is_held = False

    async def pumped(self, message: Message) -> Message | None:
        if message["type"] == "websocket.disconnect":
            self.is_over = True
            return None
        return None if self.dropping else message

    def pump_failed(self, error: Exception) -> None:
        self.failures.append(error)

    def pumping(self, is_pumping: bool) -> None:
        self.is_pumped = is_pumping

    def ahead_full(self, messages: int, size: int) -> None:
        self.full.append((messages, size))


def _make(server: ScriptedServer, *, never_direct: bool = False) -> tuple[Reader, _Owner]:
    owner = _Owner()
    loop = AsyncioLoop()
    return Reader(owner, loop, server.receive, never_direct=never_direct), owner


def _text(text: str) -> Message:
    return {"type": "websocket.receive", "text": text}


def test_an_idle_reader_has_nothing_and_needs_no_stop() -> None:
    """Nothing waits, nothing runs, and stopping it twice is harmless."""

    async def main() -> None:
        reader, _ = _make(ScriptedServer())
        assert reader.take() is None
        assert (reader.running, reader.buffered) == (False, 0)
        await reader.stop()
        await reader.stop()
        reader.wake_all()

    run(main)


class _EagerLoop(AsyncioLoop):
    """Runs a task at once for as long as it does not suspend, as `asyncio.eager_task_factory` of 3.12 does."""

    def start(self, work: Coroutine[Any, Any, None], context: Context) -> asyncio.Task[None]:
        """Run a task that does not suspend."""
        done: Any = asyncio.get_running_loop().create_future()
        with pytest.raises(StopIteration):
            work.send(None)
        done.set_result(None)
        return cast("asyncio.Task[None]", done)


def test_a_pump_that_is_done_before_its_task_is_known_does_not_run() -> None:
    """An error ends the pump at once; whoever waits for it afterwards would wait for ever."""

    async def main() -> None:
        server, owner = ScriptedServer(), _Owner()
        reader = Reader(owner, _EagerLoop(), server.receive, never_direct=False)
        for _ in range(2):
            server.deliver(ValueError("bug"))
            assert not reader.start()
            assert not reader.running
        assert len(owner.failures) == 2

    run(main)


def test_a_pump_that_is_cancelled_before_its_first_step_leaves_nobody_waiting() -> None:
    """Whoever cancels all tasks of an event loop meets it there; who waits for it then looks again, and reads on."""

    async def main() -> None:
        server = ScriptedServer()
        reader, owner = _make(server)
        before = asyncio.all_tasks()
        assert reader.start()
        (pump,) = asyncio.all_tasks() - before
        pump.cancel()
        await asyncio.wait_for(reader.wait(), 1)
        assert (reader.running, owner.is_pumped) == (False, False)
        assert reader.start()
        server.text("later")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert reader.take() == _text("later")
        await reader.stop()

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.12 has the first eager task factory")
@pytest.mark.parametrize("never_direct", [False, True])
def test_with_an_eager_task_factory_nothing_is_lost_and_nobody_hangs(never_direct: bool) -> None:
    """Tasks of the application and of the guard run before `create_task` returns, on granian and elsewhere."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if sys.version_info >= (3, 12):
            loop.set_task_factory(asyncio.eager_task_factory)
        server, got = ScriptedServer(), list[Message]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            got.append(await receive())
            await send({"type": "websocket.accept"})
            for _ in range(2):
                server.deliver(ValueError("bug"))
                with pytest.raises(ValueError, match="bug"):
                    await asyncio.wait_for(receive(), 5)
            server.text("ready", "and another")
            got.append(await asyncio.wait_for(receive(), 0.1))
            got.append(await asyncio.wait_for(receive(), 0.1))
            await asyncio.sleep(2)
            server.text("ahead")
            await asyncio.sleep(2)
            while got[-1]["type"] != "websocket.disconnect":
                got.append(await receive())
                await asyncio.create_task(_echo(send, got[-1]))
            got.append(await receive())

        server.connect()
        task = server.call(WebSocketGuardMiddleware(app, observers=()))
        await asyncio.sleep(5)
        server.text("direct")
        await asyncio.sleep(1)
        server.disconnect(1001)
        await asyncio.wait_for(task, 30)
        assert [message.get("text") or message["type"][10:] for message in got] == [
            "connect",
            "ready",
            "and another",
            "ahead",
            "direct",
            "disconnect",
            "disconnect",
        ]
        assert server.types() == ["websocket.accept", "websocket.send", "websocket.send"]

    with pytest.MonkeyPatch.context() as patch:
        if never_direct:
            patch.setitem(sys.modules, "granian._granian", types.ModuleType("granian._granian"))
        run(main)


async def _echo(send: Send, message: Message) -> None:
    if message["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def test_what_is_put_is_taken_in_order_and_an_exception_in_its_place() -> None:
    """Messages and exceptions keep their order; the exception is raised once."""

    async def main() -> None:
        reader, _ = _make(ScriptedServer())
        bug = ValueError("bug")
        for item in (_text("a"), bug, {"type": "websocket.receive", "bytes": b"b"}):
            reader.put(item)
        assert reader.buffered == 3
        assert reader.take() == _text("a")
        with pytest.raises(ValueError, match="bug") as caught:
            reader.take()
        assert caught.value is bug
        assert reader.take() == {"type": "websocket.receive", "bytes": b"b"}
        assert reader.take() is None

    run(main)


def test_the_pump_reads_until_the_end_and_ends() -> None:
    """It reads what there is, gives nothing for a disconnect, and is over with it; starting it twice is one pump."""

    async def main() -> None:
        server = ScriptedServer()
        reader, _ = _make(server)
        assert reader.start()
        assert reader.start()
        server.text("a", "b")
        await asyncio.sleep(0.1)
        assert server.receives == 1
        assert reader.buffered == 2
        server.disconnect()
        await asyncio.sleep(0.1)
        assert not reader.running
        assert reader.buffered == 2

    run(main)


@pytest.mark.parametrize("never_direct", [False, True])
def test_the_pump_ends_when_the_receiver_keeps_up(never_direct: bool) -> None:
    """A receiver that waits and gets the only message ends the pump, unless nobody else may ever read."""

    async def main() -> None:
        server = ScriptedServer()
        reader, _ = _make(server, never_direct=never_direct)
        reader.start()
        waiting = asyncio.create_task(reader.wait())
        await asyncio.sleep(0.1)
        server.text("a")
        await waiting
        await asyncio.sleep(0)
        assert reader.take() == _text("a")
        await asyncio.sleep(0.1)
        assert reader.running == never_direct
        await reader.stop()
        assert not reader.running
        assert server.receives == 0

    run(main)


def test_a_dropped_message_does_not_end_the_pump() -> None:
    """A message that a policy dropped is nothing to wake for."""

    async def main() -> None:
        server = ScriptedServer()
        reader, owner = _make(server)
        owner.dropping = True
        reader.start()
        waiting = asyncio.create_task(reader.wait())
        server.text("a", "b")
        await asyncio.sleep(0.1)
        assert not waiting.done()
        owner.dropping = False
        server.text("c")
        await waiting
        assert reader.take() == _text("c")

    run(main)


def test_an_exception_of_the_server_ends_the_pump_and_wakes_everybody() -> None:
    """The owner hears of it, and whoever waits looks again."""

    async def main() -> None:
        server = ScriptedServer()
        reader, owner = _make(server)
        reader.start()
        waiting = [asyncio.create_task(reader.wait()) for _ in range(3)]
        await asyncio.sleep(0.1)
        bug = ValueError("bug")
        server.deliver(bug)
        await asyncio.gather(*waiting)
        assert owner.failures == [bug]
        assert not reader.running

    run(main)


def test_the_pump_stops_at_the_bound_and_tells_it_once() -> None:
    """Neither more messages nor more bytes than the bound, one large message aside; it starts again with room."""

    async def main() -> None:
        for texts, expected in (
            (["x"] * (MAX_MESSAGES + 5), (MAX_MESSAGES, MAX_MESSAGES)),
            (["x" * MAX_BYTES, "y"], (1, MAX_BYTES)),
            (["x" * (MAX_BYTES - 1), "y" * MAX_BYTES, "z"], (2, 2 * MAX_BYTES - 1)),
        ):
            server = ScriptedServer()
            reader, owner = _make(server)
            server.text(*texts)
            reader.start()
            await asyncio.sleep(1)
            assert owner.full == [expected]
            assert not reader.running
            assert not reader.start()
            for _ in range(expected[0]):
                assert reader.take() is not None
            assert reader.start()
            await asyncio.sleep(0.1)
            assert reader.buffered == len(texts) - expected[0]
            assert owner.full == [expected]
            await reader.stop()

    run(main)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_binary_messages_count_by_their_bytes(kind: Callable[[bytes], object]) -> None:
    """The bound holds for binary messages too, with an empty text beside them and in any kind of buffer."""

    async def main() -> None:
        server = ScriptedServer()
        reader, owner = _make(server)
        server.deliver({"type": "websocket.receive", "text": None, "bytes": kind(b"x" * MAX_BYTES)}, _text("y"))
        reader.start()
        await asyncio.sleep(1)
        assert owner.full == [(1, MAX_BYTES)]
        assert reader.take() is not None
        assert reader.start()
        await reader.stop()

    run(main)


@pytest.mark.parametrize("turns", range(4))
def test_a_cancelled_waiter_hands_over(turns: int) -> None:
    """One message, two waiters: when the one that was woken is cancelled the other one is woken."""

    async def main() -> None:
        reader, _ = _make(ScriptedServer())
        first, second = (asyncio.create_task(reader.wait()) for _ in range(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        reader.put(_text("a"))
        for _ in range(turns):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})
        if first.cancelled():
            await asyncio.wait_for(second, 1)
        reader.wake_all()
        await asyncio.wait({second}, timeout=1)
        assert second.done()
        assert reader.take() == _text("a")

    run(main)


def test_a_cancelled_waiter_that_nobody_woke_is_forgotten() -> None:
    """It does not swallow the next waking."""

    async def main() -> None:
        reader, _ = _make(ScriptedServer())
        gone = asyncio.create_task(reader.wait())
        waiting = asyncio.create_task(reader.wait())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
        reader.put(_text("a"))
        await asyncio.wait_for(waiting, 1)

    run(main)


def test_a_server_that_does_not_let_go_of_its_receive_is_waited_for_a_while_only() -> None:
    """Stopping takes `STOP_S` at most."""

    async def main() -> None:
        async def stubborn() -> Message:
            for _ in range(3):
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    continue
            return _text("late")

        reader = Reader(_Owner(), AsyncioLoop(), stubborn, never_direct=False)
        reader.start()
        await asyncio.sleep(0)
        started = asyncio.get_running_loop().time()
        await reader.stop()
        assert asyncio.get_running_loop().time() - started == pytest.approx(STOP_S)

    run(main)


def test_on_trio_there_is_no_pump() -> None:
    """Where the guard may have no tasks, nothing starts."""

    async def main() -> None:
        reader = Reader(_Owner(), TrioLoop(), ScriptedServer().receive, never_direct=False)
        assert not reader.start()
        assert not reader.running

    pytest.importorskip("trio")
    run(main)
