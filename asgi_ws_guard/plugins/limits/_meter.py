"""
The token bucket of one rate and one key, which several connections share, with its queue.

Who comes first passes first; but nobody holds up another bucket while waiting in this one. It answers nobody.
"""

from __future__ import annotations

from collections.abc import Callable

from ._lease import Lease
from ._rate import Rate

SLACK = 1e-9
"""Of a token: a sum of fractions that should be whole may be less by so much."""
MIN_WAIT_S = 1e-4
"""Seconds: less is no time for a timer."""


class Meter:
    """
    The bucket of one rate and one key.

    Args:
        name: Name of the option, such as ``"messages_per_identity"``.
        rate: How fast it fills, and how much it holds.
        lease: What is reserved in the storage, None without one.
        clock: Gives seconds that never go back.

    Attributes:
        members: Live connections.
        since_s: When the last one has left.
    """

    __slots__ = (
        "_at_s",
        "_clock",
        "_counts_bytes",
        "_per_second",
        "_size",
        "_tokens",
        "_waiting",
        "lease",
        "members",
        "name",
        "rate",
        "since_s",
    )

    def __init__(self, name: str, rate: Rate, lease: Lease | None, clock: Callable[[], float]) -> None:
        self.name, self.rate, self.lease = name, rate, lease
        self.members, self.since_s = 0, 0.0
        self._clock, self._counts_bytes = clock, name.startswith("bytes")
        self._per_second, self._size = rate.per_second, rate.size
        self._tokens, self._at_s = rate.size, clock()
        self._waiting: dict[object, int] = {}  # gate -> tokens; in the order in which they have come

    def has_room(self, size: int) -> bool:
        """Tell whether a message may pass and nobody waits: what is asked first, for it is quick."""
        now_s = self._clock()  # as in `_fill`, but without its call: every message comes by here
        tokens = self._tokens + (now_s - self._at_s) * self._per_second
        self._tokens = tokens = tokens if tokens < self._size else self._size
        self._at_s = now_s
        cost = size if self._counts_bytes else 1
        return tokens >= cost and not self._waiting and (self.lease is None or self.lease.wait_s(cost) == 0.0)

    def wait_s(self, gate: object, size: int) -> tuple[float, bool]:
        """
        Tell whether a message may pass; if not, it has its place among those that wait.

        Args:
            gate: Whose message.
            size: Its bytes.

        Returns:
            0 when it may, else the seconds until it is to be asked again; and whether it is sure that it may not now.
        """
        self._fill()
        cost = size if self._counts_bytes else 1
        lacking = cost - self._tokens
        for other, its_cost in self._waiting.items():
            if other is gate:
                break
            lacking += its_cost
        if lacking > SLACK:
            self._waiting[gate] = cost
            return max(lacking / self._per_second, MIN_WAIT_S), True
        self.leave_queue(gate)
        if self.lease is None:
            return 0.0, True
        wait_s = self.lease.wait_s(cost)
        return wait_s, not self.lease.is_unsure

    def take(self, size: int) -> None:
        """Pay for a message that may pass."""
        cost = size if self._counts_bytes else 1
        self._tokens -= cost
        if self.lease is not None:
            self.lease.take(cost)

    def leave_queue(self, gate: object) -> None:
        """Wait no more."""
        self._waiting.pop(gate, None)

    def _fill(self) -> None:
        now_s = self._clock()
        tokens = self._tokens + (now_s - self._at_s) * self._per_second
        self._tokens = tokens if tokens < self._size else self._size
        self._at_s = now_s
