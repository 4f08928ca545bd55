"""Waking a task without a cancellation, and stepping an awaitable by hand."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import pytest

from asgi_ws_guard._waking import Waker, interrupt, step
from asgi_ws_guard.testing import ScriptedServer, run


async def _on_a_future(event: asyncio.Event) -> str:
    await event.wait()
    return "woken"


async def _deep(event: asyncio.Event) -> str:
    async def inner() -> str:
        return await _on_a_future(event)

    return await inner()


class _ByHand:
    """An awaitable with a generator behind it."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def __await__(self) -> Generator[Any, None, str]:
        return _on_a_future(self._event).__await__()


async def _through_an_object(event: asyncio.Event) -> str:
    return await _ByHand(event)


async def _through_a_generator(event: asyncio.Event) -> str:
    async def generate() -> AsyncIterator[str]:
        yield await _on_a_future(event)

    async for item in generate():
        return item
    return "nothing"


async def _through_a_queue(event: asyncio.Event) -> str:
    queue: asyncio.Queue[str] = asyncio.Queue()
    return await queue.get()


async def _sleeping(event: asyncio.Event) -> str:
    await asyncio.sleep(1000)
    return "slept"


async def _in_a_task(event: asyncio.Event) -> str:
    return await asyncio.ensure_future(_on_a_future(event))


WAITS: list[Callable[[asyncio.Event], Awaitable[str]]] = [
    _on_a_future,
    _deep,
    _through_an_object,
    _through_a_generator,
    _through_a_queue,
    _sleeping,
    _in_a_task,
]


@pytest.mark.parametrize("wait", WAITS)
def test_interrupt_wakes_a_task_wherever_it_waits(wait: Callable[[asyncio.Event], Awaitable[str]]) -> None:
    """The task gets a `CancelledError` behind which no `Task.cancel` stands, and goes on as if nothing was."""

    async def main() -> None:
        awaitable = wait(asyncio.Event())

        async def waiting() -> str:
            try:
                return await awaitable
            except asyncio.CancelledError as error:
                told = [waker.woke(error), waker.woke(error)]
                await asyncio.sleep(1)
                return "interrupted" if told == [True, False] else "cancelled"

        waker = Waker()
        task = asyncio.create_task(waiting())
        await asyncio.sleep(0.01)
        waker.wake(awaitable)
        assert await asyncio.wait_for(task, 5) == "interrupted"

    run(main)


def test_interrupt_leaves_alone_what_does_not_wait() -> None:
    """A coroutine that was not started, one that is done, and an object without any future are not woken."""

    async def main() -> None:
        event = asyncio.Event()
        fresh, done = _on_a_future(event), _on_a_future(event)
        assert not interrupt(fresh)
        event.set()
        await fresh
        await done
        assert not interrupt(done)
        assert not interrupt(object())  # type: ignore[arg-type]
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        assert not interrupt(future)

    run(main)


def test_interrupt_uses_the_cancel_of_a_foreign_awaitable() -> None:
    """The awaitables of granian have a ``cancel`` and nothing else."""

    class Foreign:
        cancelled = False

        def __await__(self) -> Generator[Any, None, None]:
            yield

        def cancel(self) -> bool:
            self.cancelled = True
            return True

    foreign = Foreign()
    assert interrupt(foreign)
    assert foreign.cancelled


async def _woken(waker: Waker, event: asyncio.Event, *, first: str, stale: bool) -> str:
    """Wait in a task that is woken, cancelled from outside, or both at once."""

    async def waiting() -> str:
        if stale:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
        reading.append(event.wait())
        try:
            await reading[0]
        except asyncio.CancelledError as error:
            return "woken" if waker.woke(error) else "cancelled"
        return "event"

    reading: list[Any] = []
    task = asyncio.create_task(waiting())
    await asyncio.sleep(0.01)
    for who in first.split(" "):
        if who == "guard":
            waker.wake(reading[0])
        else:
            task.cancel()
    return await task


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps no count of cancellations")
@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("first", ["guard", "guard outside", "outside guard", "outside"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_cancellation_from_outside_is_told_apart(first: str, stale: bool, times: int) -> None:
    """Only what was asked for since the task was woken counts, not a cancellation that it took and went on from."""

    async def main() -> None:
        waker = Waker()
        for _ in range(times):
            woken = await _woken(waker, asyncio.Event(), first=first, stale=stale)
            assert woken == ("woken" if first == "guard" else "cancelled")

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps no count of cancellations")
@pytest.mark.parametrize("from_outside", [False, True])
def test_a_task_that_is_woken_again_in_its_clean_up_is_judged_by_the_first_time(from_outside: bool) -> None:
    """Somebody cancels it between the two: the second time must not take that for an old request."""

    async def main() -> None:
        waker, reading = Waker(), list[Any]()

        async def slow() -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(10)
                await asyncio.sleep(10)

        async def waiting() -> str:
            reading.append(slow())
            try:
                await reading[0]
            except asyncio.CancelledError as error:
                return "woken" if waker.woke(error) else "cancelled"
            return "done"

        task = asyncio.create_task(waiting())
        await asyncio.sleep(1)
        waker.wake(reading[0])
        await asyncio.sleep(1)
        if from_outside:
            task.cancel()
        else:
            waker.wake(reading[0])
        await asyncio.sleep(1)
        waker.wake(reading[0])
        assert await task == ("cancelled" if from_outside else "woken")

    run(main)


def test_step_gives_what_is_ready_and_takes_nothing_else() -> None:
    """A receive with something to give is finished; one that would wait is given up and loses nothing."""

    async def main() -> None:
        server = ScriptedServer()
        assert step(server.receive()) == (False, None)
        assert server.receives == 0
        server.text("a", "b")
        assert step(server.receive())[1]["text"] == "a"
        assert (await server.receive())["text"] == "b"
        server.deliver(ValueError("bug"))
        with pytest.raises(ValueError, match="bug"):
            step(server.receive())
        assert step(_Endless()) == (False, None)

    run(main)


class _Endless:
    """An awaitable whose iterator has no ``close``."""

    def __await__(self) -> Any:
        return iter([None, None])
