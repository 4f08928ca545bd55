"""
Takes a message to all whom it is for: at this node first, then over the backend to the others.

A sender that is cancelled halfway leaves nobody out. It checks no names and knows no streams: a message that has a
place in one is `_streaming.py`'s.
"""

from __future__ import annotations

import asyncio
import time

from ._backend import Backend, BackendUnavailable
from ._delivery import Channel
from ._encoding import Encoded
from ._fan import Fan, Fans
from ._membership import Membership
from ._metrics import Instruments
from ._publication import Publication
from ._report import DeliveryReport, Remote
from ._work import Work, begin_work


class Post:
    """The post of one hub."""

    __slots__ = ("_backend", "_fans", "_instruments", "_membership", "_work")

    def __init__(
        self,
        membership: Membership[Channel],
        *,
        fans: Fans,
        backend: Backend,
        instruments: Instruments,
        work: Work,
    ) -> None:
        """
        Begin.

        Args:
            membership: Who is where.
            fans: What is on its way.
            backend: Carries messages to the other nodes.
            instruments: Hear how long a message to many took.
            work: Holds the tasks while they run.
        """
        self._membership = membership
        self._fans = fans
        self._backend = backend
        self._instruments = instruments
        self._work = work

    async def send(self, message: Encoded, connection_id: str) -> DeliveryReport:
        """Hand a message to one connection here."""
        channel = self._membership.value(connection_id)
        fan = Fan(message, {} if channel is None else {connection_id: channel}, None)
        fan.tally.unknown = int(channel is None)
        return await self._deliver(fan, None)

    async def publish(self, publication: Publication) -> DeliveryReport:
        """Hand a message to all whom it is for, at all nodes."""
        started_s, target = time.perf_counter(), publication.target
        fan = self._fan(publication)
        fan.tally.unknown = int(not fan.pending and not self._membership.knows(target))
        report = await self._deliver(fan, publication)
        self._instruments.broadcast(time.perf_counter() - started_s, target.kind)
        return report

    async def arrived(self, publication: Publication) -> None:
        """Hand to those at this node what another one has published."""
        fan = self._fan(publication)
        self._fans.add(fan)
        await self._fans.run(fan)

    def _fan(self, publication: Publication) -> Fan:
        """Copy who is to get it now: who joins later does not."""
        pending = self._membership.meant(publication.target)
        for connection_id in publication.exclude:
            pending.pop(connection_id, None)
        return Fan(publication.message, pending, publication.target.room)

    async def _deliver(self, fan: Fan, publication: Publication | None) -> DeliveryReport:
        self._fans.add(fan)
        try:
            await self._fans.run(fan)
        except asyncio.CancelledError:
            begin_work(self._work, self._carry(publication))  # `Fans` hands it to the rest here
            raise
        return fan.tally.report(await self._carry(publication))

    async def _carry(self, publication: Publication | None) -> Remote:
        if publication is None:
            return "none"
        try:
            return await self._backend.publish(publication)
        except BackendUnavailable:
            return "unavailable"
