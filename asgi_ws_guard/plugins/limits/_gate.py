"""
Answers for the messages of one connection: two token buckets and a size.

It counts what a client sends, delivers nothing and closes nothing. As long as the buckets are well filled it is asked
once for a number of messages (`CreditingGate`); else a message costs under half a microsecond
(``python -m benchmarks.limits``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..._close import CloseCode
from ..._plugin import ALLOW, Allow, Close, Delay, Drop, Gate
from ._rate import Rate

MAX_CREDIT = 1024
"""Messages that pass unasked at most: what asking costs is then some 1 ns for each."""
PART = 16
"""The credit is one such part of a burst: how far a bucket may be below that of an exact count."""
LEAST_CREDIT = 4
"""Messages for which it is worth while to give credit."""
LEAST_BYTES = 256
"""Bytes up to which a message passes unasked at least; a smaller number may do so instead."""
_ENDLESS = 2**62
TOO_BIG = Close(int(CloseCode.MESSAGE_TOO_BIG), "message_too_big")


class SizeGate:
    """
    Answers for the size of a message; one gate does for all connections.

    Args:
        max_bytes: Bytes of a message.
    """

    __slots__ = ("credit_bytes",)

    def __init__(self, max_bytes: int) -> None:
        self.credit_bytes = max_bytes

    def __call__(self, size: int, /) -> Allow | Close:
        """Answer one message."""
        return ALLOW if size <= self.credit_bytes else TOO_BIG

    def credit(self) -> int:
        """Let every message pass that is small enough."""
        return _ENDLESS

    def settle(self, messages: int, size: int, /) -> None:
        """Hear what passed: it does not count."""


class RateLimits:
    """
    What the gates of all connections have in common.

    Args:
        messages: Messages per time.
        volume: Bytes per time. A message larger than its burst could never pass, and closes.
        max_bytes: Bytes of a message.
        clock: Gives seconds that never go back.
    """

    __slots__ = ("biggest", "byte_rate", "byte_size", "clock", "credit", "credit_bytes", "rate", "refuse", "size")

    def __init__(
        self, messages: Rate | None, volume: Rate | None, max_bytes: int | None, clock: Callable[[], float]
    ) -> None:
        self.biggest = min(math.inf if max_bytes is None else max_bytes, math.inf if volume is None else volume.size)
        self.rate, self.size = (messages.per_second, messages.size) if messages else (0.0, math.inf)
        self.byte_rate, self.byte_size = (volume.per_second, volume.size) if volume else (0.0, math.inf)
        self.clock = clock
        self.refuse = _refusals(messages, volume)
        credit = int(min(MAX_CREDIT, self.size // PART, self.byte_size // PART // LEAST_BYTES))
        self.credit = credit if credit >= LEAST_CREDIT else 0
        self.credit_bytes = int(min(self.biggest, self.byte_size // PART // max(credit, 1), _ENDLESS))

    def gate(self) -> Gate:
        """Make the gate of one connection, with full buckets."""
        return CreditGate(self) if self.credit else RateGate(self)


class RateGate:
    """
    Answers for the messages of one connection.

    A message that is dropped costs nothing. One that is delayed waits until what it lacks would be there, so that it
    passes at the first moment at which the rate allows it, and is paid for as of then.
    """

    __slots__ = ("_at_s", "_drops", "_limits", "_numbers", "_octets")

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._numbers, self._octets = limits.size, limits.byte_size
        self._at_s = limits.clock()
        self._drops = 0

    def __call__(self, size: int, /) -> Allow | Drop | Delay | Close:
        """Answer one message."""
        limits = self._limits
        if size > limits.biggest:
            return TOO_BIG
        self._fill(limits.clock())
        if self._numbers >= 1.0 and self._octets >= size:
            self._numbers -= 1.0
            self._octets -= size
            return ALLOW
        answer = limits.refuse(1.0 - self._numbers, size - self._octets, self._drops + 1)
        if isinstance(answer, Drop):
            self._drops += 1
        elif isinstance(answer, Delay):
            self._fill(self._at_s + answer.delay_s)  # when it arrives
            self._numbers -= 1.0
            self._octets -= size
        return answer

    def _fill(self, at_s: float) -> None:
        limits = self._limits
        passed_s = at_s - self._at_s  # less than 0 when it is asked while one waits
        self._at_s = at_s
        numbers = self._numbers + passed_s * limits.rate
        self._numbers = numbers if numbers < limits.size else limits.size
        octets = self._octets + passed_s * limits.byte_rate
        self._octets = octets if octets < limits.byte_size else limits.byte_size


class CreditGate(RateGate):
    """
    Answers for the messages of one connection, and lets some pass unasked as long as both buckets hold enough.

    The buckets are those of an exact count, or hold less: what passed unasked is counted as if it had passed only when
    it is heard of, and no more may pass than the buckets hold already. Where a bucket was full meanwhile that is less
    by the credit at most, one `PART` of the burst.
    """

    __slots__ = ("credit_bytes",)

    def __init__(self, limits: RateLimits) -> None:
        super().__init__(limits)
        self.credit_bytes = limits.credit_bytes

    def credit(self) -> int:
        """Let messages pass for which both buckets hold enough, whatever their size; none when they are low."""
        limits = self._limits
        has_room = self._numbers >= limits.credit and self._octets >= limits.credit * limits.credit_bytes
        return limits.credit if has_room else 0

    def settle(self, messages: int, size: int, /) -> None:
        """Count what passed unasked."""
        self._fill(self._limits.clock())
        self._numbers -= messages
        self._octets -= size


def gates(
    messages: Rate | None, volume: Rate | None, max_bytes: int | None, clock: Callable[[], float]
) -> Callable[[], Gate]:
    """
    Make what makes the gate of a connection.

    Args:
        messages: Messages per time.
        volume: Bytes per time.
        max_bytes: Bytes of a message.
        clock: Gives seconds that never go back.

    Returns:
        A function that gives a gate with full buckets.
    """
    if messages or volume or max_bytes is None:
        return RateLimits(messages, volume, max_bytes, clock).gate
    size = SizeGate(max_bytes)
    return lambda: size


def _refusals(messages: Rate | None, volume: Rate | None) -> Callable[[float, float, int], Drop | Delay | Close]:
    """Make the answer to a message that exceeds one rate or both: the strictest of the two."""
    limits = [(name, rate) for name, rate in (("messages", messages), ("bytes", volume)) if rate is not None]
    closes = {name: Close(rate.close_code, f"too_many_{name}") for name, rate in limits}
    drops = {name: Drop(f"too_many_{name}") for name, _ in limits}

    def refuse(lacking_number: float, lacking_bytes: float, drop: int) -> Drop | Delay | Close:
        lacks = {"messages": lacking_number, "bytes": lacking_bytes}
        over = [(name, rate) for name, rate in limits if lacks[name] > 0.0]
        for name, rate in over:
            if rate.answer == "close" or (rate.max_drops is not None and drop >= rate.max_drops):
                return closes[name]
        for name, rate in over:
            if rate.answer == "drop":
                return drops[name]
        wait_s, name = max((lacks[name] / rate.per_second, name) for name, rate in over)
        return Delay(wait_s, f"too_many_{name}")

    return refuse
