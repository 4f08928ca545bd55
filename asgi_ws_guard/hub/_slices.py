"""How long a hub may hold the event loop at a time, whatever number of its senders run in one turn of the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context

SLICE_S = 0.002
"""Seconds of work in one turn of the loop: what the loop is held is this, and one look's worth more."""


class Slices:
    """The time that all senders of one hub have in this turn of the loop."""

    __slots__ = ("_clock", "_until_s")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """
        Begin.

        Args:
            clock: Seconds, for differences only; of real time, also where a loop's clock stands still.
        """
        self._clock = clock
        self._until_s: float | None = None

    def is_over(self) -> bool:
        """Tell whether the time of this turn is spent; the first call of a turn begins it."""
        if self._until_s is None:
            self._until_s = self._clock() + SLICE_S
            asyncio.get_running_loop().call_soon(self._turned, context=Context())
            return False
        return self._clock() >= self._until_s

    def charge(self, cost_s: float) -> None:
        """
        Take time of this turn for work that this one leaves to the next.

        Args:
            cost_s: Seconds that it is going to take.
        """
        if self._until_s is not None:
            self._until_s -= cost_s

    async def wait(self) -> None:
        """Let the loop go round for as long as its turn is spent."""
        while self.is_over():  # noqa: ASYNC110 - nobody sets an event for the turn of a loop
            await asyncio.sleep(0)

    def _turned(self) -> None:
        self._until_s = None
