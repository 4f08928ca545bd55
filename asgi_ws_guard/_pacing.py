"""
Lets connections that were delayed go on one after the other, so that the rest of an event loop has its turns.

What a client sent meanwhile waits in the kernel, and its server reads and parses all of it, up to 256 KiB, in one go as
soon as it is asked for more (uvicorn 0.54). After a flood many connections come to that at once: 200 of them held the
loop for 240 ms. It delays nobody else and decides nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ._loops import AsyncioLoop, TrioLoop

TURNS = 3
"""Turns of the loop after which it has shown what it costs: its task goes on, asks for more, and is read for."""
AT_ONCE = 8
"""Let go together as long as that costs nothing to speak of."""
DEAR_S = 0.002
"""Seconds of those turns from which on one at a time is let go, and the loop is left to others for as long again."""


class Pacer:
    """Those that are to go on, on one event loop."""

    __slots__ = ("_at_once", "_is_busy", "_loop", "_since_s", "_turns", "_waiting")

    def __init__(self, loop: AsyncioLoop | TrioLoop) -> None:
        """
        Let nobody wait.

        Args:
            loop: The event loop.
        """
        self._loop = loop
        self._waiting: deque[Callable[[], object]] = deque()
        self._is_busy = False
        self._at_once = AT_ONCE
        self._since_s = 0.0
        self._turns = 0

    def let_go(self, call: Callable[[], object]) -> None:
        """
        Let one go on, at once when nobody else does.

        Args:
            call: Lets it; it must not raise.
        """
        self._waiting.append(call)
        if not self._is_busy:
            self._go_on()

    def _go_on(self) -> None:
        self._is_busy = bool(self._waiting)
        if not self._is_busy:
            return
        self._since_s, self._turns = self._loop.time(), TURNS
        for _ in range(min(self._at_once, len(self._waiting))):
            self._waiting.popleft()()
        self._loop.soon(self._see)

    def _see(self) -> None:
        """See, some turns later, how long the loop was held up."""
        self._turns -= 1
        if self._turns:
            self._loop.soon(self._see)
            return
        took_s = self._loop.time() - self._since_s
        if took_s >= DEAR_S:
            self._at_once = 1
            self._loop.later(took_s, self._go_on)
        else:
            self._at_once = min(2 * self._at_once, AT_ONCE)
            self._go_on()
