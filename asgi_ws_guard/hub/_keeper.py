"""
Knows which collections hold a connection, and takes it out of all of them at its end.

It knows no kind of collection: it asks each whether it still holds something, and tells it what to forget.
"""

from __future__ import annotations

from typing import Protocol

from .._handle import ConnectionHandle
from ._connections import find_handle

LOOK_AT = 64
"""Collections of one connection from which on those are forgotten that hold it no more."""


class Collection(Protocol):
    """What a keeper asks of a collection."""

    def holds(self, item: object) -> bool:
        """Tell whether an item is in it."""

    def forget(self, item: object) -> None:
        """Take out what has ended."""


class Keeper:
    """Knows which collections hold a connection, and takes it out of all of them at its end."""

    __slots__ = ("_held", "_look_at")

    def __init__(self) -> None:
        self._look_at = LOOK_AT
        self._held: dict[str, list[tuple[Collection, object]]] = {}

    def hold(self, collection: Collection, item: object) -> None:
        """
        Take note that an item was put into a collection.

        Args:
            collection: Where it was put.
            item: A connection, or anything else.
        """
        handle = find_handle(item)
        if handle is None:
            return
        held = self._held.get(handle.connection_id)
        if held is None:
            self._held[handle.connection_id] = [(collection, item)]
            handle.on_end(self._ended)
        elif not any(one is collection and other is item for one, other in held):
            held.append((collection, item))
            if len(held) >= self._look_at:  # rooms come and go while a connection stays
                held[:] = [(one, other) for one, other in held if one.holds(other)]
                self._look_at = max(LOOK_AT, 2 * len(held))

    def _ended(self, handle: ConnectionHandle) -> None:
        for collection, item in self._held.pop(handle.connection_id, ()):
            collection.forget(item)
