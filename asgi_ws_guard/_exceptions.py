"""
The exceptions of this package.

::

    GuardError
    ├── ConfigurationError (also ValueError)   a wrong option; raised when built, never later
    ├── ProtocolError (also RuntimeError)      the application or the server broke the ASGI protocol
    └── ConnectionClosed (also OSError)        a send after the end, once quiet dropping is over

Any other exception out of this package is a bug. It imports the vocabulary alone.
"""

from __future__ import annotations

from ._close import Initiator


class GuardError(Exception):
    """Base of all exceptions that this package raises on purpose."""


class ConfigurationError(GuardError, ValueError):
    """
    An option has a value that is not allowed.

    The text names the option, the value and what is allowed. Raised when the middleware is built.
    """

    def __init__(self, option: str, value: object, allowed: str) -> None:
        super().__init__(f"{option}={value!r} is not allowed: expected {allowed}")
        self.option = option
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.option, self.value, self.allowed)


class ProtocolError(GuardError, RuntimeError):
    """
    A message that the ASGI specification does not allow here (G7).

    Attributes:
        problem: What was done.
        state: Name of the connection's state, such as ``"CONNECTING"``.
        message_type: The message's type as far as it has one, else None.
        allowed: Message types that are allowed now, sorted.
    """

    def __init__(self, problem: str, state: str, message_type: str | None, allowed: tuple[str, ...]) -> None:
        now = ", ".join(allowed) or "nothing"
        super().__init__(f"{problem} (state {state}; allowed now: {now})")
        self.problem = problem
        self.state = state
        self.message_type = message_type
        self.allowed = allowed

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problem, self.state, self.message_type, self.allowed)


class ConnectionClosed(GuardError, OSError):
    """
    The connection has ended; the application went on sending or receiving for too long (G4).

    An `OSError`, as ASGI 2.4 asks of a server whose peer is gone.

    Attributes:
        close_code: Close code of the end, None when there was none.
        close_reason: Close reason of the end, may be empty.
        initiator: Who ended the connection.
    """

    def __init__(self, close_code: int | None, close_reason: str, initiator: Initiator) -> None:
        super().__init__(f"the WebSocket connection was ended by the {initiator} (close code {close_code})")
        self.close_code = close_code
        self.close_reason = close_reason
        self.initiator = initiator

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.close_code, self.close_reason, self.initiator)
