"""
What it means when the service under `verify` ends a connection, or does not.

Imported by the probes.
"""

from __future__ import annotations

from ._checks import Check, failed, held, note
from ._peer import Peer

TOO_BIG, APP_ERROR = 1009, 1011  # RFC 6455, section 7.4.1


def ended(peer: Peer, why: str) -> Check:
    """Judge a connection that the service ended after messages."""
    code = peer.close_code
    if code is None:
        return failed(f"the service cut the connection {why}, without a close frame")
    if code == APP_ERROR:
        return failed(f"the application failed {why}: {code}")
    return held(f"the service closed {why}, with {code}")


def ended_early(peer: Peer) -> Check:
    """Judge a connection that the service ended before anything was sent."""
    code = peer.close_code
    if code is None:
        return failed("the service cut the connection at once, without a close frame")
    return (
        failed(f"the application failed at once: {code}")
        if code == APP_ERROR
        else note(f"the service closed first: {code}")
    )


def unanswered(peer: Peer, timeout_s: float) -> Check:
    """Judge a close that was not answered in time."""
    if peer.is_over:
        return failed("the service cut the connection instead of answering the close")
    return failed(f"the close was not answered within {timeout_s:g} s")
