"""
Tokens of one key that were reserved in a storage for this process, ahead of need: a gate must answer at once.

It asks in a task that lives no longer than the question, and waits for nothing itself. What was reserved is spent or
expires, it is never given back: so all processes together spend no more than the storage has granted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context

from ._rate import Rate

PARTS = 10
"""A lease is one such part of what the storage allows in a window: what a process may keep from the others."""
ASK_S = 0.005
"""Seconds until it is looked again whether the storage has answered."""
MIN_RETRY_S, MAX_RETRY_S = 0.1, 1.0
"""Seconds after a refusal without another question, within which it is the time of one token."""


class Lease:
    """
    The lease of one key.

    Args:
        rate: The rate of all processes.
        ask: Reserves a number: True when it was granted, False when not, None when the storage is away.
        fails_closed: Whether nothing passes while the storage is away; else everything does.
        clock: Gives seconds that never go back.
    """

    __slots__ = (
        "_ask",
        "_away",
        "_batch",
        "_clock",
        "_fails_closed",
        "_left",
        "_need",
        "_parcels",
        "_retry_at_s",
        "_retry_s",
        "_task",
        "_window_s",
    )

    def __init__(
        self, rate: Rate, ask: Callable[[int], Awaitable[bool | None]], fails_closed: bool, clock: Callable[[], float]
    ) -> None:
        number, self._window_s = rate.window
        self._batch = max(1, number // PARTS)
        self._retry_s = min(max(1.0 / rate.per_second, MIN_RETRY_S), MAX_RETRY_S)
        self._ask, self._fails_closed, self._clock = ask, fails_closed, clock
        self._parcels: deque[tuple[float, int]] = deque()  # when it expires, how much; the oldest first
        self._left = self._need = 0
        self._away = False
        self._retry_at_s = clock()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_unsure(self) -> bool:
        """Whether the storage has yet to answer: what is not there may be there in a moment."""
        return self._is_asking and not self._away

    @property
    def _is_asking(self) -> bool:
        return self._task is not None and not self._task.done()

    def wait_s(self, cost: int) -> float:
        """
        Tell whether there is so much, and ask for more if there is not.

        Args:
            cost: Tokens.

        Returns:
            0 when they are there, or are not needed as the storage is away; else the seconds until it is worth while
            to look again.
        """
        now_s = self._clock()
        while self._parcels and self._parcels[0][0] <= now_s:
            self._left -= self._parcels.popleft()[1]
        if self._left >= cost:
            return 0.0
        self._need = max(self._need, cost)
        self.fill()
        if self._away and not self._fails_closed:
            return 0.0
        return ASK_S if self._is_asking else max(self._retry_at_s - now_s, ASK_S)

    def take(self, cost: int) -> None:
        """
        Spend tokens, the oldest first, and ask for more when half of the lease is gone.

        Args:
            cost: Tokens; after `wait_s` has given 0 for them.
        """
        while cost and self._parcels:
            expires_s, number = self._parcels.popleft()
            spent = min(number, cost)
            cost -= spent
            self._left -= spent
            if number > spent:
                self._parcels.appendleft((expires_s, number - spent))
        if self._left * 2 <= self._batch:
            self.fill()

    def fill(self) -> None:
        """Start to ask for a new lease, unless enough is there, it is being asked, or it was refused just now."""
        is_enough = self._left >= self._need and self._left * 2 > self._batch
        if not is_enough and not self._is_asking and self._clock() >= self._retry_at_s:
            # In an empty context: what belongs to one connection is not for the question of many.
            self._task = Context().run(asyncio.get_running_loop().create_task, self._fill())

    def cancel(self) -> asyncio.Task[None] | None:
        """
        Ask no more.

        Returns:
            The task that is left to end, None when there is none.
        """
        task, self._task = self._task, None
        if task is None or task.done():
            return None
        task.cancel()
        return task

    async def _fill(self) -> None:
        """Reserve a whole lease, or, when there is no room for that, what a message waits for or will."""
        asked_s, least = self._clock(), max(1, self._need - self._left)
        number = max(self._batch, self._need) - self._left
        granted = await self._ask(number)
        if granted is False and least < number:
            number, granted = least, await self._ask(least)
        self._need = 0
        self._away = granted is None
        if granted:
            self._parcels.append((asked_s + self._window_s, number))
            self._left += number
        else:
            self._retry_at_s = self._clock() + (MAX_RETRY_S if granted is None else self._retry_s)
