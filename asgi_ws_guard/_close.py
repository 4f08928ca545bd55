"""
How a connection ends: close codes, who ended it, and the class of the end.

Pure facts and rules of RFC 6455, section 7.4, and of the telemetry model. It knows no message and no
state. Every module may import this one; it imports the standard library alone.
"""

from __future__ import annotations

import enum

MAX_REASON_BYTES = 123
"""A control frame carries 125 bytes, two of them the code (RFC 6455, sections 5.5 and 5.5.1)."""


class _Word(str, enum.Enum):
    """A string enumeration whose members print as their value (`enum.StrEnum` needs Python 3.11)."""

    __str__ = str.__str__


class CloseCode(enum.IntEnum):
    """
    Registered close codes (RFC 6455, section 7.4.1, and the IANA registry), and one for private use.

    4401 is to 1008 what HTTP's 401 is to 403: the client may come back with another token.
    """

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015
    UNAUTHORIZED = 4401


class Initiator(_Word):
    """Who ended the connection."""

    CLIENT = "client"
    APPLICATION = "application"
    GUARD = "guard"
    TRANSPORT = "transport"


class CloseStatus(_Word):
    """The class of an end, a finite set that is safe as a metric attribute."""

    NORMAL_CLOSURE = "normal_closure"
    GOING_AWAY = "going_away"
    APP_CLOSE = "app_close"
    APP_ERROR = "app_error"
    DENIED = "denied"
    TIMEOUT = "timeout"
    SLOW_CONSUMER = "slow_consumer"
    RATE_LIMITED = "rate_limited"
    UNAUTHORIZED = "unauthorized"
    TRANSPORT_ERROR = "transport_error"
    PROTOCOL_ERROR = "protocol_error"
    SHUTDOWN = "shutdown"


_UNTOLD = {CloseCode.NO_STATUS_RECEIVED, CloseCode.ABNORMAL_CLOSURE}
_NOT_SENDABLE = {1004, *_UNTOLD, CloseCode.TLS_HANDSHAKE}
_BROKEN = {
    CloseCode.PROTOCOL_ERROR,
    CloseCode.UNSUPPORTED_DATA,
    CloseCode.INVALID_PAYLOAD,
    CloseCode.POLICY_VIOLATION,
    CloseCode.MESSAGE_TOO_BIG,
    CloseCode.MANDATORY_EXTENSION,
}


def may_send(code: int) -> bool:
    """
    Tell whether an endpoint may put *code* into a close frame.

    1005, 1006 and 1015 are reserved for reporting and 1004 has no meaning (RFC 6455, section
    7.4.1); servers do hand the first three to applications, which then pass them on.

    Args:
        code: Close code, 0 to 65535.

    Returns:
        True for 1000 to 1014 without the reserved ones, and for 3000 to 4999.
    """
    return (1000 <= code <= 1014 and code not in _NOT_SENDABLE) or 3000 <= code <= 4999


def legal_code(code: int) -> int:
    """
    Give the code that stands in for one that may not be sent (G12).

    Args:
        code: Close code that the application asked for, any integer.

    Returns:
        The same code when it may be sent; 1000 for 1005, which means "no code"; else 1011.
    """
    if may_send(code):
        return int(code)
    if code == CloseCode.NO_STATUS_RECEIVED:
        return int(CloseCode.NORMAL_CLOSURE)
    return int(CloseCode.INTERNAL_ERROR)


def legal_reason(reason: str) -> str:
    """
    Cut a close reason to what a close frame can carry (G12).

    Args:
        reason: Text of any length; lone surrogates, which UTF-8 cannot carry, become ``?``.

    Returns:
        The longest beginning that fits into 123 bytes of UTF-8, cut between characters.
    """
    encoded = reason.encode("utf-8", "replace")
    return encoded[:MAX_REASON_BYTES].decode("utf-8", "ignore")


def peer_status(code: int) -> CloseStatus:
    """
    Classify a disconnect that the server reported.

    1005 and 1006 are the server's taste: hypercorn 0.18 reports every clean close as 1006, uvicorn
    0.54 a reset as 1005. They say that the peer went away, and no more.

    Args:
        code: Close code of the `websocket.disconnect` message, 0 to 65535.

    Returns:
        `GOING_AWAY` for 1001 and for codes that tell nothing, `SHUTDOWN` for 1012 (the server closes
        for its own restart), `PROTOCOL_ERROR` for the codes that accuse, else `NORMAL_CLOSURE`.
    """
    if code in _UNTOLD or code == CloseCode.GOING_AWAY:
        return CloseStatus.GOING_AWAY
    if code == CloseCode.SERVICE_RESTART:
        return CloseStatus.SHUTDOWN
    return CloseStatus.PROTOCOL_ERROR if code in _BROKEN else CloseStatus.NORMAL_CLOSURE


def tells_cause(code: int) -> bool:
    """
    Tell whether *code* came from a peer rather than from a server that saw the transport vanish.

    Args:
        code: Close code of the `websocket.disconnect` message.

    Returns:
        False for 1005 and 1006.
    """
    return code not in _UNTOLD
