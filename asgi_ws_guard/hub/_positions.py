"""
Signs the positions that clients are given, so that one is good for its stream alone, and for a time.

Signing is `itsdangerous`'s work (extra ``auth``). It knows no stream but by its name.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from .._exceptions import ConfigurationError
from ._publication import StreamId
from ._target import Target

MAX_LETTERS = 512
MIN_SECRET_BYTES = 16


class Positions:
    """Signs positions, and reads them again."""

    def __init__(self, secret: object, lifetime_s: float) -> None:
        """
        Make a signer.

        Args:
            secret: At least 16 bytes, the same at all nodes; or several, oldest first, of which the last one signs.
            lifetime_s: Seconds for which a position is good.

        Raises:
            ConfigurationError: The secret is too short, or itsdangerous is not installed; it is not shown.
        """
        many = secret if isinstance(secret, list | tuple) else (secret,)
        keys = [one.encode("utf-8") if isinstance(one, str) else one for one in many]
        if not keys or not all(isinstance(one, bytes) and len(one) >= MIN_SECRET_BYTES for one in keys):
            raise ConfigurationError("secret", "<hidden>", f"at least {MIN_SECRET_BYTES} bytes, or a list of such")
        try:
            from itsdangerous import BadData, TimestampSigner
        except ImportError as error:
            missing = f"the package itsdangerous, pip install 'asgi-ws-guard[auth]' ({error})"
            raise ConfigurationError("secret", "<hidden>", missing) from None
        self._bad: Any = BadData
        self._make: Any = TimestampSigner
        self._keys, self._lifetime_s = keys, lifetime_s

    def signer(self, target: Target) -> Any:
        """Make the signer of one stream; making it costs more than signing."""
        salt = f"asgi_ws_guard.position:{target.kind}:{target.name}".encode()
        return self._make(self._keys, salt=salt, key_derivation="hmac", digest_method=sha256)

    def sign(self, signer: Any, place: StreamId) -> str:
        """Write a position: letters, digits and ``-_.``."""
        return str(signer.sign(f"{place.epoch}-{place.offset}").decode("ascii"))

    def read(self, signer: Any, position: object) -> StreamId | None:
        """
        Read a position.

        Returns:
            The place; None when it is forged, expired, of another stream, or none at all.
        """
        if not isinstance(position, str) or len(position) > MAX_LETTERS or not position.isascii():
            return None
        try:
            text = signer.unsign(position, max_age=self._lifetime_s).decode("ascii")
        except self._bad:
            return None
        epoch, _, offset = text.rpartition("-")
        return StreamId(epoch, int(offset))
