"""
One-time tickets for the query string: signed, seconds of life, good for one handshake.

An authenticated HTTP endpoint mints one, the page puts it into the address of its WebSocket, and who reads it in an
access log later has nothing. Signing is `itsdangerous`'s work (extra ``auth``), remembering a storage's.
"""

from __future__ import annotations

import inspect
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ..._events import Handshake, Identity
from ..._exceptions import ConfigurationError
from ..._plugin import Deny
from ._asking import positive, report
from ._denials import unable, wrong
from ._nonces import MemoryNonces, Nonces

MIN_SECRET_BYTES = 16
SKEW_S = 60.0
"""How far the clocks of two hosts may be apart: a nonce is remembered for so much longer than its ticket lives."""
_SIGNATURE_LETTERS = 43  # of SHA-256, in base64 without padding


class Tickets:
    """
    Mints and takes one-time tickets; an authenticator for ``Auth(tickets, source=query("ticket"))``.

    Args:
        secret: At least 16 bytes, the same in every process that mints or takes; or several of them, oldest first, of
            which the last one signs.
        lifetime_s: Seconds from minting in which a ticket is good.
        store: Where used ones are remembered; None: `MemoryNonces`, which is right for a single process.
        audience: What the tickets are for: those of another audience have a bad signature here.

    Raises:
        ConfigurationError: An option is not allowed, or itsdangerous is not installed.
    """

    def __init__(
        self,
        secret: str | bytes | Sequence[str | bytes],
        *,
        lifetime_s: float = 30.0,
        store: Nonces | None = None,
        audience: str = "",
    ) -> None:
        positive("lifetime_s", lifetime_s)
        if not isinstance(audience, str):
            raise ConfigurationError("audience", audience, "a string")
        if store is not None and not callable(getattr(store, "use", None)):
            raise ConfigurationError("store", store, "MemoryNonces(), RedisNonces(url) or another with a method use")
        self._store = MemoryNonces() if store is None else store
        self._lifetime_s = lifetime_s
        try:
            from itsdangerous import Signer
        except ImportError as error:
            missing = f'the package itsdangerous, pip install "asgi-ws-guard[auth]" ({error})'
            raise ConfigurationError("secret", "<hidden>", missing) from None
        salt = f"asgi_ws_guard.ticket:{audience}".encode("utf-8", "surrogatepass")
        self._signer: Any = Signer(_secrets(secret), salt=salt, key_derivation="hmac", digest_method=sha256)

    def mint(
        self,
        subject: str | int,
        *,
        expires_unix_s: float | None = None,
        path: str | None = None,
        origin: str | None = None,
        address: str | None = None,
    ) -> str:
        """
        Make a ticket.

        Args:
            subject: Whose it is.
            expires_unix_s: When the connection ends that it opens, in seconds since 1970; None: never.
            path: The only path that it opens; None: any.
            origin: The only origin, as the browser writes it; None: any.
            address: The only address of a client, as the server sees it; None: any.

        Returns:
            About 150 letters, digits and ``-_.``: nothing to escape in a query.

        Raises:
            ConfigurationError: An argument is not allowed.
        """
        if isinstance(subject, bool) or not isinstance(subject, str | int) or subject == "":
            raise ConfigurationError("subject", f"<{type(subject).__name__}>", "a string, not empty, or an integer")
        if expires_unix_s is not None:
            positive("expires_unix_s", expires_unix_s)
        for name, bound in (("path", path), ("origin", origin), ("address", address)):
            if bound is not None and not isinstance(bound, str):
                raise ConfigurationError(name, bound, "a string, or None")
        until = time.time() + self._lifetime_s
        content = [subject, secrets.token_urlsafe(16), until, expires_unix_s, path, origin, address]
        return str(self._signer.sign(_coded(json.dumps(content, separators=(",", ":")))).decode("ascii"))

    async def authenticate(self, token: str, handshake: Handshake, /) -> Identity | Deny:
        """
        Take a ticket: check its signature, its time and what it is bound to, then use it up.

        Args:
            token: What the client showed.
            handshake: Where it showed it.

        Returns:
            The identity, or a denial that says what is wrong.
        """
        ticket = self._opened(token)
        if isinstance(ticket, Deny):
            return ticket
        left_s = ticket.until_unix_s - time.time()
        if left_s <= 0:
            return wrong("expired")
        if not ticket.fits(handshake):
            return wrong("misplaced")
        try:
            answer = self._store.use(ticket.nonce, left_s + SKEW_S)
            is_first = await answer if inspect.isawaitable(answer) else answer
        except Exception as error:  # noqa: BLE001 - fail closed
            report("the storage of used tickets", error)
            return unable("storage_failed")
        if is_first is not True:
            return wrong("replayed")
        return Identity(ticket.subject, ticket.expires_unix_s)

    def _opened(self, token: str) -> _Ticket | Deny:
        if len(token.rpartition(".")[2]) < _SIGNATURE_LETTERS or "." not in token:
            return wrong("truncated")
        from itsdangerous import BadData
        from itsdangerous.encoding import base64_decode

        try:
            return _Ticket(*json.loads(base64_decode(self._signer.unsign(token))))
        except (BadData, UnicodeError):
            return wrong("bad_signature")


@dataclass(frozen=True, slots=True)
class _Ticket:
    subject: str | int
    nonce: str
    until_unix_s: float
    expires_unix_s: float | None
    path: str | None
    origin: str | None
    address: str | None

    def fits(self, handshake: Handshake) -> bool:
        if self.path is not None and self.path != handshake.path:
            return False
        origins = [value for name, value in handshake.headers if name == b"origin"]
        if self.origin is not None and origins != [self.origin.encode("utf-8", "surrogatepass")]:
            return False
        return self.address is None or (handshake.client is not None and handshake.client[0] == self.address)


def _coded(text: str) -> bytes:
    from itsdangerous.encoding import base64_encode

    return base64_encode(text)


def _secrets(secret: object) -> list[bytes]:
    found = []
    for one in secret if isinstance(secret, list | tuple) else [secret]:
        coded = one.encode("utf-8", "surrogatepass") if isinstance(one, str) else one
        if not isinstance(coded, bytes) or len(coded) < MIN_SECRET_BYTES:
            allowed = f"at least {MIN_SECRET_BYTES} bytes, or several such, oldest first"
            raise ConfigurationError("secret", f"<{type(one).__name__}, hidden>", allowed)
        found.append(coded)
    if not found:
        raise ConfigurationError("secret", [], "at least one secret")
    return found
