"""
Messages and bytes of all connections of one identity or one address: their common buckets, and the gates before them.

A message is paid for in all its buckets at the moment at which it passes, or in none. A bucket is kept after the last
connection until it would be full again: to connect anew refills nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable, Mapping
from functools import partial

from ..._plugin import ALLOW, Allow, Close, Delay, Drop, Gate
from ._gate import TOO_BIG
from ._lease import Lease
from ._meter import Meter
from ._rate import Rate
from ._storage import Storage

AWAITS = "awaits_storage"
"""The word for a message of which nobody knows yet whether it is one too many."""


class SharedGate:
    """
    Asks the gate of a connection, and then its common buckets.

    Args:
        own: The gate of the connection alone, None without one.
        meters: Its buckets, at least one.
    """

    __slots__ = ("_biggest", "_drops", "_has_left", "_own", "meters")

    def __init__(self, own: Gate | None, meters: tuple[Meter, ...]) -> None:
        self._own, self.meters = own, meters
        self._drops = 0
        self._has_left = False
        self._biggest = min(meter.rate.size if meter.name.startswith("bytes") else math.inf for meter in meters)

    def __call__(self, size: int, /) -> Allow | Drop | Delay | Close:
        """Answer one message. One that is larger than a burst of bytes could never pass, and closes."""
        if size > self._biggest:
            return TOO_BIG
        answer = ALLOW if self._own is None else self._own(size)
        if isinstance(answer, Allow):
            return self._passed(size)
        if isinstance(answer, Delay):
            return Delay(answer.delay_s, answer.reason, partial(self._passed, size))
        return answer

    def leave(self) -> None:
        """Let nothing pass any more, and wait in no bucket: the connection is over."""
        self._has_left = True
        self._leave_queues()

    def _leave_queues(self) -> None:
        for meter in self.meters:
            meter.leave_queue(self)

    def _passed(self, size: int) -> Allow | Drop | Delay | Close:
        """Take from all buckets, if all have enough."""
        if self._has_left:
            return Drop("has_left")
        for meter in self.meters:
            if not meter.has_room(size):
                return self._looked_at(size)
        for meter in self.meters:
            meter.take(size)
        return ALLOW

    def _looked_at(self, size: int) -> Allow | Drop | Delay | Close:
        """Take from all buckets although somebody waits, or find out for how long to wait."""
        waits = [(*meter.wait_s(self, size), meter) for meter in self.meters]
        over = [one for one in waits if one[0]]
        if over:
            return self._refused(size, over)
        for meter in self.meters:
            meter.take(size)
        return ALLOW

    def _refused(self, size: int, over: list[tuple[float, bool, Meter]]) -> Drop | Delay | Close:
        """Give the strictest answer of those that have too little; that nobody knows yet is no reason to drop."""
        full = [meter for _, is_sure, meter in over if is_sure]
        for meter in full:
            drops_enough = meter.rate.max_drops is not None and self._drops + 1 >= meter.rate.max_drops
            if meter.rate.answer == "close" or drops_enough:
                self._leave_queues()
                return Close(meter.rate.close_code, f"too_many_{meter.name}")
        for meter in full:
            if meter.rate.answer == "drop":
                self._leave_queues()
                self._drops += 1
                return Drop(f"too_many_{meter.name}")
        wait_s, _, slowest = max(over, key=lambda one: one[0])
        return Delay(wait_s, f"too_many_{slowest.name}" if full else AWAITS, partial(self._passed, size))


class Shared:
    """
    The buckets of all keys.

    Args:
        rates: Dict: name of an option, which ends in ``"_per_"`` and what is counted by -> its rate.
        max_keys: Buckets that are kept for keys without a connection.
        clock: Gives seconds that never go back.
        storage: Where all processes count, None for this one alone.
    """

    def __init__(
        self, rates: Mapping[str, Rate], max_keys: int, clock: Callable[[], float], storage: Storage | None
    ) -> None:
        self._rates, self._max_keys, self._clock, self._storage = rates, max_keys, clock, storage
        self._full_s = max((rate.size / rate.per_second for rate in rates.values()), default=0.0)
        self._used: dict[tuple[str, Hashable], Meter] = {}
        self._idle: dict[tuple[str, Hashable], Meter] = {}  # in the order in which their last connection has left
        self._gates: dict[str, tuple[SharedGate, tuple[tuple[str, Hashable], ...]]] = {}  # connection id -> its buckets

    def __len__(self) -> int:
        return len(self._used) + len(self._idle)

    def join(self, connection_id: str, keys: Mapping[str, Hashable], own: Gate | None) -> Gate | None:
        """
        Make the gate of a connection.

        Args:
            connection_id: The connection.
            keys: Dict: ``"address"``, ``"identity"`` -> which.
            own: The gate of the connection alone, None without one.

        Returns:
            The gate; *own* when the connection shares nothing.
        """
        self.leave(connection_id)
        counted = {name: name.rpartition("_per_")[2] for name in self._rates}
        wanted = tuple((name, keys[by]) for name, by in counted.items() if by in keys)
        if not wanted:
            return own
        gate = SharedGate(own, tuple(self._meter(*one) for one in wanted))
        self._gates[connection_id] = gate, wanted
        for meter in gate.meters:
            meter.members += 1
            if meter.lease is not None:
                meter.lease.fill()
        return gate

    def leave(self, connection_id: str) -> None:
        """
        Hear of the end of a connection.

        Args:
            connection_id: The connection; nothing happens when it shares nothing.
        """
        gate, wanted = self._gates.pop(connection_id, (None, ()))
        if gate is None:
            return
        gate.leave()
        for one, meter in zip(wanted, gate.meters, strict=True):
            meter.members -= 1
            if not meter.members:
                meter.since_s = self._clock()
                self._idle[one] = self._used.pop(one)
                if meter.lease is not None:
                    meter.lease.cancel()
        self._forget()

    async def aclose(self) -> None:
        """Ask the storage for nothing more, until a message needs it, and wait for what was asked."""
        leases = [meter.lease for meter in self._used.values() if meter.lease is not None]
        tasks = [task for task in [lease.cancel() for lease in leases] if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _meter(self, name: str, key: Hashable) -> Meter:
        self._forget()
        meter = self._used.get((name, key)) or self._idle.pop((name, key), None)
        if meter is None:
            rate, lease = self._rates[name], None
            if self._storage is not None:
                ask = partial(self._storage.lease, name, rate, key)
                lease = Lease(rate, ask, self._storage.fails_closed, self._clock)
            meter = Meter(name, rate, lease, self._clock)
        self._used[name, key] = meter
        return meter

    def _forget(self) -> None:
        """Forget buckets that nobody uses, from the oldest on: those that are full again, those beyond the bound."""
        now_s = self._clock()
        while self._idle:
            oldest = next(iter(self._idle))
            if now_s - self._idle[oldest].since_s < self._full_s and len(self._idle) <= self._max_keys:
                break
            del self._idle[oldest]
