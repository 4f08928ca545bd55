"""
What is due when, for any number of things, at a price that does not grow with their number.

A timing wheel without an axle: slots of equal width in a dict, as most of them are empty. It reads no clock and calls
nobody.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

T = TypeVar("T")
WIDTH_S = 0.025
"""Seconds of one slot: nothing is early, and nothing is late by more."""


class Wheel(Generic[T]):
    """Things that are due."""

    __slots__ = ("_slots", "_turned_to")

    def __init__(self) -> None:
        self._slots: dict[int, set[T]] = {}
        self._turned_to = -1

    def put(self, item: T, due_s: float) -> int:
        """
        Let a thing be due.

        Args:
            item: The thing, hashable.
            due_s: When, in seconds of the clock that `due` is called with; what was due is so at the next call.

        Returns:
            Its slot, for `take_out`.
        """
        slot = max(math.ceil(due_s / WIDTH_S), self._turned_to + 1)
        self._slots.setdefault(slot, set()).add(item)
        return slot

    def take_out(self, item: T, slot: int) -> None:
        """
        Let a thing not be due any more; nothing happens when it was.

        Args:
            item: The thing.
            slot: What `put` gave for it.
        """
        items = self._slots.get(slot)
        if items is not None:
            items.discard(item)
            if not items:
                del self._slots[slot]

    def due(self, now_s: float) -> list[T]:
        """
        Take out what is due.

        Args:
            now_s: Now, in seconds.

        Returns:
            The things, in the order of their slots.
        """
        to = math.floor(now_s / WIDTH_S)
        slots: range | list[int] = range(self._turned_to + 1, to + 1)
        if len(slots) > len(self._slots):
            slots = sorted(slot for slot in self._slots if slot <= to)
        self._turned_to = max(self._turned_to, to)
        return [item for slot in slots for item in self._slots.pop(slot, ())]

    def __len__(self) -> int:
        return len(self._slots)
