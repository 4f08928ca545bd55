"""
How long a connection may take: a policy that lays down the same deadlines for everybody.

It answers and watches nothing itself; the guard has one timer for all of them. It is no policy for tokens, whose end is
kept for each identity.
"""

from __future__ import annotations

import math
import random

from .._close import CloseCode, may_send
from .._events import Handshake
from .._exceptions import ConfigurationError
from .._plugin import Allow, Deadlines


class Timeouts:
    """
    Close whoever takes too long; each limit is None for none.

    Args:
        handshake_s: Seconds from the handshake to the application's accept or denial; then it is denied with 503.
        idle_s: Seconds without a message from the client; then it is closed with `idle_code`, at most a quarter later.
        max_age_s: Seconds from the accept; then it is closed with `max_age_code`.
        send_s: Seconds that the peer may take for one message; then the connection ends without a close.
        idle_code: Close code of an idle connection.
        max_age_code: Close code of a connection that is too old; 1012 asks the client to come again.
        jitter: Up to which part of `max_age_s`, 0 to 1, the age of a connection is shortened by chance, so that those
            which came together do not come again together.

    Raises:
        ConfigurationError: An option has a value that is not allowed.
    """

    def __init__(
        self,
        *,
        handshake_s: float | None = None,
        idle_s: float | None = None,
        max_age_s: float | None = None,
        send_s: float | None = None,
        idle_code: int = int(CloseCode.NORMAL_CLOSURE),
        max_age_code: int = int(CloseCode.SERVICE_RESTART),
        jitter: float = 0.1,
    ) -> None:
        self._handshake_s = _seconds("handshake_s", handshake_s)
        self._idle_s = _seconds("idle_s", idle_s)
        self._max_age_s = _seconds("max_age_s", max_age_s)
        self._send_s = _seconds("send_s", send_s)
        self._idle_code = _code("idle_code", idle_code)
        self._max_age_code = _code("max_age_code", max_age_code)
        if not _is_number(jitter) or not 0 <= jitter < 1:
            raise ConfigurationError("jitter", jitter, "a number, 0 or more and less than 1")
        self._jitter = jitter

    def admit(self, handshake: Handshake) -> Allow:
        """
        Let everybody in, on these terms.

        Args:
            handshake: What the client asked for.
        """
        age_s = self._max_age_s
        if age_s is not None:
            age_s *= 1.0 - self._jitter * random.random()
        return Allow(
            deadlines=Deadlines(
                handshake_s=self._handshake_s,
                idle_s=self._idle_s,
                max_age_s=age_s,
                send_s=self._send_s,
                idle_code=self._idle_code,
                max_age_code=self._max_age_code,
            )
        )


def _seconds(option: str, value: float | None) -> float | None:
    if value is not None and (not _is_number(value) or not math.isfinite(value) or value <= 0):
        raise ConfigurationError(option, value, "a number of seconds, more than 0, or None")
    return value


def _code(option: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not may_send(value):
        raise ConfigurationError(option, value, "a close code that may be sent (1000 to 1014, 3000 to 4999)")
    return int(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
