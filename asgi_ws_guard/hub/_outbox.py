"""
The messages that one connection has not been sent yet, bounded in number and in bytes, sans-IO.

It knows what a full outbox does, and counts nothing: whoever puts a message in is told what fell out.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Literal

from .._events import DropReason
from ._encoding import Encoded

Overflow = Literal["drop_oldest", "drop_newest", "latest_by_key", "close"]


class Put(Enum):
    """What became of a message that was put in."""

    QUEUED = "queued"
    DROPPED = "dropped"
    CLOSE = "close"


class Outbox:
    """
    What waits for one connection, in the order in which it goes out.

    Attributes:
        size: Bytes of the payloads that wait.
    """

    __slots__ = ("_max_bytes", "_max_messages", "_overflow", "_serial", "_waiting", "size")

    def __init__(self, max_messages: int, max_bytes: int, overflow: Overflow) -> None:
        """
        Make an empty outbox.

        Args:
            max_messages: Messages that may wait.
            max_bytes: Bytes of payload that may wait.
            overflow: What a full outbox does. "drop_oldest" makes room; "drop_newest" takes no more; "latest_by_key"
                lets a message take the place of a waiting one with the same key, full or not, and makes room like
                "drop_oldest"; "close" has the connection closed.
        """
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._overflow = overflow
        self._waiting: OrderedDict[object, Encoded] = OrderedDict()
        self._serial = 0
        self.size = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Encoded) -> tuple[Put, list[DropReason]]:
        """
        Let a message wait, as far as there is room.

        A message larger than the whole outbox never waits, and pushes nobody out.

        Args:
            message: The message.

        Returns:
            What became of it, and why each message was dropped, itself included.
        """
        if message.size > self._max_bytes:
            return self._refuse(message)
        dropped: list[DropReason] = []
        place = self._place(message)
        before = self._waiting.get(place)
        if before is not None:
            self.size -= before.size
            dropped.append(DropReason.SUPERSEDED)
        elif (message.is_kept or self._overflow in ("drop_newest", "close")) and not self._has_room(1, message.size):
            return self._refuse(message)
        self._waiting[place] = message
        self.size += message.size
        while not self._has_room(0, 0):
            dropped.append(DropReason.OUTBOX_FULL)
            if not self._drop_oldest(place):  # all that waits is kept
                self.size -= self._waiting.pop(place).size
                return Put.DROPPED, dropped
        return Put.QUEUED, dropped

    def take(self) -> Encoded | None:
        """Take the message that goes out next, None when nothing waits."""
        if not self._waiting:
            return None
        _, message = self._waiting.popitem(last=False)
        self.size -= message.size
        return message

    def clear(self) -> int:
        """Empty it; tell how many messages waited."""
        waited = len(self._waiting)
        self._waiting.clear()
        self.size = 0
        return waited

    def _refuse(self, message: Encoded) -> tuple[Put, list[DropReason]]:
        closes = message.is_kept or self._overflow == "close"
        return Put.CLOSE if closes else Put.DROPPED, [DropReason.OUTBOX_FULL]

    def _place(self, message: Encoded) -> object:
        """Give the place of a message: a key keeps its own, or the one that changes most would never go out."""
        if message.key is not None and self._overflow == "latest_by_key":
            return message.key
        self._serial += 1
        return self._serial

    def _has_room(self, messages: int, size: int) -> bool:
        return len(self._waiting) + messages <= self._max_messages and self.size + size <= self._max_bytes

    def _drop_oldest(self, new: object) -> bool:
        """Drop the oldest but what is new and what is kept; tell whether there was one."""
        places = (one for one, message in self._waiting.items() if one != new and not message.is_kept)
        place = next(places, None)
        if place is None:
            return False
        self.size -= self._waiting.pop(place).size
        return True
