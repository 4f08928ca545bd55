"""
What logs may show of a subject: by default a keyed hash, the same for one subject, of use to nobody else.

Without the key a user name cannot be found by hashing all of them. It keeps no subject.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import secrets
from collections.abc import Callable, Hashable

from ..._exceptions import ConfigurationError

Labeller = Callable[[Hashable], str]
_DIGITS = 16


def labeller(label: object, key: object) -> Labeller:
    """
    Choose how subjects are shown.

    Args:
        label: A callable from a subject to a text (``str`` shows it as it is); None: hashed.
        key: Key of the hash, at least 16 bytes; None: drawn once per process, so that labels last as long as it.

    Returns:
        The callable to use.

    Raises:
        ConfigurationError: An option is not allowed.
    """
    if key is not None and (not isinstance(key, bytes) or len(key) < 16):
        raise ConfigurationError("label_key", f"<{type(key).__name__}>", "at least 16 bytes, or None")
    if label is None:
        return functools.partial(_hashed, key)
    if not callable(label):
        raise ConfigurationError("label", label, "a callable from a subject to a text such as str, or None")
    return label


def _hashed(key: bytes | None, subject: Hashable) -> str:
    text = subject if isinstance(subject, str) else repr(subject)
    digest = hmac.new(_process_key() if key is None else key, text.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return digest.hexdigest()[:_DIGITS]


@functools.cache
def _process_key() -> bytes:
    return secrets.token_bytes(32)
