"""
Tokens that stand in the configuration: for services and tests.

It keeps the hashes alone, and takes the same time whatever a token begins with.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Hashable, Mapping

from ..._events import Identity
from ..._exceptions import ConfigurationError
from ..._plugin import Deny
from ._denials import wrong


def tokens(subjects: Mapping[str, Hashable | Identity]) -> Callable[[str], Hashable | Identity | Deny]:
    """
    Know a few tokens by heart.

    Args:
        subjects: Token -> whose it is.

    Returns:
        An authenticator of `Auth`. It compares with every token each time.

    Raises:
        ConfigurationError: There is no token, or an empty one.
    """
    if not isinstance(subjects, Mapping) or not subjects:
        raise ConfigurationError("subjects", f"<{type(subjects).__name__}>", "a mapping of tokens, not empty")
    if not all(isinstance(token, str) and token for token in subjects):
        raise ConfigurationError("subjects", "<a token>", "tokens that are strings, not empty")
    known = [(_digest(token), subject) for token, subject in subjects.items()]

    def authenticate(token: str) -> Hashable | Identity | Deny:
        digest, found = _digest(token), None
        for one, subject in known:
            if hmac.compare_digest(one, digest):
                found = subject
        return wrong("rejected") if found is None else found

    return authenticate


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
