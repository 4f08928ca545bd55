"""
A token bucket for each key: whether one more may come now, and if not, when.

The table is bounded: a bucket that is full again is forgotten, it says no more than none; beyond `max_keys` the one
that was used longest ago goes, whose key starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from ._rate import Rate


class Buckets:
    """
    Buckets of one rate.

    Args:
        rate: How fast they fill, and how much they hold.
        max_keys: How many there may be.
        clock: Gives seconds that never go back.
    """

    def __init__(self, rate: Rate, max_keys: int, clock: Callable[[], float]) -> None:
        self._rate = rate.per_second
        self._size = rate.size
        self._full_s = rate.size / rate.per_second
        self._max_keys = max_keys
        self._clock = clock
        self._filled: dict[Hashable, tuple[float, float]] = {}  # key -> tokens, when; in the order of their last use

    def __len__(self) -> int:
        return len(self._filled)

    def wait_s(self, key: Hashable) -> float:
        """
        Take a token, if there is one.

        Args:
            key: Whose bucket.

        Returns:
            0 when it was taken, else the seconds until there is one; a refusal costs nothing.
        """
        now_s = self._clock()
        tokens, at_s = self._filled.pop(key, (self._size, now_s))
        tokens = min(self._size, tokens + (now_s - at_s) * self._rate)
        wait_s = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._rate
        self._forget(now_s)
        self._filled[key] = (tokens if wait_s else tokens - 1.0, now_s)
        return wait_s

    def _forget(self, now_s: float) -> None:
        """Forget from the oldest on; each call makes room for one more, and mostly looks at one."""
        filled = self._filled
        while filled:
            oldest = next(iter(filled))
            if now_s - filled[oldest][1] < self._full_s and len(filled) < self._max_keys:
                break
            del filled[oldest]
