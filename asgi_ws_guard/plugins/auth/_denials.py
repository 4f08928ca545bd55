"""
What a client that is not authenticated hears, and logs and metrics too: a status and one word.

The answers follow RFC 6750, section 3: ``WWW-Authenticate`` names an error only when there was something to be wrong. A
token is in none of them.
"""

from __future__ import annotations

from ..._close import CloseCode, CloseStatus
from ..._plugin import Close, Deny

REASONS = (
    *("no_token", "several_tokens", "malformed", "too_long", "rejected", "expired", "not_yet"),
    *("replayed", "bad_signature", "truncated", "misplaced", "claims", "no_subject"),
    *("unhashable", "not_an_identity", "timeout", "storage_failed", "failed"),
)
"""Every reason that a denial of this plugin can have; what a user's own `Deny` says comes beside it."""


def nothing_shown() -> Deny:
    """Deny who shows nothing: 401, without an error."""
    return _deny(401, "no_token", b"Bearer")


def unclear(reason: str) -> Deny:
    """
    Deny who shows too much, or what is no credential at all: 400.

    Args:
        reason: One of `REASONS`.
    """
    return _deny(400, reason, b'Bearer error="invalid_request"')


def wrong(reason: str) -> Deny:
    """
    Deny a token: 401.

    Args:
        reason: One of `REASONS`.
    """
    return _deny(401, reason, b'Bearer error="invalid_token"')


def unable(reason: str) -> Deny:
    """
    Deny because who would know does not answer: 503.

    Args:
        reason: One of `REASONS`.
    """
    return _deny(503, reason, None)


def broken(reason: str) -> Deny:
    """
    Deny because the authenticator gave what is no answer, or raised: 500.

    Args:
        reason: One of `REASONS`.
    """
    return _deny(500, reason, None)


def as_close(deny: Deny) -> Close:
    """
    Say the same to a connection that is open already.

    Args:
        deny: What a handshake would have been answered.

    Returns:
        4401, 1013 for 503, 1011 for other errors of the server.
    """
    fault = CloseCode.TRY_AGAIN_LATER if deny.status == 503 else CloseCode.INTERNAL_ERROR
    return Close(int(CloseCode.UNAUTHORIZED if deny.status < 500 else fault), deny.reason, deny.end)


def _deny(status: int, reason: str, challenge: bytes | None) -> Deny:
    headers = () if challenge is None else ((b"www-authenticate", challenge),)
    end = CloseStatus.UNAUTHORIZED if status < 500 else CloseStatus.DENIED
    return Deny(status=status, headers=((b"cache-control", b"no-store"), *headers), end=end, reason=reason)
