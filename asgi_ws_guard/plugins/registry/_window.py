"""
The last five minutes in bounded memory, and close codes in a finite set.

Times are seconds of any one clock that the caller reads; nothing here reads one or takes a lock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ..._close import CloseCode

BUCKET_S = 10.0
BUCKETS = 30
WINDOW_S = BUCKET_S * BUCKETS
MAX_PRIVATE_CODES = 32
"""Close codes beside the registered ones that are told apart: a client may send two thousand of them."""


class RecentCounts:
    """
    Numbers by word in a ring of buckets.

    The bucket that is being filled counts as a whole one: the window is up to `BUCKET_S` shorter than `WINDOW_S`.
    """

    __slots__ = ("_counts", "_places")

    def __init__(self) -> None:
        self._places = [-1] * BUCKETS
        self._counts: list[dict[str, int]] = [{} for _ in range(BUCKETS)]

    def add(self, word: str, at_s: float, number: int = 1) -> None:
        """
        Count something.

        Args:
            word: From a finite set.
            at_s: When it happened; what has left the ring already is not counted.
            number: How often; -1 takes back what was counted at the same time before.
        """
        place = int(at_s // BUCKET_S)
        slot = place % BUCKETS
        if self._places[slot] < place:
            self._places[slot], self._counts[slot] = place, {}
        if self._places[slot] == place:
            counts = self._counts[slot]
            counts[word] = counts.get(word, 0) + number

    def sums(self, now_s: float) -> dict[str, int]:
        """
        Sum up the window that ends now.

        Args:
            now_s: Now.

        Returns:
            Dict: word -> number, without zeros.
        """
        first = int(now_s // BUCKET_S) - BUCKETS + 1
        sums: dict[str, int] = {}
        for place, counts in zip(self._places, self._counts, strict=True):
            if place >= first:
                for word, number in counts.items():
                    sums[word] = sums.get(word, 0) + number
        return {word: number for word, number in sums.items() if number}


@dataclass(frozen=True, slots=True)
class Sample:
    """
    Sums that only grow, as they were at one time.

    Attributes:
        at_s: When.
        attempted: Messages that applications gave to `send`.
        forwarded: Messages that servers took.
        failures: Exceptions of observers.
    """

    at_s: float
    attempted: int = 0
    forwarded: int = 0
    failures: int = 0


class Samples:
    """
    Samples of the window that ends now, one in each `BUCKET_S` at most.

    They are taken when somebody reads, so that nothing of it costs a connection anything. Who reads seldom gets the
    difference to the last reading, however long ago.
    """

    __slots__ = ("_kept",)

    def __init__(self, first: Sample) -> None:
        self._kept = deque([first])

    def since(self, now: Sample) -> Sample:
        """
        Tell what has come since the beginning of the window, and keep *now* for later.

        Args:
            now: The sums of this moment.

        Returns:
            The differences; ``at_s`` is the number of seconds that they are about.
        """
        kept = self._kept
        while len(kept) > 1 and now.at_s - kept[1].at_s >= WINDOW_S:
            kept.popleft()
        base = kept[0]
        if now.at_s - kept[-1].at_s >= BUCKET_S:
            kept.append(now)
        return Sample(
            max(now.at_s - base.at_s, 0.0),
            max(now.attempted - base.attempted, 0),
            max(now.forwarded - base.forwarded, 0),
            max(now.failures - base.failures, 0),
        )


class CloseCodes:
    """Numbers by close code: the registered ones, a bounded number of others, and one sum for the rest."""

    __slots__ = ("_counts", "_private")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._private: set[int] = set()

    def add(self, code: int | None, number: int = 1) -> None:
        """
        Count a close code.

        Args:
            code: Any integer; None for an end without one.
            number: How often; -1 takes back what was counted before.
        """
        word = self._word(code)
        self._counts[word] = self._counts.get(word, 0) + number

    def counts(self) -> dict[str, int]:
        """Give the numbers. Dict: code, ``"none"`` or ``"other"`` -> number, without zeros."""
        return {word: number for word, number in self._counts.copy().items() if number}

    def _word(self, code: int | None) -> str:
        if code is None:
            return "none"
        if code in _REGISTERED or code in self._private:
            return str(int(code))
        if len(self._private) >= MAX_PRIVATE_CODES:
            return "other"
        self._private.add(code)
        return str(code)


_REGISTERED = frozenset(code.value for code in CloseCode)
