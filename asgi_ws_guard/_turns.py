"""
Spreads calls that come together over the turns of the event loop, so that nobody else waits for all of them.

A server may lose ten thousand connections at once, and each of their handlers has to be woken. A call that comes alone
is made at once; it knows nothing of what it calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._loops import AsyncioLoop, TrioLoop

CALLS_AT_ONCE = 16
"""Calls in one turn of the loop. A handler that one of them wakes takes 60 to 100 µs of the next turn until it, the
guard and the server (uvicorn 0.54) are done."""


class Turns:
    """Calls on one event loop that has timers."""

    __slots__ = ("_is_due", "_left", "_loop", "_waiting")

    def __init__(self, loop: AsyncioLoop | TrioLoop) -> None:
        """
        Begin without any.

        Args:
            loop: The event loop.
        """
        self._loop = loop
        self._left = CALLS_AT_ONCE
        self._waiting: deque[Callable[[], object]] = deque()
        self._is_due = False

    def call(self, call: Callable[[], object]) -> None:
        """
        Call in this turn, or in the first one that has room, in the order of asking.

        Args:
            call: What raises nothing.
        """
        if not self._left:
            self._waiting.append(call)
            return
        self._take()
        call()

    def _take(self) -> None:
        self._left -= 1
        if not self._is_due:
            self._is_due = self._loop.soon(self._turned)

    def _turned(self) -> None:
        self._is_due, self._left = False, CALLS_AT_ONCE
        while self._waiting and self._left:
            self._take()
            self._waiting.popleft()()
