"""The bounds that a hub sets each of its connections, checked when the hub is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from .._exceptions import ConfigurationError
from ._outbox import Overflow


@dataclass(frozen=True, slots=True)
class Limits:
    """
    The bounds of each connection.

    Attributes:
        outbox_messages: Messages that may wait, beside the one under way.
        outbox_bytes: Bytes of payload that may wait.
        overflow: What a full outbox does.
        send_timeout_s: Seconds that the server may take for one message; None: no limit.
    """

    outbox_messages: int
    outbox_bytes: int
    overflow: Overflow
    send_timeout_s: float | None


def check_limits(*, outbox_messages: object, outbox_bytes: object, overflow: object, send_timeout_s: object) -> Limits:
    """
    Check the bounds.

    Raises:
        ConfigurationError: One of them is not allowed.
    """
    words: tuple[Overflow, ...] = get_args(Overflow)
    found = next((word for word in words if word == overflow), None)
    if found is None:
        raise ConfigurationError("overflow", overflow, f"one of {', '.join(words)}")
    messages, size = _count("outbox_messages", outbox_messages), _count("outbox_bytes", outbox_bytes)
    return Limits(messages, size, found, _seconds("send_timeout_s", send_timeout_s))


def _count(option: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(option, value, "an int, 1 or more")
    return value


def _seconds(option: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(option, value, "a number of seconds, more than 0, or None")
    return float(value)
