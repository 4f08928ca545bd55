"""
What an ASGI scope says: its defaults filled in (G10), frozen for observers and policies, without what policies hide.

It reads a scope once at the opening handshake and never changes the server's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ._events import Handshake
from ._state import DENIAL_EXTENSION
from ._types import Scope


def whole_scope(scope: Scope) -> dict[str, Any]:
    """
    Copy a websocket scope, with the default of every optional key that the server left out.

    daphne 4.2 leaves out ``scheme`` and ``asgi.spec_version``, on which Quart 0.22 answers with HTTP 500.

    Args:
        scope: The server's scope; not changed.

    Returns:
        dict: the same keys and those of ASGI WebSocket 2.4, section "WebSocket Connection Scope".
    """
    whole = dict(scope)
    asgi = whole.get("asgi")
    if not isinstance(asgi, dict) or "spec_version" not in asgi or "version" not in asgi:
        whole["asgi"] = {"version": "2.0", "spec_version": "2.0", **(asgi if isinstance(asgi, dict) else {})}
    for key, default in _DEFAULTS.items():
        if whole.get(key) is None:
            whole[key] = default
    if whole.get("raw_path") is None:
        whole["raw_path"] = str(whole["path"]).encode("utf-8", "replace")
    for key, kind in (("headers", list), ("subprotocols", list), ("extensions", dict)):
        if whole.get(key) is None:
            whole[key] = kind()
    if not isinstance(whole["headers"], list | tuple):
        whole["headers"] = list(whole["headers"]) if isinstance(whole["headers"], Iterable) else []
    for key in ("client", "server"):
        whole.setdefault(key, None)
    return whole


_DEFAULTS = {
    "scheme": "ws",
    "http_version": "1.1",
    "path": "/",
    "query_string": b"",
    "root_path": "",
}


def handshake_of(scope: Scope, connection_id: str = "") -> Handshake:
    """
    Freeze what a client asked for.

    Args:
        scope: A scope made by `whole_scope`.
        connection_id: The connection that it opens.

    Returns:
        The handshake; whatever is malformed in the scope becomes a plain default instead of an error.
    """
    return Handshake(
        path=str(scope["path"]),
        query_string=_octets(scope["query_string"]),
        headers=_pairs(scope["headers"]),
        client=_address(scope["client"]),
        server=_address(scope["server"]),
        scheme=str(scope["scheme"]),
        http_version=str(scope["http_version"]),
        subprotocols=tuple(map(str, scope["subprotocols"])) if isinstance(scope["subprotocols"], list | tuple) else (),
        can_deny=can_deny(scope),
        connection_id=connection_id,
    )


def hide(scope: Scope, subprotocols: Collection[str]) -> None:
    """
    Take offers of the client out of an application's scope, for tokens travel there, which it might log or choose.

    Args:
        scope: A scope made by `whole_scope`; only it is changed, not the server's lists in it.
        subprotocols: The offers that it is not to show.
    """
    if not subprotocols:
        return
    scope["subprotocols"] = [one for one in scope["subprotocols"] if one not in subprotocols]
    scope["headers"] = [
        (name, value)
        for name, value in ((name, _shown(name, value, subprotocols)) for name, value in scope["headers"])
        if value is not None
    ]


def _shown(name: Any, value: Any, hidden: Collection[str]) -> Any:
    """Give what a header shows without the hidden offers; None when nothing is left of it."""
    if _octets(name).lower() != b"sec-websocket-protocol":
        return value
    offers = [one.strip() for one in _octets(value).decode("latin-1").split(",")]
    left = [one for one in offers if one not in hidden]
    if len(left) == len(offers):
        return value
    return ", ".join(left).encode("latin-1") or None


def can_deny(scope: Scope) -> bool:
    """
    Tell whether the server can answer the handshake with an HTTP response of the application's.

    Args:
        scope: A websocket scope.
    """
    extensions = scope.get("extensions")
    return isinstance(extensions, Mapping) and DENIAL_EXTENSION in extensions


def _pairs(headers: Any) -> tuple[tuple[bytes, bytes], ...]:
    try:
        return tuple((_octets(name), _octets(value)) for name, value in headers)
    except (TypeError, ValueError):
        return ()


def _octets(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("latin-1", "replace")


def _address(address: Any) -> Any:
    return tuple(address) if isinstance(address, list | tuple) and len(address) == 2 else None
