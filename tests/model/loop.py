"""
An event loop that runs one handle at a time, whichever it is told to, in virtual time.

asyncio runs what is ready in the order in which it became ready. Whoever relies on that is right on no other loop, and
hides every other interleaving from its tests. It waits for nothing and opens no socket but those of asyncio's own.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from asgi_ws_guard.testing import VirtualTimeLoop

Choose = Callable[[int], int]
"""Gives a number below its argument: which one of so many."""


class ChosenLoop(VirtualTimeLoop):
    """
    A loop whose every turn runs one ready handle.

    Attributes:
        choose: Which of the ready handles is next; 0 is the one that asyncio would run.
        after: Called after each handle.
        steps: Handles that were run; those that were cancelled before do not count.
    """

    def __init__(self, choose: Choose, after: Callable[[], None]) -> None:
        super().__init__()
        self.choose = choose
        self.after = after
        self.steps = 0
        self._turns_left = 0
        self._insides: Any = self

    @property
    def is_idle(self) -> bool:
        """Whether nothing can run before the clock moves."""
        self._take_due()
        return not self._insides._ready

    @property
    def next_s(self) -> float | None:
        """When the next timer is due, None when there is none."""
        self._take_due()
        return self._insides._scheduled[0].when() if self._insides._scheduled else None

    def timers(self) -> list[float]:
        """Give the times of all timers that were not cancelled."""
        return [timer.when() for timer in self._insides._scheduled if not timer.cancelled()]

    def turns(self, at_most: int) -> None:
        """
        Run ready handles.

        Args:
            at_most: How many; fewer when no more are ready.
        """
        self._turns_left = at_most
        if at_most and not self.is_idle:
            self.run_forever()

    def _run_once(self) -> None:
        ready = self._insides._ready
        if not self.is_idle:
            at = self.choose(len(ready)) if len(ready) > 1 else 0
            handle = ready[at]
            del ready[at]
            if not handle.cancelled():
                handle._run()
                self.steps += 1
                self.after()
        self._turns_left -= 1
        if self._turns_left <= 0 or self.is_idle:
            self.stop()

    def _take_due(self) -> None:
        """Make the timers ready that are due, and forget those that were cancelled."""
        scheduled = self._insides._scheduled
        while scheduled and (scheduled[0].cancelled() or scheduled[0].when() <= self.time()):
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if timer.cancelled():
                self._insides._timer_cancelled_count -= 1
            else:
                self._insides._ready.append(timer)
