"""
The outer edge: which exceptions end at the guard when they leave a handler (G8).

Only after the end, and only errors that say nothing but "the connection is gone": ours, the servers' own, and those
of the frameworks, which are looked up in `sys.modules` and never imported. Cancellation is never touched.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any, cast

from ._exceptions import ConnectionClosed
from ._servers import server_says_gone

_PEER_LEFT = (
    ("starlette.websockets", "WebSocketDisconnect"),
    ("litestar.exceptions", "WebSocketDisconnect"),
    ("falcon", "WebSocketDisconnected"),
    ("blacksheep.server.websocket", "WebSocketDisconnectError"),
    ("quart.wrappers.base", "ClientDisconnectedError"),
)
"""Modules and names of the types by which frameworks say that the peer is gone."""
_REFUSED = (("starlette.websockets", "WebSocketDisconnected"),)
"""The same, of types by which frameworks refuse a call on an object that is closed. After the application's own close
that is a mistake in the application, which must not vanish; after the peer left it says no more than the others."""


def is_disconnect(error: BaseException | None, *, peer_left: bool = True) -> bool:
    """
    Tell whether *error* says nothing but that a connection is gone.

    Args:
        error: What left a handler or a task, None when nothing did.
        peer_left: Whether the connection was ended by anybody but the application.

    Returns:
        True for a disconnect error, and for an exception group that holds nothing else at any depth.
    """
    if error is None:
        return False
    if isinstance(error, _group_types()):
        return all(is_disconnect(one, peer_left=peer_left) for one in cast(Any, error).exceptions)
    names = (*_PEER_LEFT, *_REFUSED) if peer_left else _PEER_LEFT
    return isinstance(error, (ConnectionClosed, *_loaded(names))) or server_says_gone(error)


def without_disconnects(error: BaseException, *, peer_left: bool) -> BaseException | None:
    """
    Take the disconnect errors out of what left a handler.

    Args:
        error: The exception; a group is split, its traceback, cause and notes stay.
        peer_left: Whether the connection was ended by anybody but the application.

    Returns:
        None when nothing is left; *error* itself when it holds no disconnect error; else a group of the others.
    """

    def absorbed(one: BaseException) -> bool:
        return is_disconnect(one, peer_left=peer_left)

    if absorbed(error):
        return None
    if not isinstance(error, _group_types()):
        return error
    disconnects, others = cast(Any, error).split(absorbed)
    return error if disconnects is None else cast(BaseException, others)


def _loaded(names: tuple[tuple[str, str], ...]) -> tuple[type[BaseException], ...]:
    found = (getattr(sys.modules.get(module), name, None) for module, name in names)
    return tuple(kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseException))


def _group_types() -> tuple[type[BaseException], ...]:
    """Give the group type of the interpreter; on 3.10 that of the PyPI package, if anybody has imported it."""
    native = getattr(builtins, "BaseExceptionGroup", None)
    kind = native or getattr(sys.modules.get("exceptiongroup"), "BaseExceptionGroup", None)
    return () if kind is None else (kind,)
