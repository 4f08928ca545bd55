"""
A rate: how many per time, how many at once, and the answer to whoever wants more.

It describes and counts nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from ..._close import CloseCode, may_send
from ..._exceptions import ConfigurationError
from ._checks import count, positive

Answer = Literal["deny", "delay", "drop", "close"]

_UNITS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_TEXT = re.compile(r"\s*(\d[\d_]{0,15})\s*/\s*(\d{1,9})?\s*(second|minute|hour|day)s?\s*", re.ASCII)
_ALLOWED = "a Rate, a text such as '20/second' or '100/10 seconds' (second, minute, hour, day), or None"


@dataclass(frozen=True, slots=True)
class Rate:
    """
    So many per time, by a token bucket: in any T seconds at most ``burst + number * T / per_s`` pass.

    Attributes:
        number: How many in `per_s` seconds in the long run, more than 0.
        per_s: Seconds, more than 0.
        burst: How many at once after a quiet time, 1 or more; None: `number`, at least 1.
        answer: What becomes of more. ``"deny"`` is the one answer at a handshake, 429 or 503 with Retry-After. A
            message ``"delay"`` delivers as soon as the rate allows, and reads none meanwhile, so that TCP pushes back;
            ``"drop"`` loses it; ``"close"`` ends the connection. None: what is usual, ``"deny"`` or ``"delay"``.
        close_code: With what ``"close"`` and `max_drops` end it: 1008, or 1013 for "try again later".
        max_drops: With ``"drop"``: close at this many dropped messages of one connection; None: never.

    Raises:
        ConfigurationError: A value is not allowed.
    """

    number: float
    per_s: float = 1.0
    burst: float | None = None
    answer: Answer | None = None
    close_code: int = int(CloseCode.POLICY_VIOLATION)
    max_drops: int | None = None

    def __post_init__(self) -> None:
        positive("number", self.number, "a number, more than 0")
        positive("per_s", self.per_s, "a number of seconds, more than 0")
        if self.burst is not None and positive("burst", self.burst, "a number, 1 or more, or None") < 1:
            raise ConfigurationError("burst", self.burst, "a number, 1 or more, or None")
        if self.answer not in (None, "deny", "delay", "drop", "close"):
            raise ConfigurationError("answer", self.answer, "'deny', 'delay', 'drop', 'close' or None")
        code = self.close_code
        if isinstance(code, bool) or not isinstance(code, int) or not may_send(code):
            raise ConfigurationError("close_code", code, "a close code that may be sent (1000 to 1014, 3000 to 4999)")
        count("max_drops", self.max_drops)
        if self.max_drops is not None and self.answer != "drop":
            raise ConfigurationError("max_drops", self.max_drops, "None, unless answer='drop'")

    @property
    def per_second(self) -> float:
        """How many in a second in the long run."""
        return self.number / self.per_s

    @property
    def size(self) -> float:
        """How many at once: what the bucket holds."""
        return max(self.number, 1.0) if self.burst is None else float(self.burst)

    @property
    def window(self) -> tuple[int, int]:
        """
        The same as a count in a window of whole seconds, as storages know it.

        Returns:
            The number, 1 or more, and the seconds in which a bucket fills up, rounded up.
        """
        window_s = max(1, math.ceil(round(self.size / self.per_second, 6)))  # 11 / (11 / 60) is a little over 60
        return max(1, math.floor(self.per_second * window_s + 1e-9)), window_s


def rate(option: str, value: object, answers: tuple[Answer, ...]) -> Rate | None:
    """
    Read a rate among the options.

    Args:
        option: Name of the option.
        value: A `Rate`, a text, or None.
        answers: Those that make sense there.

    Returns:
        The rate; None without a limit.

    Raises:
        ConfigurationError: It is neither, or its answer makes no sense there.
    """
    if value is None:
        return None
    found = value if isinstance(value, Rate) else _parse(option, value)
    if found.answer not in (None, *answers):
        words = " or ".join(repr(answer) for answer in answers)
        raise ConfigurationError(option, value, f"a rate with the answer {words}")
    return found


def _parse(option: str, value: object) -> Rate:
    match = _TEXT.fullmatch(value) if isinstance(value, str) else None
    if match is None or not int(match[1]) or not int(match[2] or 1):
        raise ConfigurationError(option, value, _ALLOWED)
    return Rate(int(match[1]), int(match[2] or 1) * _UNITS_S[match[3]])
