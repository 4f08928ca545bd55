"""
Answers for the messages of one connection: two token buckets and a size, in one function without an allocation.

It counts what a client sends, delivers nothing and closes nothing. Under half a microsecond a message
(``python -m benchmarks.limits``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..._close import CloseCode
from ..._plugin import ALLOW, Allow, Close, Delay, Drop, Gate
from ._rate import Rate

TOO_BIG = Close(int(CloseCode.MESSAGE_TOO_BIG), "message_too_big")


def gates(
    messages: Rate | None, volume: Rate | None, max_bytes: int | None, clock: Callable[[], float]
) -> Callable[[], Gate]:
    """
    Make what makes the gate of a connection.

    A message that is dropped costs nothing. One that is delayed waits until what it lacks is there, and is paid for as
    it passes, at the first moment at which both rates allow it: no bucket saves up meanwhile what it cannot hold.

    Args:
        messages: Messages per time.
        volume: Bytes per time. A message larger than its burst could never pass, and closes.
        max_bytes: Bytes of a message.
        clock: Gives seconds that never go back.

    Returns:
        A function that makes a gate with full buckets.
    """
    biggest = min(math.inf if max_bytes is None else max_bytes, math.inf if volume is None else volume.size)
    number_rate, number_size = (messages.per_second, messages.size) if messages else (0.0, math.inf)
    byte_rate, byte_size = (volume.per_second, volume.size) if volume else (0.0, math.inf)
    refuse = _refusals(messages, volume)

    def is_small(size: int, /) -> Allow | Close:
        return ALLOW if size <= biggest else TOO_BIG

    def make() -> Gate:
        numbers, octets, at_s, drops = number_size, byte_size, clock(), 0

        def gate(size: int, /) -> Allow | Drop | Delay | Close:
            nonlocal numbers, octets, at_s, drops
            if size > biggest:
                return TOO_BIG
            now_s = clock()
            numbers += (now_s - at_s) * number_rate
            if numbers > number_size:
                numbers = number_size
            octets += (now_s - at_s) * byte_rate
            if octets > byte_size:
                octets = byte_size
            at_s = now_s
            if numbers >= 1.0 and octets >= size:
                numbers -= 1.0
                octets -= size
                return ALLOW
            answer = refuse(1.0 - numbers, size - octets, drops + 1)
            if isinstance(answer, Drop):
                drops += 1
            elif isinstance(answer, Delay):
                numbers = min(number_size, numbers + answer.delay_s * number_rate) - 1.0
                octets = min(byte_size, octets + answer.delay_s * byte_rate) - size
                at_s = now_s + answer.delay_s
            return answer

        return gate

    return make if messages or volume else lambda: is_small


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
