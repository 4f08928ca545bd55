"""
The policy that authenticates an opening handshake.

It finds the token and asks; it neither knows what a token is nor what becomes of an identity.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from ..._events import Handshake
from ..._exceptions import ConfigurationError
from ..._plugin import Allow, Deny
from ._asking import Asked, Authenticator, asking, positive, report
from ._denials import broken, nothing_shown, unclear, wrong
from ._sources import Found, Source


class Auth:
    """
    Admit whom an authenticator knows.

    Args:
        authenticate: A callable, sync or async, of the token that `source` finds, or of the handshake without one; or
            `Tickets`. It gives an `Identity`, a subject (any hashable but None and a bool), an `Allow` or a `Deny` of
            its own, or None: denied. What is no answer, and whatever it raises, denies. A sync one must not block.
        source: Where the token is: `bearer_header()`, `cookie(name)`, `subprotocol()`, `query(name)`, a callable of
            your own, or a sequence of them, of which the first that finds something counts. None: `authenticate` is
            given the handshake.
        timeout_s: Seconds that an async `authenticate` may take, then 503; None: no limit. Under trio there is none.
        max_token_bytes: A longer token is refused before anything looks at it.
        label: From a subject to what logs may show of it (``str``: as it is); None: 16 digits of a keyed hash.
        label_key: Key of that hash, at least 16 bytes: the same label in all processes; None: drawn once per process.

    Raises:
        ConfigurationError: An option is not allowed.
    """

    def __init__(
        self,
        authenticate: Asked | Authenticator,
        *,
        source: Source | Sequence[Source] | None = None,
        timeout_s: float | None = 5.0,
        max_token_bytes: int = 8192,
        label: Callable[[Hashable], str] | None = None,
        label_key: bytes | None = None,
    ) -> None:
        self._sources = _checked(source)
        if source is None and isinstance(authenticate, Authenticator):
            raise ConfigurationError("source", None, "a source such as query('ticket'), for this authenticator")
        positive("max_token_bytes", max_token_bytes, whole=True)
        self._asking = asking(authenticate, timeout_s=timeout_s, label=label, label_key=label_key)
        self._max_token_bytes = max_token_bytes

    async def admit(self, handshake: Handshake) -> Allow | Deny:
        """Answer an opening handshake by who the client is."""
        if not self._sources:
            return await self._asking.who(handshake, handshake)
        try:
            found = next(filter(None, (source(handshake) for source in self._sources)), None)
        except Exception as error:  # noqa: BLE001 - fail closed, and without the text of the error
            report("a source", error)
            return broken("failed")
        if not isinstance(found, Found):
            return nothing_shown() if found is None else found if isinstance(found, Deny) else broken("failed")
        if len(found.token) > self._max_token_bytes:
            return wrong("too_long")
        if not found.token.isascii():  # of no source here, but perhaps of the user's own
            return unclear("malformed")
        answer = await self._asking.who(found.token, handshake)
        if isinstance(answer, Deny):
            return answer
        return replace(
            answer,
            subprotocol=answer.subprotocol or found.subprotocol,
            hidden_subprotocols=(*answer.hidden_subprotocols, *found.hidden_subprotocols),
        )


def _checked(source: object) -> tuple[Source, ...]:
    if source is None:
        return ()
    sources = tuple(source) if isinstance(source, list | tuple) else (source,)
    if not sources or not all(map(callable, sources)):
        raise ConfigurationError("source", source, "a source such as bearer_header(), or several of them")
    return sources
