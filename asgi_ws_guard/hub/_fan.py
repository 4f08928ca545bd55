"""
Hands one message to many connections in slices of time, and keeps the order of each connection between all senders.

A message is on its way from the moment when its sender asked. Whoever sends later to a connection whose turn has not
come yet hands over the earlier message first: nobody waits for anybody, and no connection sees two messages in an order
that another does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ._delivery import SEND_FAILED, Channel
from ._encoding import Encoded
from ._report import Tally
from ._slices import Slices
from ._sums import Sums
from ._work import Work, begin_work

LOOK_EVERY = 16
"""Messages between two looks at the clock: a server's `send` takes 5 to 30 µs."""
LARGE_BYTES = 4096
"""From this size on the clock is looked at after each message: compressing 64 KiB takes a millisecond."""

END_S = 1e-4
"""Seconds that the end of a connection takes of the loop's next turn: its handler, the guard and the server finish in
it, all those together that were found dead in this one (uvicorn 0.54: 60 to 100 µs each)."""


class Fan:
    """
    One message on its way.

    Attributes:
        pending: dict: connection id -> channel of those whose turn has not come; who leaves is taken out.
        room: The room that it goes to, None for a user, a connection or all.
        message: The message.
        tally: What became of it.
    """

    __slots__ = ("message", "pending", "room", "tally")

    def __init__(self, message: Encoded, pending: dict[str, Channel], room: str | None) -> None:
        self.message = message
        self.pending = pending
        self.room = room
        self.tally = Tally()


class Fans:
    """All messages of one hub that are on their way, in the order in which they were sent."""

    __slots__ = ("_active", "_slices", "_sums", "_work")

    def __init__(self, slices: Slices, sums: Sums, work: Work) -> None:
        """
        Begin without any.

        Args:
            slices: How long the loop may be held.
            sums: Where to count.
            work: Holds the tasks while they run.
        """
        self._sums = sums
        self._work = work
        self._active: list[Fan] = []
        self._slices = slices

    def add(self, fan: Fan) -> None:
        """Let a message have its place in the order from now on; `run` has to follow."""
        self._active.append(fan)

    async def run(self, *fans: Fan) -> None:
        """
        Hand messages to all whose turn has not come; a task does the rest for a sender that is cancelled.

        Args:
            fans: Those that were added, in their order.
        """
        try:
            for fan in fans:
                await self._run(fan)
        except asyncio.CancelledError:
            rest = begin_work(self._work, self._finish(fans))
            rest.add_done_callback(lambda _: self._abandon(fans))  # it may be cancelled too, before its first step
            raise

    async def _finish(self, fans: Iterable[Fan]) -> None:
        for fan in fans:
            if fan in self._active:
                await self._run(fan)

    def _abandon(self, fans: Iterable[Fan]) -> None:
        """Take messages out of the order that nobody hands over any more."""
        for fan in fans:
            if fan in self._active:
                self._active.remove(fan)
            while fan.pending:
                fan.pending.popitem()
                fan.tally.drop(SEND_FAILED)
                self._sums.drop(SEND_FAILED)

    async def _run(self, fan: Fan) -> None:
        pending, message, tally = fan.pending, fan.message, fan.tally
        every = 1 if message.size > LARGE_BYTES else LOOK_EVERY
        while pending:
            if self._slices.is_over():
                await self._slices.wait()
            earlier = () if self._active[0] is fan else self._before(fan)
            sent, left = 0, every
            while pending and left:
                left -= 1
                connection_id, channel = pending.popitem()
                for one in earlier:
                    if one.pending.pop(connection_id, None) is not None and channel.offer(one.message, one.tally):
                        one.tally.sent += 1
                        self._sums.sent += 1
                if channel.offer(message, tally):
                    sent += 1
                elif channel.is_over:
                    self._slices.charge(END_S)
            tally.sent += sent
            self._sums.sent += sent
        self._active.remove(fan)

    async def tell(self, channel: Channel, message: Encoded) -> None:
        """Hand a message to one connection, a member or not."""
        fan = Fan(message, {channel.connection_id: channel}, None)
        self.add(fan)
        await self.run(fan)

    def leave(self, connection_id: str, room: str | None) -> None:
        """
        Leave a connection out of what is on its way.

        Args:
            connection_id: Who leaves.
            room: The room that it leaves; None: it has ended.
        """
        for fan in self._active:
            if room is None or fan.room == room:
                fan.pending.pop(connection_id, None)

    def _before(self, fan: Fan) -> list[Fan]:
        """Give those that were sent before and are not through."""
        place = next(index for index, one in enumerate(self._active) if one is fan)
        return [one for one in self._active[:place] if one.pending]
