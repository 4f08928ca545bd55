"""
Sets, lists and dictionaries that give up a connection at its end, and may change while somebody iterates.

They stand in for the plain ones of a hand-written manager. Iterating goes over a copy; removing what has ended, and is
gone already, is silent. A clean-up of an ended connection does not delete, under a name that both have had, a
connection that is alive: that is the refresh that registers before the old page is cleaned up. Everything else is as
ever.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsIndex
from weakref import ref

from .._handle import _current
from ._connections import find_handle, has_gone
from ._keeper import Keeper

MAX_DEPTH = 2
"""A dictionary of rooms, and what is in a room."""


def wrap(value: object, keeper: Keeper, depth: int = 1) -> Any:
    """
    Give the collection that stands in for a plain one.

    Args:
        value: Any object.
        keeper: Hears of what is put in.
        depth: 1 for an attribute, 2 for what is in it.

    Returns:
        The stand-in with the same content, of a subclass; any other object is given back as it is.
    """
    made = _STAND_INS.get(type(value))
    if made is None or depth > MAX_DEPTH:
        return value
    new = made(value.default_factory) if isinstance(value, defaultdict) else made()
    new.keeper, new.depth = keeper, depth
    new.update(value) if not isinstance(value, list) else new.extend(value)
    return new


def _is_not_its_own(item: object) -> bool:
    """Tell whether the running handler, whose connection has ended, is about to remove one that is alive."""
    running, handle = _current.get(), find_handle(item)
    if running is None or handle is None or handle is running:
        return False
    return running.initiator is not None and handle.initiator is None


class WatchedSet(set[Any]):
    """A set."""

    keeper = Keeper()
    depth = 1

    def __iter__(self) -> Iterator[Any]:
        return iter(tuple(super().__iter__()))

    def __ior__(self, items: Any) -> WatchedSet:  # type: ignore[misc]
        self.update(items)
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return set, (list(self),)

    def add(self, item: Any) -> None:
        """Put an item in."""
        super().add(item)
        self.keeper.hold(self, item)

    def update(self, *others: Iterable[Any]) -> None:
        """Put items in."""
        for other in others:
            for item in other:
                self.add(item)

    def remove(self, item: Any) -> None:
        """Take an item out, which must be in it unless it has ended."""
        if item in self or not has_gone(item):
            super().remove(item)

    def forget(self, item: Any) -> None:
        """Take out what has ended."""
        super().discard(item)

    def holds(self, item: Any) -> bool:
        """Tell whether an item is in it."""
        return item in self


class WatchedList(list[Any]):
    """A list."""

    keeper = Keeper()
    depth = 1

    def __iter__(self) -> Iterator[Any]:
        return iter(tuple(super().__iter__()))

    def __iadd__(self, items: Iterable[Any]) -> WatchedList:  # type: ignore[misc]
        self.extend(items)
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, value)
        for item in value if isinstance(index, slice) else (value,):
            self.keeper.hold(self, item)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return list, (tuple(self),)

    def append(self, item: Any) -> None:
        """Put an item at the end."""
        super().append(item)
        self.keeper.hold(self, item)

    def extend(self, items: Iterable[Any]) -> None:
        """Put items at the end."""
        for item in tuple(items):
            self.append(item)

    def insert(self, index: SupportsIndex, item: Any) -> None:
        """Put an item somewhere."""
        super().insert(index, item)
        self.keeper.hold(self, item)

    def remove(self, item: Any) -> None:
        """Take an item out, which must be in it unless it has ended."""
        if item in self or not has_gone(item):
            super().remove(item)

    def forget(self, item: Any) -> None:
        """Take out what has ended."""
        for index in range(len(self) - 1, -1, -1):
            if self[index] is item:
                del self[index]

    def holds(self, item: Any) -> bool:
        """Tell whether an item is in it."""
        return item in self


_MISSING: Any = object()


class _WatchedMapping(dict[Any, Any]):
    """What both kinds of dictionaries have in common; connections may be values, keys, or in what the values hold."""

    keeper = Keeper()
    depth = 1

    def __iter__(self) -> Iterator[Any]:
        return iter(tuple(super().__iter__()))

    def __ior__(self, other: Any) -> _WatchedMapping:  # type: ignore[misc]
        self.update(other)
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return dict, (dict(self.items()),)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, wrap(value, self.keeper, self.depth + 1))
        self.keeper.hold(self, key)
        self.keeper.hold(self, value)

    def __delitem__(self, key: Any) -> None:
        self.pop(key)

    def keys(self) -> Any:
        """Give a view of the keys as they are now."""
        return dict(super().items()).keys()

    def values(self) -> Any:
        """Give a view of the values as they are now."""
        return dict(super().items()).values()

    def items(self) -> Any:
        """Give a view of the items as they are now."""
        return dict(super().items()).items()

    def update(self, *others: Any, **named: Any) -> None:
        """Put items in."""
        for key, value in dict(*others, **named).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Give what is under a key, put there when nothing is."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Take a key out, which must be in it unless a connection was under it that has ended."""
        held = self.get(key, _MISSING)
        if held is _MISSING:
            gone = self._gone().get(key)
            if default is _MISSING and gone is not None and (item := gone()) is not None:
                return item
        elif _is_not_its_own(held):
            return held if default is _MISSING else default
        return super().pop(key) if default is _MISSING else super().pop(key, default)

    def forget(self, item: Any) -> None:
        """Take out what has ended, under whatever keys it is; the keys are known for as long as somebody holds it."""
        gone = self._gone()
        for key, value in self.items():
            if key is item or value is item:
                super().pop(key, None)
                with contextlib.suppress(TypeError):  # no weak reference to it: its clean-up hears a KeyError
                    gone[key] = ref(item, lambda _, key=key: gone.pop(key, None))  # type: ignore[misc]

    def holds(self, item: Any) -> bool:
        """Tell whether an item is a key or a value of it."""
        return any(key is item or value is item for key, value in self.items())

    def _gone(self) -> dict[Any, ref[Any]]:
        return self.__dict__.setdefault("gone", {})  # type: ignore[no-any-return]


class WatchedDict(_WatchedMapping):
    """A dictionary."""


class WatchedDefaultDict(_WatchedMapping, defaultdict[Any, Any]):
    """A dictionary with a default."""

    def __missing__(self, key: Any) -> Any:
        if self.default_factory is None:
            raise KeyError(key)
        self[key] = self.default_factory()
        return self[key]


_STAND_INS: dict[type, Any] = {set: WatchedSet, list: WatchedList, dict: WatchedDict, defaultdict: WatchedDefaultDict}


def is_plain(value: object) -> bool:
    """Tell whether there is a stand-in for a collection."""
    return type(value) in _STAND_INS


def count_gone(value: object, depth: int = 1) -> int:
    """
    Count the connections that have ended in a collection, or is one, of any kind.

    Args:
        value: Any object.
        depth: 1 for an attribute.
    """
    if has_gone(value):
        return 1
    if depth > MAX_DEPTH or not isinstance(value, Iterable) or isinstance(value, str | bytes) or find_handle(value):
        return 0
    try:
        inside = [*value.keys(), *value.values()] if isinstance(value, Mapping) else _copied(value)
    except RuntimeError:  # it changed while it was copied, in another thread
        return 0
    return sum(count_gone(one, depth + 1) for one in inside)


def _copied(value: Iterable[Any]) -> list[Any]:
    """Copy what can be iterated over again and again; never use up an iterator."""
    return [] if iter(value) is value else list(value)
