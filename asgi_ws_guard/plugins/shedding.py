"""
Denies handshakes while the event loop is late: a process that cannot serve those it has takes no more.

It measures the loop on which it is asked, by a timer that runs only while handshakes come; it closes nothing.
"""

from __future__ import annotations

import asyncio
import math
from contextvars import Context
from weakref import WeakKeyDictionary

from .._close import CloseStatus
from .._events import Handshake
from .._exceptions import ConfigurationError
from .._plugin import ALLOW, Allow, Deny

IDLE_TICKS = 100
"""The timer ends after so many intervals without a handshake."""


class Shedding:
    """
    Deny with 503 while the event loop lags, reason ``"overload"``.

    The lag is how much later than asked for the loop calls a timer. Under trio there is none, and nothing is denied.

    Args:
        max_lag_s: From this lag on handshakes are denied.
        resume_lag_s: Until the lag is at most this; None: half of `max_lag_s`.
        interval_s: How often the lag is measured; also the shortest time that shedding lasts.
        retry_after_s: What Retry-After says.

    Raises:
        ConfigurationError: An option is not allowed.
    """

    def __init__(
        self,
        *,
        max_lag_s: float = 0.5,
        resume_lag_s: float | None = None,
        interval_s: float = 0.1,
        retry_after_s: float = 5.0,
    ) -> None:
        for option, value in (
            *(("max_lag_s", max_lag_s), ("interval_s", interval_s), ("retry_after_s", retry_after_s)),
            ("resume_lag_s", max_lag_s if resume_lag_s is None else resume_lag_s),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigurationError(option, value, "a number of seconds, more than 0")
        if resume_lag_s is not None and resume_lag_s > max_lag_s:
            raise ConfigurationError("resume_lag_s", resume_lag_s, f"at most max_lag_s, which is {max_lag_s!r}")
        self._limits_s = (max_lag_s, max_lag_s / 2 if resume_lag_s is None else resume_lag_s)
        self._interval_s = interval_s
        retry_after = str(math.ceil(retry_after_s)).encode("ascii")
        headers = ((b"retry-after", retry_after),)
        self._deny = Deny(503, headers=headers, end=CloseStatus.RATE_LIMITED, reason="overload")
        self._meters: WeakKeyDictionary[asyncio.AbstractEventLoop, _Meter] = WeakKeyDictionary()

    def admit(self, handshake: Handshake) -> Allow | Deny:
        """
        Answer a handshake.

        Args:
            handshake: What the client asked for; it does not matter.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return ALLOW
        meter = self._meters.get(loop)
        if meter is None:
            meter = self._meters[loop] = _Meter(*self._limits_s, self._interval_s)
        return self._deny if meter.is_late(loop.time()) else ALLOW


class _Meter:
    """The lag of one loop, which is never held: its timers hold this."""

    def __init__(self, max_lag_s: float, resume_lag_s: float, interval_s: float) -> None:
        self._max_lag_s = max_lag_s
        self._resume_lag_s = resume_lag_s
        self._interval_s = interval_s
        self._due_s: float | None = None  # None: no timer is running
        self._idle_ticks = 0
        self._sheds = False

    def is_late(self, now_s: float) -> bool:
        """Tell whether the loop lags; a timer that is overdue at this moment counts, though it has not been called."""
        self._idle_ticks = 0
        if self._due_s is None:
            self._start(now_s)
        elif now_s - self._due_s >= self._max_lag_s:
            self._sheds = True
        return self._sheds

    def _start(self, now_s: float) -> None:
        self._due_s = now_s + self._interval_s
        asyncio.get_running_loop().call_at(self._due_s, self._tick, context=Context())

    def _tick(self) -> None:
        now_s = asyncio.get_running_loop().time()
        lag_s = 0.0 if self._due_s is None else now_s - self._due_s
        self._sheds = lag_s >= (self._resume_lag_s if self._sheds else self._max_lag_s)
        self._idle_ticks += 1
        if self._idle_ticks < IDLE_TICKS:
            self._start(now_s)
        else:
            self._due_s, self._sheds = None, False
