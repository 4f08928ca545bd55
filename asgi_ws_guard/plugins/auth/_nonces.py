"""
Remembers which tickets were used, for as long as they could be used again: in this process, or in Redis for all.

It answers one question, whether this is the first time, and it is the storage that settles a race. A storage that
cannot answer raises; whoever asks then denies.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import threading
import time
from collections.abc import Awaitable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from ..._exceptions import ConfigurationError
from ._asking import positive


class Nonces(Protocol):
    """Where used tickets are remembered."""

    def use(self, nonce: str, remember_s: float, /) -> bool | Awaitable[bool]:
        """
        Use a nonce up.

        Args:
            nonce: 22 letters, digits and ``-_``.
            remember_s: Seconds for which it is to be remembered, more than 0.

        Returns:
            Whether this was the first time; True once for all callers together. An exception denies.
        """


class MemoryNonces:
    """
    Used tickets in the memory of one process: with several workers a ticket is good once in each of them.

    Args:
        max_nonces: How many are kept at a time, about 250 bytes each; beyond them tickets are denied (503).

    Raises:
        ConfigurationError: The bound is not allowed.
    """

    def __init__(self, *, max_nonces: int = 100_000) -> None:
        positive("max_nonces", max_nonces, whole=True)
        self._max_nonces = max_nonces
        self._used: set[str] = set()
        self._by_end: list[tuple[float, str]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._used)

    def use(self, nonce: str, remember_s: float, /) -> bool:
        """Use a nonce up, in any thread."""
        with self._lock:
            now = time.monotonic()
            while self._by_end and self._by_end[0][0] <= now:
                self._used.discard(heapq.heappop(self._by_end)[1])
            if nonce in self._used:
                return False
            if len(self._used) >= self._max_nonces:
                raise OverflowError("too many tickets are in use")
            self._used.add(nonce)
            heapq.heappush(self._by_end, (now + remember_s, nonce))
            return True


class RedisNonces:
    """
    Used tickets in Redis, for all processes: ``SET NX PX`` lets one of them through (extra ``redis``; asyncio alone).

    Redis must not evict them (``maxmemory-policy noeviction``), and one that fails over to a replica may have forgotten
    the last ones.

    Args:
        url: Such as ``redis://127.0.0.1:6379/0``, ``rediss://`` or ``unix://``.
        prefix: What the keys begin with.
        timeout_s: Seconds for a connection, and for an answer; then the ticket is denied (503).
        max_connections: Connections of one event loop to Redis; further handshakes wait for one, at most `timeout_s`.

    Raises:
        ConfigurationError: An option is not allowed, or redis is not installed.
    """

    def __init__(
        self, url: str, *, prefix: str = "asgi_ws_guard:ticket:", timeout_s: float = 1.0, max_connections: int = 16
    ) -> None:
        positive("timeout_s", timeout_s)
        positive("max_connections", max_connections, whole=True)
        if not isinstance(prefix, str):
            raise ConfigurationError("prefix", prefix, "a string")
        self._settings: dict[str, Any] = {"timeout": timeout_s, "max_connections": max_connections}
        self._settings |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        self._url, self._prefix = url, prefix
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        try:
            self._make()
        except ImportError as error:
            missing = f'the package redis, pip install "asgi-ws-guard[redis]" ({error})'
            raise ConfigurationError("url", _shown(url), missing) from None
        except Exception:  # noqa: BLE001 - whatever a wrong url does; its text may hold a password
            raise ConfigurationError("url", _shown(url), "redis://host:port/db, rediss:// or unix://") from None

    async def use(self, nonce: str, remember_s: float, /) -> bool:
        """Use a nonce up. Whatever redis-py raises goes on."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._make()
        key, life_ms = f"{self._prefix}{nonce}", max(1, math.ceil(remember_s * 1000))
        return bool(await client.set(key, b"1", nx=True, px=life_ms))

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _make(self) -> Any:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # One more try, for a connection that Redis has closed; if the first did come through, the second denies.
        pool = BlockingConnectionPool.from_url(self._url, retry=Retry(NoBackoff(), 1), **self._settings)
        return Redis.from_pool(pool)


def _shown(url: object) -> str:
    return f"{url.partition('://')[0]}://..." if isinstance(url, str) and "://" in url else f"<{type(url).__name__}>"
