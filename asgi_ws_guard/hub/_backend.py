"""
The seam to other processes: what a hub asks of a backend, and the one that needs nothing but memory.

A hub always delivers to its own connections first, and then publishes: the backend carries a message to the other nodes
that have a member there, never back to where it came from. It carries; it knows no connection, no outbox and no policy.

How a backend is written
    `subscribe`, `unsubscribe`, `arrived` and `departed` are called in the middle of a join, a leave or the end of a
    connection, where nothing can be awaited: they take note, and a task that `open` has started makes it so at the
    broker, again after each reconnect. Each is told once per name, not per connection, but the two of presence.
    `publish` is awaited by the sender. It keeps the order of the messages of one node to one target, or raises.
    `BackendUnavailable` is the only exception that a hub expects; it becomes ``remote="unavailable"`` in the report.
    What arrives is given to the node's `deliver`, one message at a time, awaited: that is the pressure on the backend.
    ``tests/unit/test_hub_backends.py`` is the contract; a backend joins it by one row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from .._exceptions import GuardError
from ._publication import Publication
from ._report import Remote
from ._store import MemoryStore, Store
from ._target import Target


class BackendUnavailable(GuardError, ConnectionError):
    """The backend cannot be reached: what was published has not reached the other nodes."""


Deliver = Callable[[Publication], Awaitable[None]]
"""Delivers to the connections of this node what another one has published."""


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """
    How a backend is.

    Attributes:
        state: "up", "degraded" (local delivery goes on, other nodes hear nothing) or "down" (closed).
        detail: One sentence for people, without addresses and secrets.
    """

    state: Literal["up", "degraded", "down"]
    detail: str = ""


class Interest(Protocol):
    """What is told of members that come and go, where nothing can be awaited."""

    def subscribe(self, target: Target) -> None:
        """Have messages to a room or a user from now on: its first connection here has come."""

    def unsubscribe(self, target: Target) -> None:
        """Have them no more: its last connection here has gone."""

    def arrived(self, user: str, connection_id: str) -> None:
        """Take note of a connection of a user at this node."""

    def departed(self, user: str, connection_id: str) -> None:
        """Take note that a connection of a user has gone."""


class Backend(Interest, Protocol):
    """What a hub asks of a backend. One object serves one hub."""

    async def open(self, deliver: Deliver, returned: Callable[[], None] | None = None) -> None:
        """
        Begin; called once, before anything else, by `Hub.start`.

        Args:
            deliver: Takes what other nodes publish.
            returned: Called each time when all subscriptions are there, also after the broker was away: what was
                published meanwhile has been missed.
        """

    async def close(self) -> None:
        """End: no message arrives any more, the presence of this node is gone, no task is left. Harmless twice."""

    async def publish(self, publication: Publication) -> Remote:
        """
        Carry a message to the other nodes.

        Args:
            publication: The message.

        Returns:
            What became of it: "none" when there are no other nodes by design, "published", or "queued".

        Raises:
            BackendUnavailable: It did not go out and will not.
        """

    async def presence(self, user: str) -> frozenset[str]:
        """
        Tell the connections of a user at other nodes.

        Returns:
            Connection ids; those of a node that was killed expire.

        Raises:
            BackendUnavailable: Nobody knows.
        """

    async def ready(self) -> bool:
        """
        Wait until the broker knows all that was noted so far, for a bounded time.

        Returns:
            Whether a message that any node publishes from now on comes here too, and all that was published before has
            been delivered here.
        """

    def health(self) -> BackendHealth:
        """Tell how it is, at once."""

    def stream_store(self) -> Store:
        """Give the store of streams that goes with it."""


class MemoryBus:
    """What joins the memory backends of several hubs of one process, on one event loop."""

    def __init__(self) -> None:
        self.nodes: list[MemoryBackend] = []
        self.store = MemoryStore()


class MemoryBackend:
    """The backend without a broker: one process; several hubs in it when they share a bus."""

    def __init__(self, bus: MemoryBus | None = None) -> None:
        """
        Make a backend.

        Args:
            bus: Joins the hubs that are given the same one; None: there are no other nodes.
        """
        self._bus = bus
        self._deliver: Deliver | None = None
        self._targets: set[Target] = set()
        self._present: dict[str, set[str]] = {}
        self._arriving: asyncio.Queue[Publication] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._store = MemoryStore()

    async def open(self, deliver: Deliver, returned: Callable[[], None] | None = None) -> None:
        """Begin."""
        self._deliver = deliver
        if self._bus is not None:
            self._bus.nodes.append(self)
            self._task = asyncio.create_task(self._pump(deliver))

    async def close(self) -> None:
        """End."""
        self._deliver = None
        if self._bus is not None and self in self._bus.nodes:
            self._bus.nodes.remove(self)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def publish(self, publication: Publication) -> Remote:
        """Carry a message to the other hubs of the bus."""
        if self._bus is None:
            return "none"
        if self._deliver is None:
            raise BackendUnavailable("the backend is closed")
        for node in self._bus.nodes:
            if node is not self and node._wants(publication.target):
                node._arriving.put_nowait(publication)
        return "published"

    def subscribe(self, target: Target) -> None:
        """Have messages to a room or a user from now on."""
        self._targets.add(target)

    def unsubscribe(self, target: Target) -> None:
        """Have them no more."""
        self._targets.discard(target)

    def arrived(self, user: str, connection_id: str) -> None:
        """Take note of a connection of a user."""
        self._present.setdefault(user, set()).add(connection_id)

    def departed(self, user: str, connection_id: str) -> None:
        """Take note that a connection of a user has gone."""
        present = self._present.get(user, set())
        present.discard(connection_id)
        if not present:
            self._present.pop(user, None)

    async def presence(self, user: str) -> frozenset[str]:
        """Tell the connections of a user at the other hubs of the bus."""
        nodes = () if self._bus is None else (node for node in self._bus.nodes if node is not self)
        return frozenset(one for node in nodes for one in node._present.get(user, ()))

    async def ready(self) -> bool:
        """Wait until what other hubs have published is delivered."""
        await self._arriving.join()
        return self._bus is None or self._deliver is not None

    def health(self) -> BackendHealth:
        """Tell how it is."""
        if self._deliver is None:
            return BackendHealth("down", "the hub was not started, or it was stopped")
        return BackendHealth("up")

    def stream_store(self) -> Store:
        """Give the store of the bus, or one of its own."""
        return self._store if self._bus is None else self._bus.store

    def _wants(self, target: Target) -> bool:
        return target.kind == "all" or target in self._targets

    async def _pump(self, deliver: Deliver) -> None:
        while True:
            publication = await self._arriving.get()
            try:
                await deliver(publication)
            finally:
                self._arriving.task_done()
