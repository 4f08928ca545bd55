"""
Adapters: one file per framework whose own WebSocket object refuses a late call above the guard, where nobody hears it.

With its adapter such a call goes down to the guard: a late send or close is dropped, counted and reported, a late
`receive` gives the framework's own disconnect, and a handler that catches everything is stopped (G4). Only connections
that carry a guard are affected. A guard applies what it is asked for when it is built and, for frameworks that are
imported later, before its next connection; the frameworks themselves are never imported here. `uninstall` takes
everything back. A class can be patched once per process only, and so the record of it is of the process too.

No adapter is needed for, as measured:

- FastAPI 0.165: its WebSocket is Starlette's.
- Channels 4.3.2: a consumer has no state of its own. Late sends and closes reach the guard, and ``disconnect()`` runs.
- python-socketio 5.18.1: an emit to a session that is gone ends in Engine.IO, quietly; the rest reaches the guard.
- Sanic 25.12.1 under ASGI: late sends reach the guard, a late ``recv()`` gives None again. Its ``close()`` does
  nothing: the connection stays open until the handler returns, and ends with 1000 whatever code was asked for. That is
  no refusal, and what is never sent cannot be handed down.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import re
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from .._adapter import FrameworkAdapter, Patch
from .._exceptions import ConfigurationError

KNOWN = {
    "blacksheep": ("blacksheep.server.websocket", "WebSocket"),
    "falcon": ("falcon.asgi.app", "App"),
    "litestar": ("litestar.connection.websocket", "WebSocket"),
    "quart": ("quart.asgi", "ASGIWebsocketConnection"),
    "starlette": ("starlette.websockets", "WebSocket"),
}
"""Name of an adapter, and of its module here -> module and name by which to see that its framework is imported."""

_LOG = logging.getLogger(__name__.partition(".")[0])


@dataclass(frozen=True, slots=True)
class _Applied:
    """A patch that is in place. `before` is None when the owner only inherited the attribute."""

    patch: Patch
    before: tuple[object] | None


_record: dict[str, tuple[_Applied, ...]] = {}
_lock = threading.Lock()


class Waiting:
    """
    The adapters that one guard was asked for and whose frameworks are not imported yet.

    Args:
        names: Names of `KNOWN`.
    """

    __slots__ = ("_names",)

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    def look(self) -> None:
        """Apply those whose frameworks are imported by now, and wait for them no more; a quarter of a µs for each."""
        if self._names:
            ready = [name for name in self._names if is_imported(name)]
            for name in ready:
                install(name)
            if ready:
                self._names = tuple(name for name in self._names if name not in ready)


def is_imported(name: str) -> bool:
    """
    Tell whether the framework of an adapter is imported, so far that its adapter can be applied.

    Args:
        name: One of `KNOWN`.
    """
    module, attribute = KNOWN[name]
    return getattr(sys.modules.get(module), attribute, None) is not None


def install(name: str) -> bool:
    """
    Apply the adapter of a framework that is imported. Once applied, or refused, another call changes nothing.

    Args:
        name: One of `KNOWN`.

    Returns:
        Whether it is in place; False, with one warning, for a framework of a version that it does not know.

    Raises:
        ConfigurationError: There is no such adapter, or its framework is not imported.
    """
    if name not in KNOWN or not is_imported(name):
        raise ConfigurationError("name", name, f"an adapter whose framework is imported, of {', '.join(KNOWN)}")
    with _lock:
        if name not in _record:
            _record[name] = _apply(name, importlib.import_module(f"{__name__}.{name}").ADAPTER)
        return bool(_record[name])


def uninstall(name: str | None = None) -> None:
    """
    Take an adapter back: the framework's own attributes are restored exactly.

    What somebody else has replaced since is left alone, with a warning. Guards that were built before do not apply it
    again.

    Args:
        name: One of `KNOWN`; None: all that are in place.
    """
    with _lock:
        for one in [name] if name is not None else list(_record):
            for applied in reversed(_record.pop(one, ())):
                _restore(one, applied)


def _apply(name: str, adapter: FrameworkAdapter) -> tuple[_Applied, ...]:
    version = _version(adapter.distribution)
    known = version is not None and adapter.since <= _numbers(version) < adapter.before
    try:
        patches = adapter.patches() if known else ()
    except (AttributeError, KeyError):
        patches = ()
    if not patches:
        limits = (".".join(map(str, limit)) for limit in (adapter.since, adapter.before))
        _LOG.warning("the adapter for %s is left out: it knows %s to below %s, not %s", name, *limits, version)
    return tuple(map(_put, patches))


def _put(patch: Patch) -> _Applied:
    own = vars(patch.owner)
    before = (own[patch.name],) if patch.name in own else None
    setattr(patch.owner, patch.name, patch.value)
    return _Applied(patch, before)


def _restore(name: str, applied: _Applied) -> None:
    owner, attribute = applied.patch.owner, applied.patch.name
    if vars(owner).get(attribute) is not applied.patch.value:
        _LOG.warning("the adapter for %s leaves %s in place: somebody else has replaced it since", name, attribute)
    elif applied.before is None:
        delattr(owner, attribute)
    else:
        setattr(owner, attribute, applied.before[0])


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found.group().split("."))) if found else ()
