"""
Holds SIGTERM back from the server until the connections are drained, on every server in the same way.

Servers hear of SIGTERM by a handler of `signal.signal` (uvicorn, daphne) or of their event loop (granian, and hypercorn
without workers), which gets its signals through the interpreter's wakeup descriptor, past every Python handler. So both
are put aside for as long as the drain takes, then both are put back and the signal is raised again: whatever the server
does, it does itself, later. The workers of hypercorn get no signal but ask an event of their parent ten times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

from ._types import Message, Receive

_log = logging.getLogger("asgi_ws_guard")
_NO_DESCRIPTOR = -1

Start = Callable[[], "asyncio.Future[Any]"]
"""Begins a drain, once, and gives its end."""


def hold(loop: asyncio.AbstractEventLoop, start: Start) -> Hold | None:
    """
    Drain before the server hears of SIGTERM.

    Args:
        loop: The running event loop.
        start: Begins the drain.

    Returns:
        What holds, shared by all guards of the process; None where a signal cannot be held: outside of the main thread,
        on Windows, and where SIGTERM is ignored or its handler is not Python's.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        _log.info("SIGTERM cannot be held back here: connections are drained at the lifespan's shutdown only")
        return None
    before = signal.getsignal(signal.SIGTERM)
    owner = getattr(before, "__self__", None)
    if isinstance(owner, Hold):
        if owner.joined(loop, start):
            return owner
        owner.release()
        before = signal.getsignal(signal.SIGTERM)
    if before is None or before is signal.SIG_IGN:
        _log.info(
            "SIGTERM is ignored, or handled outside of Python: connections are drained at the lifespan's shutdown only"
        )
        return None
    return Hold(loop, start)


def drained_first(receive: Receive, drain: Callable[[], Awaitable[object]]) -> Receive:
    """
    Drain before an application hears of its lifespan's shutdown.

    Args:
        receive: The server's `receive` of a lifespan scope.
        drain: Drains, or joins the drain that runs or is over.

    Returns:
        The application's `receive`.
    """

    async def receive_drained() -> Message:
        message = await receive()
        if message.get("type") == "lifespan.shutdown":
            await drain()
            owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
            if isinstance(owner, Hold) and threading.current_thread() is threading.main_thread():
                owner.release()
        return message

    return receive_drained


class Hold:
    """What stands between SIGTERM and the server of this process, until the drains are over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: Start) -> None:
        """
        Put the server's handler aside; in the main thread.

        Args:
            loop: The running event loop.
            start: Begins the drain.
        """
        self._loop = loop
        self._starts = [start]
        self._signals = 0
        self._waiting: asyncio.Future[list[Any]] | None = None
        self._is_over = False
        self._event: Any = _hypercorn_event(loop)
        if self._event is not None:
            self._asked = self._event.is_set
            self._event.is_set = self._is_set
        self._wakeup: int = _NO_DESCRIPTOR
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._put_wakeup_aside()
        self._before = signal.signal(signal.SIGTERM, self._on_signal)

    def joined(self, loop: asyncio.AbstractEventLoop, start: Start) -> bool:
        """
        Begin one more drain on SIGTERM; False where this hold belongs to another event loop.

        Args:
            loop: The running event loop.
            start: Begins the drain.
        """
        if loop is not self._loop:
            return False
        self._starts.append(start)
        return True

    def release(self) -> None:
        """Put back what was put aside, unless somebody else stands there by now; in the main thread."""
        if self._is_over:
            return
        self._is_over = True
        if self._event is not None:
            del self._event.is_set
        if signal.getsignal(signal.SIGTERM) == self._on_signal:
            signal.signal(signal.SIGTERM, self._before)
        self._put_wakeup_back()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Begin to drain; a second SIGTERM is for the server, at once."""
        self._signals += 1
        if self._signals == 1 and not self._is_over:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._begin)
                return
        was_over = self._is_over
        self.release()
        if not was_over:
            signal.raise_signal(signal.SIGTERM)
        elif callable(self._before):  # somebody stands in front of us, and has handed it on
            self._before(number, frame)

    def _is_set(self) -> bool:
        """Answer hypercorn's worker whether it is to end: not before the drain is over."""
        is_asked: bool = self._asked()
        if is_asked:
            self._begin()
        return is_asked and self._is_over

    def _begin(self) -> None:
        if self._waiting is None:
            self._waiting = asyncio.gather(*(start() for start in self._starts), return_exceptions=True)
            self._waiting.add_done_callback(self._drained)

    def _drained(self, waiting: object) -> None:
        """Let the server go on, unless it does already."""
        if self._is_over:
            return
        is_event = self._event is not None and self._asked()
        self.release()
        if self._signals and not (is_event and self._before is signal.SIG_DFL):
            signal.raise_signal(signal.SIGTERM)

    def _put_wakeup_aside(self) -> None:
        """Take the event loop's signals; all but SIGTERM are handed on."""
        reading, writing = socket.socketpair()
        reading.setblocking(False)
        writing.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        if self._wakeup == _NO_DESCRIPTOR:
            signal.set_wakeup_fd(_NO_DESCRIPTOR)
            reading.close()
            writing.close()
            return
        self._pair = reading, writing
        self._loop.add_reader(reading, self._woken)

    def _woken(self) -> None:
        if self._pair is not None:
            with contextlib.suppress(OSError):
                numbers = self._pair[0].recv(4096)
                os.write(self._wakeup, bytes(one for one in numbers if one != signal.SIGTERM))

    def _put_wakeup_back(self) -> None:
        if self._pair is None:
            return
        self._woken()
        reading, writing = self._pair
        self._pair = None
        with contextlib.suppress(ValueError, OSError):  # the loop that it belonged to is closed
            now = signal.set_wakeup_fd(self._wakeup)
            if now != writing.fileno():
                signal.set_wakeup_fd(now)
        if not self._loop.is_closed():
            self._loop.remove_reader(reading)
        reading.close()
        writing.close()


def _hypercorn_event(loop: asyncio.AbstractEventLoop) -> Any:
    """
    Give the event by which the parent of a worker of hypercorn (0.17 and 0.18) ends it, None elsewhere.

    It stands in the task that waits for it, as the argument of what asks it.
    """
    if "hypercorn.utils" not in sys.modules:
        return None
    return next((event for task in asyncio.all_tasks(loop) for event in _events_of(task)), None)


def _events_of(task: asyncio.Task[Any]) -> Iterator[Any]:
    frame: FrameType | None = getattr(task.get_coro(), "cr_frame", None)
    if frame is None or frame.f_globals.get("__name__") != "hypercorn.utils":
        return
    for asks in frame.f_locals.values():
        if isinstance(asks, functools.partial) and asks.func.__name__ == "check_multiprocess_shutdown_event":
            yield from (one for one in asks.args if callable(getattr(one, "is_set", None)))
