"""
Nodes that belong together, by each backend, for the contracts of backends and of streams. A backend joins by one row.

Nothing here asserts anything but that a node is heard.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from hubs import Peer
from interop.redis_server import RedisServer

from asgi_ws_guard.hub import Backend, Hub, MemoryBackend, MemoryBus
from asgi_ws_guard.hub.redis import RedisBackend
from asgi_ws_guard.testing import run


class Cluster:
    """
    Nodes that belong together.

    Args:
        make: Makes the backends of a number of nodes.
        run: Runs a test.
        clear: Lets the broker forget everything.
        quiet_s: Seconds after which the nodes have heard each other, where `Hub.ready` is not enough to know.
    """

    def __init__(
        self,
        make: Callable[[int], list[Backend]],
        run: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
        clear: Callable[[], object],
        quiet_s: float = 0.0,
    ) -> None:
        self.make, self.run, self.clear, self._quiet_s = make, run, clear, quiet_s
        self._hubs: list[Hub] = []

    @contextlib.asynccontextmanager
    async def nodes(self, number: int = 2, **options: Any) -> AsyncIterator[list[Hub]]:
        """Start hubs."""
        async with contextlib.AsyncExitStack() as stack:
            self._hubs = [
                await stack.enter_async_context(Hub(backend=backend, **options)) for backend in self.make(number)
            ]
            yield self._hubs

    async def quiet(self) -> None:
        """Wait until each node has heard what the others said."""
        await asyncio.sleep(self._quiet_s)
        for hub in self._hubs:
            assert await hub.ready() or hub.health().state == "down"

    async def heard(self, one: Peer, *messages: str | bytes) -> bool:
        """Tell whether a peer got these messages, and no others."""
        await self.quiet()
        return one.got == list(messages)


def memory() -> Cluster:
    """Join nodes by a bus, in virtual time."""
    buses: list[MemoryBus] = []

    def make(number: int) -> list[Backend]:
        buses.append(MemoryBus())
        return [MemoryBackend(buses[-1]) for _ in range(number)]

    return Cluster(make, run, lambda: buses[-1].store.clear(), quiet_s=1.0)


def redis(server: RedisServer, *, sharded: bool) -> Cluster:
    """Join nodes by a real Redis."""

    def make(number: int) -> list[Backend]:
        return [RedisBackend(server.url, sharded=sharded, timeout_s=20, presence_ttl_s=60) for _ in range(number)]

    return Cluster(make, lambda main: asyncio.run(main()), server.flush)


CLUSTERS: dict[str, Callable[[RedisServer], Cluster]] = {
    "memory": lambda _: memory(),
    "redis": lambda server: redis(server, sharded=False),
    "redis-sharded": lambda server: redis(server, sharded=True),
}
