"""
A stream: messages with a place in an order, and how far one node, and one client, have come in it. Sans-IO.

It decides what is next, what came before, what is missing, and where a client begins; it reads no store and sends
nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ._checks import check_count, check_seconds
from ._encoding import Encoded
from ._publication import StreamId

RECENT = 256
"""Messages that a node remembers of a stream, so that a client can be brought level without asking the store."""
EARLY = 1024
"""Messages that wait for one before them; what is beyond is read from the store."""

Begin = Literal["started", "resumed", "gone"]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """
    What is kept of a stream.

    Attributes:
        history_messages: Messages that are kept at most.
        history_s: Seconds for which each is kept.
        redeliver_s: Seconds after which a message that was not acknowledged is sent again; None: nobody acknowledges.
    """

    history_messages: int
    history_s: float
    redeliver_s: float | None = None

    def __post_init__(self) -> None:
        check_count("history_messages", self.history_messages)
        check_seconds("history_s", self.history_s)
        if self.redeliver_s is not None:
            check_seconds("redeliver_s", self.redeliver_s)


class Entry(NamedTuple):
    """
    A message in a stream.

    Attributes:
        offset: Its place, from 1.
        message: What the store keeps of it.
    """

    offset: int
    message: Encoded


class History(NamedTuple):
    """
    What a store knows of a stream.

    Attributes:
        epoch: Which life of the stream.
        last: Offset of the last message; 0 before the first.
        acked: Offset up to which the user has acknowledged.
        entries: What is kept after the asked offset, in order, or the first part of it.
    """

    epoch: str
    last: int
    acked: int
    entries: Sequence[Entry] = ()

    def follows(self, offset: int) -> bool:
        """Tell whether nothing is missing after an offset."""
        return self.entries[0].offset == offset + 1 if self.entries else self.last <= offset


class Feed:
    """
    How far one node is in a stream.

    Attributes:
        cursor: The last message that the members here have been given; None: nobody knows yet.
        lacks: Whether something is missing that only the store has.
    """

    __slots__ = ("_early", "_recent", "cursor", "lacks")

    def __init__(self) -> None:
        self.cursor: StreamId | None = None
        self.lacks = False
        self._recent: deque[Entry] = deque(maxlen=RECENT)
        self._early: dict[StreamId, Encoded] = {}

    def begin(self, place: StreamId) -> list[Entry]:
        """
        Begin, or begin again, behind a message.

        Returns:
            What came early and is next.
        """
        self.cursor, self.lacks = place, False
        self._recent.clear()
        self._early = {one: message for one, message in self._early.items() if one.epoch == place.epoch}
        return self._next()

    def take(self, place: StreamId, message: Encoded) -> list[Entry]:
        """
        Take a message that came, in whatever order and however often.

        Returns:
            What the members get now, in order.
        """
        cursor = self.cursor
        if cursor is not None and place.epoch == cursor.epoch and place.offset <= cursor.offset:
            return []
        if len(self._early) < EARLY:
            self._early[place] = message
        found = self._next()
        if cursor is not None and not found:
            self.lacks = True
        return found

    def absorb(self, history: History) -> list[Entry]:
        """
        Take what the store has after the cursor, which it continues.

        Returns:
            What the members get now, in order.
        """
        found: list[Entry] = []
        for entry in history.entries:
            found += self.take(StreamId(history.epoch, entry.offset), entry.message)
        self.lacks = self.cursor is None or history.last > self.cursor.offset
        return found

    def after(self, offset: int) -> list[Entry] | None:
        """List what comes after an offset, up to the cursor; None when it is not remembered."""
        if self.cursor is None or offset >= self.cursor.offset:
            return []
        if not self._recent or self._recent[0].offset > offset + 1:
            return None
        return [entry for entry in self._recent if entry.offset > offset]

    def _next(self) -> list[Entry]:
        found: list[Entry] = []
        while self.cursor is not None:
            following = StreamId(self.cursor.epoch, self.cursor.offset + 1)
            message = self._early.pop(following, None)
            if message is None:
                break
            self.cursor = following
            entry = Entry(following.offset, message)
            self._recent.append(entry)
            found.append(entry)
        cursor = self.cursor
        if found and cursor is not None:
            self._early = {
                place: message
                for place, message in self._early.items()
                if place.epoch == cursor.epoch and place.offset > cursor.offset
            }
        return found


def begin_at(position: StreamId | None, *, is_given: bool, is_user: bool, history: History) -> tuple[Begin, int]:
    """
    Decide where a client begins.

    Args:
        position: The last message that it saw; None: it has none, or one that is not good.
        is_given: Whether it showed one.
        is_user: Whether the stream is a user's, which begins with what nobody has acknowledged; a room's begins now.
        history: What the store knows.

    Returns:
        What the client is told, and the offset after which it gets messages.
    """
    fresh = history.acked if is_user else history.last
    if not is_given:
        return "started", fresh
    if position is None or position.epoch != history.epoch or position.offset > history.last:
        return "gone", fresh
    return "resumed", max(position.offset, history.acked)
