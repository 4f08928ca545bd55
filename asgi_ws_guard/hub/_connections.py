"""Finds the guard's handle on a connection from whatever object of a framework stands for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._adapter import HANDLE_KEY
from .._exceptions import ConfigurationError
from .._handle import ConnectionHandle

_SCOPES = ("scope", "guard_scope", "_scope")
"""Where an object keeps its scope: Starlette, FastAPI, Litestar, Quart's proxy, Channels' consumers and BlackSheep; a
Falcon `WebSocket` by its adapter."""
_GUARDED = "a connection behind WebSocketGuardMiddleware"


def find_handle(connection: object) -> ConnectionHandle | None:
    """
    Find the handle that an object leads to.

    Args:
        connection: A handle, a scope, or an object with a scope.

    Returns:
        The handle; None when the object leads to no scope, or to one without a guard.
    """
    if isinstance(connection, ConnectionHandle):
        return connection
    scope = scope_of(connection)
    handle = None if scope is None else scope.get(HANDLE_KEY)
    return handle if isinstance(handle, ConnectionHandle) else None


def has_gone(item: object) -> bool:
    """Tell whether an object leads to a connection that has ended."""
    handle = find_handle(item)
    return handle is not None and handle.initiator is not None


def handle_of(connection: object) -> ConnectionHandle:
    """
    Find the handle that an object leads to, or say why there is none.

    Args:
        connection: A handle, a scope, or an object with a scope.

    Raises:
        TypeError: The object leads to no scope.
        ConfigurationError: Its scope carries no guard.
    """
    handle = find_handle(connection)
    if handle is not None:
        return handle
    if scope_of(connection) is None:
        named = type(connection).__qualname__
        raise TypeError(f"{named} leads to no ASGI scope: give current_connection() in its place")
    raise ConfigurationError("connection", type(connection), _GUARDED)  # not the object: a scope holds tokens


def id_of(connection: object) -> str:
    """Give the id of a connection, or of the one that an object leads to; raises as `handle_of` does."""
    return connection if isinstance(connection, str) else handle_of(connection).connection_id


def ids_of(connections: object) -> frozenset[str]:
    """Give the ids of a connection, of a list, tuple or set of them, or of None, which is nobody."""
    if connections is None:
        return frozenset()
    many = connections if isinstance(connections, list | tuple | set | frozenset) else (connections,)
    return frozenset(map(id_of, many))


def scope_of(connection: object) -> Mapping[str, Any] | None:
    """
    Give the scope that an object holds, or is.

    Args:
        connection: Any object.
    """
    if isinstance(connection, Mapping):
        return connection
    for name in _SCOPES:
        scope = getattr(connection, name, None)
        if isinstance(scope, Mapping):
            return scope
    return None
