"""
A stream while somebody here is in it, or comes into it: gives its members what they lack, whoever brings the news.

The store says what is in a stream; what other nodes publish is only the quickest way to hear of it. It makes nobody a
member.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ._backend import Backend, BackendUnavailable
from ._delivery import Channel
from ._encoding import Encoded
from ._fan import Fan, Fans
from ._positions import Positions
from ._protocol import envelope, notice
from ._publication import StreamId
from ._report import Tally
from ._store import NOTHING, Store
from ._streams import Entry, Feed, History, StreamOptions
from ._target import Target

CHUNK = 32
"""Messages whose tallies are remembered, and of a history between two looks at the outbox."""


@dataclass(frozen=True, slots=True)
class Around:
    """
    What all streams of a hub share.

    Attributes:
        backend: Says whether other nodes are heard.
        store: Keeps streams.
        positions: Signs positions.
        fans: What is on its way.
        receivers: Tells who is a member of a target now.
    """

    backend: Backend
    store: Store
    positions: Positions
    fans: Fans
    receivers: Callable[[Target], dict[str, Channel]]


class LiveStream:
    """
    One stream at this node.

    Attributes:
        target: Whose stream it is.
        options: What is kept of it.
        fans: What is on its way.
        feed: How far this node is.
        comers: Ids of the connections that are being brought level.
        lock: Is held while the store is asked how it goes on.
        tallies: dict: place -> what became of one of the last messages here.
        redelivery: Sends again what nobody acknowledged.
    """

    def __init__(self, target: Target, options: StreamOptions, around: Around) -> None:
        """
        Begin without members; `begin` has to follow.

        Args:
            target: Whose stream it is.
            options: What is kept of it.
            around: What it needs.
        """
        self.target, self.options = target, options
        self._backend, self._store, self.fans = around.backend, around.store, around.fans
        self._positions, self._receivers = around.positions, around.receivers
        self.signer: Any = around.positions.signer(target)
        self.feed = Feed()
        self.comers: set[str] = set()
        self.lock = asyncio.Lock()
        self.tallies: dict[StreamId, Tally] = {}
        self.redelivery: asyncio.Task[None] | None = None

    async def read(self, after: int | None) -> History:
        """
        Read one page of the store.

        Args:
            after: Offset after which to read; None: what was acknowledged.
        """
        return await self._store.read(self.target, after, self.options)

    async def missed(self, place: StreamId) -> Sequence[Entry] | None:
        """List what comes after a place: what the node remembers, else what the store has; None: it is gone."""
        entries = self.feed.after(place.offset)
        if entries is not None:
            return entries
        history = await self.read(place.offset)
        is_there = history.epoch == place.epoch and history.follows(place.offset)
        return history.entries if is_there else None

    async def begin(self) -> None:
        """Learn where the stream is, after the other nodes are heard."""
        async with self.lock:
            if self.feed.cursor is None:
                if not await self._backend.ready():
                    raise BackendUnavailable("the backend is away")
                history = await self.read(NOTHING)
                self.feed.begin(StreamId(history.epoch, history.last))

    async def level(self) -> None:
        """Give the members what the store has after the last message that they were given."""
        async with self.lock:
            while await self._absorb():
                pass

    async def level_later(self) -> None:
        """Do it in a task; while the store is away `returned` comes here again."""
        with contextlib.suppress(BackendUnavailable):
            await self.level()

    async def _absorb(self) -> bool:
        """Take one page of the store; tell whether there is more."""
        cursor = self.feed.cursor
        if cursor is None:
            return False
        history = await self.read(cursor.offset)
        if self.feed.cursor != cursor:
            return True  # something came meanwhile
        if history.epoch != cursor.epoch:
            history = await self.read(0)
            return await self._restart(history, 0)
        if not history.follows(cursor.offset):
            return await self._restart(history, cursor.offset)
        await self.give(self.feed.absorb(history))
        return self.feed.lacks

    async def _restart(self, history: History, offset: int) -> bool:
        """Tell the members that something is gone, and go on with what is there."""
        first = history.entries[0].offset - 1 if history.entries else max(history.last, offset)
        early = self.feed.begin(StreamId(history.epoch, first))
        gone = notice("gone", self.target, self.sign(StreamId(history.epoch, first)))
        fan = Fan(gone, self._receivers(self.target), self.target.room)
        self.fans.add(fan)
        await self._run([fan], self._fan_of(early))
        await self.give(self.feed.absorb(history))
        return self.feed.lacks

    async def give(self, entries: list[Entry]) -> None:
        """Give messages to all members; their place in the order is taken at once."""
        await self._run([], self._fan_of(entries))

    async def _run(self, first: list[Fan], fans: list[Fan]) -> None:
        await self.fans.run(*first, *fans)
        while len(self.tallies) > CHUNK:
            del self.tallies[next(iter(self.tallies))]

    def _fan_of(self, entries: list[Entry]) -> list[Fan]:
        fans = []
        for entry in entries:
            epoch = self.cursor.epoch
            fan = Fan(self.envelope(epoch, entry), self._receivers(self.target), self.target.room)
            self.fans.add(fan)
            self.tallies[StreamId(epoch, entry.offset)] = fan.tally
            fans.append(fan)
        return fans

    async def redeliver(self, every_s: float) -> None:
        """Send again what was given out one round ago and nobody has acknowledged."""
        before: StreamId | None = None
        while True:
            await asyncio.sleep(every_s)
            cursor = self.feed.cursor
            if before is not None and cursor is not None and before.epoch == cursor.epoch:
                try:
                    history = await self.read(None)
                except BackendUnavailable:
                    continue
                entries = [one for one in history.entries if one.offset <= before.offset]
                if history.epoch == before.epoch:
                    await self._again(history.epoch, entries)
            before = cursor

    async def _again(self, epoch: str, entries: list[Entry]) -> None:
        for entry in entries:
            idle = {name: one for name, one in self._receivers(self.target).items() if one.is_idle}
            fan = Fan(self.envelope(epoch, entry), idle, None)
            self.fans.add(fan)
            await self.fans.run(fan)

    @property
    def cursor(self) -> StreamId:
        """Place of the last message that the members here have been given; raises before there is one."""
        if self.feed.cursor is None:
            raise BackendUnavailable("the stream has not begun")
        return self.feed.cursor

    def place(self, position: object) -> StreamId | None:
        """Read a position that a client showed; None when it is not good."""
        return self._positions.read(self.signer, position)

    def sign(self, place: StreamId) -> str:
        """Write a place as a position for clients."""
        return self._positions.sign(self.signer, place)

    def envelope(self, epoch: str, entry: Entry) -> Encoded:
        """Write a message of an epoch as clients get it."""
        place = StreamId(epoch, entry.offset)
        acks = self.options.redeliver_s is not None
        return envelope(self.target, place, self.sign(place), entry.message, acks=acks)
