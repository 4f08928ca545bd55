"""The bounds that a hub sets each of its connections, checked when the hub is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from .._exceptions import ConfigurationError
from ._checks import check_count, check_seconds
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
    messages, size = check_count("outbox_messages", outbox_messages), check_count("outbox_bytes", outbox_bytes)
    if send_timeout_s is not None:
        send_timeout_s = check_seconds("send_timeout_s", send_timeout_s, "a number of seconds, more than 0, or None")
    return Limits(messages, size, found, send_timeout_s)
