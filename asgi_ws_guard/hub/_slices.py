"""How long a hub may hold the event loop at a time, whatever number of its senders run in one turn of the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context

SLICE_S = 0.002
"""Seconds of work in one turn of the loop: what the loop is held is this, and one look's worth more."""
SHARE = 0.25
"""Of what others took since the hub's last turn, when that is more: or it would fall behind them in a busy loop."""
LONG_SLICE_S = 0.010
"""Seconds of work in one turn at most, whatever others take."""


class Slices:
    """The time that all senders of one hub have in this turn of the loop."""

    __slots__ = ("_clock", "_has_begun", "_others_s", "_seen_s", "_turned_s", "_until_s")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """
        Begin.

        Args:
            clock: Seconds, for differences only; of real time, also where a loop's clock stands still.
        """
        self._clock = clock
        self._has_begun = False
        self._until_s = self._seen_s = self._turned_s = self._others_s = 0.0

    def is_over(self) -> bool:
        """Tell whether the time of this turn is spent; the first call of a turn begins it."""
        now_s = self._seen_s = self._clock()
        if not self._has_begun:
            self._has_begun = True
            self._until_s = now_s + self._slice_s(now_s)
            asyncio.get_running_loop().call_soon(self._turned, context=Context())
            return False
        return now_s >= self._until_s

    def charge(self, cost_s: float) -> None:
        """
        Take time of this turn for work that this one leaves to the next.

        Args:
            cost_s: Seconds that it is going to take.
        """
        self._until_s -= cost_s

    async def wait(self) -> None:
        """Let the loop go round for as long as its turn is spent."""
        while self.is_over():  # noqa: ASYNC110 - nobody sets an event for the turn of a loop
            await asyncio.sleep(0)

    def _slice_s(self, now_s: float) -> float:
        """Give the seconds of a turn that begins now: a loop that was idle since the last one is not busy."""
        is_busy = now_s - self._turned_s <= self._others_s
        return min(max(SLICE_S, SHARE * self._others_s), LONG_SLICE_S) if is_busy else SLICE_S

    def _turned(self) -> None:
        """Take note of what others took, from the end of the hub's work in one turn to here in the next."""
        self._has_begun = False
        self._turned_s = self._clock()
        self._others_s = self._turned_s - min(self._seen_s, self._until_s)
