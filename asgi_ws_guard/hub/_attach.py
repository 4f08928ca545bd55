"""
Repairs a hand-written connection manager that stays: its collections give up a connection at its end.

It replaces the manager's plain collections by those of `_collections.py`, also those that are assigned later, and
counts what is still dead where it cannot. It sends nothing, and changes no method of the manager.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from opentelemetry.metrics import MeterProvider

from .._events import CallSite, Event, LateSend, Leaked
from .._exceptions import ConfigurationError
from ._collections import count_gone, is_plain, wrap
from ._keeper import Keeper
from ._metrics import instruments_of

MAX_SITES = 100
"""Lines of the application that are remembered."""
_log = logging.getLogger("asgi_ws_guard")


class Attachment:
    """
    What is known of a manager that was attached. Hold it for as long as its gauge is to be read.

    It is an observer too: given to the guard, it remembers the lines of the application that send late.

    Attributes:
        collections: Names of the attributes that are repaired.
        late_sites: dict: a line of the application -> connections to which it has sent late.
    """

    def __init__(self, manager: object, collections: tuple[str, ...], *, repair: bool) -> None:
        """
        Attach to a manager.

        Args:
            manager: An instance, or a module.
            collections: Names of attributes.
            repair: Whether the collections are replaced; False: dead members are only counted.
        """
        self.collections = collections if repair else ()
        self.late_sites: dict[CallSite, int] = {}
        self._manager = manager
        self._name = getattr(manager, "__name__", type(manager).__name__)
        self._counted = collections
        if repair:
            keeper = Keeper()
            for name in collections:
                setattr(_owner(manager, name), name, wrap(getattr(manager, name), keeper))
            _wrap_assignments(manager, frozenset(collections), keeper)

    def __call__(self, event: Event, /) -> None:
        """
        Hear one event.

        Args:
            event: Any event; late sends are remembered.
        """
        site = event.site if isinstance(event, LateSend | Leaked) else None
        if site is not None and (site in self.late_sites or len(self.late_sites) < MAX_SITES):
            self.late_sites[site] = self.late_sites.get(site, 0) + 1

    def dead(self) -> dict[str, int]:
        """
        Count the connections that have ended and that the manager still holds; any thread may ask.

        Returns:
            dict: name of the manager and of a collection -> number, for those that are repaired and all others that
            hold any.
        """
        found = {}
        for name in sorted({*self._counted, *_attributes(self._manager)}):
            number = count_gone(getattr(self._manager, name, None))
            if number or name in self._counted:
                found[f"{self._name}.{name}"] = number
        return found


def attach(
    manager: object,
    *,
    collections: Iterable[str] | None = None,
    repair: bool = True,
    meter_provider: MeterProvider | None = None,
) -> Attachment:
    """
    Let a hand-written manager give up a connection at its end, whoever ends it.

    Sets, lists, dictionaries and defaultdicts, one level deep, may hold connections of any framework as items, values
    or keys. They may change while somebody iterates over them. Who kept another reference to one of them before keeps
    the old object: attach where the manager is made.

    Args:
        manager: An instance, or a module with collections at its top.
        collections: Names of its attributes; None: all that are plain collections.
        repair: False: only count what is dead, for the gauge ``asgi_ws_guard.hub.members.dead``.
        meter_provider: Of OpenTelemetry; None: the global one.

    Returns:
        The attachment; the gauge reads it for as long as somebody holds it.

    Raises:
        ConfigurationError: There are no collections, or one that was named is not there or none of the four.
    """
    if isinstance(collections, str):
        raise ConfigurationError("collections", collections, "an iterable of names")
    allowed = f"names of sets, lists and dictionaries of {type(manager).__name__}"
    names = tuple(_plain(manager)) if collections is None else tuple(collections)
    for name in names:
        if not isinstance(name, str) or not is_plain(getattr(manager, name, None)):
            raise ConfigurationError("collections", name, allowed)
    if not names:
        raise ConfigurationError("manager", type(manager), "an object that has sets, lists or dictionaries")
    attachment = Attachment(manager, names, repair=repair)
    instruments_of(meter_provider).attach(attachment)
    return attachment


def _attributes(manager: object) -> list[str]:
    """List the attributes that hold state: those of the object, its slots, and what its own classes share."""
    names: dict[str, None] = dict.fromkeys(getattr(manager, "__dict__", ()))
    for owner in type(manager).__mro__[:-1]:
        slots = vars(owner).get("__slots__", ())
        names.update(dict.fromkeys((slots,) if isinstance(slots, str) else slots))
        names.update(dict.fromkeys(name for name, value in vars(owner).items() if is_plain(value)))
    return [name for name in names if not (name.startswith("__") and name.endswith("__"))]


def _plain(manager: object) -> list[str]:
    return [name for name in _attributes(manager) if is_plain(getattr(manager, name, None))]


def _owner(manager: object, name: str) -> Any:
    """Give who holds an attribute: a class, when all of its instances share it."""
    shared = next((owner for owner in type(manager).__mro__ if is_plain(vars(owner).get(name))), None)
    return manager if shared is None or name in getattr(manager, "__dict__", ()) else shared


def _wrap_assignments(manager: Any, names: frozenset[str], keeper: Keeper) -> None:
    """Let a collection that is assigned later, as a filtered copy usually is, stand in too."""
    own: Any = type(manager)

    def assign(self: object, name: str, value: object) -> None:
        own.__setattr__(self, name, wrap(value, keeper) if name in names else value)

    described = {name: getattr(own, name) for name in ("__module__", "__qualname__", "__doc__")}
    try:
        manager.__class__ = type(own.__name__, (own,), {**described, "__slots__": (), "__setattr__": assign})
    except TypeError:
        _log.warning("%s cannot be watched for collections that are assigned later", own.__qualname__)
