"""
All streams at one node: which there are, who comes into them and goes, and appending to them.

It gives nobody a message itself: a stream that somebody is in does (`_live.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from .._exceptions import ConfigurationError
from ._backend import Backend, BackendUnavailable
from ._delivery import Channel
from ._fan import Fans
from ._live import Around, LiveStream
from ._positions import Positions
from ._protocol import notice
from ._publication import Publication
from ._report import DeliveryReport, Remote, Tally
from ._resuming import Enter, Resumed, bring_level
from ._store import Store
from ._streams import StreamOptions
from ._target import Target


class Streaming:
    """The streams of one hub."""

    def __init__(
        self,
        *,
        backend: Backend,
        positions: Positions | None,
        fans: Fans,
        receivers: Callable[[Target], dict[str, Channel]],
        keep: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """
        Begin without any.

        Args:
            backend: Hears of streams that somebody here is in.
            positions: Signs positions; None: there are no streams.
            fans: What is on its way.
            receivers: Tells who is a member of a target now.
            keep: Runs a task of the hub.
        """
        self._backend, self._positions = backend, positions
        self._kept: Store | None = None
        self._fans, self._receivers, self._keep = fans, receivers, keep
        self._declared: dict[Target, StreamOptions] = {}
        self._live: dict[Target, LiveStream] = {}

    @property
    def _signing(self) -> Positions:
        if self._positions is None:
            raise ConfigurationError("position_secret", None, "a secret, for a hub with streams")
        return self._positions

    @property
    def _store(self) -> Store:
        if self._kept is None:
            self._kept = self._backend.stream_store()
        return self._kept

    def _around(self) -> Around:
        return Around(self._backend, self._store, self._signing, self._fans, self._receivers)

    def declare(self, kind: Literal["room", "user"], name: str | None, options: StreamOptions) -> None:
        """Let a room or a user have a stream; None: each of the kind that is not named itself."""
        _ = self._signing
        self._declared[Target(kind, name or "")] = options

    def options(self, target: Target) -> StreamOptions | None:
        """Give the options of a stream; None: there is no stream."""
        if target.kind == "all":
            return None
        return self._declared.get(target) or self._declared.get(Target(target.kind))

    def refuse(self, target: Target) -> None:
        """
        Refuse to make a connection a member without bringing it level.

        Raises:
            ConfigurationError: The target has a stream.
        """
        if self._declared and self.options(target) is not None:
            raise ConfigurationError(target.kind, target.name, "one without a stream; with one: await hub.resume(...)")

    async def send(self, publication: Publication, options: StreamOptions) -> DeliveryReport:
        """Append a message, and give it to the members."""
        target = publication.target
        try:
            place = await self._store.append(publication, options)
        except BackendUnavailable:
            return DeliveryReport(unknown=int(not self._receivers(target)), remote="unavailable")
        publication = publication._replace(stream=place)
        remote: Remote = "published"
        if not self._store.publishes:
            try:
                remote = await self._backend.publish(publication)
            except BackendUnavailable:
                remote = "unavailable"
        await self.heard(publication)
        live = self._live.get(target)
        tally = Tally() if live is None else live.tallies.get(place, Tally())
        tally.unknown = int(not self._receivers(target))
        return tally.report(remote)

    async def heard(self, publication: Publication) -> None:
        """Take a message of a stream, from here or elsewhere, in any order and however often."""
        live, place = self._live.get(publication.target), publication.stream
        if live is None or place is None:
            return
        await live.give(live.feed.take(place, publication.message))
        if live.feed.lacks and not live.lock.locked():
            self._keep(live.level_later())

    def returned(self) -> None:
        """Look for what was missed while the backend was away."""
        for live in self._live.values():
            if live.feed.cursor is not None:
                self._keep(live.level_later())

    async def resume(
        self, channel: Channel, target: Target, options: StreamOptions, position: object, enter: Enter
    ) -> Resumed:
        """
        Bring a connection level, and make it a member.

        Args:
            channel: The way to it.
            target: The stream.
            options: Its options.
            position: What the client showed; None: nothing.
            enter: Makes it a member, without waiting.
        """
        live, name = self._open(target, options), channel.connection_id
        if name in live.comers or name in self._receivers(target):
            return Resumed("resumed")
        live.comers.add(name)
        try:
            return await bring_level(channel, live, position, enter)
        except BackendUnavailable:
            await self._fans.tell(channel, notice("unavailable", target))
            return Resumed("unavailable")
        finally:
            live.comers.discard(name)
            self.left(target)

    async def acknowledge(self, target: Target, position: object) -> bool:
        """Remember that a user has got all up to a position; False when it is not good, or the store is away."""
        options = self.options(target)
        if options is None or options.redeliver_s is None:
            return False
        live = self._live.get(target)
        signer = self._signing.signer(target) if live is None else live.signer
        place = self._signing.read(signer, position)
        if place is None:
            return False
        try:
            await self._store.acknowledge(target, place)
        except BackendUnavailable:
            return False
        return True

    def subscribe(self, target: Target) -> None:
        """Pass on that somebody has come."""
        self._backend.subscribe(target)

    def unsubscribe(self, target: Target) -> None:
        """Pass on that the last one has gone, unless somebody is just coming into the stream."""
        if target in self._live:
            self.left(target)
        else:
            self._backend.unsubscribe(target)

    def arrived(self, user: str, connection_id: str) -> None:
        """Pass it on."""
        self._backend.arrived(user, connection_id)

    def departed(self, user: str, connection_id: str) -> None:
        """Pass it on."""
        self._backend.departed(user, connection_id)

    def left(self, target: Target) -> None:
        """Forget a stream when nobody here is in it any more."""
        live = self._live.get(target)
        if live is not None and not live.comers and not self._receivers(target):
            del self._live[target]
            if live.redelivery is not None:
                live.redelivery.cancel()
            self._backend.unsubscribe(target)

    async def stop(self) -> None:
        """End what runs."""
        running = [live.redelivery for live in self._live.values() if live.redelivery is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _open(self, target: Target, options: StreamOptions) -> LiveStream:
        live = self._live.get(target)
        if live is None:
            live = self._live[target] = LiveStream(target, options, self._around())
            self._backend.subscribe(target)
            if options.redeliver_s is not None:
                live.redelivery = self._keep(live.redeliver(options.redeliver_s))
        return live


def check_plain(exclude: object, key: object) -> None:
    """
    Refuse what a stream cannot do.

    Raises:
        ConfigurationError: Somebody is to be left out, or the message is to replace another.
    """
    for option, value in (("exclude", exclude), ("key", key)):
        if value is not None:
            raise ConfigurationError(option, type(value), "None: all members of a stream get all of its messages")
