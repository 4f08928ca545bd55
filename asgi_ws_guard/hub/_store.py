"""
Where streams are kept: what a store has to do, and the one in memory.

A store gives each message its offset, without gaps, and forgets by number and by age. It sends nothing to anybody.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict, deque
from typing import NamedTuple, Protocol

from ._publication import Publication, StreamId
from ._streams import Entry, History, StreamOptions
from ._target import Target

PAGE = 256
"""Messages in one answer."""
EPOCH_BYTES = 9
NOTHING = 2**52
"""An offset after which nothing is read: only what is known of the stream is asked."""
MIN_LIFE_S = 86_400.0


def life_s(options: StreamOptions) -> float:
    """Tell for how many seconds a stream is known after its last message; its epoch outlives its messages."""
    return max(MIN_LIFE_S, 2 * options.history_s)


def new_epoch() -> str:
    """Make the name of a new life of a stream."""
    return secrets.token_hex(EPOCH_BYTES)


class Store(Protocol):
    """
    Where streams are kept, for all nodes of a cluster.

    Every method may raise `BackendUnavailable`.

    Attributes:
        publishes: Whether `append` carries the message to the other nodes too, in the order of the offsets.
    """

    publishes: bool

    async def append(self, publication: Publication, options: StreamOptions) -> StreamId:
        """Append the message, once, and give it its place."""

    async def read(self, target: Target, after: int | None, options: StreamOptions) -> History:
        """
        Read a stream; one that is not there begins its first epoch.

        Args:
            target: Whose.
            after: Offset after which to read; None: what was acknowledged.
            options: What is kept.
        """

    async def acknowledge(self, target: Target, place: StreamId) -> None:
        """Remember that all up to a place was acknowledged; of another epoch it means nothing."""


class _Kept(NamedTuple):
    entry: Entry
    at_s: float


class _Stream:
    def __init__(self) -> None:
        self.epoch = new_epoch()
        self.last = 0
        self.acked = 0
        self.kept: deque[_Kept] = deque()
        self.until_s = 0.0


class MemoryStore:
    """Streams in the memory of one process, by the clock of its event loop."""

    publishes = False

    def __init__(self) -> None:
        self._streams: OrderedDict[Target, _Stream] = OrderedDict()

    async def append(self, publication: Publication, options: StreamOptions) -> StreamId:
        """Append a message."""
        stream, now_s = self._stream(publication.target, options), _now_s()
        stream.last += 1
        stream.kept.append(_Kept(Entry(stream.last, publication.message), now_s))
        self._trim(stream, options, now_s)
        return StreamId(stream.epoch, stream.last)

    async def read(self, target: Target, after: int | None, options: StreamOptions) -> History:
        """Read a stream."""
        stream = self._stream(target, options)
        self._trim(stream, options, _now_s())
        offset = stream.acked if after is None else after
        first = stream.kept[0].entry.offset if stream.kept else stream.last + 1
        skip = max(0, offset + 1 - first)
        entries = [one.entry for one in list(stream.kept)[skip : skip + PAGE]]
        return History(stream.epoch, stream.last, stream.acked, entries)

    async def acknowledge(self, target: Target, place: StreamId) -> None:
        """Remember what was acknowledged."""
        stream = self._streams.get(target)
        if stream is not None and stream.epoch == place.epoch:
            stream.acked = max(stream.acked, min(place.offset, stream.last))

    def clear(self) -> None:
        """Forget everything."""
        self._streams.clear()

    def _stream(self, target: Target, options: StreamOptions) -> _Stream:
        now_s = _now_s()
        while self._streams and next(iter(self._streams.values())).until_s < now_s:
            self._streams.popitem(last=False)
        stream = self._streams.get(target)
        if stream is None or stream.until_s < now_s:
            stream = self._streams[target] = _Stream()
        stream.until_s = now_s + life_s(options)
        self._streams.move_to_end(target)
        return stream

    def _trim(self, stream: _Stream, options: StreamOptions, now_s: float) -> None:
        kept = stream.kept
        while kept and (len(kept) > options.history_messages or now_s - kept[0].at_s > options.history_s):
            kept.popleft()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
