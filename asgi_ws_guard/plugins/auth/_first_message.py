"""
The policy that authenticates by the first message, for clients that can set no header.

The handshake is open to everybody until that message has come: the session keeps the time and hides the message from
the application, this tells whether it is good.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from ..._close import CloseCode, CloseStatus
from ..._events import Handshake
from ..._exceptions import ConfigurationError
from ..._plugin import Allow, Close, Deny
from ._asking import Asked, Asking, Authenticator, asking, positive, report
from ._denials import as_close, broken, unclear, wrong

Extract = Callable[[str | bytes], str | None]
"""From a message to a token; None: there is none."""


class FirstMessageAuth:
    """
    Admit everybody, and close unless the first message tells who it is.

    Args:
        authenticate: As in `Auth`, of the token in the message; a `Deny` becomes a close with 4401, 1013 (503) or 1011.
        extract: From the message (text or bytes) to the token, such as `json_field("token")`; None: the text is the
            token.
        timeout_s: Seconds in which the message has to come, and those that an async `authenticate` may take.
        max_bytes: A longer message is refused with 1009 before anything looks at it.
        label: As in `Auth`.
        label_key: As in `Auth`.

    Raises:
        ConfigurationError: An option is not allowed.
    """

    def __init__(
        self,
        authenticate: Asked | Authenticator,
        *,
        extract: Extract | None = None,
        timeout_s: float = 5.0,
        max_bytes: int = 8192,
        label: Callable[[Hashable], str] | None = None,
        label_key: bytes | None = None,
    ) -> None:
        positive("timeout_s", timeout_s)
        positive("max_bytes", max_bytes, whole=True)
        if extract is not None and not callable(extract):
            raise ConfigurationError("extract", extract, "a callable from a message to a token, or None")
        self._asking = asking(authenticate, timeout_s=timeout_s, label=label, label_key=label_key)
        self._extract = _text if extract is None else extract
        self._timeout_s, self._max_bytes = timeout_s, max_bytes

    def admit(self, handshake: Handshake) -> Allow:
        """Let everybody knock."""
        return Allow(first_message=_Check(self._asking, self._extract, handshake, self._timeout_s, self._max_bytes))


def json_field(name: str) -> Extract:
    """
    Take the token from a JSON object such as ``{"type": "auth", "token": "..."}``.

    Args:
        name: The key whose value, a string, is the token.

    Raises:
        ConfigurationError: The name is not allowed.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError("name", name, "the key of a JSON object")

    def extract(message: str | bytes) -> str | None:
        try:
            document = json.loads(message)
        except (ValueError, RecursionError):
            return None
        value = document.get(name) if isinstance(document, dict) else None
        return value if isinstance(value, str) else None

    return extract


@dataclass(slots=True)
class _Check:
    """Answers the first message of one connection."""

    asking: Asking
    extract: Extract
    handshake: Handshake = field(repr=False)
    timeout_s: float
    max_bytes: int

    async def __call__(self, payload: str | bytes, /) -> Allow | Close:
        """Tell whether a message says who the client is."""
        is_long = len(payload) > self.max_bytes
        if is_long or (isinstance(payload, str) and len(payload.encode("utf-8", "replace")) > self.max_bytes):
            return Close(int(CloseCode.MESSAGE_TOO_BIG), "too_long", CloseStatus.UNAUTHORIZED)
        try:
            token = self.extract(payload)
        except Exception as error:  # noqa: BLE001 - fail closed, and without the text of the error
            report("extract", error)
            return as_close(broken("failed"))
        if not isinstance(token, str):
            return as_close(unclear("malformed"))
        answer = await self.asking.who(token, self.handshake) if token else wrong("no_token")
        return as_close(answer) if isinstance(answer, Deny) else answer


def _text(message: str | bytes) -> str | None:
    return message if isinstance(message, str) else None
