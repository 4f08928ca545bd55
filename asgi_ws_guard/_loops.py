"""
What the guard needs of an event loop, for asyncio (uvloop too) and, as far as it goes, for trio.

Under trio (hypercorn's trio worker) there are events and turns, but no timers, no tasks of the guard's own and no
reading by hand: what needs those is missing there (G14). No other module asks for more than whether there are tasks.
trio is never imported: where it runs, it is in `sys.modules`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol


class Flag(Protocol):
    """An event that tasks wait for: `asyncio.Event` and `trio.Event` have this in common."""

    def set(self) -> object:
        """Wake everybody who waits, now and later."""

    def is_set(self) -> bool:
        """Tell whether it was set."""

    async def wait(self) -> object:
        """Wait until it is set."""


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Forget the call."""


COARSE_S = 0.001
"""What uvloop's clock and timers count in. One more for each timer, so that none is early by `AsyncioLoop.time`."""
PAUSE_S = 0.001
"""Seconds that a loop without any sleep is held up: enough for another thread to take the interpreter's lock."""


class WorkCancelled(RuntimeError):
    """Work of foreign code was cancelled, and not by who waits for it: nobody is to take that for their own."""


class AsyncioLoop:
    """
    The asyncio loop that runs the caller. It is asked for anew each time: to hold it would keep it alive.

    Attributes:
        has_tasks: Whether the guard may have timers and tasks of its own here.
    """

    __slots__ = ()
    has_tasks = True

    def time(self) -> float:
        """
        Give the time in seconds, for differences only; also to a handler that is thrown away with its loop.

        uvloop 0.22 counts whole milliseconds of the same clock, in which a handshake or a send took no time at all.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return time.monotonic()
        return time.monotonic() if _is_coarse(loop) else loop.time()

    def flag(self) -> Flag:
        """Make an event."""
        return asyncio.Event()

    async def turn(self) -> None:
        """Let the loop go round once."""
        await asyncio.sleep(0)

    async def pause(self) -> None:
        """
        Sleep a moment, so that other threads get the interpreter's lock.

        A loop that always has work gives it away for 0 s only, and granian 2.8 serves from threads of its own: beside a
        tight loop of late sends a request took it up to 0.6 s.
        """
        await asyncio.sleep(PAUSE_S)

    def current_task(self) -> object | None:
        """Give the running task, None outside of tasks."""
        return asyncio.current_task()

    def soon(self, call: Callable[[], object]) -> bool:
        """Call in the loop's next turn."""
        asyncio.get_running_loop().call_soon(call, context=Context())
        return True

    def later(self, delay_s: float, call: Callable[[], object]) -> Timer | None:
        """Call in *delay_s* seconds, in an empty context: a timer must not keep a connection's variables alive."""
        loop = asyncio.get_running_loop()
        return loop.call_later(delay_s + (COARSE_S if _is_coarse(loop) else 0.0), call, context=Context())

    async def within(self, awaitable: Awaitable[Any], delay_s: float) -> tuple[bool, Any]:
        """
        Wait for an awaitable for a time, and cancel it when that is over or the caller is cancelled.

        Unlike `asyncio.wait_for`, which up to 3.11 may lose a cancellation of the caller's.

        Args:
            awaitable: Of foreign code.
            delay_s: Seconds.

        Returns:
            Whether it is done, and its result.

        Raises:
            WorkCancelled: It was cancelled, and not by its caller.
        """
        task = asyncio.ensure_future(awaitable)
        task.add_done_callback(_retrieve)  # it may fail in the very turn in which the caller is cancelled
        try:
            await asyncio.wait({task}, timeout=max(0.0, delay_s))
        finally:
            if not task.done():
                task.cancel()
        if task.cancelled():
            raise WorkCancelled
        return (True, task.result()) if task.done() else (False, None)

    def start(self, work: Coroutine[Any, Any, Any], context: Context) -> asyncio.Task[Any]:
        """
        Start a task in a copy of a context.

        Not by the loop's task factory: an eager one (3.12) would run it before anybody knows that it runs.

        Args:
            work: What it does.
            context: A context that nobody is in.
        """
        return context.run(lambda: asyncio.Task(work, loop=asyncio.get_running_loop()))


class TrioLoop:
    """The running trio loop."""

    __slots__ = ("_trio",)
    has_tasks = False

    def __init__(self) -> None:
        self._trio: Any = sys.modules["trio"]

    def time(self) -> float:
        """Give the time in seconds, for differences only."""
        return float(self._trio.current_time())

    def flag(self) -> Flag:
        """Make an event."""
        event: Flag = self._trio.Event()
        return event

    async def turn(self) -> None:
        """Let the loop go round once."""
        await self._trio.lowlevel.checkpoint()

    async def pause(self) -> None:
        """Let the loop go round once: nothing here waits for time."""
        await self.turn()

    def current_task(self) -> object | None:
        """Give the running task."""
        task: object = self._trio.lowlevel.current_task()
        return task

    def soon(self, call: Callable[[], object]) -> bool:
        """Do nothing: there are no timers here."""
        return False

    async def within(self, awaitable: Awaitable[Any], delay_s: float) -> tuple[bool, Any]:
        """Wait for an awaitable, for as long as it takes: there are no timers here."""
        return True, await awaitable

    def later(self, delay_s: float, call: Callable[[], object]) -> Timer | None:
        """Do nothing: there are no timers here."""
        return None


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Take note of what a task raised that nobody waits for: its cancellation was asked for."""
    if not task.cancelled():
        task.exception()


def _is_coarse(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether a loop's clock is not Python's own: uvloop is the one loop of ours that is not asyncio's class."""
    return not isinstance(loop, asyncio.BaseEventLoop)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """
    Give the asyncio loop that runs the caller.

    Returns:
        The loop; None when trio runs the caller.

    Raises:
        RuntimeError: Neither asyncio nor trio runs the caller.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        if "trio" in sys.modules:
            return None
        raise


def cancel_requests(task: object | None) -> int:
    """
    Count who has asked to cancel a task and has not taken it back.

    Args:
        task: Any loop's task.

    Returns:
        The number; always 0 under trio, and on Python 3.10, which keeps no count.
    """
    requests = 0
    if sys.version_info >= (3, 11) and isinstance(task, asyncio.Task):
        requests = task.cancelling()
    return requests


def cancelled_itself() -> bool:
    """
    Tell of a `CancelledError` that was caught whether nobody has cancelled the running task: an error like others.

    Returns:
        Always False under trio, and on Python 3.10, where that cannot be known.
    """
    knows = sys.version_info >= (3, 11)
    return knows and running_loop() is not None and cancel_requests(asyncio.current_task()) == 0
